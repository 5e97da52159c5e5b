//! `[strategy]`: the server's step, and what clients train with.

use crate::config::values::Values;
use crate::settings::Definition;
use crate::strategies;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The server's step, and what clients train with.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Strategy {
    /// The server's step, as `aggregate --strategy` takes it. `fedprox` without settings takes its weight from `mu`.
    #[schemars(extend(
        "x-origin" = "`AGGREGATION_STRATEGY`, `default`; `hyperparameters` such as `beta1` are its settings",
        "x-reader" = "open, collect, aggregate"
    ))]
    pub name: String,
    /// The weight of FedProx's proximal term, which clients add to their loss.
    #[schemars(extend("x-origin" = "`mu`", "x-reader" = "open"))]
    pub mu: f64,
    /// The number of local steps of a client.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub local_steps: u64,
    /// What clients send: `delta`, the difference from the model of the task, or `weights`, whole models. The metadata
    /// of tasks then states it, and an update that states another kind is bad. Unset: each update states its own `kind`,
    /// and counts as weights without.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open, validate, aggregate"))]
    #[schemars(extend("x-kind" = "`delta` or `weights`", "x-example" = "weights"))]
    pub update_kind: Option<SentKind>,
}

/// What clients send.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum SentKind {
    /// The difference from the model of the task.
    Delta,
    /// Whole models.
    Weights,
}

impl SentKind {
    /// The value of the metadata `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Weights => "weights",
        }
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self { name: "fedavg".to_owned(), mu: 0.1, local_steps: 1, update_kind: None }
    }
}

impl Strategy {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("strategy");
        values.not_negative("mu", self.mu);
        values.count("local_steps", self.local_steps);
        values.parsed("name", &self.name, strategies::parse(&self.spec(), Definition::Paper));
    }

    /// The strategy as `aggregate --strategy` takes it: `fedprox` without settings gets the weight `mu`.
    pub fn spec(&self) -> String {
        match self.name.as_str() {
            "fedprox" => format!("fedprox:mu={}", self.mu),
            name => name.to_owned(),
        }
    }
}
