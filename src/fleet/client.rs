//! A client: what it can do, what it demands, and what it did so far.

use crate::model::client_id::{forbidden, is_sound, nfc};
use serde::{Deserialize, Serialize};

/// Bytes of the longest id: it must name a file.
const LONGEST_ID: usize = 200;

/// A client as it registers.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Profile {
    /// Its id, in Unicode NFC. It can name a file.
    #[serde(rename = "node_id")]
    pub id: String,
    /// Its speed, in any unit; larger is faster.
    pub compute_capability: f64,
    /// Its number of examples.
    pub data_size: f64,
    /// The quality of its connection, from 0 to 1.
    pub connection_quality: f64,
    /// Its memory, in any unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// Its bandwidth, in any unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<f64>,
    /// What it demands for its privacy.
    pub privacy_requirements: PrivacyRequirements,
    /// Its class of devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Its public key, as text. For secure aggregation: the `ed25519` that `secagg keygen` writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The time of its last update, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<i64>,
    /// When it was retired, in seconds since 1970; `None` while it may be selected.
    pub retired_at: Option<i64>,
}

/// What a client demands for its privacy.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct PrivacyRequirements {
    /// The most epsilon that the federation may spend; `None` for no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// Whether it takes part under secure aggregation only.
    #[serde(default)]
    pub secure_aggregation: bool,
    /// The least threshold of secure aggregation, from 0 to 1; `None` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_secagg_threshold: Option<f64>,
}

impl Profile {
    /// Checks every value, and brings the id into Unicode NFC.
    ///
    /// # Errors
    ///
    /// The first value out of its range: its key, what was found and what was expected.
    pub fn checked(mut self) -> Result<Self, String> {
        self.id = nfc(&self.id);
        check_id(&self.id)?;
        let PrivacyRequirements { epsilon, min_secagg_threshold, .. } = self.privacy_requirements;
        for (key, value, most) in [
            ("compute_capability", Some(self.compute_capability), f64::MAX),
            ("data_size", Some(self.data_size), f64::MAX),
            ("connection_quality", Some(self.connection_quality), 1.0),
            ("memory", self.memory, f64::MAX),
            ("bandwidth", self.bandwidth, f64::MAX),
            ("epsilon", epsilon, f64::MAX),
            ("min_secagg_threshold", min_secagg_threshold, 1.0),
        ] {
            if let Some(value) = value.filter(|value| !(0.0..=most).contains(value)) {
                let range = if most == 1.0 { "from 0 to 1" } else { "that is finite and not negative" };
                return Err(format!("{key} is {value}, expected a number {range}"));
            }
        }
        for (key, text) in [("tier", &self.tier), ("public_key", &self.public_key)] {
            if text.as_ref().is_some_and(|text| !is_sound(text)) {
                return Err(format!(
                    "{key}: expected 1 to 1024 bytes without control or invisible characters"
                ));
            }
        }
        Ok(self)
    }

    /// Whether it takes part under secure aggregation only. A threshold above 0 demands it too.
    pub fn needs_secure_aggregation(&self) -> bool {
        let PrivacyRequirements { secure_aggregation, min_secagg_threshold, .. } = self.privacy_requirements;
        secure_aggregation || min_secagg_threshold.is_some_and(|threshold| threshold > 0.0)
    }
}

/// Whether a client of this id and public key may take part in secure aggregation: the key is 64 hexadecimal digits, the
/// `ed25519` that `secagg keygen` writes, and the id has letters, digits, `.`, `_` and `-`.
pub fn may_sign(id: &str, public_key: Option<&str>) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let has_key = public_key.is_some_and(|key| key.len() == 64 && key.chars().all(is_hex));
    has_key && (1..=100).contains(&id.len()) && id.chars().all(is_plain) && !id.starts_with('.')
}

/// Checks that an id can name a client and a file.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_id(id: &str) -> Result<(), String> {
    let why = if id.is_empty() {
        "is empty".to_owned()
    } else if id.len() > LONGEST_ID {
        format!("has {} bytes", id.len())
    } else if let Some(character) = forbidden(id) {
        format!("holds {}", character.escape_default())
    } else if id.contains('/') {
        "holds `/`".to_owned()
    } else if id.starts_with('.') {
        "starts with `.`".to_owned()
    } else if id.trim() != id {
        "starts or ends with a space".to_owned()
    } else {
        return Ok(());
    };
    Err(format!(
        "node_id {why}, expected a file name of 1 to {LONGEST_ID} bytes: no `/`, no leading `.`, no space at an end, no control or \
         invisible character"
    ))
}

/// A client as the registry has it.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Client {
    /// What it registered.
    #[serde(flatten)]
    pub profile: Profile,
    /// When it registered, in seconds since 1970.
    pub registered_at: i64,
    /// What it did so far.
    pub history: Totals,
}

/// What a client did in all rounds.
#[derive(Clone, PartialEq, Default, Serialize, Debug)]
pub struct Totals {
    /// The last round that selected it; for a new client the last round before it registered.
    pub last_round: u64,
    /// Rounds that selected it.
    pub selected: u64,
    /// Its updates that were merged.
    pub merged: u64,
    /// Its updates that were rejected.
    pub rejected: u64,
    /// Its updates that came after their round closed.
    pub late: u64,
    /// Rounds in which no update came.
    pub missing: u64,
    /// Rounds in which it refused to take part.
    pub refused: u64,
    /// Bytes of its updates.
    pub bytes_up: u64,
    /// Bytes that it was given.
    pub bytes_down: u64,
    /// Its last loss: the root of the mean squared loss over its examples.
    pub last_loss: Option<f64>,
    /// The round of that loss.
    pub loss_round: Option<u64>,
    /// The seconds from its last task to its update.
    pub last_duration: Option<f64>,
    /// The digest of the model that it holds.
    pub holds: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_with_a_key_and_a_plain_id_may_sign() {
        let key = "0123456789abcdef".repeat(4);
        assert!(may_sign("site-3", Some(&key)) && may_sign("a.b_c", Some(&key)));
        for (id, key) in [("site-3", None), ("site-3", Some(&key[1..])), ("site 3", Some(&key[..]))] {
            assert!(!may_sign(id, key), "{id} {key:?}");
        }
        assert!(!may_sign("a", Some(&key.to_uppercase())) && !may_sign(".a", Some(&key)));
    }

    #[test]
    fn an_id_names_a_file() {
        for sound in ["site-3", "Universit\u{e0} di Pisa", "a.b", "\u{5d0}", &"x".repeat(200)] {
            assert_eq!(check_id(sound), Ok(()));
        }
        for bad in ["", "a/b", "..", ".hidden", "a\nb", "a\u{202e}b", "a\0", &"x".repeat(201)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }
}
