//! A step of its own for every coordinate, by a second moment that moves by no more than the squared delta.
//!
//! - Paper: Reddi et al., Adaptive federated optimization, 2021, algorithm 2; Zaheer et al., Adaptive methods for
//!   nonconvex optimization, 2018: `v = v - (1 - beta2) * delta^2 * sign(v - delta^2)`, the rest as in
//!   [`fedadam`](super::fedadam). The square is that of the delta, not of `m`, as an early version of the text had it.
//! - Arguments: those of [`fedadam`](super::fedadam); the default of `lr` is 0.01.
//! - Keeps: `m`, zero before the first round, and `v`.
//! - Elsewhere: Flower starts `v` at zero. TensorFlow Federated has a `beta2` of 0.999, starts `v` at 1e-6 and corrects
//!   as Adam does. OpenFL's keeps a factor `beta2` on `v`, so that it is not Yogi; it is not offered.

use crate::kernels::server_step::SecondMoment;
use crate::settings::Definition;
use crate::settings::{Settings, SpecError};
use crate::strategies::Strategy;
use crate::strategies::adaptive::{Adaptive, Correction, Defaults};

pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
    let paper = Defaults { lr: 0.01, ..Defaults::PAPER };
    let defaults = match settings.definition() {
        Definition::Paper | Definition::Byzfl => paper,
        definition @ Definition::Flower => Defaults { definition, v0: Some(0.0), ..paper },
        definition @ Definition::Tff => {
            Defaults { definition, beta2: 0.999, v0: Some(1e-6), correction: Correction::Adam, ..paper }
        }
    };
    Ok(Box::new(Adaptive::parse("fedyogi", SecondMoment::Yogi, defaults, settings)?))
}
