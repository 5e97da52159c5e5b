//! Identities of the parties: a secret of 32 bytes, and the public keys that others know.
//!
//! A party signs files by Ed25519 over the exact bytes, behind a tag of the protocol and the stage: a signature of one
//! stage is none of another. Signatures are verified strictly: no other bytes are a signature of the same message.
//!
//! Paper: Josefsson and Liusvaara, RFC 8032, 2017, section 5.1.

use crate::io::folder::{EntryKind, entries};
use crate::io::source::read_at_most;
use crate::parties::envelope::Suite;
use crate::parties::error::SecureError;
use crate::parties::hex::Hex;
use crate::parties::{HE_PROTOCOL, SECAGG_PROTOCOL};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The step of a session that a file belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The server opens the session.
    Open,
    /// A client masks its update.
    Mask,
    /// A helper checks the seeds of clients.
    Check,
    /// The server freezes the set of clients.
    Set,
    /// The server adds up the masked updates.
    Sum,
    /// A helper signs the frozen set.
    Witness,
    /// A helper answers.
    Help,
    /// The server publishes the sum.
    Unmask,
    /// A machine of the server adds up some of the lanes.
    SumPart,
    /// A machine of a helper computes some of the lanes of its answer.
    HelpPart,
    /// The key holder of homomorphic encryption publishes its key.
    HeKeygen,
    /// The server opens a round of homomorphic encryption.
    HeOpen,
    /// A client encrypts its update.
    HeEncrypt,
    /// The server adds up the encrypted updates.
    HeAdd,
    /// The key holder decrypts the sum.
    HeDecrypt,
}

impl Stage {
    /// The protocol that the step belongs to.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::HeKeygen | Self::HeOpen | Self::HeEncrypt | Self::HeAdd | Self::HeDecrypt => HE_PROTOCOL,
            _ => SECAGG_PROTOCOL,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Mask => "mask",
            Self::Check => "check",
            Self::Set => "set",
            Self::Sum => "sum",
            Self::Witness => "witness",
            Self::Help => "help",
            Self::Unmask => "unmask",
            Self::SumPart => "sum-part",
            Self::HelpPart => "help-part",
            Self::HeKeygen => "keygen",
            Self::HeOpen => "open",
            Self::HeEncrypt => "encrypt",
            Self::HeAdd => "add",
            Self::HeDecrypt => "decrypt",
        })
    }
}

/// The secret of a party. It is wiped when it is dropped, and no text shows it.
pub struct Identity {
    secret: [u8; 32],
    signing: SigningKey,
}

impl Identity {
    /// The identity of a secret.
    pub fn of(secret: [u8; 32]) -> Self {
        let signing = Zeroizing::new(derived(&secret, "signing key"));
        Self { signing: SigningKey::from_bytes(&signing), secret }
    }

    /// A new identity from the randomness of the operating system.
    ///
    /// # Errors
    ///
    /// When the system has none.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self::of(secret))
    }

    /// The secret, to be kept on disk.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The public half under a name.
    pub fn public(&self, id: &str, suite: Suite) -> PublicIdentity {
        PublicIdentity {
            protocol: SECAGG_PROTOCOL.to_owned(),
            id: id.to_owned(),
            ed25519: self.verifying(),
            suite,
            seal: base16ct::lower::encode_string(&suite.public_key(&self.sealing_secret())),
        }
    }

    /// The public key of its signatures.
    pub fn verifying(&self) -> Hex<32> {
        Hex(self.signing.verifying_key().to_bytes())
    }

    /// The secret that opens envelopes to this party.
    pub fn sealing_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(derived(&self.secret, "sealing key"))
    }

    /// Signs bytes of a stage.
    pub fn sign(&self, stage: Stage, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signing.sign(&tagged(stage, bytes)).to_bytes()
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// The public half of an identity, as `keygen` writes it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct PublicIdentity {
    /// The protocol.
    pub protocol: String,
    /// The name of the party.
    pub id: String,
    /// The public key of its signatures.
    pub ed25519: Hex<32>,
    /// The key exchange of envelopes to it.
    pub suite: Suite,
    /// The public key of envelopes to it, in hexadecimal digits.
    pub seal: String,
}

impl PublicIdentity {
    /// The public key of envelopes to it.
    ///
    /// # Errors
    ///
    /// When it is not a key of its suite.
    pub fn sealing_key(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.seal.len() / 2];
        let key = base16ct::lower::decode(&self.seal, &mut bytes).map(<[u8]>::to_vec);
        match key {
            Ok(key) if self.suite.is_public_key(&key) => Ok(key),
            _ => Err(format!("`seal` of {}: expected a public key of {}", self.id, self.suite)),
        }
    }
}

/// Whether a party signed bytes of a stage.
pub fn is_signed(key: &Hex<32>, stage: Stage, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(&key.0)
        .is_ok_and(|key| key.verify_strict(&tagged(stage, bytes), &signature).is_ok())
}

/// Whether these bytes are a public key of signatures that only one secret has.
pub fn is_verifying_key(key: &Hex<32>) -> bool {
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| !key.is_weak())
}

fn tagged(stage: Stage, bytes: &[u8]) -> Vec<u8> {
    [format!("{} {stage}\n", stage.protocol()).as_bytes(), bytes].concat()
}

/// A secret for one purpose, derived from another secret.
pub fn derived(secret: &[u8; 32], purpose: &str) -> [u8; 32] {
    blake3::derive_key(&format!("{SECAGG_PROTOCOL} {purpose}"), secret)
}

/// Checks that an id may name a party, and its files.
///
/// # Errors
///
/// When it has other characters, or is too long.
pub fn check_id(id: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_sound = (1..=100).contains(&id.len()) && id.chars().all(is_plain) && !id.starts_with('.');
    let shown: String = id.chars().take(100).collect();
    if is_sound {
        Ok(())
    } else {
        Err(format!(
            "found the id `{shown}`, expected 1 to 100 letters, digits, `.`, `_` or `-`, and no `.` at the start: files are named by it"
        ))
    }
}

/// The most bytes of a public identity.
const MOST_BYTES: u64 = 16 << 10;

/// Reads public identities: files, or folders of files that end in `.pub`.
///
/// # Errors
///
/// When a file cannot be read or is no public identity, or a folder has none.
pub fn read_identities(paths: &[PathBuf]) -> Result<Vec<PublicIdentity>, SecureError> {
    let mut identities = Vec::new();
    for path in paths {
        if !crate::io::folder::is_folder(path) {
            identities.push(read_identity(path)?);
            continue;
        }
        let found = entries(path).map_err(SecureError::io(path))?;
        let files = found.iter().filter(|(name, kind)| *kind == EntryKind::File && name.ends_with(".pub"));
        let before = identities.len();
        for (name, _) in files {
            identities.push(read_identity(&path.join(name))?);
        }
        if identities.len() == before {
            let why = "found no file that ends in .pub, expected the public keys that `fedmill secagg keygen` writes";
            return Err(SecureError::terms(path.display().to_string(), why));
        }
    }
    Ok(identities)
}

fn read_identity(path: &Path) -> Result<PublicIdentity, SecureError> {
    let bytes = read_at_most(path, MOST_BYTES).map_err(SecureError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|why| {
        let why = match std::str::from_utf8(&bytes) {
            Ok(_) => format!("{why}; expected a public key that `fedmill secagg keygen` writes"),
            Err(_) => "found bytes that are no text, such as a secret key; expected a public key: the file that ends in .pub"
                .to_owned(),
        };
        SecureError::terms(path.display().to_string(), why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_stage_and_bytes() {
        let (one, other) = (Identity::of([1; 32]), Identity::of([2; 32]));
        let signature = one.sign(Stage::Mask, b"bytes");
        assert!(is_signed(&one.verifying(), Stage::Mask, b"bytes", &signature));
        assert!(!is_signed(&other.verifying(), Stage::Mask, b"bytes", &signature));
        assert!(!is_signed(&one.verifying(), Stage::Check, b"bytes", &signature));
        assert!(!is_signed(&one.verifying(), Stage::Mask, b"bytez", &signature));
        for at in 0..SIGNATURE_BYTES {
            let mut changed = signature;
            changed[at] ^= 1;
            assert!(!is_signed(&one.verifying(), Stage::Mask, b"bytes", &changed), "{at}");
        }
    }

    /// RFC 8032, section 7.1, tests 2 and 3.
    #[test]
    fn published_signatures_are_made() {
        let cases = [
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &[0x72][..],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                &[0xaf, 0x82][..],
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (secret, public, message, signature) in cases {
            let key = SigningKey::from_bytes(&secret.parse::<Hex<32>>().unwrap().0);
            assert_eq!(Hex(key.verifying_key().to_bytes()).to_string(), public);
            assert_eq!(Hex(key.sign(message).to_bytes()).to_string(), signature);
        }
    }

    #[test]
    fn keys_of_small_order_are_none() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(!is_verifying_key(&Hex(identity)));
        assert!(is_verifying_key(&Identity::of([3; 32]).verifying()));
    }

    #[test]
    fn purposes_have_different_secrets() {
        assert_ne!(derived(&[1; 32], "signing key"), derived(&[1; 32], "sealing key"));
        assert_ne!(derived(&[1; 32], "signing key"), derived(&[2; 32], "signing key"));
    }
}
