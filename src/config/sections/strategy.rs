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
}

impl Default for Strategy {
    fn default() -> Self {
        Self { name: "fedavg".to_owned(), mu: 0.1, local_steps: 1 }
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
