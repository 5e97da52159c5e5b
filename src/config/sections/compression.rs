//! `[compression]`: codecs and budgets of bytes.

use crate::codecs;
use crate::config::values::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Codecs and budgets of bytes.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Compression {
    /// The codecs that clients may use, as `compress --codec` takes them. An empty list: updates come as they are.
    #[schemars(extend(
        "x-origin" = "`methods`: `quantization` is `u8`, `sparsification` `topk`, `sketching` `sketch`, \
                      `structured_updates` `lowrank`",
        "x-reader" = "open, adapt"
    ))]
    pub methods: Vec<String>,
    /// The size of an update, relative to the model, that clients aim at.
    #[schemars(extend(
        "x-origin" = "`target_compression`, `compression_rate`, `COMMUNICATION_COMPRESSION`",
        "x-reader" = "open"
    ))]
    pub target: f64,
    /// The most bytes of one update. Unset: no bound.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open, collect", "x-example" = 1000000))]
    pub bytes_per_update: Option<u64>,
    /// Whether clients that hold an earlier model are offered a delta.
    #[schemars(extend("x-origin" = "fedmill, for the edge caching of the source", "x-reader" = "open"))]
    pub downlink_deltas: bool,
}

impl Default for Compression {
    fn default() -> Self {
        Self { methods: Vec::new(), target: 0.01, bytes_per_update: None, downlink_deltas: true }
    }
}

impl Compression {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("compression");
        for codec in &self.methods {
            values.parsed("methods", codec, codecs::parse(codec));
        }
        values.positive_share("target", self.target);
        self.bytes_per_update.inspect(|bytes| values.count("bytes_per_update", *bytes));
    }
}
