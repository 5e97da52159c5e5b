//! Converts Renyi divergences to an epsilon at a delta, or to a delta at an epsilon.
//!
//! At order a with divergence R, epsilon is R + ln(1 - 1/a) - ln(a delta) / (a - 1) (Canonne, Kamath & Steinke 2020,
//! arXiv 2004.00010, Proposition 12; Balle et al. 2020, arXiv 1905.09982, Theorem 21). And total variation is at most
//! sqrt(1 - e^-R) (Bretagnolle & Huber), so epsilon is 0 where that is within delta.

use super::Curve;

/// Least order; the bound is not stable closer to 1.
const LEAST_ORDER: f64 = 1.01;

/// The best bound, and the order that gives it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Best {
    /// The bound.
    pub value: f64,
    /// The order that gives it; infinite if no order gives a finite bound.
    pub order: f64,
    /// Whether that is the first or the last order, so that an order outside the list may be better.
    pub at_the_edge: bool,
}

/// The least epsilon at this delta that the divergences imply.
pub fn epsilon(curve: &Curve, delta: f64) -> Best {
    best(curve, |order, divergence| epsilon_at(order, divergence, delta))
}

/// The least delta at this epsilon that the divergences imply.
pub fn delta(curve: &Curve, epsilon: f64) -> Best {
    best(curve, |order, divergence| delta_at(order, divergence, epsilon))
}

/// Number of repetitions of these divergences within an epsilon at a delta, by the order that allows most.
pub fn runs(curve: &Curve, epsilon: f64, delta: f64) -> f64 {
    let runs = curve.points().filter(|(order, _)| *order > LEAST_ORDER).map(|(order, divergence)| {
        let fixed = libm::log1p(-1.0 / order) - libm::log(delta * order) / (order - 1.0);
        (epsilon - fixed).max(0.0) / divergence
    });
    runs.fold(0.0, f64::max)
}

fn best(curve: &Curve, bound: impl Fn(f64, f64) -> f64) -> Best {
    let mut best = Best { value: f64::INFINITY, order: f64::INFINITY, at_the_edge: false };
    let last = curve.divergences.len().saturating_sub(1);
    for (place, (order, divergence)) in curve.points().enumerate() {
        let value = bound(order, divergence);
        if value < best.value {
            // No order improves on a bound of zero.
            let at_the_edge = value > 0.0 && (place == 0 || place == last);
            best = Best { value, order, at_the_edge };
        }
    }
    best
}

fn epsilon_at(order: f64, divergence: f64, delta: f64) -> f64 {
    if divergence == 0.0 || delta * delta + libm::expm1(-divergence) > 0.0 {
        return 0.0;
    }
    if order <= LEAST_ORDER || delta <= 0.0 || !divergence.is_finite() {
        return f64::INFINITY;
    }
    let epsilon = divergence + libm::log1p(-1.0 / order) - libm::log(delta * order) / (order - 1.0);
    epsilon.max(0.0)
}

fn delta_at(order: f64, divergence: f64, epsilon: f64) -> f64 {
    if divergence == 0.0 {
        return 0.0;
    }
    let variation = (-libm::expm1(-divergence)).sqrt();
    if order <= LEAST_ORDER || !divergence.is_finite() {
        return variation;
    }
    let log_delta = (order - 1.0) * (divergence - epsilon + libm::log1p(-1.0 / order)) - libm::log(order);
    libm::exp(log_delta).min(variation)
}

/// The epsilon at this delta of the divergences `xi + rho * order`, minimised over all real orders rather than a list
/// (IBM's cdp2adp).
pub fn of_concentrated(rho: f64, xi: f64, delta: f64) -> f64 {
    if rho == 0.0 && xi == 0.0 {
        return 0.0;
    }
    // The function has one minimum; the search is over the logarithm of the order less 1.
    let at = |log: f64| {
        let order = 1.0 + libm::exp(log);
        epsilon_at(order, xi + rho * order, delta)
    };
    let (mut low, mut high) = (libm::log(0.0101), libm::log(1e9));
    for _ in 0..200 {
        let third = (high - low) / 3.0;
        if at(low + third) <= at(high - third) { high -= third } else { low += third }
    }
    at(0.5 * (low + high))
}

#[cfg(test)]
mod tests {
    use super::super::orders::Orders;
    use super::*;

    #[track_caller]
    fn assert_close(found: f64, expected: f64, relative: f64) {
        assert!((found - expected).abs() <= relative * expected.abs(), "{found} is not {expected}");
    }

    /// Row 12 of the reference numbers: a divergence of 1.1 at orders 2 to 32.
    #[test]
    fn pure_privacy_is_converted_as_dp_accounting_does() {
        let orders = Orders::from_sorted((2..=32).map(f64::from).collect());
        let curve = Curve { divergences: vec![1.1; orders.get().len()], orders };
        let found = epsilon(&curve, 1e-5);
        assert_close(found.value, 1.327_838_061_76, 1e-9);
        assert_eq!(found.order, 32.0);
        assert!(found.at_the_edge);
        assert_close(delta(&curve, found.value).value, 1e-5, 1e-9);
    }

    /// Row 20, of TensorFlow Privacy's zCDP accountant.
    #[test]
    fn concentrated_privacy_is_converted_at_the_best_real_order() {
        assert_close(of_concentrated(0.81, 0.0, 1e-10), 8.922_207, 1e-6);
    }

    /// Row 21, of opendp: rho of 1/32.
    #[test]
    fn concentrated_privacy_is_converted_as_opendp_does() {
        assert_close(of_concentrated(1.0 / 32.0, 0.0, 1e-3), 0.688_002_455_487_808_5, 1e-9);
    }

    #[test]
    fn a_wide_delta_costs_nothing() {
        assert_eq!(of_concentrated(1e-7, 0.0, 0.1), 0.0);
        assert_eq!(epsilon_at(2.0, 1e-9, 1e-3), 0.0);
        assert!(epsilon_at(2.0, f64::INFINITY, 1e-3).is_infinite());
        assert!(epsilon_at(2.0, 1.0, 0.0).is_infinite());
    }

    #[test]
    fn without_a_finite_bound_no_order_is_named() {
        let orders = Orders::from_sorted(vec![2.0, 3.0]);
        let found = epsilon(&Curve { divergences: vec![f64::INFINITY; 2], orders }, 1e-5);
        assert_eq!(found, Best { value: f64::INFINITY, order: f64::INFINITY, at_the_edge: false });
    }

    #[test]
    fn at_the_least_order_delta_is_the_total_variation() {
        let variation = (1.0 - (-0.5_f64).exp()).sqrt();
        assert_close(delta_at(LEAST_ORDER, 0.5, 200.0), variation, 1e-12);
        assert!(delta_at(1.02, 0.5, 200.0) < 0.5 * variation);
    }
}
