//! Names a file by its content.

use crate::io::source::SourceFile;
use sha2::Digest as _;
use std::io;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The two digests that clients may name their base by, in lower-case hex.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// As `b3sum` prints it.
    pub blake3: String,
    /// As `sha256sum` prints it.
    pub sha256: String,
}

impl Digest {
    /// The digest of the bytes of these files, one behind the other.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn of(files: &[SourceFile]) -> io::Result<Self> {
        let mut blake3 = blake3::Hasher::new();
        let mut sha256 = sha2::Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        for file in files {
            let mut offset = 0;
            while offset < file.bytes() {
                let len = usize::try_from(file.bytes() - offset).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                file.read_exact_at(&mut chunk[..len], offset)?;
                blake3.update(&chunk[..len]);
                sha256.update(&chunk[..len]);
                offset += len as u64;
            }
        }
        let sha256 = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { blake3: blake3.finalize().to_hex().to_string(), sha256 })
    }

    /// Whether `named` is one of the two, in any case, with or without `blake3:` or `sha256:` before it.
    pub fn is_named(&self, named: &str) -> bool {
        let named = named.trim().to_ascii_lowercase();
        match named.split_once(':') {
            Some(("blake3", hex)) => hex == self.blake3,
            Some(("sha256", hex)) => hex == self.sha256,
            _ => named == self.blake3 || named == self.sha256,
        }
    }
}
