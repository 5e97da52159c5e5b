//! `[monitoring]`: what is exported after every round.

use crate::config::values::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is exported after every round.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Monitoring {
    /// Whether to write `metrics/fedmill.prom` for the textfile collector of node_exporter.
    #[schemars(extend("x-origin" = "`grafana`", "x-reader" = "report"))]
    pub prometheus: bool,
    /// Whether to write event files for TensorBoard into `metrics/`.
    #[schemars(extend("x-origin" = "`tensorboard`", "x-reader" = "report"))]
    pub tensorboard: bool,
    /// Whether to write `metrics/rounds.jsonl`.
    #[schemars(extend("x-origin" = "fedmill, for the volume `logs`", "x-reader" = "report"))]
    pub json_lines: bool,
    /// Whether to write `report.html` after every round, which takes longer with every round. `fedmill round report
    /// --html FILE` writes the page at any time.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "report"))]
    pub html: bool,
    /// Whether to export figures of single clients under privacy too.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "report"))]
    pub clients_under_privacy: bool,
    /// The number of rounds that the convergence rate looks at, at least 2.
    #[schemars(extend("x-origin" = "fedmill, for `convergence_rate`", "x-reader" = "report"))]
    pub window: u64,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            prometheus: true,
            tensorboard: true,
            json_lines: true,
            html: false,
            clients_under_privacy: false,
            window: 10,
        }
    }
}

impl Monitoring {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        values.of("monitoring").check("window", self.window >= 2, self.window, "at least 2 rounds");
    }
}
