//! Durations as an operator writes them, in jiff's friendly format: `300s`, `5m`, `1h 30m`.

use jiff::SignedDuration;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A duration that displays in the friendly format.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Friendly(pub SignedDuration);

impl fmt::Display for Friendly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl Serialize for Friendly {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Friendly {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Friendly;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"300s\" or \"1h 30m\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Friendly, E> {
                let time = text.parse().map(Friendly);
                time.map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

pub(super) fn serialize<S: Serializer>(time: &SignedDuration, serializer: S) -> Result<S::Ok, S::Error> {
    Friendly(*time).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    Ok(Friendly::deserialize(deserializer)?.0)
}

/// Two optional durations.
pub(super) mod bounds {
    use super::{Deserialize, Deserializer, Friendly, Serialize, Serializer, SignedDuration};

    pub(in crate::round::config) fn serialize<S: Serializer>(
        bounds: &Option<[SignedDuration; 2]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bounds.map(|bounds| bounds.map(Friendly)).serialize(serializer)
    }

    pub(in crate::round::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[SignedDuration; 2]>, D::Error> {
        let bounds = Option::<[Friendly; 2]>::deserialize(deserializer)?;
        Ok(bounds.map(|bounds| bounds.map(|time| time.0)))
    }
}
