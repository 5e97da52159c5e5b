//! `[personalization]`: layers that stay with the clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Layers that stay with the clients.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Personalization {
    /// Layers that are not merged, as `aggregate --personal` takes them.
    #[schemars(extend("x-origin" = "`personalization_layers`", "x-reader" = "aggregate"))]
    pub layers: Vec<String>,
}
