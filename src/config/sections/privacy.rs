//! `[privacy]`: the budget of differential privacy.

use crate::config::values::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The budget of differential privacy.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Privacy {
    /// Whether rounds are released under the budget.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "init, open, aggregate"))]
    pub enabled: bool,
    /// The epsilon that all rounds may spend together.
    #[schemars(extend("x-origin" = "`epsilon_budget`, `PRIVACY_BUDGET`", "x-reader" = "init, open"))]
    pub epsilon: f64,
    /// The delta of that epsilon, below 1 / the number of clients in the registry.
    #[schemars(extend("x-origin" = "`delta`", "x-reader" = "init"))]
    pub delta: f64,
    /// The standard deviation of the noise, divided by the clip bound.
    #[schemars(extend("x-origin" = "`noise_multiplier`", "x-reader" = "init"))]
    pub noise_multiplier: f64,
    /// The clip bound: the largest L2 norm of an update.
    #[schemars(extend("x-origin" = "fedmill, for `_calculate_sensitivity`", "x-reader" = "init"))]
    pub clip: f64,
    /// Whether the clip bound follows a quantile of the norms.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "init"))]
    pub adaptive_clip: bool,
}

impl Default for Privacy {
    fn default() -> Self {
        Self {
            enabled: false,
            epsilon: 10.0,
            delta: 1e-5,
            noise_multiplier: 1.0,
            clip: 1.0,
            adaptive_clip: false,
        }
    }
}

impl Privacy {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("privacy");
        values.positive("epsilon", self.epsilon);
        let between = self.delta > 0.0 && self.delta < 1.0;
        values.check("delta", between, self.delta, "a number between 0 and 1");
        values.positive("noise_multiplier", self.noise_multiplier);
        values.positive("clip", self.clip);
    }
}
