//! The Gaussian mechanism on clients that were drawn independently.
//!
//! Paper: Mironov, Talwar & Zhang 2019, arXiv 1908.10530.
//!
//! With x of N(0, z^2), r = exp((2x - 1) / 2z^2) is the likelihood ratio of noise about 1 and about 0. The divergence
//! of order a is ln E[(1 - q + q r)^a] / (a - 1). Since E[r] = 1, only the excess above 1 is summed: nothing cancels,
//! and tiny sampling rates keep all their digits.
//!
//! At integer orders the excess is a sum of positive terms, over i from 2: C(a, i) (1 - q)^(a - i) q^i (exp((i^2 - i) /
//! 2z^2) - 1). At fractional orders the paper's series may not converge. The trapezoidal rule converges, because the
//! integrand is analytic: in t = x / z its nearest singularity is pi z away from the real line, and at a distance up to
//! a it is at most exp(a^2 / 2) times its value on the line. So with steps of h the rule is off by at most 2 exp(a^2 /
//! 2 - 2 pi a / h) of the whole, for any a below pi z; h makes this exp(-46).

use super::logarithms::{log_expm1, log_factorials, log_one_plus_exp, log_sum};
use std::f64::consts::PI;

/// Below this noise, the integrand splits into two separate Gaussians, one on each side of the point where the terms of
/// the ratio cross.
const LITTLE_NOISE: f64 = 0.06;

/// Distance from a mode of the integrand, in standard deviations, beyond which less than 1e-24 of it lies.
const REACH: f64 = 11.0;

/// Negative logarithm of the error that the step size allows.
const EXACT: f64 = 46.0;

/// The divergences at orders above 1. The rate is above 0 and below 1, the noise above 0.
pub(super) fn divergences(rate: f64, noise: f64, orders: &[f64]) -> Vec<f64> {
    let highest = orders.iter().copied().fold(1.0, f64::max);
    let terms = IntegerTerms::new(rate, noise, highest as usize);
    let highest_fraction = orders.iter().copied().filter(|order| order.fract() != 0.0).fold(1.0, f64::max);
    let grid = (noise >= LITTLE_NOISE).then(|| QuadratureGrid::new(rate, noise, highest_fraction));
    let log_excess = |order: f64| match &grid {
        _ if order.fract() == 0.0 => terms.log_excess(order as usize),
        Some(grid) => grid.log_excess(order),
        None => log_excess_of_little_noise(rate, noise, order),
    };
    orders.iter().map(|order| log_one_plus_exp(log_excess(*order)) / (order - 1.0)).collect()
}

/// Values that the terms of all integer orders share.
struct IntegerTerms {
    log_rate: f64,
    log_rest: f64,
    log_factorials: Vec<f64>,
    /// ln(exp((i^2 - i) / 2z^2) - 1) by i.
    log_moments: Vec<f64>,
}

impl IntegerTerms {
    fn new(rate: f64, noise: f64, highest: usize) -> Self {
        let moment = |i: usize| (i as f64 * i as f64 - i as f64) / (2.0 * noise * noise);
        Self {
            log_rate: libm::log(rate),
            log_rest: libm::log1p(-rate),
            log_factorials: log_factorials(highest),
            log_moments: (0..=highest).map(|i| log_expm1(moment(i))).collect(),
        }
    }

    /// The logarithm of the excess of the expectation above 1.
    fn log_excess(&self, order: usize) -> f64 {
        let choose =
            |i: usize| self.log_factorials[order] - self.log_factorials[i] - self.log_factorials[order - i];
        let term = |i: usize| {
            choose(i) + i as f64 * self.log_rate + (order - i) as f64 * self.log_rest + self.log_moments[i]
        };
        log_sum((2..=order).map(term))
    }
}

/// The points of the trapezoidal rule, shared by all fractional orders.
struct QuadratureGrid {
    step: f64,
    noise: f64,
    /// Number of the first point; points are multiples of the step.
    first: i64,
    points: Vec<QuadraturePoint>,
}

#[derive(Clone, Copy)]
struct QuadraturePoint {
    /// -t^2 / 2.
    log_density: f64,
    /// q (r - 1).
    change: f64,
    /// ln(1 + q (r - 1)).
    log_ratio: f64,
}

impl QuadratureGrid {
    fn new(rate: f64, noise: f64, highest: f64) -> Self {
        let step = step(noise);
        let first = (-REACH / step).floor() as i64;
        let last = ((highest / noise + REACH) / step).ceil() as i64;
        let point = |k: i64| {
            let t = k as f64 * step;
            let log_likelihood = t / noise - 0.5 / (noise * noise);
            let change = rate * libm::expm1(log_likelihood.min(700.0));
            let log_ratio = match log_likelihood < 700.0 {
                true => libm::log1p(change),
                false => libm::log(rate) + log_likelihood,
            };
            QuadraturePoint { log_density: -0.5 * t * t, change, log_ratio }
        };
        Self { step, noise, first, points: (first..=last).map(point).collect() }
    }

    /// The logarithm of the excess of the expectation above 1.
    fn log_excess(&self, order: f64) -> f64 {
        // (1 + y)^a - 1 - a y is not negative, by Bernoulli's inequality.
        let term = |point: &QuadraturePoint| {
            let above = above_tangent(order, point);
            point.log_density + above
        };
        let logs = self.windows(order).into_iter().flatten().map(term);
        log_sum(logs) + libm::log(self.step / (2.0 * PI).sqrt())
    }

    /// The points near the two modes of the integrand: about 0, where the ratio is small, and about a / z, where it is
    /// large.
    fn windows(&self, order: f64) -> [&[QuadraturePoint]; 2] {
        let at = |t: f64| ((t / self.step) as i64 - self.first).clamp(0, self.points.len() as i64) as usize;
        let right = order / self.noise;
        let (end, start, last) = (at(REACH), at(right - REACH), at(right + REACH));
        [&self.points[..end], &self.points[start.max(end)..last.max(end)]]
    }
}

/// ln((1 + y)^a - 1 - a y), where y is the point's change.
fn above_tangent(order: f64, point: &QuadraturePoint) -> f64 {
    let y = point.change;
    if (order * y).abs() < 1e-3 {
        // The series, because the difference would cancel.
        let (a, b, c) = ((order - 2.0) / 3.0, (order - 3.0) / 4.0, (order - 4.0) / 5.0);
        let series = 0.5 * order * (order - 1.0) * (1.0 + a * y * (1.0 + b * y * (1.0 + c * y)));
        return libm::log(series) + 2.0 * libm::log(y.abs());
    }
    let power = order * point.log_ratio;
    if power > 40.0 {
        // Then y equals 1 + y. Close to order 1 the subtracted part is not small.
        return power + libm::log1p(-order * libm::exp((1.0 - order) * point.log_ratio));
    }
    libm::log(libm::expm1(power) - order * y)
}

/// The widest step whose error is allowed.
fn step(noise: f64) -> f64 {
    // The best a is 2 pi / h; if that is beyond the singularity, a point just before it.
    let free = 2.0_f64.sqrt() * PI / EXACT.sqrt();
    let a = 0.99 * PI * noise;
    if 2.0 * PI / free < a { free } else { 2.0 * PI * a / (EXACT + 0.5 * a * a) }
}

/// The logarithm of the excess for little noise: (1 - q)^a + q^a E[r^a] - 1, and a bound of the cross terms. Each
/// side's correction by the other is at most 2^a - 1 times its first order, because a power is convex.
fn log_excess_of_little_noise(rate: f64, noise: f64, order: f64) -> f64 {
    let crossing = noise * noise * libm::log(1.0 / rate - 1.0) + 0.5;
    let below = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
    let slope = libm::exp2(order) - 1.0;
    let left = slope * rate / (1.0 - rate) * below((crossing - 1.0) / noise);
    let odds = libm::exp(libm::log(1.0 / rate - 1.0) - (order - 1.0) / (noise * noise));
    let right = slope * odds * below((order - 1.0 - crossing) / noise);
    let log_right =
        order * libm::log(rate) + 0.5 * order * (order - 1.0) / (noise * noise) + libm::log1p(right);
    let rest = libm::expm1(order * libm::log1p(-rate)) + left;
    if log_right > 40.0 { log_right } else { libm::log((libm::exp(log_right) + rest).max(f64::MIN_POSITIVE)) }
}
