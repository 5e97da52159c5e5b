//! The model moves by a discounted sum of the merged deltas.
//!
//! - Paper: Hsu, Qi and Brown, Measuring the effects of non-identical data distribution for federated visual
//!   classification, 2019, section 4.3: `m = momentum * m + delta; x += lr * m`.
//! - Arguments: `lr`, the server's learning rate (default 1); `momentum` (default 0.9).
//! - Keeps: the sum `m`, zero before the first round.
//! - Elsewhere: Flower's is the same, without Nesterov's look ahead, but off unless it is told a momentum.

use crate::kernels::server_step::ServerStep;
use crate::model::state::KeptTensor;
use crate::model::state::StateTensor;
use crate::settings::numbers::{Decay, shown};
use crate::settings::{Positive, Settings, SpecError, written};
use crate::strategies::{Decided, Strategy, StrategyError};
use std::fmt;

/// Federated averaging with server momentum.
#[derive(Clone, Copy, Debug)]
pub struct FedAvgM {
    lr: Option<Positive>,
    momentum: Option<Decay>,
}

impl FedAvgM {
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
        Ok(Box::new(Self { lr: settings.take("lr")?, momentum: settings.take("momentum")? }))
    }
}

impl fmt::Display for FedAvgM {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [("lr", shown(&self.lr)), ("momentum", shown(&self.momentum))];
        f.write_str(&written("fedavgm", &settings))
    }
}

impl Strategy for FedAvgM {
    fn name(&self) -> &'static str {
        "fedavgm"
    }

    fn keeps(&self) -> Vec<KeptTensor> {
        vec![KeptTensor { slot: StateTensor::Momentum, initial: 0.0 }]
    }

    fn step(&self, _: &Decided) -> Result<ServerStep, StrategyError> {
        let lr = self.lr.map_or(1.0, |lr| lr.0);
        Ok(ServerStep::Momentum { lr, momentum: self.momentum.map_or(0.9, |momentum| momentum.0) })
    }
}
