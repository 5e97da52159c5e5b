//! `[personalization]`: layers that stay with the clients.

use crate::engine::intake::personal::Layers;
use crate::round::config::values::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Layers that stay with the clients.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Personalization {
    /// Layers that are not merged, as `aggregate --personal` takes them.
    #[schemars(extend("x-origin" = "`personalization_layers`", "x-reader" = "open, validate, aggregate"))]
    pub layers: Vec<String>,
}

impl Personalization {
    pub(in crate::round::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("personalization");
        for layers in &self.layers {
            values.parsed("layers", layers, layers.parse::<Layers>());
        }
    }
}
