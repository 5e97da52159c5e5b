//! Logarithms of sums, differences and factorials, without overflow.

/// The logarithm of a sum of exponentials.
pub(super) fn log_sum(logs: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = logs.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    largest + libm::log(logs.map(|log| libm::exp(log - largest)).sum())
}

/// ln(1 + e^x).
pub(super) fn log_one_plus_exp(x: f64) -> f64 {
    if x > 0.0 { x + libm::log1p(libm::exp(-x)) } else { libm::log1p(libm::exp(x)) }
}

/// ln(e^x - 1) for a positive x.
pub(super) fn log_expm1(x: f64) -> f64 {
    if x > 30.0 { x + libm::log1p(-libm::exp(-x)) } else { libm::log(libm::expm1(x)) }
}

/// ln of the factorials of 0 to n.
pub(super) fn log_factorials(n: usize) -> Vec<f64> {
    (0..=n).map(|k| libm::lgamma(k as f64 + 1.0)).collect()
}
