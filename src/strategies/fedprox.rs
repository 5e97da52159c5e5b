//! The average of clients whose loss keeps them near the model they start from.
//!
//! - Paper: Li et al., Federated optimization in heterogeneous networks, 2020, algorithm 2.
//! - Step: `x += delta`.
//! - Details: the merged model carries `mu` to the clients of the next round as metadata `proximal_mu`.
//! - Elsewhere: only clients have the term; the server of the paper, of Flower and of others takes the plain average.
//!   Some servers shrink the merged model towards the base by `mu` instead, or as well. That is a smaller learning rate
//!   under another name, and not offered here: an operator who wants it writes `fedavg:lr=X`.

use crate::kernels::server_step::ServerStep;
use crate::settings::numbers::NotNegative;
use crate::settings::{RegistryEntry, Setting, spec_text};
use crate::strategies::{StepInput, Strategy, StrategyError};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fedprox",
    summary: "The average of clients whose loss keeps them near the model they start from.",
    settings: &[Setting::required(
        "mu",
        "0.01",
        "the weight of the clients' proximal term `(mu / 2) * |w - w_t|^2`",
    )],
    parse: |settings| Ok(Box::new(FedProx { mu: settings.require("mu")? })),
};

/// FedProx.
#[derive(Clone, Copy, Debug)]
pub struct FedProx {
    mu: NotNegative,
}

impl fmt::Display for FedProx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("fedprox", &[("mu", Some(&self.mu))]))
    }
}

impl Strategy for FedProx {
    fn name(&self) -> &'static str {
        "fedprox"
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn step(&self, _: &StepInput) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Average { lr: 1.0 })
    }

    fn tells(&self) -> Vec<(&'static str, String)> {
        vec![("proximal_mu", self.mu.to_string())]
    }
}
