//! The destination of streams: memory, a staged file, or nowhere in a dry run.
//!
//! The header comes last, when its length is known. A small file is held back in memory until then; a large one leaves
//! room for the header, which is padded with spaces.

use crate::codecs::Invalid;
use crate::io::publish::Staged;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Files of up to this many bytes are put together in memory.
const HELD_BYTES: u64 = 4 << 20;

/// Takes the bytes of streams, from any thread.
#[derive(Debug)]
pub(crate) struct Sink {
    target: Target,
    /// First byte of each stream of known extent, part by part, counted from the end of the header.
    places: Vec<Vec<u64>>,
    /// Bytes after the header so far.
    end: u64,
}

#[derive(Debug)]
enum Target {
    /// In memory, without the header.
    Held(Mutex<Vec<u8>>),
    /// In a file, after this many bytes for the header.
    Staged(Staged, u64),
    /// Nowhere: bytes are counted, after this many for the header of a large file.
    Nowhere(Option<u64>),
}

/// Why a file cannot be laid out.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum LayoutError {
    #[error("cannot be written: {0}")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Sink {
    /// A sink for streams of known extent at `places`, up to `end`, and about `appended` more bytes. A large file
    /// leaves `header` bytes for the header. Without a `path` bytes are only counted.
    ///
    /// # Errors
    ///
    /// When the file cannot be made, or the header has no bound.
    pub(crate) fn new(
        path: Option<&Path>,
        places: Vec<Vec<u64>>,
        end: u64,
        appended: u64,
        header: impl FnOnce() -> Result<u64, LayoutError>,
    ) -> Result<Self, LayoutError> {
        let expected = end + appended;
        let header = (expected > HELD_BYTES).then(header).transpose()?;
        let target = match (path, header) {
            (None, header) => Target::Nowhere(header),
            (Some(_), None) => Target::Held(Mutex::default()),
            (Some(path), Some(header)) => Target::Staged(Staged::create(path, header + expected)?, header),
        };
        Ok(Self { target, places, end })
    }

    /// Writes bytes of a stream of known extent.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be written.
    pub(crate) fn write(&self, part: usize, stream: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.put(self.places[part][stream] + offset as u64, bytes)
    }

    /// Appends bytes after all others.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be written.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(self.end, bytes)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.target {
            Target::Staged(staged, start) => staged.write_at(bytes, start + offset),
            Target::Nowhere(_) => Ok(()),
            Target::Held(held) => {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                let (start, end) = (offset as usize, offset as usize + bytes.len());
                if held.len() < end {
                    held.resize(end, 0);
                }
                held[start..end].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Bytes after the header so far.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Writes the header. Returns the staged file at `path`, if there is one, and the bytes of the header.
    ///
    /// # Errors
    ///
    /// When the header cannot be written, or is longer than its room.
    pub(crate) fn finish(
        self,
        path: Option<&Path>,
        mut header: Vec<u8>,
    ) -> Result<(Option<Staged>, u64), LayoutError> {
        let staged = match (self.target, path) {
            (Target::Nowhere(start), _) => {
                header = start.map_or(Ok(header.clone()), |start| padded(header, start))?;
                None
            }
            (Target::Held(_), None) => None,
            (Target::Held(held), Some(path)) => {
                let held = held.into_inner().unwrap_or_else(PoisonError::into_inner);
                let staged = Staged::create(path, header.len() as u64 + self.end)?;
                staged.write_at(&header, 0)?;
                staged.write_at(&held, header.len() as u64)?;
                Some(staged)
            }
            (Target::Staged(staged, start), _) => {
                header = padded(header, start)?;
                staged.write_at(&header, 0)?;
                staged.set_len(start + self.end)?;
                Some(staged)
            }
        };
        Ok((staged, header.len() as u64))
    }
}

/// A header padded with spaces to `bytes`.
fn padded(mut header: Vec<u8>, bytes: u64) -> Result<Vec<u8>, Invalid> {
    let len = bytes.checked_sub(8).filter(|_| header.len() as u64 <= bytes);
    let len = len.ok_or_else(|| Invalid::new("header is longer than the space reserved for it"))?;
    header[..8].copy_from_slice(&len.to_le_bytes());
    header.resize(bytes as usize, b' ');
    Ok(header)
}
