//! The Gaussian mechanism on a fixed number of clients, for replace-one.
//!
//! Paper: Wang, Balle & Kasiviswanathan 2019, arXiv 1808.00087, Theorem 27.
//!
//! With rate q and order a, the divergence is at most ln(1 + sum over i from 2 of q^i C(a, i) m(i)) / (a - 1). The
//! moments are m(2) = min(4 (e^R(2) - 1), 2 e^R(2)), and beyond it the smaller of 2 exp((i - 1) R(i)) and 4 sqrt(B(2
//! floor(i / 2)) B(2 ceil(i / 2))), where R(i) = i / 2z^2 and B(i) = E[(r - 1)^i], which the paper writes as a
//! difference of order i. Between integer orders, (a - 1) R(a) is convex, and its chord a bound (Corollary 10).

use super::logarithms::{log_expm1, log_factorials, log_one_plus_exp, log_sum};
use std::f64::consts::{LN_2, PI};

/// Beyond this number, moments are bounded without [`central`] moments, as in dp_accounting.
const MOST_CENTRAL: usize = 256;

/// Step of the trapezoidal rule, in standard deviations. The integrand has no singularities, so the error is exp(-160).
const STEP: f64 = 0.35;

/// The divergences at orders above 1.
pub(super) fn divergences(rate: f64, noise: f64, orders: &[f64]) -> Vec<f64> {
    let highest = orders.iter().copied().fold(2.0, f64::max).ceil() as usize;
    let bound = Bound {
        log_rate: libm::log(rate),
        log_factorials: log_factorials(highest),
        log_moments: log_moments(noise, highest),
    };
    let at = |order: f64| {
        let (below, above) = (bound.log_expectation(order.floor()), bound.log_expectation(order.ceil()));
        (below + order.fract() * (above - below)) / (order - 1.0)
    };
    orders.iter().map(|order| at(*order)).collect()
}

struct Bound {
    log_rate: f64,
    log_factorials: Vec<f64>,
    log_moments: Vec<f64>,
}

impl Bound {
    fn log_expectation(&self, order: f64) -> f64 {
        let n = order as usize;
        let choose = |i: usize| self.log_factorials[n] - self.log_factorials[i] - self.log_factorials[n - i];
        log_one_plus_exp(log_sum((2..=n).map(|i| choose(i) + i as f64 * self.log_rate + self.log_moments[i])))
    }
}

/// ln m(i) by i.
fn log_moments(noise: f64, highest: usize) -> Vec<f64> {
    let scale = 0.5 / (noise * noise);
    let second = 2.0 * scale;
    let central = central(noise, highest.min(MOST_CENTRAL));
    let moment = |i: usize| {
        let simple = LN_2 + (i as f64 - 1.0) * i as f64 * scale;
        match i {
            0 | 1 => f64::NEG_INFINITY,
            2 => (4.0_f64.ln() + log_expm1(second)).min(LN_2 + second),
            _ if i > MOST_CENTRAL => simple,
            _ => simple.min(4.0_f64.ln() + 0.5 * (central[i / 2] + central[i.div_ceil(2)])),
        }
    };
    (0..=highest).map(moment).collect()
}

/// ln E[(r - 1)^2k] by k, up to the first even moment of at least `highest`.
fn central(noise: f64, highest: usize) -> Vec<f64> {
    let top = highest as f64 + 1.0;
    let reach = 10.0 + top.sqrt();
    let steps = (-reach / STEP) as i64..=((top / noise + 1.0 / noise + reach) / STEP) as i64;
    // The logarithms of the density and of |r - 1|.
    let point = |k: i64| {
        let t = k as f64 * STEP;
        let log_ratio = t / noise - 0.5 / (noise * noise);
        let distance =
            if log_ratio > 0.0 { log_expm1(log_ratio) } else { libm::log(-libm::expm1(log_ratio)) };
        (-0.5 * t * t, distance)
    };
    let points: Vec<(f64, f64)> = steps.map(point).collect();
    let moment = |k: usize| {
        let power = 2.0 * k as f64;
        log_sum(points.iter().map(|(density, distance)| density + power * distance.max(-1e9)))
    };
    let scale = libm::log(STEP / (2.0 * PI).sqrt());
    (0..=highest.div_ceil(2)).map(|k| moment(k) + scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn central_moments_bound_up_to_the_last_of_them() {
        let moments = log_moments(100.0, MOST_CENTRAL + 1);
        let simple = |i: usize| LN_2 + (i as f64 - 1.0) * i as f64 * 0.5e-4;
        assert!(moments[MOST_CENTRAL] < simple(MOST_CENTRAL) - 1.0);
        assert_eq!(moments[MOST_CENTRAL + 1], simple(MOST_CENTRAL + 1));
    }
}
