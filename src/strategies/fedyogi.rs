//! A second moment that moves by no more than the squared delta shortens a coordinate's steps.
//!
//! - Paper: Reddi et al., Adaptive federated optimization, 2021, algorithm 2; Zaheer et al., Adaptive methods for
//!   nonconvex optimization, 2018.
//! - Step: `m = beta1 * m + (1 - beta1) * delta; v -= (1 - beta2) * delta^2 * sign(v - delta^2); x += lr * m / (sqrt(v)
//!   + tau)`.
//! - Keeps: `m`, zero before the first round, and `v`.
//! - Details: the square is the square of the delta. An early version of the paper had the square of `m`.
//! - Elsewhere: Flower starts `v` at zero. TensorFlow Federated has a `beta2` of 0.999, starts `v` at 1e-6 and corrects
//!   as Adam does. OpenFL keeps a factor `beta2` on `v`, which is not Yogi and not offered here.

use crate::kernels::server_step::SecondMoment;
use crate::settings::{Definition, RegistryEntry, Settings, SpecError};
use crate::strategies::adaptive::{Adaptive, Correction, Defaults};
use crate::strategies::{Strategy, fedadam};

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fedyogi",
    summary: "The server steps by Yogi: as fedadam, with a second moment that moves by no more than the \
              squared delta.",
    settings: &fedadam::settings("0.01"),
    parse,
};

fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
    let paper = Defaults { lr: 0.01, ..Defaults::PAPER };
    let defaults = match settings.definition() {
        Definition::Paper | Definition::Byzfl => paper,
        definition @ (Definition::Flower | Definition::FlowerLegacy) => {
            Defaults { definition, v0: Some(0.0), ..paper }
        }
        definition @ Definition::Tff => {
            Defaults { definition, beta2: 0.999, v0: Some(1e-6), correction: Correction::Adam, ..paper }
        }
    };
    Ok(Box::new(Adaptive::parse("fedyogi", SecondMoment::Yogi, defaults, settings)?))
}
