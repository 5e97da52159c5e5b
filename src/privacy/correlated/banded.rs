//! The banded square root: a Toeplitz matrix whose square is nearly the sum over rounds.
//!
//! The coefficients are those of (1 - x)^(-1/2): 1, 1/2, 3/8, 5/16, ... (Fichtenberger, Henzinger and Upadhyay,
//! "Constant matters", 2023), rounded to multiples of 1/256 so that integers stay integers. The rounded matrix is not
//! exactly the square root. Its cost and its error are computed from the rounded coefficients, so both are right.
//!
//! Few bands need few rows of earlier noise. And a client that returns no sooner than the number of bands moves
//! separate rows each time (Kalinin and Lampert, "Banded square root matrix factorization for differentially private
//! model training", 2024).

use super::{MOST_BANDS, Schedule, sensitivity};
use crate::kernels::integer_sum::{add_multiple, round_shifted};
use crate::kernels::lanes::Isa;

/// Bits behind the binary point of a coefficient.
const FRACTION: u32 = 8;
/// The coefficient 1.0.
pub const ONE: i32 = 1 << FRACTION;

/// A banded Toeplitz matrix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Banded {
    /// The first column, times [`ONE`]: not increasing, and above zero.
    coefficients: Vec<i32>,
}

impl Banded {
    /// The matrix with `bands` bands, clamped to 1 to [`MOST_BANDS`].
    pub fn new(bands: u32) -> Self {
        let square_root = square_root().take(bands.clamp(1, MOST_BANDS) as usize);
        let rounded = |coefficient: f64| (coefficient * f64::from(ONE)).round() as i32;
        Self { coefficients: square_root.map(rounded).collect() }
    }

    /// The first column, times [`ONE`].
    #[cfg(test)]
    pub(crate) fn coefficients(&self) -> &[i32] {
        &self.coefficients
    }

    /// Number of earlier rows of noise that the next row depends on.
    pub fn remembered(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Largest distance that one client moves C x, divided by the largest distance that it moves one x_t.
    pub fn sensitivity(&self, schedule: &Schedule) -> f64 {
        sensitivity::of_columns(&self.coefficients, schedule) / f64::from(ONE)
    }

    /// The first column of the inverse, for `rounds` rounds.
    pub fn inverse(&self, rounds: usize) -> Vec<f64> {
        let column: Vec<f64> = self.coefficients.iter().map(|c| f64::from(*c) / f64::from(ONE)).collect();
        let mut inverse: Vec<f64> = Vec::with_capacity(rounds);
        for t in 0..rounds {
            let earlier = column[1..].iter().zip(inverse.iter().rev());
            let taken: f64 = earlier.map(|(c, inverse)| c * inverse).sum();
            inverse.push(if t == 0 { 1.0 } else { 0.0 } - taken);
        }
        inverse
    }

    /// Computes the noise of a round at some coordinates. `drawn` is the noise drawn for the round, and is overwritten.
    /// `earlier` is the noise of earlier rounds, the latest first; rows before round 1 are zero and left out. The
    /// result fits i32: the magnitudes of the inverse's coefficients add up to less than 2.5, and drawn integers are
    /// below 2^35.
    pub fn next<'e>(
        &self,
        isa: Isa,
        drawn: &mut [i64],
        earlier: impl IntoIterator<Item = &'e [i32]>,
        noise: &mut [i32],
    ) {
        for (coefficient, earlier) in self.coefficients[1..].iter().zip(earlier) {
            add_multiple(isa, earlier, -coefficient, drawn);
        }
        round_shifted(isa, drawn, FRACTION, noise);
    }
}

/// The coefficients of (1 - x)^(-1/2): each is the previous one times (2 j - 1) / (2 j).
pub fn square_root() -> impl Iterator<Item = f64> {
    (1..).scan(1.0, |next, j| {
        let this = *next;
        *next *= (2.0 * f64::from(j) - 1.0) / (2.0 * f64::from(j));
        Some(this)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::discrete_gaussian::Level;
    use std::collections::VecDeque;

    fn convolved(one: &[f64], other: &[f64]) -> Vec<f64> {
        (0..one.len()).map(|t| (0..=t).map(|s| one[s] * other[t - s]).sum()).collect()
    }

    #[test]
    fn the_square_of_the_root_is_the_sum_over_rounds() {
        let root: Vec<f64> = square_root().take(300).collect();
        assert_eq!(root[..5], [1.0, 0.5, 0.375, 0.3125, 0.273_437_5]);
        assert!(convolved(&root, &root).iter().all(|entry| (entry - 1.0).abs() < 1e-12));
    }

    /// The noising coefficients of the banded inverse square root: 1, -1/2, -1/8, -1/16, -5/128 (spec 1.7).
    #[test]
    fn the_inverse_is_the_inverse() {
        let inverse = Banded::new(5).inverse(5);
        let expected = [1.0, -0.5, -0.125, -0.0625, -5.0 / 128.0];
        assert!(inverse.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.002));
        for bands in [1, 2, 7, 64, 256] {
            let banded = Banded::new(bands);
            let mut column: Vec<f64> = banded.coefficients.iter().map(|c| f64::from(*c) / 256.0).collect();
            column.resize(600, 0.0);
            let product = convolved(&column, &banded.inverse(600));
            assert!((product[0] - 1.0).abs() < 1e-12 && product[1..].iter().all(|entry| entry.abs() < 1e-12));
        }
    }

    /// The assumptions of `next` and of the sensitivity hold for every number of bands.
    #[test]
    fn coefficients_fall_and_noise_fits_its_integers() {
        for bands in 1..=MOST_BANDS {
            let banded = Banded::new(bands);
            let column = banded.coefficients();
            assert!(column[0] == ONE && column.windows(2).all(|pair| pair[0] >= pair[1] && pair[1] > 0));
            let magnitudes: f64 = banded.inverse(3000).iter().map(|entry| entry.abs()).sum();
            let most = magnitudes * (Level::L3.largest() as f64 / f64::from(ONE) + 0.5);
            assert!(magnitudes < 2.5 && most < f64::from(i32::MAX), "{bands} bands: {magnitudes}");
        }
    }

    /// The releases of all rounds at one coordinate, given the drawn noise and the sums of clients.
    fn released(bands: u32, drawn: &[i64], sums: &[i64]) -> Vec<i64> {
        let banded = Banded::new(bands);
        let mut earlier: VecDeque<Vec<i32>> = VecDeque::new();
        let each = drawn.iter().zip(sums).map(|(drawn, sum)| {
            let mut noise = vec![0];
            banded.next(Isa::detect(), &mut [*drawn], earlier.iter().map(Vec::as_slice), &mut noise);
            let released = sum + i64::from(noise[0]);
            earlier.push_front(noise);
            earlier.truncate(banded.remembered());
            released
        });
        each.collect()
    }

    /// The proof of the module above, on numbers: the releases depend on y = w x + z only.
    #[test]
    fn a_clients_integers_are_hidden_by_other_draws_to_the_bit() {
        let mut state = 7u64;
        let mut next = |most: i64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as i64 % (2 * most + 1) - most
        };
        for bands in [1, 2, 5, 17] {
            let drawn: Vec<i64> = (0..40).map(|_| next(1 << 30)).collect();
            let sums: Vec<i64> = (0..40).map(|_| next(1 << 20)).collect();
            let client: Vec<i64> = (0..40).map(|t| if t % 9 == 4 { next(1 << 12) } else { 0 }).collect();
            let without: Vec<i64> = sums.iter().zip(&client).map(|(sum, client)| sum - client).collect();
            let column = Banded::new(bands);
            let moved = |t: usize| -> i64 {
                let column = column.coefficients().iter().enumerate().take(t + 1);
                column.map(|(j, c)| i64::from(*c) * client[t - j]).sum()
            };
            let mut other: Vec<i64> = (0..40).map(|t| drawn[t] + moved(t)).collect();
            assert_eq!(released(bands, &other, &without), released(bands, &drawn, &sums), "{bands}");
            // The negative control: one draw is not moved.
            other[13] -= moved(13);
            assert_ne!(released(bands, &other, &without), released(bands, &drawn, &sums));
        }
    }

    /// The noise is C^-1 z, up to half a unit of rounding a round.
    #[test]
    fn noise_is_the_inverse_times_the_drawn_noise() {
        let drawn: Vec<i64> = (0..60i64).map(|t| (t * t * 7_919 + 13) % 1_000_003 - 500_000).collect();
        for bands in [1, 3, 32] {
            let inverse = Banded::new(bands).inverse(60);
            let found = released(bands, &drawn, &[0; 60]);
            for (t, found) in found.iter().enumerate() {
                let exact: f64 = (0..=t).map(|s| inverse[t - s] * drawn[s] as f64 / 256.0).sum();
                assert!((*found as f64 - exact).abs() <= 0.5 * 2.5, "round {t}: {found}, expected {exact}");
            }
        }
    }
}
