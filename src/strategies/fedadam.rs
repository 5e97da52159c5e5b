//! The average of a coordinate's squared deltas shortens its steps.
//!
//! - Paper: Reddi et al., Adaptive federated optimization, 2021, algorithm 2.
//! - Step: `m = beta1 * m + (1 - beta1) * delta; v = beta2 * v + (1 - beta2) * delta^2; x += lr * m / (sqrt(v) + tau)`.
//! - Keeps: `m`, zero before the first round, and `v`.
//! - Details: `bias-correction=adam` takes `lr * sqrt(1 - beta2^t) / (1 - beta1^t)` in round t, counted from one.
//! - Elsewhere: Flower starts `v` at zero and corrects by t + 1, one more than Kingma and Ba. The `tau` of its first API
//!   is 1e-9. TensorFlow Federated
//!   corrects by t, with a `beta2` of 0.999, a `tau` of 1e-7, and `v` from zero. FEDn starts `m` at
//!   `(1 - beta1) * delta`, which gives the same, and has `tau` 1e-4. APPFL follows the paper, without defaults.

use crate::kernels::server_step::SecondMoment;
use crate::settings::{Definition, RegistryEntry, Setting, Settings, SpecError};
use crate::strategies::Strategy;
use crate::strategies::adaptive::{self, Adaptive, Correction, Defaults};

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fedadam",
    summary: "The server steps by Adam: the average of a coordinate's squared deltas shortens its steps.",
    settings: &settings("0.1"),
    parse,
};

/// The settings of FedAdam and FedYogi.
pub(super) const fn settings(lr: &'static str) -> [Setting; 6] {
    [
        Setting::new("lr", lr, "the server's learning rate"),
        Setting::new("beta1", "0.9", "the part of m that stays"),
        Setting::new("beta2", "0.99", "the part of v that stays"),
        adaptive::TAU,
        adaptive::V0,
        Setting::new("bias-correction", "none", "none, or adam for averages that start at zero"),
    ]
}

fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
    let paper = Defaults::PAPER;
    let defaults = match settings.definition() {
        Definition::Paper | Definition::Byzfl => paper,
        definition @ Definition::Flower => {
            Defaults { definition, v0: Some(0.0), correction: Correction::Adam, ahead: 1, ..paper }
        }
        definition @ Definition::FlowerLegacy => {
            let correction = Correction::Adam;
            Defaults { definition, tau: 1e-9, v0: Some(0.0), correction, ahead: 1, ..paper }
        }
        definition @ Definition::Tff => Defaults {
            definition,
            beta2: 0.999,
            tau: 1e-7,
            v0: Some(0.0),
            correction: Correction::Adam,
            ..paper
        },
    };
    Ok(Box::new(Adaptive::parse("fedadam", SecondMoment::Adam, defaults, settings)?))
}
