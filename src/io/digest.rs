//! Names a file by its content.
//!
//! [`seal`] is the digest that a file of fedmill carries. [`store`] keeps files by their digests, [`known`] knows the
//! digests of files that did not change, and [`tree`] joins the digests of parts.

pub mod known;
pub mod seal;
pub mod store;
pub mod tree;

use crate::io::interrupt;
use crate::io::source::{SourceFile, open_regular};
use sha2::Digest as _;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes read at a time for a digest that all threads compute.
const SHARED_CHUNK_BYTES: usize = 8 << 20;

/// The two digests by which clients may name their base, in lower-case hex.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// As `b3sum` prints it.
    pub blake3: String,
    /// As `sha256sum` prints it.
    pub sha256: String,
}

/// A BLAKE3 digest of concatenated files. A state file names its model by it.
#[derive(Default, Debug)]
pub struct Blake3 {
    hasher: blake3::Hasher,
}

impl Blake3 {
    /// The digest of the concatenated files, in lower-case hex. All threads of the current pool share the work.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn of(files: &[SourceFile]) -> io::Result<String> {
        let mut digest = Self::default();
        for file in files {
            digest.add(file.bytes(), |chunk, offset| file.read_exact_at(chunk, offset))?;
        }
        Ok(digest.hex())
    }

    /// The digest of a range of a file, as bytes.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn of_range(file: &SourceFile, start: u64, bytes: u64) -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let read = |chunk: &mut [u8], offset| file.read_exact_at(chunk, start + offset);
        each_chunk(bytes, CHUNK_BYTES, read, |chunk| {
            hasher.update(chunk);
        })?;
        Ok(hasher.finalize().into())
    }

    /// Adds a file of `bytes` bytes, read a chunk at a time.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn add(&mut self, bytes: u64, read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<()> {
        each_chunk(bytes, SHARED_CHUNK_BYTES, read, |chunk| {
            self.hasher.update_rayon(chunk);
        })
    }

    /// Adds a file of `bytes` bytes, read a smaller chunk at a time. The thread does the work alone.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn add_alone(
        &mut self,
        bytes: u64,
        read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        each_chunk(bytes, CHUNK_BYTES, read, |chunk| self.add_bytes(chunk))
    }

    /// The digest of some bytes, as bytes.
    pub fn of_bytes(bytes: &[u8]) -> [u8; 32] {
        blake3::hash(bytes).into()
    }

    /// Adds some bytes.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Adds some bytes. All threads of the current pool share the work.
    pub fn add_shared(&mut self, bytes: &[u8]) {
        self.hasher.update_rayon(bytes);
    }

    /// The digest of everything added, as bytes.
    pub fn bytes(&self) -> [u8; 32] {
        self.hasher.finalize().into()
    }

    /// The digest of everything added, in lower-case hex.
    pub fn hex(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

/// Reads `bytes` bytes a chunk at a time.
fn each_chunk(
    bytes: u64,
    chunk_bytes: usize,
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut chunk = vec![0; chunk_bytes.min(usize::try_from(bytes).unwrap_or(chunk_bytes))];
    let mut offset = 0;
    while offset < bytes {
        interrupt::check().map_err(io::Error::other)?;
        let len = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(chunk_bytes);
        read(&mut chunk[..len], offset)?;
        take(&chunk[..len]);
        offset += len as u64;
    }
    Ok(())
}

/// The SHA-256 digest of `bytes` bytes from `read`, as `sha256sum` prints it.
///
/// # Errors
///
/// When they cannot be read.
pub fn sha256(bytes: u64, read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<String> {
    let mut sha256 = sha2::Sha256::new();
    each_chunk(bytes, CHUNK_BYTES, read, |chunk| sha256.update(chunk))?;
    Ok(hex(&sha256.finalize()))
}

/// The SHA-256 digest of the concatenated files, as `sha256sum` prints it.
///
/// # Errors
///
/// When a file cannot be read.
pub fn sha256_of(files: &[SourceFile]) -> io::Result<String> {
    let mut sha256 = sha2::Sha256::new();
    for file in files {
        let read = |chunk: &mut [u8], offset| file.read_exact_at(chunk, offset);
        each_chunk(file.bytes(), CHUNK_BYTES, read, |chunk| sha256.update(chunk))?;
    }
    Ok(hex(&sha256.finalize()))
}

/// The SHA-256 digest of a regular file, as `sha256sum` prints it.
///
/// # Errors
///
/// When it cannot be read.
pub fn sha256_of_path(path: &Path) -> io::Result<String> {
    let file = open_regular(path)?;
    let bytes = file.metadata()?.len();
    sha256(bytes, |chunk, offset| file.read_exact_at(chunk, offset))
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

impl Digest {
    /// The digests of the concatenated files.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn of(files: &[SourceFile]) -> io::Result<Self> {
        let mut blake3 = blake3::Hasher::new();
        let mut sha256 = sha2::Sha256::new();
        for file in files {
            let read = |chunk: &mut [u8], offset| file.read_exact_at(chunk, offset);
            each_chunk(file.bytes(), CHUNK_BYTES, read, |chunk| {
                blake3.update(chunk);
                sha256.update(chunk);
            })?;
        }
        Ok(Self { blake3: blake3.finalize().to_hex().to_string(), sha256: hex(&sha256.finalize()) })
    }

    /// The first bytes of the BLAKE3 digest, as a short name for a file.
    pub fn blake3_start<const BYTES: usize>(&self) -> [u8; BYTES] {
        let digits = self.blake3.as_bytes().chunks(2);
        let byte =
            |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let mut start = [0; BYTES];
        start.iter_mut().zip(digits).for_each(|(to, digits)| *to = byte(digits).unwrap_or(0));
        start
    }

    /// Whether `named` is one of the two digests, in any case, with or without the prefix `blake3:` or `sha256:`.
    /// Behind `blake3:` the first 32 digits are enough.
    pub fn is_named(&self, named: &str) -> bool {
        let named = named.trim().to_ascii_lowercase();
        match named.split_once(':') {
            Some(("blake3", hex)) => hex.len() >= 32 && self.blake3.starts_with(hex),
            Some(("sha256", hex)) => hex == self.sha256,
            _ => named == self.blake3 || named == self.sha256,
        }
    }
}
