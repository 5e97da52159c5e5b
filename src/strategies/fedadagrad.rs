//! A step of its own for every coordinate, by the sum of all its squared deltas.
//!
//! - Paper: Reddi et al., Adaptive federated optimization, 2021, algorithm 2: `v = v + delta^2`, the rest as in
//!   [`fedadam`](super::fedadam).
//! - Arguments: `lr` (default 0.1), `beta1` (default 0: no momentum), `tau` (1e-3) and `v0` (the square of tau) as in
//!   [`fedadam`](super::fedadam). `bias-correction` can only be `none`: `v` is a sum, and starts low for a reason.
//! - Keeps: `m`, zero before the first round, and `v`.
//! - Elsewhere: Flower starts `v` at zero. TensorFlow Federated starts it at 0.1, and its epsilon, our `tau`, is 1e-7
//!   and stands under the root: `x += lr * delta / sqrt(v + tau)`. That is what a `v` that starts `tau` higher gives
//!   with nothing beside the root, and so it is kept.

use crate::kernels::server_step::SecondMoment;
use crate::settings::Definition;
use crate::settings::{Settings, SpecError};
use crate::strategies::Strategy;
use crate::strategies::adaptive::{Adaptive, Defaults};

pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
    let paper = Defaults { beta1: 0.0, ..Defaults::PAPER };
    let defaults = match settings.definition() {
        Definition::Paper | Definition::Byzfl => paper,
        definition @ Definition::Flower => Defaults { definition, v0: Some(0.0), ..paper },
        definition @ Definition::Tff => {
            Defaults { definition, tau: 1e-7, v0: Some(0.1), tau_under_root: true, ..paper }
        }
    };
    Ok(Box::new(Adaptive::parse("fedadagrad", SecondMoment::Adagrad, defaults, settings)?))
}
