//! Durations in the settings of a federation.

pub use crate::settings::duration::Friendly;
use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(time: &SignedDuration, serializer: S) -> Result<S::Ok, S::Error> {
    Friendly(*time).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    Ok(Friendly::deserialize(deserializer)?.0)
}

/// Two optional durations.
pub(super) mod bounds {
    use super::{Deserialize, Deserializer, Friendly, Serialize, Serializer, SignedDuration};

    pub(in crate::config) fn serialize<S: Serializer>(
        bounds: &Option<[SignedDuration; 2]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bounds.map(|bounds| bounds.map(Friendly)).serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[SignedDuration; 2]>, D::Error> {
        let bounds = Option::<[Friendly; 2]>::deserialize(deserializer)?;
        Ok(bounds.map(|bounds| bounds.map(|time| time.0)))
    }
}
