//! Where an output goes that an operator names: to a file, which links lead to, or to a stream.
//!
//! A stream is standard output (`-`), a pipe such as that of `>(command)`, a character device, or anything else below
//! `/dev` and `/proc`. It is written as it stands, and never replaced.

use crate::io::publish::is_below_devices;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The most links on the way to a file, as in Linux.
const MOST_LINKS: usize = 40;

/// Names of standard output.
const STANDARD_OUTPUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// Names of standard error.
const STANDARD_ERROR: [&str; 3] = ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"];

/// Where an output goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// To standard output.
    StandardOutput,
    /// To a pipe or a device.
    Stream(PathBuf),
    /// To the file of this name, which is no link.
    File(PathBuf),
}

/// The absolute path of a file or folder with all links on the way and at its end followed, as far as it exists.
pub fn destination(path: &Path) -> PathBuf {
    let Ok(whole) = std::path::absolute(path) else { return path.to_owned() };
    let parts =
        |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let mut left = parts(&whole);
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        // A part that begins at the root replaces what is before it.
        let next = at.join(part);
        match fs::read_link(&next) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                left.extend(parts(&target));
            }
            _ => at = next,
        }
    }
    at
}

impl Target {
    /// Where the output of this name goes. A link leads to what it names, which need not exist.
    ///
    /// # Errors
    ///
    /// When links lead in a circle, or one cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut at = path.to_owned();
        for _ in 0..=MOST_LINKS {
            if STANDARD_OUTPUT.iter().any(|name| at.as_os_str() == *name) {
                return Ok(Self::StandardOutput);
            }
            if is_below_devices(&at) {
                return Ok(Self::Stream(at));
            }
            let Ok(found) = fs::symlink_metadata(&at) else { return Ok(Self::File(at)) };
            let kind = found.file_type();
            match kind.is_symlink() {
                true => at = at.parent().unwrap_or(Path::new("")).join(fs::read_link(&at)?),
                false if kind.is_fifo() || kind.is_char_device() => return Ok(Self::Stream(at)),
                false => return Ok(Self::File(at)),
            }
        }
        Err(Errno::LOOP.into())
    }

    /// The file that the output changes: that of its name, or the one behind a descriptor such as `/dev/fd/3`. `None` for a
    /// pipe or a device.
    pub fn file(&self) -> Option<PathBuf> {
        let stream = match self {
            Self::File(file) => return Some(file.clone()),
            Self::StandardOutput => Path::new("/dev/stdout"),
            Self::Stream(stream) => stream,
        };
        let is_file = fs::metadata(stream).is_ok_and(|found| found.is_file());
        is_file.then(|| fs::canonicalize(stream).unwrap_or_else(|_| stream.to_owned()))
    }

    /// Writes all bytes to a stream; returns `false` for a file. A reader that leaves early is no error.
    ///
    /// # Errors
    ///
    /// When the stream cannot be opened or written.
    pub fn stream(&self, bytes: &[u8]) -> io::Result<bool> {
        let written = match self {
            Self::File(_) => return Ok(false),
            Self::StandardOutput => {
                let mut out = io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            // Over one descriptor, so that messages stand before or behind it.
            Self::Stream(path) if STANDARD_ERROR.iter().any(|name| path.as_os_str() == *name) => {
                io::stderr().write_all(bytes)
            }
            Self::Stream(path) => {
                // Behind what a descriptor such as /dev/fd/3 wrote before.
                File::options().append(true).open(path)?.write_all(bytes)
            }
        };
        match written {
            Err(why) if why.kind() != ErrorKind::BrokenPipe => Err(why),
            _ => Ok(true),
        }
    }
}

/// Whether an output goes to a stream.
pub fn is_stream(path: &Path) -> bool {
    Target::of(path).is_ok_and(|target| !matches!(target, Target::File(_)))
}

/// Whether an output goes to standard output.
pub fn is_standard_output(path: &Path) -> bool {
    Target::of(path).is_ok_and(|target| target == Target::StandardOutput)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_to_files_that_need_not_exist() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("second", at("first")).unwrap();
        symlink(at("file"), at("second")).unwrap();
        assert_eq!(Target::of(&at("first")).unwrap(), Target::File(at("file")));
        symlink("/dev/null", at("null")).unwrap();
        assert_eq!(Target::of(&at("null")).unwrap(), Target::Stream("/dev/null".into()));
        symlink("/dev/stdout", at("out")).unwrap();
        assert_eq!(Target::of(&at("out")).unwrap(), Target::StandardOutput);
        symlink("circle", at("circle")).unwrap();
        assert_eq!(Target::of(&at("circle")).unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        assert_eq!(Target::of(Path::new("/dev/shm/m")).unwrap(), Target::File("/dev/shm/m".into()));
    }

    #[test]
    fn a_full_device_is_an_error_and_an_empty_one_is_not() {
        assert!(Target::of(Path::new("/dev/null")).unwrap().stream(b"text").unwrap());
        assert!(Target::of(Path::new("/dev/full")).unwrap().stream(b"text").is_err());
    }

    #[test]
    fn a_destination_has_no_dots() {
        assert_eq!(destination(Path::new("/none/a/../b")), Path::new("/none/b"));
    }
}
