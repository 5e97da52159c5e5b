//! `[publish]`: the models that are kept.

use crate::config::values::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The models that are kept.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Publish {
    /// The number of the latest models that are kept.
    #[schemars(extend("x-origin" = "fedmill, for the volume `models`", "x-reader" = "report"))]
    pub keep_last: u64,
    /// Of earlier models every this many is kept; 0 for none.
    #[schemars(extend("x-origin" = "fedmill, for the volume `checkpoints`", "x-reader" = "report"))]
    pub keep_every: u64,
    /// The number of the latest rounds whose updates are kept.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "report"))]
    pub keep_updates: u64,
}

impl Default for Publish {
    fn default() -> Self {
        Self { keep_last: 5, keep_every: 0, keep_updates: 1 }
    }
}

impl Publish {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        values.of("publish").count("keep_last", self.keep_last);
    }
}
