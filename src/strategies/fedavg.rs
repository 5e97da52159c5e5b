//! The model moves by the merged delta, times a learning rate.
//!
//! - Paper: McMahan et al., Communication-efficient learning of deep networks from decentralized data, 2017,
//!   algorithm 1; with the server's learning rate, Reddi et al., Adaptive federated optimization, 2021, algorithm 1.
//! - Step: `x += lr * delta`.

use crate::kernels::server_step::ServerStep;
use crate::settings::{Positive, RegistryEntry, Setting, spec_text, value};
use crate::strategies::{StepInput, Strategy, StrategyError};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fedavg",
    summary: "The model moves by the merged delta, times a learning rate.",
    settings: &[Setting::new("lr", "1", "the server's learning rate")],
    parse: |settings| Ok(Box::new(FedAvg { lr: settings.take("lr")? })),
};

/// Federated averaging.
#[derive(Clone, Copy, Default, Debug)]
pub struct FedAvg {
    lr: Option<Positive>,
}

impl FedAvg {
    fn lr(&self) -> f64 {
        self.lr.map_or(1.0, |lr| lr.0)
    }
}

impl fmt::Display for FedAvg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("fedavg", &[("lr", value(&self.lr))]))
    }
}

impl Strategy for FedAvg {
    fn name(&self) -> &'static str {
        "fedavg"
    }

    fn is_plain(&self) -> bool {
        self.lr() == 1.0
    }

    fn step(&self, _: &StepInput) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Average { lr: self.lr() })
    }
}
