//! Small text files that a user names, names as text, and JSON objects with duplicate keys.

use crate::io::{interrupt, source};
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The byte order mark of UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The most bytes of a text that a user names: more than lists of a million clients have. A device such as `/dev/zero`
/// has no end.
pub const MOST_BYTES: u64 = 1 << 28;

/// The bytes of a regular file, at most `most`, or of a pipe or a device, at most [`MOST_BYTES`]; `-` is standard input.
/// A signal ends the wait for a pipe or terminal that stays silent.
fn bytes_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    interrupt::wait_for(move || match path.as_os_str() == "-" {
        true => source::take_at_most(io::stdin().lock(), 0, MOST_BYTES),
        false => {
            let file = File::open(path)?;
            let about = file.metadata()?;
            source::take_at_most(file, about.len(), if about.is_file() { most } else { MOST_BYTES })
        }
    })
}

/// The whole text of a file, a pipe or a device; `-` is standard input.
///
/// # Errors
///
/// When it cannot be read, is not UTF-8, or has more than [`MOST_BYTES`].
pub fn read(path: &Path) -> io::Result<String> {
    read_large(path, MOST_BYTES)
}

/// As [`read`], for a text of which a regular file may have up to `most` bytes.
///
/// # Errors
///
/// As [`read`].
pub fn read_large(path: &Path, most: u64) -> io::Result<String> {
    let no_text =
        |_| io::Error::new(io::ErrorKind::InvalidData, "found bytes that are no UTF-8, expected text");
    String::from_utf8(bytes_of(path, most)?).map_err(no_text)
}

/// The whole text of a file that a user wrote, as [`read`]. Some editors put a byte order mark before the text: it is no
/// part of it.
///
/// # Errors
///
/// As [`read`].
pub fn read_written(path: &Path) -> io::Result<String> {
    let text = read(path)?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map_or_else(|| text.clone(), str::to_owned))
}

/// The whole text of a regular file that a user wrote, as [`read_written`]; `-` is standard input.
///
/// # Errors
///
/// As [`read`], and when it is a pipe or a device, which the caller would wait for.
pub fn read_regular(path: &Path) -> io::Result<String> {
    if path.as_os_str() != "-" {
        source::check_regular(path)?;
    }
    read_written(path)
}

/// The text of a regular file that others can make, as [`source::read_at_most`].
///
/// # Errors
///
/// As [`source::read_at_most`], and when it is not UTF-8.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<String> {
    let bytes = source::read_at_most(path, most)?;
    String::from_utf8(bytes).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why.utf8_error()))
}

/// The first line of a regular file, without its end, or the first `most` bytes of it; `None` if the file has no whole
/// line.
///
/// # Errors
///
/// When it cannot be read, or is no regular file.
pub fn first_line(path: &Path, most: u64) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = io::BufReader::new(source::open_regular(path)?).take(most).read_until(b'\n', &mut line)?;
    let is_whole = line.pop_if(|last| *last == b'\n').is_some() || read as u64 == most;
    Ok(is_whole.then(|| String::from_utf8_lossy(&line).into_owned()))
}

/// The last lines of a regular file that others can make: at most `lines` of its last `bytes`.
///
/// # Errors
///
/// When it cannot be read, or is no regular file.
pub fn last_lines(path: &Path, lines: usize, bytes: u64) -> io::Result<Vec<String>> {
    let mut file = source::open_regular(path)?;
    let from = file.metadata()?.len().saturating_sub(bytes);
    file.seek(io::SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    // The first line may have lost its beginning.
    let whole: Vec<&str> = text.lines().skip(usize::from(from > 0)).collect();
    Ok(whole[whole.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect())
}

/// The lines of a file that a user wrote, without their ends. A name of a file need not be UTF-8.
///
/// # Errors
///
/// When it cannot be read, or has more than [`MOST_BYTES`].
pub fn read_lines(path: &Path) -> io::Result<Vec<OsString>> {
    let bytes = bytes_of(path, MOST_BYTES)?;
    let text = bytes.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(&bytes);
    let line = |line: &[u8]| OsString::from_vec(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    Ok(text.split(|byte| *byte == b'\n').map(line).collect())
}

/// A name as text, such that two names have two texts: bytes that are not UTF-8 stand as `\xff`.
pub fn of_name(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The entries of a JSON object in order, with duplicate keys.
///
/// # Errors
///
/// When the text is not a JSON object.
pub fn object_entries(json: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    let mut entries = Vec::new();
    each_entry(json, |key, value| entries.push((key, value)))?;
    Ok(entries)
}

/// Calls `take` with each entry of a JSON object in order, duplicate keys too. Keeps none of them in memory.
///
/// # Errors
///
/// When the text is not a JSON object. Entries before the fault are taken.
pub fn each_entry<'j>(json: &'j str, take: impl FnMut(String, &'j RawValue)) -> serde_json::Result<()> {
    struct Entries<F>(F);
    impl<'de, F: FnMut(String, &'de RawValue)> Visitor<'de> for Entries<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
            while let Some((key, value)) = map.next_entry()? {
                (self.0)(key, value);
            }
            Ok(())
        }
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    parser.deserialize_map(Entries(take))?;
    parser.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_whose_beginning_is_cut_off_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(last_lines(&path, 9, 14).unwrap(), ["one", "two", "three"]);
        assert_eq!(last_lines(&path, 9, 13).unwrap(), ["two", "three"]);
        assert_eq!(last_lines(&path, 1, 99).unwrap(), ["three"]);
    }

    #[test]
    fn a_regular_file_is_read_and_a_pipe_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(read_regular(&path).unwrap(), "one\ntwo\n");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(read_regular(&pipe).is_err());
    }
}
