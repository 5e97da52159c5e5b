//! The server's step on a device, and the bound on its distance from the CPU's step.
//!
//! The shader computes in f32, the kernel in f64. Each operation adds its rounding to the errors of its terms. This
//! module carries the errors through the step, column by column, since a small second moment magnifies a small error.

use crate::kernels::server_step::{SecondMoment, ServerStep};

/// Half a unit in the last place of f32, relative.
const UNIT: f64 = (f32::EPSILON / 2.0) as f64;
/// Magnitude below which a device may flush a value to zero.
const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// A server's step behind a reduction.
///
/// The delta is `scale` times the merged value, less `less_base` times the base. The first references of the tile are
/// the base, then m and v if the step keeps them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepJob {
    /// The form of the step.
    pub step: ServerStep,
    /// Factor of merged values.
    pub scale: f64,
    /// Factor of the base.
    pub less_base: f64,
}

/// A number, and a bound on the error of its value on the device.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Known {
    /// The number.
    pub value: f64,
    /// The bound on the error.
    pub within: f64,
}

impl Known {
    /// A number that the device holds rounded to f32.
    fn rounded(value: f64) -> Self {
        Self { value, within: UNIT * value.abs() }
    }

    fn settled(value: f64, within: f64, roundings: f64) -> Self {
        Self { value, within: within + roundings * UNIT * (value.abs() + within) + FLUSHED }
    }

    fn plus(self, other: Self) -> Self {
        Self::settled(self.value + other.value, self.within + other.within, 1.0)
    }

    fn times(self, other: Self) -> Self {
        let (a, b) = (self.value.abs(), other.value.abs());
        let carried = a * other.within + b * self.within + self.within * other.within;
        Self::settled(self.value * other.value, carried, 1.0)
    }

    /// The quotient; its bound is infinite where the divisor may be zero.
    fn over(self, divisor: Self) -> Self {
        let (value, least) = (self.value / divisor.value, divisor.value.abs() - divisor.within);
        if least <= 0.0 {
            return Self { value, within: f64::INFINITY };
        }
        Self::settled(value, (self.within + value.abs() * divisor.within) / least, 5.0)
    }

    /// The square root of a number that is not negative.
    fn root(self) -> Self {
        let value = self.value.sqrt();
        let carried = self.within.sqrt().min(self.within / value);
        Self::settled(value, carried, 10.0)
    }
}

impl StepJob {
    /// Number of moments that the step keeps.
    pub fn moments(&self) -> usize {
        match self.step {
            ServerStep::Average { .. } => 0,
            ServerStep::Momentum { .. } => 1,
            ServerStep::Adaptive { .. } => 2,
        }
    }

    /// The values that the step writes at a column: the model's new value, then m and v if the step keeps them.
    /// `merged` is the device's merged value, `kept` holds the old moments.
    pub fn expected(&self, merged: f64, base: f64, kept: &[f64]) -> Vec<Known> {
        let known = |place: usize| Known::rounded(kept.get(place).copied().unwrap_or(0.0));
        let base = Known::rounded(base);
        // The step adds the two rows of a median first.
        let merged = Known::settled(merged, 0.0, 2.0);
        let own = Known::rounded(self.scale).times(merged);
        let delta = own.plus(Known::rounded(-self.less_base).times(base));
        match self.step {
            ServerStep::Average { lr } => vec![base.plus(Known::rounded(lr).times(delta))],
            ServerStep::Momentum { lr, momentum } => {
                let m = Known::rounded(momentum).times(known(0)).plus(delta);
                vec![base.plus(Known::rounded(lr).times(m)), m]
            }
            ServerStep::Adaptive { lr, beta1, beta2, tau, second } => {
                let taken = Known::rounded(1.0 - beta1).times(delta);
                let m = Known::rounded(beta1).times(known(0)).plus(taken);
                let v = moved(second, beta2, known(1), delta.times(delta));
                let divisor = v.root().plus(Known::rounded(tau));
                vec![base.plus(Known::rounded(lr).times(m).over(divisor)), m, v]
            }
        }
    }
}

fn moved(second: SecondMoment, beta2: f64, v: Known, square: Known) -> Known {
    let taken = Known::rounded(1.0 - beta2).times(square);
    let minus = |a: Known| Known { value: -a.value, ..a };
    match second {
        SecondMoment::Adam => Known::rounded(beta2).times(v).plus(taken),
        SecondMoment::Adagrad => v.plus(square),
        SecondMoment::Yogi => {
            let (apart, within) = (v.value - square.value, v.within + square.within);
            let moved = match apart {
                0.0 => v,
                _ if apart > 0.0 => v.plus(minus(taken)),
                _ => v.plus(taken),
            };
            // So close that the device may see it on the other side.
            let turned = if apart.abs() <= within { 2.0 * (taken.value + taken.within) } else { 0.0 };
            Known { within: moved.within + turned, ..moved }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;
    use crate::kernels::server_step::server_step;

    fn steps() -> Vec<ServerStep> {
        let adaptive = |second| ServerStep::Adaptive { lr: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3, second };
        let adaptive = [SecondMoment::Adam, SecondMoment::Yogi, SecondMoment::Adagrad].map(adaptive);
        let others = [ServerStep::Average { lr: 0.3 }, ServerStep::Momentum { lr: 0.3, momentum: 0.9 }];
        others.into_iter().chain(adaptive).collect()
    }

    #[test]
    fn values_are_those_of_the_kernel() {
        for step in steps() {
            let job = StepJob { step, scale: 0.25, less_base: 1.0 };
            let (mut delta, mut m, mut v) = ([0.25 * 7.0 - 0.5], [0.125], [0.375]);
            let kept = job.expected(7.0, 0.5, &[m[0], v[0]]);
            server_step(Isa::detect(), &step, &mut delta, &mut m, &mut v);
            let want = [0.5 + delta[0], m[0], v[0]];
            assert_eq!(kept.len(), 1 + job.moments());
            for (known, want) in kept.iter().zip(want) {
                assert!((known.value - want).abs() <= 1e-15, "{step}: {known:?}, expected {want}");
                assert!(known.within < 1e-5 && known.within > 0.0, "{step}: {known:?}");
            }
        }
    }

    /// The result in f32 lies within the bound.
    #[test]
    fn f32_lies_within() {
        for (step, x) in steps().into_iter().flat_map(|step| (1..200).map(move |k| (step, k))) {
            let (merged, base) = (0.37 * x as f32, 1.01 * x as f32);
            let (m, v) = (0.3 / x as f32, 0.01 * (x % 7) as f32);
            let job = StepJob { step, scale: 0.7, less_base: 1.0 };
            let delta = 0.7f32 * merged - base;
            let want = match step {
                ServerStep::Average { lr } => vec![base + lr as f32 * delta],
                ServerStep::Momentum { lr, momentum } => {
                    let m = momentum as f32 * m + delta;
                    vec![base + lr as f32 * m, m]
                }
                ServerStep::Adaptive { lr, beta1, beta2, tau, second } => {
                    let (square, take) = (delta * delta, (1.0 - beta2) as f32);
                    let m = beta1 as f32 * m + (1.0 - beta1) as f32 * delta;
                    let v = match second {
                        SecondMoment::Adam => beta2 as f32 * v + take * square,
                        SecondMoment::Yogi => v - take * square * (v - square).signum(),
                        SecondMoment::Adagrad => v + square,
                    };
                    vec![base + lr as f32 * m / (v.sqrt() + tau as f32), m, v]
                }
            };
            let known = job.expected(merged.into(), base.into(), &[m.into(), v.into()]);
            for (known, want) in known.iter().zip(want) {
                assert!((known.value - f64::from(want)).abs() <= known.within, "{step}: {known:?}, {want}");
            }
        }
    }

    #[test]
    fn a_second_moment_that_may_turn_either_way_is_bound_by_both() {
        let step = steps()[3];
        let job = StepJob { step, scale: 1.0, less_base: 0.0 };
        let near = job.expected(2.0, 0.0, &[0.0, 4.0])[2];
        assert_eq!(near.value, 4.0);
        assert!(near.within >= 2.0 * 0.01 * 4.0);
        assert!(job.expected(2.0, 0.0, &[0.0, 4.1])[2].within < 1e-5);
    }
}
