//! Sealed envelopes: the seeds that a client sends to one helper through everyone's folder.
//!
//! Hybrid public key encryption in base mode with HKDF-SHA256 and ChaCha20-Poly1305. The key exchange is X25519, or X-Wing
//! (ML-KEM-768 and X25519), which a quantum computer does not break. The address (session, sender, receiver) is the
//! `info` of the key schedule: an envelope opens only where it was meant to.
//!
//! Papers: Barnes et al., RFC 9180, 2022, section 5.1.1; Connolly, Schwabe and Westerbaan, draft-connolly-cfrg-xwing-kem.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256, XWing};
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable, HpkeError, OpModeR, OpModeS, Serializable};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// The key exchange of a session's envelopes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Suite {
    /// X25519.
    #[serde(rename = "x25519")]
    X25519,
    /// X-Wing: ML-KEM-768 and X25519.
    #[serde(rename = "x-wing")]
    XWing,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X25519 => "x25519",
            Self::XWing => "x-wing",
        })
    }
}

/// Bytes of the authentication tag.
const TAG_BYTES: usize = 16;

/// Runs `$body` with `$kem` as the key exchange of a suite.
macro_rules! for_suite {
    ($suite:expr, $kem:ident => $body:expr) => {
        match $suite {
            Suite::X25519 => {
                type $kem = X25519HkdfSha256;
                $body
            }
            Suite::XWing => {
                type $kem = XWing;
                $body
            }
        }
    };
}

impl Suite {
    /// Bytes of a public key.
    pub fn key_bytes(self) -> usize {
        for_suite!(self, K => <K as Kem>::PublicKey::size())
    }

    /// Bytes of an envelope with `plain` bytes of content.
    pub fn envelope_bytes(self, plain: usize) -> usize {
        for_suite!(self, K => <K as Kem>::EncappedKey::size()) + plain + TAG_BYTES
    }

    /// The public key that belongs to a secret of 32 bytes.
    pub fn public_key(self, secret: &[u8; 32]) -> Vec<u8> {
        for_suite!(self, K => K::derive_keypair(secret).1.to_bytes().to_vec())
    }

    /// Whether these bytes are a public key.
    pub fn is_public_key(self, key: &[u8]) -> bool {
        for_suite!(self, K => <K as Kem>::PublicKey::from_bytes(key).is_ok())
    }

    /// Seals `plain` for the holder of a public key.
    ///
    /// # Errors
    ///
    /// When the key is none.
    pub fn seal(
        self,
        key: &[u8],
        address: &[u8],
        plain: &[u8],
        random: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, HpkeError> {
        for_suite!(self, K => {
            let key = <K as Kem>::PublicKey::from_bytes(key)?;
            let (exchanged, sealed) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, K>(
                &OpModeS::Base, &key, address, plain, &[], random,
            )?;
            Ok([exchanged.to_bytes().as_slice(), &sealed].concat())
        })
    }

    /// Opens an envelope with the secret of its receiver.
    ///
    /// # Errors
    ///
    /// When it was changed, or is for another receiver, from another sender or of another session.
    pub fn open(
        self,
        secret: &[u8; 32],
        address: &[u8],
        envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
        for_suite!(self, K => {
            let (key, _) = K::derive_keypair(secret);
            let bytes = <K as Kem>::EncappedKey::size();
            let (exchanged, sealed) = envelope.split_at_checked(bytes).ok_or(HpkeError::OpenError)?;
            let exchanged = <K as Kem>::EncappedKey::from_bytes(exchanged)?;
            let plain = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, K>(
                &OpModeR::Base, &key, &exchanged, address, sealed, &[],
            );
            plain.map(Zeroizing::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use chacha20::rand_core::SeedableRng;

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    /// RFC 9180, appendix A.2.1: the suite of X25519 in base mode. Envelopes have no further data, the vector has some.
    #[test]
    fn the_vector_of_the_rfc_opens() {
        let secret: [u8; 32] =
            bytes("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df").try_into().unwrap();
        let public = bytes("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
        assert_eq!(Suite::X25519.public_key(&secret), public);
        let exchanged = bytes("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let sealed = bytes(
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
        );
        let (key, _) = X25519HkdfSha256::derive_keypair(&secret);
        let plain = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &key,
            &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&exchanged).unwrap(),
            &bytes("4f6465206f6e2061204772656369616e2055726e"),
            &sealed,
            b"Count-0",
        );
        assert_eq!(plain.unwrap(), b"Beauty is truth, truth beauty");
    }

    #[test]
    fn an_envelope_opens_for_its_address_alone() {
        for suite in [Suite::X25519, Suite::XWing] {
            let (secret, other) = ([7; 32], [8; 32]);
            let key = suite.public_key(&secret);
            assert_eq!(key.len(), suite.key_bytes());
            assert!(suite.is_public_key(&key) && !suite.is_public_key(&key[1..]));
            let seal = |seed| {
                suite.seal(&key, b"address", b"seeds", &mut ChaCha20Rng::from_seed([seed; 32])).unwrap()
            };
            let sealed = seal(1);
            assert_eq!(sealed.len(), suite.envelope_bytes(5));
            assert_eq!(
                (seal(1) == sealed, seal(2) == sealed),
                (true, false),
                "the randomness makes the envelope"
            );
            assert_eq!(suite.open(&secret, b"address", &sealed).unwrap().as_slice(), b"seeds");
            assert!(suite.open(&other, b"address", &sealed).is_err());
            assert!(suite.open(&secret, b"addresx", &sealed).is_err());
            for at in [0, sealed.len() / 2, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(suite.open(&secret, b"address", &changed).is_err(), "{suite} {at}");
            }
            for len in [0, 10, sealed.len() - 1] {
                assert!(suite.open(&secret, b"address", &sealed[..len]).is_err(), "{suite} {len}");
            }
        }
    }
}
