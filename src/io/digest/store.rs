//! A content-addressed store: each file lies under its digest, once.
//!
//! A file may have other names as well, for those who use it.

use super::known::{Known, Stamp};
use crate::io::digest::Blake3;
use crate::io::folder::make_folder_of;
use crate::io::publish::{copy_to, rename, sync_directory_of};
use crate::io::source::open_regular;
use rayon::prelude::*;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The store in a folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A file of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// BLAKE3, in lower-case hex.
    pub blake3: String,
    /// Bytes.
    pub bytes: u64,
}

impl Store {
    /// The store in this folder, which the first file creates.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The path of a file by its digest.
    pub fn path(&self, blake3: &str) -> PathBuf {
        self.folder.join(&blake3[..2.min(blake3.len())]).join(blake3)
    }

    /// Whether the store holds a file of this digest and size.
    pub fn holds(&self, stored: &Stored) -> bool {
        fs::symlink_metadata(self.path(&stored.blake3))
            .is_ok_and(|meta| meta.is_file() && meta.len() == stored.bytes)
    }

    /// Moves a regular file into the store, and makes it read-only. Waits until it is on disk. A file of the store that
    /// has the digest already stays, unless it changed since.
    ///
    /// # Errors
    ///
    /// When it is no regular file, or cannot be read or moved.
    pub fn take(&self, from: &Path, known: &Known) -> io::Result<Stored> {
        if !fs::symlink_metadata(from)?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        let before = Stamp::of(from)?;
        let stored = identify(from)?;
        let to = self.path(&stored.blake3);
        if self.holds(&stored) && known.identify(&to).is_ok_and(|found| found == stored) {
            fs::remove_file(from)?;
            return Ok(stored);
        }
        let file = open_regular(from)?;
        file.set_permissions(Permissions::from_mode(0o444))?;
        file.sync_all()?;
        make_folder_of(&to)?;
        rename(from, &to)?;
        known.learn(&to, before, &stored);
        Ok(stored)
    }

    /// Gives a file of the store, whose content the caller knows, a name in place of what has it. Where the file system
    /// has no hard links, the name is that of a copy.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn name(&self, stored: &Stored, name: &Path, known: &Known) -> io::Result<()> {
        let from = self.path(&stored.blake3);
        let before = Stamp::of(&from)?;
        let is_known = known.is_known(before, stored);
        make_folder_of(name)?;
        match fs::remove_file(name) {
            Err(why) if why.kind() != ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        if fs::hard_link(&from, name).is_err() {
            copy_to(&from, name)?;
        }
        if is_known {
            known.learn(name, before, stored);
        }
        sync_directory_of(name)
    }
}

/// The digest and the size of a regular file.
///
/// # Errors
///
/// When it cannot be read.
pub fn identify(path: &Path) -> io::Result<Stored> {
    let file = open_regular(path)?;
    let bytes = file.metadata()?.len();
    let mut digest = Blake3::default();
    digest.add(bytes, |chunk, offset| file.read_exact_at(chunk, offset))?;
    Ok(Stored { blake3: digest.hex(), bytes })
}

/// Bytes from which on all threads share the work on one file.
const LARGE: u64 = 64 << 20;

/// The digests and sizes of regular files, in their order, or why a file cannot be read.
///
/// Each thread reads another file, at most 1 MiB of it at a time. Larger files come one after another, and all threads
/// share the work on each: that is 8 MiB at a time.
pub fn identify_all(paths: &[PathBuf]) -> Vec<io::Result<Stored>> {
    let alone = |path: &PathBuf| {
        let file = open_regular(path)?;
        let bytes = file.metadata()?.len();
        if bytes >= LARGE {
            return Ok(None);
        }
        let mut digest = Blake3::default();
        digest.add_alone(bytes, |chunk, offset| file.read_exact_at(chunk, offset))?;
        Ok(Some(Stored { blake3: digest.hex(), bytes }))
    };
    let found: Vec<io::Result<Option<Stored>>> = paths.par_iter().map(alone).collect();
    let each = found.into_iter().zip(paths).map(|(found, path)| match found? {
        Some(stored) => Ok(stored),
        None => identify(path),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_have_the_digests_that_each_has_alone() {
        let folder = tempfile::tempdir().unwrap();
        let sizes = [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20, LARGE as usize + 1];
        let paths = sizes.map(|bytes| {
            let path = folder.path().join(bytes.to_string());
            fs::write(&path, vec![bytes as u8; bytes]).unwrap();
            path
        });
        let found = identify_all(&[&paths[..], &[folder.path().join("missing")]].concat());
        for ((found, path), bytes) in found.iter().zip(&paths).zip(sizes) {
            let expected = Blake3::of_bytes(&vec![bytes as u8; bytes]).map(|byte| format!("{byte:02x}"));
            let found = found.as_ref().unwrap();
            assert_eq!((&found.blake3, found.bytes), (&expected.concat(), bytes as u64));
            assert_eq!(found, &identify(path).unwrap());
        }
        assert_eq!(found[sizes.len()].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn equal_files_lie_once_and_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("store"));
        for name in ["a", "b"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let known = Known::default();
        let stored = store.take(&folder.path().join("a"), &known).unwrap();
        assert_eq!(store.take(&folder.path().join("b"), &known).unwrap(), stored);
        assert_eq!(stored.blake3, Blake3::of_bytes(b"x").map(|byte| format!("{byte:02x}")).concat());
        assert!(store.holds(&stored) && !store.holds(&Stored { bytes: 2, ..stored.clone() }));
        assert_eq!(fs::metadata(store.path(&stored.blake3)).unwrap().permissions().mode() & 0o222, 0);
        for name in ["out/c", "out/c"] {
            store.name(&stored, &folder.path().join(name), &known).unwrap();
        }
        assert_eq!(fs::read(folder.path().join("out/c")).unwrap(), b"x");
        std::os::unix::fs::symlink("out/c", folder.path().join("link")).unwrap();
        assert!(store.take(&folder.path().join("link"), &known).is_err());
    }
}
