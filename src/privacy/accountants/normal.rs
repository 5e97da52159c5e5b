//! The tails of the normal distribution. Differences of these tails keep their digits.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Up to here Mills' ratio comes from erfc, beyond from its continued fraction.
const FAR: f64 = 8.0;

/// Terms of the continued fraction; at [`FAR`] the last term is below rounding.
const TERMS: u32 = 40;

/// The density at x.
pub(super) fn density(x: f64) -> f64 {
    libm::exp(-0.5 * x * x) / (2.0 * PI).sqrt()
}

/// The probability of more than x.
pub(super) fn upper_tail(x: f64) -> f64 {
    0.5 * libm::erfc(x * FRAC_1_SQRT_2)
}

/// Mills' ratio: the probability of more than x, divided by the density at x.
pub(super) fn mills(x: f64) -> f64 {
    if x > FAR {
        // 1 / (x + 1 / (x + 2 / (x + 3 / ...)))
        return 1.0 / (1..=TERMS).rev().fold(x, |rest, term| x + f64::from(term) / rest);
    }
    // Corrects for the rounding of the square.
    let square = x * x;
    let lost = libm::fma(x, x, -square);
    upper_tail(x) * (2.0 * PI).sqrt() * libm::exp(0.5 * square) * (1.0 + 0.5 * lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values from mpmath at 40 digits.
    #[test]
    fn tails_are_right_to_the_last_digits() {
        for (x, expected) in [
            (-2.0, 18.100_247_711_126_15),
            (0.0, 1.253_314_137_315_500_2),
            (1.0, 0.655_679_542_418_798_5),
            (7.9, 0.124_644_494_485_095_58),
            (8.1, 0.121_655_213_076_448_47),
            (30.0, 0.033_296_419_072_497_22),
        ] {
            let found = mills(x);
            assert!((found - expected).abs() <= 2e-14 * expected, "{x}: {found} is not {expected}");
        }
    }
}
