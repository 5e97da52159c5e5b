//! A step of its own for every coordinate, by averages of its deltas and of their squares.
//!
//! - Paper: Reddi et al., Adaptive federated optimization, 2021, algorithm 2: `m = beta1 * m + (1 - beta1) * delta`,
//!   `v = beta2 * v + (1 - beta2) * delta^2`, `x += lr * m / (sqrt(v) + tau)`.
//! - Arguments: `lr`, the server's learning rate (default 0.1); `beta1` (0.9) and `beta2` (0.99); `tau` (1e-3), what
//!   steps are divided by at least; `v0`, what `v` is before the first round (default the square of tau);
//!   `bias-correction`, `none` (default) or `adam`: `lr * sqrt(1 - beta2^t) / (1 - beta1^t)` in round t from one.
//! - Keeps: `m`, zero before the first round, and `v`.
//! - Elsewhere: Flower starts `v` at zero and corrects by t + 1, one more than Kingma and Ba. TensorFlow Federated
//!   corrects by t, with a `beta2` of 0.999, a `tau` of 1e-7, and `v` from zero. FEDn starts `m` at
//!   `(1 - beta1) * delta`, which is the same, and has `tau` 1e-4. APPFL is as the paper, with no defaults.

use crate::kernels::server_step::SecondMoment;
use crate::settings::Definition;
use crate::settings::{Settings, SpecError};
use crate::strategies::Strategy;
use crate::strategies::adaptive::{Adaptive, Correction, Defaults};

pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
    let paper = Defaults::PAPER;
    let defaults = match settings.definition() {
        Definition::Paper | Definition::Byzfl => paper,
        definition @ Definition::Flower => {
            Defaults { definition, v0: Some(0.0), correction: Correction::Adam, ahead: 1, ..paper }
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
