//! The digest that a file of fedmill carries of itself, to find damage.
//!
//! Anyone can compute it, so it stops no attacker.
//!
//! It is the BLAKE3 digest of the whole file, with zeros in place of the digest's 64 digits. A model in several files
//! has one digest, of all its files in order. A safetensors file holds it in its metadata. There a second key says that
//! the file has a digest, so that damage to the name of the first is found too. A decision holds it in a field.

use crate::io::digest::Blake3;
use crate::io::header::LENGTH_BYTES;
use crate::io::model_file::{ModelFile, OpenFault};
use crate::io::publish::Staged;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The metadata key of the digest.
pub const DIGEST_KEY: &str = "fedmill.digest";

/// The metadata key that says how the file is sealed.
const SEALED_KEY: &str = "fedmill.sealed";

/// The field of a JSON file that holds its digest.
const FIELD: &str = "digest";

/// The name of the function, before the digits.
const PREFIX: &str = "blake3:";

/// The digits before the digest is known.
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The most files that a warning names.
const MOST_NAMED: usize = 3;

/// The text that takes the place of a digest that is not known yet.
pub fn placeholder() -> String {
    format!("{PREFIX}{ZEROS}")
}

/// The metadata with room for the digest of its file.
pub fn with_room(mut metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
    metadata.insert(DIGEST_KEY.to_owned(), placeholder());
    metadata.insert(SEALED_KEY.to_owned(), "blake3".to_owned());
    metadata
}

/// Writes the digest of these safetensors files, each with its bytes, where [`with_room`] made room for it.
///
/// # Errors
///
/// When a file cannot be read or written, or has no room.
pub fn fill(files: &[(&Staged, u64)]) -> io::Result<()> {
    let (mut digest, mut places) = (Blake3::default(), Vec::new());
    for (file, bytes) in files {
        let read = |chunk: &mut [u8], offset| file.read_at(chunk, offset);
        let place = digits_in_file(*bytes, read)?;
        places.push(place.ok_or_else(|| io::Error::other("its metadata has no room for a digest"))?);
        digest.add(*bytes, read)?;
    }
    let digits = digest.hex();
    files.iter().zip(places).try_for_each(|((file, _), place)| file.write_at(digits.as_bytes(), place))
}

/// Compares the content of a model with the digest that it carries. All threads of the current pool share the work.
/// Returns whether it carries one.
///
/// # Errors
///
/// When the content differs, or cannot be read.
pub fn check(model: &ModelFile) -> Result<bool, OpenFault> {
    let Some(stated) = model.metadata.get(DIGEST_KEY) else {
        return match model.metadata.contains_key(SEALED_KEY) {
            true => Err(OpenFault::NoDigest),
            false => Ok(false),
        };
    };
    let mut digest = Blake3::default();
    for file in &model.files {
        let read = |chunk: &mut [u8], offset| file.read_exact_at(chunk, offset);
        let place = digits_in_file(file.bytes(), read).map_err(OpenFault::Unreadable)?;
        let without_digits = |chunk: &mut [u8], offset| {
            read(chunk, offset)?;
            blank(chunk, offset, place);
            Ok(())
        };
        digest.add(file.bytes(), without_digits).map_err(OpenFault::Unreadable)?;
    }
    compare(&digest, stated).map(|()| true)
}

/// As [`check`]. Warns if the model carries no digest.
///
/// # Errors
///
/// As [`check`].
pub fn check_or_warn(model: &ModelFile) -> Result<(), OpenFault> {
    if !check(model)? {
        warn_of_unsealed(&[&model.path]);
    }
    Ok(())
}

/// Warns of files that carry no digest.
pub fn warn_of_unsealed(paths: &[&Path]) {
    let named: Vec<String> = paths.iter().take(MOST_NAMED).map(|path| path.display().to_string()).collect();
    let more = match paths.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if !paths.is_empty() {
        tracing::warn!(
            "{}{more}: no digest in the file, so damage to it cannot be found; files of this version have one",
            named.join(", ")
        );
    }
}

/// Writes the digest of a JSON text into its field.
pub fn fill_text(mut json: String) -> String {
    let mut digest = Blake3::default();
    digest.add_bytes(json.as_bytes());
    if let Some(place) = digits(&json, FIELD) {
        json.replace_range(place..place + ZEROS.len(), &digest.hex());
    }
    json
}

/// Compares a JSON text with the digest that its field states.
///
/// # Errors
///
/// When they differ.
pub fn check_text(json: &str, stated: &str) -> Result<(), OpenFault> {
    let mut bytes = json.as_bytes().to_vec();
    blank(&mut bytes, 0, digits(json, FIELD).map(|place| place as u64));
    let mut digest = Blake3::default();
    digest.add_bytes(&bytes);
    compare(&digest, stated)
}

fn compare(digest: &Blake3, stated: &str) -> Result<(), OpenFault> {
    let found = format!("{PREFIX}{}", digest.hex());
    match found == stated {
        true => Ok(()),
        false => Err(OpenFault::Damaged { found, expected: stated.to_owned() }),
    }
}

/// The place of the digits of the digest in a safetensors file.
fn digits_in_file(bytes: u64, read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Option<u64>> {
    let mut length = [0; LENGTH_BYTES as usize];
    read(&mut length, 0)?;
    let length = u64::from_le_bytes(length).min(bytes.saturating_sub(LENGTH_BYTES));
    let mut json = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    read(&mut json, LENGTH_BYTES)?;
    let place = std::str::from_utf8(&json).ok().and_then(|json| digits(json, DIGEST_KEY));
    Ok(place.map(|place| LENGTH_BYTES + place as u64))
}

/// The place of the digits of the digest in a JSON text. A quote inside a string stands behind a backslash, so that
/// only a key looks like one.
fn digits(json: &str, key: &str) -> Option<usize> {
    let key = format!("\"{key}\":");
    let value = &json[json.find(&key)? + key.len()..];
    let digits = value.trim_start().strip_prefix('"')?.strip_prefix(PREFIX)?;
    digits.get(..ZEROS.len())?;
    Some(json.len() - digits.len())
}

/// Puts zeros in place of the digits, as far as a chunk of the file from `offset` on holds them.
fn blank(chunk: &mut [u8], offset: u64, place: Option<u64>) {
    let Some(place) = place else { return };
    let inside = |at: u64| at.saturating_sub(offset).min(chunk.len() as u64) as usize;
    let (start, end) = (inside(place), inside(place + ZEROS.len() as u64));
    chunk[start..end].fill(b'0');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_found_behind_their_key_alone() {
        let value = placeholder();
        let compact = format!(r#"{{"a":"\"digest\":\"{value}\"","digest":"{value}"}}"#);
        assert_eq!(digits(&compact, FIELD), Some(compact.len() - 2 - ZEROS.len()));
        let pretty = format!("{{\n  \"digest\": \"{value}\"\n}}");
        assert_eq!(digits(&pretty, FIELD), Some(pretty.len() - 3 - ZEROS.len()));
        for other in ["{}", r#"{"digest":4}"#, r#"{"digest":"blake3:00"}"#, r#"{"digest":"sha256:00"}"#] {
            assert_eq!(digits(other, FIELD), None, "{other}");
        }
    }

    #[test]
    fn only_digits_inside_a_chunk_are_blanked() {
        for (offset, expected) in [(0, "abcd"), (100, "0000"), (98, "ab00"), (162, "00cd"), (164, "abcd")] {
            let mut chunk = *b"abcd";
            blank(&mut chunk, offset, Some(100));
            assert_eq!(std::str::from_utf8(&chunk), Ok(expected), "{offset}");
        }
    }

    #[test]
    fn a_changed_text_does_not_have_its_digest() {
        let sealed = fill_text(format!("{{\"digest\": \"{}\", \"x\": 1}}\n", placeholder()));
        let stated = &sealed[12..12 + PREFIX.len() + ZEROS.len()];
        assert!(check_text(&sealed, stated).is_ok());
        assert!(check_text(&sealed.replace('1', "2"), stated).is_err());
        assert!(check_text(&sealed, &placeholder()).is_err());
    }
}
