//! Digests of files that were read before.
//!
//! A file is read again only if its size, inode or times changed.

use super::store::{self, Stored};
use crate::io::{folder, source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time within which a file system may give two writes the same time.
const TICK: Duration = Duration::from_millis(20);

/// The most bytes of a file of digests.
const MOST_BYTES: u64 = 1 << 30;

/// What a write to a file, or another file in its place, changes. A link to the file changes the last time only.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file that a path leads to.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            inode: meta.ino(),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether another write could leave the same times behind, since the last one just happened.
    fn is_fresh(&self) -> bool {
        let (seconds, nanos) = self.modified;
        let modified = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.abs_diff(modified) < TICK
    }
}

/// A file and its digest.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
struct Seen {
    stamp: Stamp,
    blake3: String,
}

/// The files whose digests are known, by their inodes: all links to a file share its digest.
#[derive(Default, Debug)]
pub struct Known {
    files: Mutex<BTreeMap<u64, Seen>>,
}

impl Known {
    fn files(&self) -> MutexGuard<'_, BTreeMap<u64, Seen>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what [`Known::write`] wrote; nothing if there is no such file, or it holds something else.
    pub fn add(&self, path: &Path) {
        let text = source::read_at_most(path, MOST_BYTES).unwrap_or_default();
        let seen: Vec<Seen> = serde_json::from_slice(&text).unwrap_or_default();
        self.files().extend(seen.into_iter().map(|seen| (seen.stamp.inode, seen)));
    }

    /// Writes all digests to a file, unless it holds them already.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let seen: Vec<Seen> = self.files().values().cloned().collect();
        let text = serde_json::to_string(&seen)? + "\n";
        if source::read_at_most(path, MOST_BYTES).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(());
        }
        folder::write_file_on_disk(path, text.as_bytes())
    }

    /// Takes a digest as that of a file which had another stamp `before` its bytes were read, if no write came since.
    pub fn learn(&self, path: &Path, before: Stamp, stored: &Stored) {
        // A file that cannot be looked at is read where it is used.
        let Ok(stamp) = Stamp::of(path) else { return };
        if (Stamp { changed: before.changed, ..stamp }) == before && !stamp.is_fresh() {
            let seen = Seen { stamp, blake3: stored.blake3.clone() };
            self.files().insert(stamp.inode, seen);
        }
    }

    /// The digest and the size of a regular file. Reads it only if it is not known, or changed.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn identify(&self, path: &Path) -> io::Result<Stored> {
        let stamp = Stamp::of(path)?;
        if let Some(stored) = self.found(stamp) {
            return Ok(stored);
        }
        let stored = store::identify(path)?;
        self.learn(path, stamp, &stored);
        Ok(stored)
    }

    /// The digests and sizes of regular files, in their order, as [`store::identify_all`]; reads only those that are not
    /// known, or changed.
    pub fn identify_all(&self, paths: &[PathBuf]) -> Vec<io::Result<Stored>> {
        let look = |path: &PathBuf| {
            let stamp = Stamp::of(path).ok();
            (stamp, stamp.and_then(|stamp| self.found(stamp)))
        };
        let looks: Vec<(Option<Stamp>, Option<Stored>)> = paths.iter().map(look).collect();
        let unknown = paths.iter().zip(&looks).filter(|(_, (_, stored))| stored.is_none());
        let unknown: Vec<PathBuf> = unknown.map(|(path, _)| path.clone()).collect();
        let mut read = store::identify_all(&unknown).into_iter();
        let each = looks.into_iter().zip(paths).map(|((stamp, stored), path)| match stored {
            Some(stored) => Ok(stored),
            None => {
                let stored = read.next().unwrap_or_else(|| store::identify(path))?;
                if let Some(stamp) = stamp {
                    self.learn(path, stamp, &stored);
                }
                Ok(stored)
            }
        });
        each.collect()
    }

    /// Whether a stamp is that of a file which is known to have this digest.
    pub fn is_known(&self, stamp: Stamp, stored: &Stored) -> bool {
        self.found(stamp).is_some_and(|found| found == *stored)
    }

    fn found(&self, stamp: Stamp) -> Option<Stored> {
        let files = self.files();
        let seen = files.get(&stamp.inode).filter(|seen| seen.stamp == stamp)?;
        Some(Stored { blake3: seen.blake3.clone(), bytes: stamp.bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(path: &Path, seconds: u64) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_file_is_read_again_only_if_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "hello").unwrap();
        age(&path, 60);
        let known = Known::default();
        let stored = known.identify(&path).unwrap();
        // A wrong digest shows that the file is not read.
        let wrong = Stored { blake3: "wrong".to_owned(), bytes: 5 };
        known.learn(&path, Stamp::of(&path).unwrap(), &wrong);
        assert_eq!(known.identify(&path).unwrap(), wrong);
        let list = folder.path().join("list");
        known.write(&list).unwrap();
        let later = Known::default();
        later.add(&list);
        let link = folder.path().join("link");
        assert_eq!(later.identify_all(std::slice::from_ref(&path))[0].as_ref().unwrap(), &wrong);
        fs::hard_link(&path, &link).unwrap();
        assert_eq!(later.identify(&link).unwrap(), stored, "a link changes a time of the file");
        fs::write(&path, "HELLO").unwrap();
        age(&path, 60);
        assert_ne!(known.identify(&path).unwrap().blake3, stored.blake3);
        assert_ne!(known.identify(&path).unwrap().blake3, "wrong");
        fs::remove_file(&path).unwrap();
        assert!(known.identify(&path).is_err());
    }

    #[test]
    fn a_file_that_was_just_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let known = Known::default();
        fs::write(&path, "hello").unwrap();
        let stored = store::identify(&path).unwrap();
        let now = fs::File::options().write(true).open(&path).unwrap();
        now.set_modified(SystemTime::now()).unwrap();
        known.learn(&path, Stamp::of(&path).unwrap(), &stored);
        assert!(known.files().is_empty());
    }
}
