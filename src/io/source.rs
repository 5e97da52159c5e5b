//! Reads files in place with positioned reads, also more files than the process may hold open.
//!
//! Files are not mapped: if a client truncates its file during a run, the run gets an error and does not crash.

use rustix::fs::OFlags;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pieces of a sample.
pub const SAMPLES: u64 = 64;
/// Bytes of one piece of a sample.
pub const SAMPLE_BYTES: u64 = 256;

/// Descriptors left for outputs, standard streams and the runtime.
const RESERVED_DESCRIPTORS: u64 = 64;

/// The number of files that this run may still hold open.
#[derive(Debug)]
pub struct OpenFiles {
    left: AtomicUsize,
}

impl OpenFiles {
    /// Raises the process's limit on open files to its maximum, and counts the files that this allows.
    pub fn raise_limit() -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
            if setrlimit(Resource::Nofile, raised).is_ok() {
                limit = raised;
            }
        }
        let left = limit.current.unwrap_or(u64::MAX).saturating_sub(RESERVED_DESCRIPTORS);
        Self { left: AtomicUsize::new(usize::try_from(left).unwrap_or(usize::MAX)) }
    }

    /// Takes one descriptor, if one is left.
    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// A file to read from. It is held open, or opened anew for each read once the limit on open files is reached.
#[derive(Debug)]
pub struct SourceFile {
    path: PathBuf,
    identity: Identity,
    held: Option<File>,
    /// Bytes before its values: the header of a model.
    header_bytes: u64,
}

/// The properties that change when a file is replaced or rewritten during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// Device and inode of the file at `path`, if it exists; equal for every path of one file.
pub fn identity_of(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Fails unless there is a regular file at a path. Opens nothing.
///
/// # Errors
///
/// When there is none, or what is there is no regular file.
pub fn check_regular(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() { Ok(()) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Opens a regular file to read. Never waits, as a pipe would make it.
///
/// # Errors
///
/// When it cannot be opened, or is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Some devices act when they are opened.
    check_regular(path)?;
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(without_waiting).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// The bytes of a regular file; `None` if it does not exist.
///
/// # Errors
///
/// When it exists and cannot be read, or is no regular file: a pipe would never end, and a device might not.
pub fn read_regular(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match open_regular(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The bytes of a regular file that others can make, at most `most`. Never waits, and never reads without end.
///
/// # Errors
///
/// When it cannot be read, is no regular file, or has more bytes.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let stated = file.metadata()?.len();
    take_at_most(file, stated, most)
}

/// All bytes of a file or stream, at most `most`. `stated` is how many it says it has.
///
/// # Errors
///
/// When it cannot be read, or has more bytes.
pub fn take_at_most(input: impl Read, stated: u64, most: u64) -> io::Result<Vec<u8>> {
    let too_large = |found: String| {
        let why = format!("found {found} bytes, expected at most {most}");
        Err(io::Error::new(io::ErrorKind::FileTooLarge, why))
    };
    if stated > most {
        return too_large(stated.to_string());
    }
    // It may grow meanwhile, and devices and pipes have no end that they state.
    let mut bytes = Vec::new();
    input.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { too_large(format!("more than {most}")) } else { Ok(bytes) }
}

impl SourceFile {
    /// Opens a regular file.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or is no regular file (a pipe would block the run).
    pub fn open(path: &Path, files: &OpenFiles) -> io::Result<Self> {
        let file = open_regular(path)?;
        let identity = Identity::of(&file)?;
        Ok(Self { path: path.to_owned(), identity, held: files.take().then_some(file), header_bytes: 0 })
    }

    /// The same file, whose values stand behind this many bytes.
    #[must_use]
    pub fn behind(self, header_bytes: u64) -> Self {
        Self { header_bytes, ..self }
    }

    /// The place in the file of a byte of its values.
    pub fn place_of(&self, value_offset: u64) -> u64 {
        self.header_bytes + value_offset
    }

    /// Reads bytes of its values: offset 0 is the first byte behind the header.
    ///
    /// # Errors
    ///
    /// As [`read_exact_at`](Self::read_exact_at).
    pub fn read_values_at(&self, buffer: &mut [u8], value_offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, self.place_of(value_offset))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    pub fn bytes(&self) -> u64 {
        self.identity.bytes
    }

    /// Device and inode; equal for every path of one file.
    pub fn identity(&self) -> (u64, u64) {
        (self.identity.device, self.identity.inode)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be read, or the path names another file than at first.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.held {
            Some(file) => file.read_exact_at(buffer, offset),
            None => self.reopen()?.read_exact_at(buffer, offset),
        }
    }

    /// A digest that distinguishes files without reading all of them. It covers the size, the safetensors header, and
    /// [`SAMPLES`] pieces of [`SAMPLE_BYTES`] bytes evenly spread over the data.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn sample(&self) -> io::Result<[u8; 32]> {
        let bytes = self.bytes();
        let mut length = [0; 8];
        let known = length.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.read_exact_at(&mut length[..known], 0)?;
        let header = u64::from_le_bytes(length).saturating_add(8).min(bytes);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes.to_le_bytes());
        let mut add = |start: u64, len: u64| {
            let mut piece = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            self.read_exact_at(&mut piece, start)?;
            hasher.update(&piece);
            io::Result::Ok(())
        };
        add(0, header)?;
        let data = bytes - header;
        if data <= SAMPLES * SAMPLE_BYTES {
            add(header, data)?;
        } else {
            let last = u128::from(data - SAMPLE_BYTES);
            for k in 0..SAMPLES {
                let offset = (last * u128::from(k) / u128::from(SAMPLES - 1)) as u64;
                add(header + offset, SAMPLE_BYTES)?;
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Checks that the file was not replaced or rewritten since it was opened.
    ///
    /// # Errors
    ///
    /// When it was, or its properties cannot be read.
    pub fn check_unchanged(&self) -> io::Result<()> {
        match &self.held {
            Some(file) => self.compare(Identity::of(file)?),
            None => self.compare(Identity::of(&open_regular(&self.path)?)?),
        }
    }

    /// Opens the file anew to read from. A time proves no change, and a read compares no content: see
    /// [`check_unchanged`](Self::check_unchanged).
    fn reopen(&self) -> io::Result<File> {
        let file = open_regular(&self.path)?;
        let found = Identity { modified: self.identity.modified, ..Identity::of(&file)? };
        self.compare(found)?;
        Ok(file)
    }

    fn compare(&self, found: Identity) -> io::Result<()> {
        if found == self.identity {
            return Ok(());
        }
        Err(io::Error::other("file changed while it was being read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    /// A file of four bytes, held open or opened anew for each read.
    fn source(directory: &Path, files: usize) -> SourceFile {
        let path = directory.join("update");
        fs::write(&path, [1, 2, 3, 4]).unwrap();
        SourceFile::open(&path, &OpenFiles { left: AtomicUsize::new(files) }).unwrap()
    }

    #[test]
    fn reads_are_the_same_held_open_or_not() {
        let directory = tempfile::tempdir().unwrap();
        for files in [0, 1] {
            let source = source(directory.path(), files);
            assert_eq!(source.held.is_some(), files == 1);
            let mut bytes = [0; 2];
            source.read_exact_at(&mut bytes, 1).unwrap();
            assert_eq!(bytes, [2, 3]);
            assert!(source.read_exact_at(&mut bytes, 3).is_err());
            source.check_unchanged().unwrap();
        }
    }

    #[test]
    fn a_rewritten_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        for files in [0, 1] {
            let source = source(directory.path(), files);
            let later = SystemTime::now() + Duration::from_secs(5);
            File::options().write(true).open(source.path()).unwrap().set_modified(later).unwrap();
            assert!(source.check_unchanged().is_err());
            assert!(source.read_exact_at(&mut [0], 0).is_ok(), "a time alone stops no read");
        }
    }

    #[test]
    fn a_replaced_file_is_noticed_when_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let source = source(directory.path(), 0);
        let other = directory.path().join("other");
        fs::write(&other, [5, 6, 7, 8]).unwrap();
        fs::rename(&other, source.path()).unwrap();
        assert!(source.read_exact_at(&mut [0], 0).is_err());
    }
}
