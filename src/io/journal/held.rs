//! A lock as a file beside the lock, for file systems without `flock`.
//!
//! `LOCK.held` names the process that holds the lock. It has its name and its content at once, and a file whose process
//! is over counts as none. It holds for the processes of one machine.

use crate::io::{child, interrupt, text};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The most bytes of such a file.
const MOST: u64 = 1 << 10;

/// A lock that this process holds, until the value is dropped.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
}

impl Held {
    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub fn try_take(lock: &Path) -> io::Result<Option<Self>> {
        let path = path_of(lock);
        if is_held(lock) {
            return Ok(None);
        }
        // Of a process that is over.
        remove(&path)?;
        let own = path.with_extension(format!("held-{}", std::process::id()));
        fs::write(&own, child::this_process())?;
        let linked = interrupt::with_temporary(&path, || fs::hard_link(&own, &path));
        fs::remove_file(&own)?;
        match linked {
            Err(why) if why.kind() == ErrorKind::AlreadyExists => Ok(None),
            linked => linked.map(|()| Some(Self { path })),
        }
    }
}

/// Whether a running process holds the lock.
pub fn is_held(lock: &Path) -> bool {
    text::read_at_most(&path_of(lock), MOST).is_ok_and(|process| child::is_running(&process))
}

fn path_of(lock: &Path) -> PathBuf {
    let mut name = lock.file_name().unwrap_or_default().to_owned();
    name.push(".held");
    lock.with_file_name(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The next run finds that its process is over.
        let _ = fs::remove_file(&self.path);
        interrupt::keep(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_it_until_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let held = Held::try_take(&lock).unwrap();
        assert!(held.is_some() && is_held(&lock));
        assert!(Held::try_take(&lock).unwrap().is_none(), "it is held");
        drop(held);
        assert!(!is_held(&lock));
        fs::write(path_of(&lock), "1-0").unwrap();
        assert!(!is_held(&lock), "another process began with that number");
        assert!(Held::try_take(&lock).unwrap().is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
