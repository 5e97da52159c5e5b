//! `[personalization]`: layers that stay with the clients.

use crate::config::values::Values;
use crate::engine::intake::personal::Layers;
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
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("personalization");
        for layers in &self.layers {
            values.parsed("layers", layers, layers.parse::<Layers>());
        }
    }
}
