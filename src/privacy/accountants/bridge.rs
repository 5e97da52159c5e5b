//! From continuous noise, which accountants know, to the discrete noise that is added.
//!
//! Integer noise of variance v and the rounded continuous one differ at any point by a factor of at most exp(6 / v), within
//! twelve standard deviations; and rounding the continuous release of an integer sum is exact post-processing of it. So
//! with d coordinates and T releases, epsilon is at most that of continuous noise and 12 d T / v, at a delta that is
//! exp(6 d T / v) times it and d T 2^-100 for what lies further out.

use serde::Serialize;

/// The factor's exponent, by the variance: 5.958 was measured, at variances from 10^4 on.
const EXPONENT: f64 = 6.0;

/// What lies beyond twelve standard deviations.
const TAIL: f64 = 1.0 / (1_u128 << 100) as f64;

/// The integer noise of a release.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct IntegerNoise {
    /// Coordinates of the model.
    pub coordinates: u64,
    /// Variance at each, in squared units of the integer grid.
    pub variance: f64,
}

/// What the discrete noise costs beyond the continuous one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Slack {
    /// To add to epsilon.
    pub epsilon: f64,
    /// The delta that the continuous epsilon is to be taken at; zero or less if there is none.
    pub delta: f64,
}

impl IntegerNoise {
    /// The slack of so many releases at this delta.
    pub fn slack(&self, releases: u64, delta: f64) -> Slack {
        let draws = self.coordinates as f64 * releases as f64;
        let exponent = EXPONENT * draws / self.variance;
        Slack { epsilon: 2.0 * exponent, delta: libm::exp(-exponent) * (delta - draws * TAIL) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of the two levels of noise at ten million coordinates and a thousand releases.
    #[test]
    fn the_slack_of_both_levels_is_small() {
        let level = |variance: f64| IntegerNoise { coordinates: 10_000_000, variance }.slack(1000, 1e-6);
        let coarse = level(4_402_345_676_800.0);
        assert!((coarse.epsilon - 0.027).abs() < 5e-4, "{coarse:?}");
        assert!((coarse.delta / 1e-6 - 0.986_4).abs() < 1e-4, "{coarse:?}");
        let fine = level(4_402_345_676_800.0 * (1.0 + 1_048_576.0));
        assert!((fine.epsilon - 2.6e-8).abs() < 1e-9, "{fine:?}");
    }
}
