//! `[evaluation]`: the operator's command that measures a model.

use crate::config::duration;
use crate::config::values::Values;
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The operator's command that measures a model.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Evaluation {
    /// The program and its arguments. It prints one JSON object of numbers. An empty list: no evaluation.
    #[schemars(extend("x-origin" = "fedmill, for `_evaluate_round`", "x-reader" = "evaluate"))]
    pub command: Vec<String>,
    /// The time after which the command is ended.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "evaluate"))]
    pub timeout: SignedDuration,
    /// The metric that guards publishing. Unset: every finite model is published.
    #[schemars(extend(
        "x-origin" = "fedmill, for `model_accuracy`",
        "x-reader" = "evaluate",
        "x-example" = "accuracy"
    ))]
    pub metric: Option<String>,
    /// Whether a larger value of the metric is better.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "evaluate"))]
    pub higher_is_better: bool,
    /// How much worse than the last published model a model may be, in units of the metric.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "evaluate"))]
    pub max_regression: f64,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            timeout: SignedDuration::from_secs(600),
            metric: None,
            higher_is_better: true,
            max_regression: 0.0,
        }
    }
}

impl Evaluation {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("evaluation");
        values.positive_time("timeout", self.timeout);
        values.not_negative("max_regression", self.max_regression);
    }
}
