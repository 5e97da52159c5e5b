//! Signed texts: one line of JSON, and one line with the signature over the bytes of the first.
//!
//! A reader verifies the bytes as they stand before it reads the JSON, and writes none anew to verify it.

use crate::io::publish::stage;
use crate::io::source::read_at_most;
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, SIGNATURE_BYTES, Stage, is_signed};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The most bytes of a signed text: a manifest of many clients and tensors.
const MOST_BYTES: u64 = 256 << 20;

/// A signed text whose signature is not verified yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedText {
    text: String,
    json_bytes: usize,
    signature: Hex<SIGNATURE_BYTES>,
}

impl SignedText {
    /// Signs a value.
    ///
    /// # Errors
    ///
    /// When it has no JSON.
    pub fn sign(value: &impl Serialize, stage: Stage, identity: &Identity) -> Result<Self, SecureError> {
        let json = serde_json::to_string(value)
            .map_err(|why| SecureError::terms(stage.to_string(), why.to_string()))?;
        let signature = Hex(identity.sign(stage, json.as_bytes()));
        Ok(Self { text: format!("{json}\n{signature}\n"), json_bytes: json.len(), signature })
    }

    /// Reads a signed text.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has another form.
    pub fn read(path: &Path) -> Result<Self, SecureError> {
        let bytes = read_at_most(path, MOST_BYTES).map_err(SecureError::io(path))?;
        Self::parse(bytes).map_err(SecureError::file(path))
    }

    /// The signed text of these bytes.
    ///
    /// # Errors
    ///
    /// When they have another form.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, MessageFault> {
        let text = String::from_utf8(bytes).map_err(|_| MessageFault::OtherForm)?;
        let lines = text.strip_suffix('\n').and_then(|lines| lines.split_once('\n'));
        let (json, signature) = lines.ok_or(MessageFault::OtherForm)?;
        let signature = signature.parse().map_err(|_| MessageFault::OtherForm)?;
        let json_bytes = json.len();
        Ok(Self { json_bytes, signature, text })
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The value, if the holder of `key` signed it.
    ///
    /// # Errors
    ///
    /// When it is not signed so, or is no such value.
    pub fn verified<T: DeserializeOwned>(
        &self,
        stage: Stage,
        sender: &str,
        key: &Hex<32>,
    ) -> Result<T, MessageFault> {
        let json = &self.text[..self.json_bytes];
        if !is_signed(key, stage, json.as_bytes(), &self.signature.0) {
            return Err(MessageFault::Signature(sender.to_owned()));
        }
        self.unverified()
    }

    /// The value without a look at the signature: only to find the key by which to verify it.
    ///
    /// # Errors
    ///
    /// When it is no such value.
    pub fn unverified<T: DeserializeOwned>(&self) -> Result<T, MessageFault> {
        serde_json::from_str(&self.text[..self.json_bytes])
            .map_err(|why| MessageFault::Format(why.to_string()))
    }

    /// Publishes the text at a path, on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish(&self, path: &Path) -> Result<(), SecureError> {
        let staged = stage(path, self.bytes()).map_err(SecureError::io(path))?;
        staged.publish_on_disk(path).map_err(SecureError::io(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_byte_is_noticed() {
        let identity = Identity::of([1; 32]);
        let signed = SignedText::sign(&("value", 7), Stage::Check, &identity).unwrap();
        let read = |bytes: Vec<u8>| {
            let text = SignedText::parse(bytes)?;
            text.verified::<(String, u32)>(Stage::Check, "party", &identity.verifying())
        };
        assert_eq!(read(signed.bytes().to_vec()), Ok(("value".to_owned(), 7)));
        for at in 0..signed.bytes().len() {
            for bit in 0..8 {
                let mut changed = signed.bytes().to_vec();
                changed[at] ^= 1 << bit;
                assert!(read(changed).is_err(), "byte {at}, bit {bit}");
            }
            assert!(read(signed.bytes()[..at].to_vec()).is_err(), "cut at {at}");
        }
        assert!(read([signed.bytes(), b"\n"].concat()).is_err());
        assert!(signed.verified::<(String, u32)>(Stage::Help, "party", &identity.verifying()).is_err());
    }
}
