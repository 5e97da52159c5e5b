//! The noise of prefix sums, by which the number of bands is chosen.
//!
//! The sum over rounds 1 to t has the noise A C^-1 z, where A sums over rounds. The width of z is proportional to the
//! sensitivity of C. So the standard deviation is that sensitivity times the norm of row t of A C^-1, in units of the
//! noise multiplier times the clip bound. Independent noise is the matrix with one band.

use super::banded::Banded;
use super::factor::Factor;
use super::{MOST_BANDS, Schedule};

/// The noise of prefix sums over all rounds, in units of the noise multiplier times the clip bound.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PrefixError {
    /// Square root of the mean variance.
    pub root_mean_square: f64,
    /// Largest standard deviation.
    pub largest: f64,
}

/// Share of the error for which [`best_bands`] does not use more bands.
const NEGLIGIBLE: f64 = 0.02;
/// Largest number of bands that [`best_bands`] chooses. Each band keeps a row as large as half a model of f64.
const MODEST: u32 = 64;

impl PrefixError {
    /// The noise of prefix sums with this matrix.
    pub fn of(factor: Factor, schedule: &Schedule) -> Self {
        let squares = match factor {
            Factor::Tree => (1..=schedule.rounds).map(|round| f64::from(round.count_ones())).collect(),
            Factor::Banded { bands } => rows_squared(&Banded::new(bands), schedule.rounds as usize),
        };
        let mean = squares.iter().sum::<f64>() / squares.len().max(1) as f64;
        let largest = squares.iter().copied().fold(0.0, f64::max);
        let sensitivity = factor.sensitivity(schedule);
        Self { root_mean_square: sensitivity * mean.sqrt(), largest: sensitivity * largest.sqrt() }
    }
}

/// The squared norm of each row of A C^-1. Row t holds the first t prefix sums of the inverse's first column.
fn rows_squared(banded: &Banded, rounds: usize) -> Vec<f64> {
    let (mut sum, mut squares) = (0.0, 0.0);
    let rows = banded.inverse(rounds).into_iter().map(|entry| {
        sum += entry;
        squares += sum * sum;
        squares
    });
    rows.collect()
}

/// The fewest bands whose error is nearly the least.
pub fn best_bands(schedule: &Schedule) -> u32 {
    let most = schedule.rounds.clamp(1, u64::from(MODEST)) as u32;
    let steps = (0..7).flat_map(|power| [1 << power, 3 << power]).chain([most]);
    let at_once = u32::try_from(schedule.separation).unwrap_or(MOST_BANDS);
    let mut tried: Vec<u32> = steps.chain([at_once]).filter(|bands| (1..=most).contains(bands)).collect();
    tried.sort_unstable();
    let error = |bands: u32| PrefixError::of(Factor::Banded { bands }, schedule).root_mean_square;
    let errors: Vec<f64> = tried.iter().map(|bands| error(*bands)).collect();
    let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
    let near = errors.iter().position(|error| *error <= least * (1.0 + NEGLIGIBLE));
    near.map_or(1, |place| tried[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(factor: Factor, rounds: u64, participations: u64, separation: u64) -> PrefixError {
        PrefixError::of(factor, &Schedule { rounds, participations, separation })
    }

    /// With one band, noise adds up to sqrt(t) at round t. With all bands, A C^-1 equals C up to rounding, and the
    /// square of the last row's norm is the sum of the squared coefficients: about 1 + ln(n) / pi (spec 1.7).
    #[test]
    fn errors_are_the_known_ones() {
        let independent = error(Factor::Banded { bands: 1 }, 100, 1, 1);
        assert!((independent.largest - 10.0).abs() < 1e-9);
        assert!((independent.root_mean_square - 50.5f64.sqrt()).abs() < 1e-9);
        for rounds in [10u32, 100, 256] {
            let all = error(Factor::Banded { bands: rounds }, u64::from(rounds), 1, 1).largest;
            let squares: f64 = super::super::banded::square_root().take(rounds as usize).map(|c| c * c).sum();
            assert!((all / squares - 1.0).abs() < 2e-3, "{rounds}: {all}, expected {squares}");
            let logarithm = 1.0 + f64::from(rounds).ln() / std::f64::consts::PI;
            assert!(all < 1.035 * logarithm, "{rounds}: {all}");
        }
        let tree = error(Factor::Tree, 1023, 1, 1);
        assert!((tree.largest - 10.0).abs() < 1e-9, "ten nodes, and ten levels");
    }

    /// Expected values from a NumPy implementation of the same matrices in f64, without rounding of the coefficients.
    #[test]
    fn errors_are_those_of_the_matrices_written_out() {
        for (bands, rounds, participations, separation, expected) in [
            (32, 100, 1, 1, 2.4283),
            (32, 1000, 1, 1, 5.4805),
            (100, 1000, 10, 100, 12.1032),
            (32, 500, 50, 10, 42.7856),
            (4, 100, 100, 1, 72.9713),
        ] {
            let found = error(Factor::Banded { bands }, rounds, participations, separation).root_mean_square;
            assert!((found / expected - 1.0).abs() < 2e-3, "{bands} bands: {found}, expected {expected}");
        }
    }

    #[test]
    fn as_many_bands_are_chosen_as_help() {
        let best =
            |rounds, participations, separation| best_bands(&Schedule { rounds, participations, separation });
        assert_eq!(best(1, 1, 1), 1);
        assert_eq!(
            best(100, 100, 1),
            1,
            "correlated noise gains nothing if every client takes part in every round"
        );
        assert_eq!(best(2000, 5, 400), MODEST);
        assert!((16..=48).contains(&best(500, 50, 10)));
        assert!((32..=64).contains(&best(100, 1, 1)));
        // Bands are better than a tree.
        for (rounds, turns, apart) in [(100, 1, 1), (1000, 1, 1), (1000, 10, 100), (2000, 20, 100)] {
            let bands = best(rounds, turns, apart);
            let banded = error(Factor::Banded { bands }, rounds, turns, apart);
            assert!(banded.root_mean_square < error(Factor::Tree, rounds, turns, apart).root_mean_square);
        }
    }
}
