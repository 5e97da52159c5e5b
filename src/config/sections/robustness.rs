//! `[robustness]`: the rule, and the checks against hostile clients.

use crate::config::values::Values;
use crate::rules::{self, pre};
use crate::settings::Definition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rule, and the checks against hostile clients.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Robustness {
    /// The rule that combines updates, as `aggregate --rule` takes it.
    #[schemars(extend("x-origin" = "`aggregation_rules`", "x-reader" = "aggregate"))]
    pub rule: String,
    /// Steps before the rule, in order, as `aggregate --pre` takes them. `["outliers"]` leaves out outliers.
    #[schemars(extend("x-origin" = "`outlier_detection`", "x-reader" = "aggregate"))]
    pub pre: Vec<String>,
    /// The share of clients to assume hostile, below 0.5; 0 for none.
    #[schemars(extend(
        "x-origin" = "`byzantine_tolerance`, `byzantine_ratio`, `BYZANTINE_TOLERANCE`",
        "x-reader" = "aggregate"
    ))]
    pub byzantine_tolerance: f64,
    /// What a round does with a bad update: `skip` moves it to quarantine, `fail` refuses the round.
    #[schemars(extend("x-origin" = "fedmill, for `_validate_updates`", "x-reader" = "aggregate, evaluate"))]
    pub on_bad_update: OnBad,
    /// The source of weights: `examples`, `uniform`, `metadata:KEY`, or a file of client ids and weights. Unset:
    /// examples, if the updates state them.
    #[schemars(extend(
        "x-origin" = "fedmill, for `_calculate_aggregation_weights`",
        "x-reader" = "aggregate",
        "x-example" = "uniform"
    ))]
    pub weights: Option<String>,
    /// The most examples that a client counts with. Unset: no bound.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "validate, aggregate", "x-example" = 10000.0))]
    pub max_examples: Option<f64>,
}

/// What a round does with a bad update.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum OnBad {
    /// Moves it to quarantine.
    #[default]
    Skip,
    /// Refuses the round.
    Fail,
}

impl Default for Robustness {
    fn default() -> Self {
        Self {
            rule: "trimmed-mean".to_owned(),
            pre: Vec::new(),
            byzantine_tolerance: 0.3,
            on_bad_update: OnBad::Skip,
            weights: None,
            max_examples: None,
        }
    }
}

impl Robustness {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("robustness");
        values.parsed("rule", &self.rule, rules::parse(&self.rule, Definition::Paper));
        for step in &self.pre {
            values.parsed("pre", step, pre::parse(step));
        }
        let tolerance = self.byzantine_tolerance;
        let below_half = (0.0..0.5).contains(&tolerance);
        values.check("byzantine_tolerance", below_half, tolerance, "a share from 0 to below 0.5");
        if let Some(weights) = self.weights.as_deref().filter(|text| ["", "metadata:"].contains(text)) {
            values.check("weights", false, weights, "examples, uniform, metadata:KEY or a file");
        }
        self.max_examples.inspect(|most| values.positive("max_examples", *most));
    }
}
