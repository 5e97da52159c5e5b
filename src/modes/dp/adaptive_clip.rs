//! Adaptive clipping: the clip bound follows a quantile of the norms.
//!
//! - Paper: Andrew, Thakkar, McMahan and Ramaswamy, "Differentially private learning with adaptive clipping", 2021,
//!   algorithm 1.
//!
//! Each client has one more coordinate: whether its norm is within the bound, minus a half. So one client changes the
//! count by at most a half. The count gets noise and belongs to the same release. The noise is sigma_b on the count and
//! z_D on the values. Together they cost as much as one Gaussian of multiplier z, where `z^-2 = z_D^-2 + (2
//! sigma_b)^-2`.

use crate::kernels::discrete_gaussian::Level;
use crate::privacy::clipping::NORMS;
use crate::privacy::ledger::plan::Adaptive;

/// The clip bound of the next round. `below` is the number of clients within the bound minus the number above it, and
/// `noise` the integer noise on that count.
pub fn next_clip(
    adaptive: &Adaptive,
    (bound, expected): (f64, u64),
    level: Level,
    below: i64,
    noise: i64,
) -> f64 {
    // Rounded down, so that half a client is never larger than its share of the budget.
    let half = (level.sigma() / (2.0 * adaptive.count_noise)).floor().max(1.0);
    let noised = below as f64 + noise as f64 / half;
    let fraction = (noised / (2.0 * expected as f64) + 0.5).clamp(0.0, 1.0);
    let next = bound * (-adaptive.rate * (fraction - adaptive.quantile)).exp();
    next.clamp(*NORMS.start(), *NORMS.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: Adaptive = Adaptive { initial: 0.1, quantile: 0.5, rate: 0.2, count_noise: 5.0 };

    /// Rounds with clients of the norms 1 to 100, without noise and with it.
    #[test]
    fn the_bound_goes_to_the_quantile_from_far_below_and_far_above() {
        for start in [0.05, 50_000.0] {
            for (quantile, expected) in [(0.5, 50.0), (0.9, 90.0)] {
                let adaptive = Adaptive { quantile, ..ADAPTIVE };
                let mut bound = start;
                for round in 0..500i64 {
                    let below = (1..=100).map(|norm| if f64::from(norm) <= bound { 1 } else { -1 }).sum();
                    let noise = (round * 7_919 % 5 - 2) * 400_000;
                    bound = next_clip(&adaptive, (bound, 100), Level::L2, below, noise);
                }
                assert!((bound / expected - 1.0f64).abs() < 0.1, "{bound}, expected {expected} from {start}");
            }
        }
    }

    /// The bound grows if all clients are clipped, and shrinks if none is.
    #[test]
    fn it_goes_the_right_way() {
        let next = |below: i64| next_clip(&ADAPTIVE, (1.0, 100), Level::L2, below, 0);
        assert!((next(-100) - 0.1f64.exp()).abs() < 1e-12 && (next(100) - (-0.1f64).exp()).abs() < 1e-12);
        // No noise moves the bound further than this in one round.
        let most = next_clip(&ADAPTIVE, (1.0, 100), Level::L2, 0, i64::MIN);
        assert!((most - 0.1f64.exp()).abs() < 1e-12);
    }

    #[test]
    fn it_stays_among_norms_that_can_be_clipped_to() {
        let adaptive = Adaptive { rate: 13.0, ..ADAPTIVE };
        for (below, expected) in [(100, 1e-60), (-100, 1e60)] {
            let next = |bound: f64, _: i32| next_clip(&adaptive, (bound, 100), Level::L2, below, 0);
            assert_eq!((0..40).fold(1.0, next), expected);
        }
    }

    /// One client's half, together with the bound on the values, stays within the sensitivity of the release.
    #[test]
    fn a_client_changes_values_and_count_by_no_more_than_the_bound_of_both() {
        for (z, count_noise) in [(1.0, 5.0), (0.7, 0.5), (3.0, 100.0)] {
            let value = f64::powf(f64::powi(z, -2) - f64::powi(2.0 * count_noise, -2), -0.5);
            for level in [Level::L2, Level::L3] {
                let values = (level.sigma() / value).floor();
                let count = (level.sigma() / (2.0 * count_noise)).floor();
                assert!(values.hypot(count) <= level.sigma() / z * (1.0 + 1e-15));
            }
        }
    }
}
