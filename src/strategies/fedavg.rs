//! The model moves by the merged delta, times a learning rate.
//!
//! - Paper: McMahan et al., Communication-efficient learning of deep networks from decentralized data, 2017,
//!   algorithm 1; with the server's learning rate, Reddi et al., Adaptive federated optimization, 2021, algorithm 1.
//! - Arguments: `lr`, the server's learning rate (default 1).

use crate::kernels::server_step::ServerStep;
use crate::settings::{Positive, Settings, SpecError, written};
use crate::strategies::{Decided, Strategy, StrategyError};
use std::fmt::{self, Display};

/// Federated averaging.
#[derive(Clone, Copy, Default, Debug)]
pub struct FedAvg {
    lr: Option<Positive>,
}

impl FedAvg {
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
        Ok(Box::new(Self { lr: settings.take("lr")? }))
    }

    fn lr(&self) -> f64 {
        self.lr.map_or(1.0, |lr| lr.0)
    }
}

impl Display for FedAvg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written("fedavg", &[("lr", self.lr.as_ref().map(|lr| lr as &dyn Display))]))
    }
}

impl Strategy for FedAvg {
    fn name(&self) -> &'static str {
        "fedavg"
    }

    fn is_plain(&self) -> bool {
        self.lr() == 1.0
    }

    fn step(&self, _: &Decided) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Average { lr: self.lr() })
    }
}
