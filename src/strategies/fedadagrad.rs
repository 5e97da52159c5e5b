//! The sum of a coordinate's squared deltas shortens its steps.
//!
//! - Paper: Reddi et al., Adaptive federated optimization, 2021, algorithm 2.
//! - Step: `m = beta1 * m + (1 - beta1) * delta; v += delta^2; x += lr * m / (sqrt(v) + tau)`.
//! - Keeps: `m`, zero before the first round, and `v`.
//! - Details: the correction can only be `none`, since `v` is a sum and not an average that starts too low.
//! - Elsewhere: Flower starts `v` at zero, and the `tau` of its first API is 1e-9. TensorFlow Federated starts `v` at 0.1. Its epsilon, our `tau`, is 1e-7 and
//!   stands under the root: `x += lr * delta / sqrt(v + tau)`. A `v` that starts `tau` higher, with nothing beside the
//!   root, gives the same steps, and that is the `v` kept here.

use crate::kernels::server_step::SecondMoment;
use crate::settings::{Definition, RegistryEntry, Setting, Settings, SpecError};
use crate::strategies::Strategy;
use crate::strategies::adaptive::{self, Adaptive, Defaults};

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fedadagrad",
    summary: "The server steps by Adagrad: the sum of a coordinate's squared deltas shortens its steps.",
    settings: &[
        Setting::new("lr", "0.1", "the server's learning rate"),
        Setting::new("beta1", "0", "the part of m that stays; 0 means no momentum"),
        adaptive::TAU,
        adaptive::V0,
        Setting::new("bias-correction", "none", "always none"),
    ],
    parse,
};

fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
    let paper = Defaults { beta1: 0.0, ..Defaults::PAPER };
    let defaults = match settings.definition() {
        Definition::Paper | Definition::Byzfl => paper,
        definition @ Definition::Flower => Defaults { definition, v0: Some(0.0), ..paper },
        definition @ Definition::FlowerLegacy => Defaults { definition, tau: 1e-9, v0: Some(0.0), ..paper },
        definition @ Definition::Tff => {
            Defaults { definition, tau: 1e-7, v0: Some(0.1), tau_under_root: true, ..paper }
        }
    };
    Ok(Box::new(Adaptive::parse("fedadagrad", SecondMoment::Adagrad, defaults, settings)?))
}
