//! Which tensors the clipped vector of a private round holds: options of `init` and of the rounds.

use crate::cli::{INPUTS, PRIVACY};
use crate::engine::intake::personal::{Layers, Personal};
use crate::engine::intake::policy::{Policy, TensorPolicy};
use crate::modes::dp::statistics::DpStatistics;
use crate::options::classes::ClassOptions;
use clap::{Args, ValueEnum};

/// What a release does with statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum StatisticsChoice {
    Keep,
    Release,
}

impl From<StatisticsChoice> for DpStatistics {
    fn from(choice: StatisticsChoice) -> Self {
        match choice {
            StatisticsChoice::Keep => Self::Keep,
            StatisticsChoice::Release => Self::Release,
        }
    }
}

/// Which tensors the clipped vector holds. All commands of one plan need the same.
#[derive(Args, Debug)]
pub(super) struct VectorOptions {
    /// Leave these layers out: a pattern of tensor names such as `head.*`, or fedbn, or fedper. May be repeated.
    #[arg(long, value_name = "LAYERS", help_heading = INPUTS)]
    personal: Vec<Layers>,
    #[command(flatten)]
    classes: ClassOptions,
    /// Keep the base's running means and variances, or release them with the noise as coordinates of each update.
    #[arg(long, value_name = "WHICH", default_value = "keep", help_heading = PRIVACY)]
    dp_statistics: StatisticsChoice,
}

impl VectorOptions {
    /// A policy with these layers and classes.
    pub(super) fn policy(&self) -> Policy {
        let personal = Personal { layers: self.personal.clone() };
        let tensors = TensorPolicy { personal, classes: self.classes.patterns(), ..TensorPolicy::default() };
        Policy { tensors, ..Policy::default() }
    }

    /// What a release does with statistics.
    pub(super) fn statistics(&self) -> DpStatistics {
        self.dp_statistics.into()
    }
}
