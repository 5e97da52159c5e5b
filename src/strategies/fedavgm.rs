//! The model moves by a discounted sum of the merged deltas.
//!
//! - Paper: Hsu, Qi and Brown, Measuring the effects of non-identical data distribution for federated visual
//!   classification, 2019, section 4.3.
//! - Step: `m = momentum * m + delta; x += lr * m`.
//! - Keeps: `m`, zero before the first round.
//! - Elsewhere: Flower does the same, without Nesterov's look ahead; its default is no momentum.

use crate::kernels::server_step::ServerStep;
use crate::model::state::{KeptTensor, StateTensor};
use crate::settings::numbers::Decay;
use crate::settings::{Positive, RegistryEntry, Setting, spec_text, value};
use crate::strategies::{StepInput, Strategy, StrategyError};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fedavgm",
    summary: "The model moves by a discounted sum of the merged deltas.",
    settings: &[
        Setting::new("lr", "1", "the server's learning rate"),
        Setting::new("momentum", "0.9", "the part of the sum that stays"),
    ],
    parse: |settings| {
        Ok(Box::new(FedAvgM { lr: settings.take("lr")?, momentum: settings.take("momentum")? }))
    },
};

/// Federated averaging with server momentum.
#[derive(Clone, Copy, Debug)]
pub struct FedAvgM {
    lr: Option<Positive>,
    momentum: Option<Decay>,
}

impl fmt::Display for FedAvgM {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [("lr", value(&self.lr)), ("momentum", value(&self.momentum))];
        f.write_str(&spec_text("fedavgm", &settings))
    }
}

impl Strategy for FedAvgM {
    fn name(&self) -> &'static str {
        "fedavgm"
    }

    fn keeps(&self) -> Vec<KeptTensor> {
        vec![KeptTensor { slot: StateTensor::Momentum, initial: 0.0 }]
    }

    fn step(&self, _: &StepInput) -> Result<ServerStep, StrategyError> {
        let lr = self.lr.map_or(1.0, |lr| lr.0);
        Ok(ServerStep::Momentum { lr, momentum: self.momentum.map_or(0.9, |momentum| momentum.0) })
    }
}
