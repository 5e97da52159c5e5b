//! The bytes of a model's tensors, without headers and metadata.

use crate::io::model_file::ModelFile;
use crate::io::source::{SAMPLE_BYTES, SAMPLES, SourceFile};
use std::io;
use std::ops::Range;

/// Bytes read at once.
const CHUNK: u64 = 1 << 20;

/// The places of a model's data in its files.
pub struct Content<'m>(Vec<(&'m SourceFile, Range<u64>)>);

impl<'m> Content<'m> {
    /// Finds the data of a model.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn of(model: &'m ModelFile) -> io::Result<Self> {
        let inner = model.decoder.as_ref().and_then(|decoder| decoder.content());
        let parts = model.files.iter().map(|file| {
            if let Some(inner) = &inner {
                return Ok((file, file.place_of(inner.start)..file.place_of(inner.end)));
            }
            Ok((file, file.place_of(0)..file.bytes()))
        });
        parts.collect::<io::Result<_>>().map(Self)
    }

    /// A digest of the number of bytes and of one piece in the middle.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn piece(&self) -> io::Result<[u8; 32]> {
        let bytes = self.bytes();
        self.hashed(&[bytes / 2])
    }

    /// A digest of the number of bytes and of pieces evenly spread over them.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn sample(&self) -> io::Result<[u8; 32]> {
        let last = u128::from(self.bytes().saturating_sub(SAMPLE_BYTES));
        let offset = |k: u64| (last * u128::from(k) / u128::from(SAMPLES - 1)) as u64;
        self.hashed(&(0..SAMPLES).map(offset).collect::<Vec<_>>())
    }

    /// The digest of all bytes.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn digest(&self) -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = Vec::new();
        for start in (0..self.bytes()).step_by(CHUNK as usize) {
            self.read(start, CHUNK, &mut buffer)?;
            hasher.update(&buffer);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, range)| range.end - range.start).sum()
    }

    fn hashed(&self, offsets: &[u64]) -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.bytes().to_le_bytes());
        let mut buffer = Vec::new();
        for offset in offsets {
            self.read(*offset, SAMPLE_BYTES, &mut buffer)?;
            hasher.update(&buffer);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Reads `len` bytes from `start` on, or as many as there are.
    fn read(&self, start: u64, len: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        let (mut skipped, mut left) = (start, len);
        for (file, range) in &self.0 {
            let held = range.end - range.start;
            let from = range.start + skipped.min(held);
            skipped = skipped.saturating_sub(held);
            let take = left.min(range.end - from);
            let old = buffer.len();
            buffer.resize(old + take as usize, 0);
            file.read_exact_at(&mut buffer[old..], from)?;
            left -= take;
        }
        Ok(())
    }
}
