//! The key that the noise of a release, or of a series, comes from.
//!
//! A reader who knows the key can subtract the noise. So the key comes from the operating system, is used for one
//! release or one series, is never printed, and is wiped from memory when it is dropped.

use crate::record::sha256::Sha256;
use sha2::Digest as _;
use std::fmt;
use zeroize::Zeroize;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// The key of a release or of a series.
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// Draws a key from the operating system.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut key = Self([0; KEY_BYTES]);
        getrandom::fill(&mut key.0)?;
        Ok(key)
    }

    /// The key of a test seed. A reader who knows the seed can subtract the noise.
    pub fn of_test_seed(seed: u64) -> Self {
        Self(sha2::Sha256::digest(format!("fedmill test seed {seed}: NOT private")).into())
    }

    /// A key that was kept on disk.
    pub fn kept(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The key of the draws of one round, from the key of its series and the digest of the round's transcript.
    pub fn of_round(&self, transcript: &Sha256) -> Self {
        let digest = sha2::Sha256::new_with_prefix(b"fedmill draws of a round");
        Self(digest.chain_update(self.0).chain_update(transcript.bytes()).finalize().into())
    }

    /// The bytes of the key.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ() {
        let keys = [Key::draw().unwrap(), Key::draw().unwrap(), Key::of_test_seed(1), Key::of_test_seed(2)];
        for (place, key) in keys.iter().enumerate() {
            assert!(keys[..place].iter().all(|other| other.bytes() != key.bytes()));
        }
        assert_eq!(Key::of_test_seed(1).bytes(), keys[2].bytes());
    }

    #[test]
    fn every_transcript_has_another_key() {
        let (one, other) = (Sha256::of("one"), Sha256::of("other"));
        let key = Key::of_test_seed(1);
        assert_eq!(key.of_round(&one).bytes(), key.of_round(&one).bytes());
        for different in [key.of_round(&other), Key::of_test_seed(2).of_round(&one)] {
            assert_ne!(key.of_round(&one).bytes(), different.bytes());
        }
        assert_ne!(key.of_round(&one).bytes(), key.bytes());
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = Key::kept([7; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "Key(not shown)");
    }
}
