//! `[tiers]`: classes of devices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Classes of devices.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Tiers {
    /// A file of tiers as `clients tiers` writes it, from the state directory. Unset: all clients are one tier.
    #[schemars(extend(
        "x-origin" = "`device_tiers`, `device_profiles`, `adaptive_aggregation`",
        "x-reader" = "open, aggregate, adapt",
        "x-example" = "tiers.json"
    ))]
    pub file: Option<PathBuf>,
}
