//! `[secure_aggregation]`: sums that hide single updates.

use crate::config::values::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sums that hide single updates. This version has none: it refuses `enabled = true`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct SecureAggregation {
    /// Whether updates come masked. Not available in this version: `true` is refused.
    #[schemars(extend("x-origin" = "`ENCRYPTION_ENABLED`", "x-reader" = "check"))]
    pub enabled: bool,
    /// The share of clients whose shares unmask the sum. It has no effect while `enabled` is `false`.
    #[schemars(extend("x-origin" = "`threshold`", "x-reader" = "check"))]
    pub threshold: f64,
}

impl Default for SecureAggregation {
    fn default() -> Self {
        Self { enabled: false, threshold: 0.6 }
    }
}

impl SecureAggregation {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("secure_aggregation");
        values.check(
            "enabled",
            !self.enabled,
            "true",
            "false: masked sums are not available in this version",
        );
        values.positive_share("threshold", self.threshold);
    }
}
