//! The average of clients that were held near the model they started from.
//!
//! - Paper: Li et al., Federated optimization in heterogeneous networks, 2020, algorithm 2.
//! - Arguments: `mu`, the weight of the clients' proximal term `(mu / 2) * |w - w_t|^2`; it must be given, and is told
//!   to the clients of the next round as metadata `proximal_mu`.
//! - Elsewhere: the term is the clients' alone, and the server of the paper, of Flower and of others takes the plain
//!   average. Some servers shrink the merged model towards the base by `mu` instead, or as well: that is a smaller
//!   learning rate under another name, and is not offered. Who wants it writes `fedavg:lr=X`.

use crate::kernels::server_step::ServerStep;
use crate::settings::numbers::NotNegative;
use crate::settings::{Settings, SpecError, written};
use crate::strategies::{Decided, Strategy, StrategyError};
use std::fmt;

/// FedProx.
#[derive(Clone, Copy, Debug)]
pub struct FedProx {
    mu: NotNegative,
}

impl FedProx {
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
        Ok(Box::new(Self { mu: settings.require("mu", "0.01")? }))
    }
}

impl fmt::Display for FedProx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written("fedprox", &[("mu", Some(&self.mu))]))
    }
}

impl Strategy for FedProx {
    fn name(&self) -> &'static str {
        "fedprox"
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn step(&self, _: &Decided) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Average { lr: 1.0 })
    }

    fn tells(&self) -> Vec<(&'static str, String)> {
        vec![("proximal_mu", self.mu.to_string())]
    }
}
