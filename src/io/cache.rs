//! Small files that stay between runs, in the user's cache directory.

use crate::io::{folder, source};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The path of a cached file: in `$XDG_CACHE_HOME/fedmill`, or in `~/.cache/fedmill`.
pub fn path(name: &str) -> Option<PathBuf> {
    let set = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    place(set("XDG_CACHE_HOME"), set("HOME")).map(|place| place.join(name))
}

/// Ignores a relative `XDG_CACHE_HOME`, as the specification demands.
fn place(cache: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let cache = cache.map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| home.map(|home| PathBuf::from(home).join(".cache")));
    cache.map(|cache| cache.join("fedmill"))
}

/// The bytes of a cached file; `None` if it does not exist.
///
/// # Errors
///
/// When it exists and cannot be read, or is no regular file.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    source::read_regular(path)
}

/// Writes a whole file, and creates its folder.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    folder::write_file(path, bytes, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_the_specification() {
        let os = |text: &str| Some(OsString::from(text));
        assert_eq!(place(os("/c"), os("/h")), Some("/c/fedmill".into()));
        assert_eq!(place(os("c"), os("/h")), Some("/h/.cache/fedmill".into()));
        assert_eq!(place(None, os("/h")), Some("/h/.cache/fedmill".into()));
        assert_eq!(place(None, None), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/file");
        assert_eq!(read(&path).unwrap(), None);
        for bytes in [b"one".as_slice(), b"two"] {
            write(&path, bytes).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(bytes));
        }
    }
}
