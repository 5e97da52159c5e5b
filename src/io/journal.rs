//! A text file that grows one line at a time, by one writer.
//!
//! [`held`] is its lock where a file system has none.
//!
//! A line counts once it is on disk with its newline. A killed writer may leave a part of a line behind the last whole
//! line. It never reported that part as written, so readers ignore it, and the next append removes it first.

pub mod held;

use crate::io::crash;
use crate::io::interrupt::{self, Interrupted};
use crate::io::publish::{is_missing_call, sync_directory_of};
use crate::io::{source, text};
use held::Held;
use rustix::fs::OFlags;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The file name of the ledger in a state directory.
pub const LEDGER: &str = "ledger.jsonl";

/// Pause between two attempts to get a lock that another run holds.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Time after which a waiting run warns the user.
const SILENT: Duration = Duration::from_secs(1);

/// An error of a journal.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum JournalError {
    #[error("{}: cannot be locked: {source}", .path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: byte {at} is no UTF-8, expected text", .path.display())]
    NoText { path: PathBuf, at: usize },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A lock, held until it is dropped or its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    /// Takes the place of a lock of the file system.
    _held: Option<Held>,
}

/// Tries to lock a file. Returns `None` if another process has the lock, else what holds the lock besides the file.
fn try_lock(file: &File, path: &Path) -> io::Result<Option<Option<Held>>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(None)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(why)) if is_missing_call(&why) => match Held::try_take(path) {
            Ok(None) => Ok(None),
            Ok(held) => {
                tracing::warn!(
                    "{}: this file system has no locks ({why}): {}.held keeps other runs of this machine out, and none of \
                     another machine",
                    path.display(),
                    path.display()
                );
                Ok(Some(held))
            }
            Err(also) => {
                tracing::warn!(
                    "{}: this file system has no locks ({why}), and no file can stand for one ({also}): no other run may \
                     write here meanwhile",
                    path.display()
                );
                Ok(Some(None))
            }
        },
        Err(TryLockError::Error(why)) => Err(why),
    }
}

/// Flags with which a file is opened that may be a pipe by now: the call does not wait.
fn never_waiting() -> i32 {
    OFlags::NONBLOCK.bits().cast_signed()
}

/// The outcome of an attempt to take a lock.
#[derive(Debug)]
pub enum Taken {
    /// This process holds it now.
    Ours(Lock),
    /// Another process holds it.
    By(String),
}

impl Lock {
    /// Takes the lock of this file, and creates the file if needed. Waits while another run holds it.
    ///
    /// # Errors
    ///
    /// When the file cannot be created or locked, or a signal ends the wait.
    pub fn take(path: &Path) -> Result<Self, JournalError> {
        let fault = |source| JournalError::Lock { path: path.to_owned(), source };
        let mut options = File::options();
        let options = options.create(true).append(true).mode(0o600).custom_flags(never_waiting());
        let file = options.open(path).map_err(fault)?;
        let started = Instant::now();
        let mut told = false;
        loop {
            match try_lock(&file, path).map_err(fault)? {
                Some(_held) => return Ok(Self { _file: file, _held }),
                None => interrupt::check()?,
            }
            if !told && started.elapsed() > SILENT {
                tracing::warn!("{}: locked by another run; waiting until it ends", path.display());
                told = true;
            }
            thread::sleep(TRY_EVERY);
        }
    }

    /// Takes the lock of this file if it is free, and writes into it who holds it.
    ///
    /// # Errors
    ///
    /// When the file cannot be created or locked.
    pub fn try_take(path: &Path) -> Result<Taken, JournalError> {
        let fault = |source| JournalError::Lock { path: path.to_owned(), source };
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(never_waiting()).open(path).map_err(fault)?;
        if !file.metadata().map_err(fault)?.is_file() {
            return Err(fault(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        match try_lock(&file, path).map_err(fault)? {
            Some(_held) => {
                let holder = format!("process {}", std::process::id());
                // Only a message depends on it.
                let _ = file.set_len(0).and_then(|()| file.write_all_at(holder.as_bytes(), 0));
                Ok(Taken::Ours(Self { _file: file, _held }))
            }
            None => {
                let holder = text::read_at_most(path, MOST_OF_A_HOLDER).unwrap_or_default();
                let holder =
                    if holder.is_empty() { "a process that did not say which".to_owned() } else { holder };
                Ok(Taken::By(holder))
            }
        }
    }

    /// Whether another run holds the lock of this file.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or its lock cannot be tested.
    pub fn is_taken(path: &Path) -> Result<bool, JournalError> {
        let fault = |source| JournalError::Lock { path: path.to_owned(), source };
        let file = match source::open_regular(path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(fault)?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(why)) if is_missing_call(&why) => Ok(held::is_held(path)),
            Err(TryLockError::Error(why)) => Err(fault(why)),
        }
    }
}

/// The most bytes of the text that says who holds a lock.
pub const MOST_OF_A_HOLDER: u64 = 4 << 10;

/// The content of a journal.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Lines {
    /// The whole lines, each with its newline.
    pub text: String,
    /// The bytes behind the last whole line.
    pub torn: Vec<u8>,
}

impl Lines {
    /// The whole lines, without their newlines.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }
}

/// Whether there is a journal.
pub fn exists(path: &Path) -> bool {
    path.is_file()
}

/// Reads a journal; a missing file is an empty journal. Needs no lock, since a journal only grows.
///
/// # Errors
///
/// When the file cannot be read, or a whole line is not UTF-8.
pub fn read(path: &Path) -> Result<Lines, JournalError> {
    let read = source::read_regular(path);
    let read = read.map_err(|source| JournalError::Read { path: path.to_owned(), source })?;
    let mut bytes = read.unwrap_or_default();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let torn = bytes.split_off(whole);
    let no_text = |why: std::string::FromUtf8Error| JournalError::NoText {
        path: path.to_owned(),
        at: why.utf8_error().valid_up_to(),
    };
    Ok(Lines { text: String::from_utf8(bytes).map_err(no_text)?, torn })
}

/// A journal that its owner may append to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    end: u64,
    /// Whether the name of the file is on disk for certain.
    named: bool,
    _lock: Lock,
}

impl Journal {
    /// Opens or creates a journal for the holder of its lock. Also returns its content.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or created.
    pub fn open(path: &Path, lock: Lock) -> Result<(Self, Lines), JournalError> {
        let fault = |source| JournalError::Write { path: path.to_owned(), source };
        // Only the owner may read it: it shows which clients took part in which round.
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(never_waiting()).open(path).map_err(fault)?;
        let lines = read(path)?;
        let end = lines.text.len() as u64;
        Ok((Self { path: path.to_owned(), file, end, named: false, _lock: lock }, lines))
    }

    /// Reserves room on disk for lines to come, if the file system can.
    ///
    /// # Errors
    ///
    /// When the disk has no room.
    pub fn reserve(&self, bytes: u64) -> Result<(), JournalError> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end, bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(why) => Err(JournalError::Write { path: self.path.clone(), source: why.into() }),
        }
    }

    /// Appends a line, given without its newline, and waits until it is on disk. Removes a part of a line that a killed
    /// writer left first.
    ///
    /// # Errors
    ///
    /// When the line cannot be written to disk. It may be there nonetheless: read the journal again.
    pub fn append(&mut self, line: &str) -> Result<(), JournalError> {
        debug_assert!(!line.contains('\n'), "a line has one end");
        let bytes = [line.as_bytes(), b"\n"].concat();
        let appended = self.write(&bytes);
        if appended.is_err() {
            // A part of a line means nothing; the next append would remove it too.
            let _ = self.file.set_len(self.end);
        }
        appended.map_err(|source| JournalError::Write { path: self.path.clone(), source })?;
        self.end += bytes.len() as u64;
        self.named = true;
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        // The cut would give back room that was reserved, so it is made only if a killed writer left something.
        if self.file.metadata()?.len() != self.end {
            self.file.set_len(self.end)?;
        }
        crash::before_step();
        self.file.write_all_at(bytes, self.end)?;
        crash::before_step();
        self.file.sync_all()?;
        if !self.named {
            sync_directory_of(&self.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn open(directory: &Path) -> (Journal, Lines) {
        let lock = Lock::take(&directory.join("lock")).unwrap();
        Journal::open(&directory.join("journal"), lock).unwrap()
    }

    #[test]
    fn lines_are_kept_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, lines) = open(directory.path());
        assert_eq!(lines, Lines::default());
        journal.append("one").unwrap();
        journal.append("two").unwrap();
        drop(journal);
        let (mut journal, lines) = open(directory.path());
        assert_eq!((lines.text.as_str(), lines.torn.len()), ("one\ntwo\n", 0));
        journal.append("three").unwrap();
        let read = read(&directory.path().join("journal")).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), ["one", "two", "three"]);
    }

    #[test]
    fn a_torn_line_is_reported_and_removed_by_the_next_append() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, b"one\ntw\xff").unwrap();
        let (mut journal, lines) = open(directory.path());
        assert_eq!((lines.text.as_str(), lines.torn.as_slice()), ("one\n", &b"tw\xff"[..]));
        assert_eq!(fs::read(&path).unwrap(), b"one\ntw\xff", "opening changes nothing");
        journal.append("3").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\n3\n");
    }

    #[test]
    fn a_whole_line_must_be_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, b"one\ntw\xff\n").unwrap();
        assert!(matches!(read(&path), Err(JournalError::NoText { at: 6, .. })), "{:?}", read(&path));
    }

    #[test]
    fn only_its_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).0.append("one").unwrap();
        let mode = fs::metadata(directory.path().join("journal")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_second_writer_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let (mut first, _) = open(directory.path());
        let path = directory.path().to_owned();
        let second = thread::spawn(move || {
            let (mut journal, lines) = open(&path);
            journal.append("second").unwrap();
            lines.text
        });
        thread::sleep(Duration::from_millis(60));
        first.append("first").unwrap();
        drop(first);
        assert_eq!(second.join().unwrap(), "first\n");
    }

    #[test]
    fn a_lock_is_taken_while_its_holder_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(!Lock::is_taken(&path).unwrap());
        let lock = Lock::take(&path).unwrap();
        assert!(Lock::is_taken(&path).unwrap());
        drop(lock);
        assert!(!Lock::is_taken(&path).unwrap());
    }
}
