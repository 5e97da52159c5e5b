//! The server's step: new model and moments from base, merged delta and old moments.
//!
//! Reddi et al., Adaptive federated optimization, 2021, algorithm 2; Hsu et al., Measuring the effects of
//! non-identical data distribution for federated visual classification, 2019 (momentum). In f64, coordinate by
//! coordinate. Agreement: bits on the CPU.

use crate::kernels::dispatch;
use crate::kernels::element::Merged;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The form of the step, with its numbers in this round.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ServerStep {
    /// `x += lr * delta`.
    Average {
        /// The server's learning rate.
        lr: f64,
    },
    /// `m = momentum * m + delta; x += lr * m`.
    Momentum {
        /// The server's learning rate.
        lr: f64,
        /// Factor of the last step.
        momentum: f64,
    },
    /// `m = beta1 * m + (1 - beta1) * delta; v = ..; x += lr * m / (sqrt(v) + tau)`.
    Adaptive {
        /// The server's learning rate, with a correction for bias if the strategy has one.
        lr: f64,
        /// Factor of the old `m`.
        beta1: f64,
        /// Factor of the old `v`; [`SecondMoment::Adagrad`] ignores it.
        beta2: f64,
        /// Smallest divisor of a step.
        tau: f64,
        /// The update of `v` from the squares.
        second: SecondMoment,
    },
}

impl ServerStep {
    /// The model is the base plus the merged delta.
    pub const PLAIN: Self = Self::Average { lr: 1.0 };

    /// The largest change of a value, if no merged delta is larger than `delta`, in this round or in earlier ones. With
    /// [`Adaptive`](Self::Adaptive) moments that change is usually smaller; rare sequences of deltas exceed it.
    pub fn most(&self, delta: f64) -> f64 {
        match *self {
            Self::Average { lr } => lr.abs() * delta,
            Self::Momentum { lr, momentum } => lr.abs() * delta / (1.0 - momentum).max(f64::EPSILON),
            Self::Adaptive { lr, beta1, beta2, tau, .. } => {
                let ratio = (1.0 - beta1) / (1.0 - beta2).sqrt();
                lr.abs() * ratio.max(1.0).min(delta / tau)
            }
        }
    }
}

impl fmt::Display for ServerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Average { lr } => write!(f, "x += {lr} delta"),
            Self::Momentum { lr, momentum } => write!(f, "m = {momentum} m + delta; x += {lr} m"),
            Self::Adaptive { lr, beta1, beta2, tau, second } => {
                let v = match second {
                    SecondMoment::Adam => format!("v = {beta2} v + (1 - {beta2}) delta^2"),
                    SecondMoment::Yogi => format!("v -= (1 - {beta2}) delta^2 sign(v - delta^2)"),
                    SecondMoment::Adagrad => "v += delta^2".to_owned(),
                };
                write!(f, "m = {beta1} m + (1 - {beta1}) delta; {v}; x += {lr} m / (sqrt(v) + {tau})")
            }
        }
    }
}

/// How the second moment follows the squared deltas.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum SecondMoment {
    /// `v = beta2 * v + (1 - beta2) * delta^2`.
    Adam,
    /// `v = v - (1 - beta2) * delta^2 * sign(v - delta^2)`.
    Yogi,
    /// `v = v + delta^2`.
    Adagrad,
}

dispatch! {
    /// Takes a step at some coordinates. `delta` becomes the new model's values minus the base's. `m` and `v` become
    /// the new moments; they have one value per coordinate if the step keeps them. They are rounded when stored, and
    /// the step uses their unrounded values.
    pub fn server_step<A: Arch, K: Merged>(step: &ServerStep, delta: &mut [f64], m: &mut [K], v: &mut [K]) {
        match *step {
            ServerStep::Average { lr } => {
                for x in delta {
                    *x *= lr;
                }
            }
            ServerStep::Momentum { lr, momentum } => {
                assert_eq!(m.len(), delta.len(), "one value of m a coordinate");
                for (x, m) in delta.iter_mut().zip(m) {
                    let next = momentum * m.widen() + *x;
                    *x = lr * next;
                    *m = K::rounded(next);
                }
            }
            ServerStep::Adaptive { lr, beta1, beta2, tau, second } => {
                assert_eq!((m.len(), v.len()), (delta.len(), delta.len()), "one value of m and v a coordinate");
                let adaptive = Adaptive { lr, beta1, tau };
                let part = 1.0 - beta2;
                match second {
                    SecondMoment::Adam => adaptive.step(delta, m, v, |v, square| beta2 * v + part * square),
                    SecondMoment::Yogi => adaptive.step(delta, m, v, |v, square| {
                        v - part * square * (f64::from(v > square) - f64::from(v < square))
                    }),
                    SecondMoment::Adagrad => adaptive.step(delta, m, v, |v, square| v + square),
                }
            }
        }
    }
}

/// An adaptive step, except for the update of the second moment.
struct Adaptive {
    lr: f64,
    beta1: f64,
    tau: f64,
}

impl Adaptive {
    /// One loop for each kind of second moment. With the choice inside the loop, some instruction sets would not
    /// vectorise it.
    #[inline(always)]
    fn step<K: Merged>(&self, delta: &mut [f64], m: &mut [K], v: &mut [K], follow: impl Fn(f64, f64) -> f64) {
        let Self { lr, beta1, tau } = *self;
        for ((x, m), v) in delta.iter_mut().zip(m).zip(v) {
            let next_v = follow(v.widen(), *x * *x);
            let next_m = beta1 * m.widen() + (1.0 - beta1) * *x;
            *x = lr * next_m / (next_v.sqrt() + tau);
            *m = K::rounded(next_m);
            *v = K::rounded(next_v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_a_value_changes() {
        assert_eq!(ServerStep::Average { lr: -2.0 }.most(3.0), 6.0);
        assert_eq!(ServerStep::Momentum { lr: 1.0, momentum: 0.75 }.most(3.0), 12.0);
        let adam =
            |tau| ServerStep::Adaptive { lr: 1.0, beta1: 0.5, beta2: 0.75, tau, second: SecondMoment::Adam };
        // (1 - 0.5) / sqrt(1 - 0.75) is 1, and delta / tau less than that.
        assert_eq!(adam(1e-3).most(3.0), 1.0);
        assert_eq!(adam(6.0).most(3.0), 0.5);
        let slow =
            ServerStep::Adaptive { lr: 1.0, beta1: 0.25, beta2: 0.75, tau: 1e-3, second: SecondMoment::Adam };
        assert_eq!(slow.most(3.0), 1.5);
    }
}
