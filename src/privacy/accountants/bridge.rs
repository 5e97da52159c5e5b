//! The cost of discrete noise beyond that of continuous noise.
//!
//! fedmill adds discrete noise; the accountants know the cost of continuous noise.
//!
//! Integer noise of variance v and rounded continuous noise differ at any point by a factor of at most exp(6 / v),
//! within twelve standard deviations. Rounding the continuous release of an integer sum is exact post-processing. So
//! with d coordinates and T releases, epsilon is at most 12 d T / v above that of continuous noise. Delta is at most
//! exp(6 d T / v) times that of continuous noise, plus d T 2^-100 for the tails further out.

use crate::kernels::discrete_gaussian::Level;
use serde::Serialize;

/// Exponent of the factor, times the variance. The measured value is 5.958, at variances from 10^4 on.
const EXPONENT: f64 = 6.0;

/// Probability beyond twelve standard deviations.
const TAIL: f64 = 1.0 / (1_u128 << 100) as f64;

/// The integer noise of a release.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct IntegerNoise {
    /// Coordinates of the model.
    pub coordinates: u64,
    /// Variance at each coordinate, in squared units of the integer grid.
    pub variance: f64,
}

/// The cost of discrete noise beyond that of continuous noise.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Slack {
    /// The amount to add to epsilon.
    pub epsilon: f64,
    /// The delta at which to compute the continuous epsilon; 0 or less if there is none.
    pub delta: f64,
}

impl IntegerNoise {
    /// The noise of a sum of `draws` independent draws at each coordinate. A sum of discrete Gaussians of these widths is as
    /// close to one as makes no difference.
    pub fn of_draws(level: Level, draws: u64, coordinates: u64) -> Self {
        Self { coordinates, variance: level.variance() as f64 * draws as f64 }
    }

    /// The slack of `releases` releases at this delta.
    pub fn slack(&self, releases: u64, delta: f64) -> Slack {
        let draws = self.coordinates as f64 * releases as f64;
        let exponent = EXPONENT * draws / self.variance;
        Slack { epsilon: 2.0 * exponent, delta: libm::exp(-exponent) * (delta - draws * TAIL) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slack of both levels of noise at ten million coordinates and a thousand releases.
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
