//! Tests of the bound, with updates made to break it.

use super::*;
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::quantize;
use crate::kernels::discrete_gaussian::noise;
use crate::kernels::lanes::Isa;

/// Values from -1 to 1.
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed * 2 + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f32 / (1u64 << 30) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn squares(values: &[f32]) -> Squares {
    let mut squares = Squares::default();
    squares.add(values, &[]);
    squares
}

/// The integers of an update, and how it was clipped.
fn integers(grid: &Grid, values: &[f32], weight: f64) -> (Vec<i64>, Clip) {
    let mut integers = vec![0; values.len()];
    let clip = grid.clip(&squares(values), weight);
    let sum = quantize(Isa::detect(), values, &[], clip.scale, &mut integers);
    assert!(grid.admits(sum), "{sum}");
    (integers, clip)
}

/// The sum of squares, computed without the kernel.
fn sum_of_squares(integers: &[i64]) -> u128 {
    integers.iter().map(|x| u128::from(x.unsigned_abs()) * u128::from(x.unsigned_abs())).sum()
}

/// The values scaled to the norm `norm`, up to rounding.
fn of_norm(values: &[f32], norm: f64) -> Vec<f32> {
    let factor = norm / squares(values).norm();
    values.iter().map(|x| (f64::from(*x) * factor) as f32).collect()
}

const GRIDS: [(Level, f64, f64); 6] = [
    (Level::L2, 1.0, 1.0),
    (Level::L2, 0.3, 0.05),
    (Level::L2, 1e-20, 7.0),
    (Level::L3, 1.0, 1.0),
    (Level::L3, 12.5, 0.4),
    (Level::L3, 3e15, 100.0),
];

fn grids() -> impl Iterator<Item = (Grid, f64, f64)> {
    GRIDS.into_iter().map(|(level, norm, z)| (Grid::at(level, norm, z).unwrap(), norm, z))
}

#[test]
fn grids_have_at_least_the_set_noise() {
    for (grid, norm, z) in grids() {
        let multiplier = grid.level().sigma() / grid.bound() as f64;
        assert!(multiplier >= z && multiplier < z * 1.001, "{grid:?}");
        // In the unit of the updates: noise of sigma grid units against a norm of S.
        let noise = grid.level().sigma() * grid.unit();
        assert!(noise >= z * norm && noise < z * norm * 1.001, "{grid:?}");
        // S is at most B grid units.
        assert!(grid.unit() * grid.bound() as f64 >= norm * (1.0 - 1e-15), "{grid:?}");
        let room = i64::MAX as u64 - grid.level().largest() as u64;
        assert!(grid.most_clients() * grid.bound() < room && grid.most_clients() >= 1 << 22);
    }
    // For z = 1 the bound is floor(sigma), S_int of the papers.
    assert_eq!(Grid::at(Level::L2, 1.0, 1.0).unwrap().bound(), 2_098_176);
    assert_eq!(Grid::at(Level::L3, 1.0, 1.0).unwrap().bound(), 2_148_534_017);
}

#[test]
fn settings_out_of_range_are_refused() {
    for norm in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-61, 1e61] {
        assert!(matches!(Grid::at(Level::L2, norm, 1.0), Err(NoGrid::ClipNorm(_))), "{norm}");
    }
    for z in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-7, 1e10] {
        assert!(matches!(Grid::at(Level::L2, 1.0, z), Err(NoGrid::NoiseMultiplier(_))), "{z}");
    }
    for z in [2e-6, 2e6] {
        assert!(Grid::at(Level::L2, 1.0, z).is_ok(), "{z}");
    }
}

#[test]
fn no_update_is_longer_than_the_bound() {
    for (grid, norm, _) in grids() {
        for seed in 0..170 {
            let len = 1 + (seed as usize * 37) % 90;
            // Just within, just above, and far above.
            let times = [1.0 - 1e-7, 1.0, 1.0 + 1e-7, 1.0 + 1e-4, 3.0, 1e9][seed as usize % 6];
            let update = of_norm(&values(seed, len), norm * times);
            let (integers, clip) = integers(&grid, &update, 1.0);
            let (sum, bound) = (sum_of_squares(&integers), u128::from(grid.bound()).pow(2));
            assert!(sum <= bound, "{seed}: {sum} and {bound}");
            assert_ne!(clip.treatment, Treatment::Void);
            // And not much shorter than allowed: one unit for each coordinate, and a share of 2^-12.
            let least = grid.bound() as f64 * times.min(1.0) * (1.0 - 2.5e-4) - (len as f64).sqrt();
            assert!((sum as f64).sqrt() >= least, "{seed}: {}", (sum as f64).sqrt() / grid.bound() as f64);
        }
    }
}

/// If the norm is at most the given bound, the integers are always admitted.
#[test]
fn integers_at_the_scale_of_a_norm_are_admitted() {
    for (grid, norm, _) in grids() {
        for seed in 0..170 {
            let len = 1 + (seed as usize * 37) % 90;
            let times = [1.0 - 1e-7, 1.0, 1.0 + 1e-7, 1e-30, 3.0, 1e9][seed as usize % 6];
            let update = of_norm(&values(seed, len), norm * times);
            let most = squares(&update).norm().next_up();
            let clip = grid.clip_of_norm(most, 1.0);
            let mut integers = vec![0; len];
            assert!(grid.admits(quantize(Isa::detect(), &update, &[], clip.scale, &mut integers)), "{seed}");
            assert!(clip.treatment != Treatment::Void && clip.scale <= grid.scale);
            // The scale equals that of exact squares, up to its last bits.
            let exact = grid.clip(&squares(&update), 1.0).scale;
            assert!((clip.scale.unit() / exact.unit() - 1.0).abs() < 1e-9, "{seed}");
            // The negative control: the norm is larger than the given bound.
            let longer = grid.clip_of_norm(most * 0.99, 1.0).scale;
            let sum = quantize(Isa::detect(), &update, &[], longer, &mut integers);
            assert!(times < 3.0 || !grid.admits(sum), "{seed}");
        }
        assert_eq!(grid.clip_of_norm(0.0, 1.0), Clip { scale: grid.scale, treatment: Treatment::Whole });
        assert_eq!(grid.clip_of_norm(f64::INFINITY, 1.0), Clip::VOID);
        assert_eq!(grid.clip_of_norm(f64::NAN, 1.0), Clip::VOID);
    }
}

/// The negative control: without clipping the integers are not admitted.
#[test]
fn a_bound_that_is_passed_is_noticed() {
    let grid = Grid::at(Level::L2, 1.0, 1.0).unwrap();
    let update = of_norm(&values(1, 50), 1.001);
    let mut found = vec![0; 50];
    let sum = quantize(Isa::detect(), &update, &[], grid.clip(&squares(&[0.0]), 1.0).scale, &mut found);
    assert!(!grid.admits(sum));
    assert_eq!(sum, sum_of_squares(&found));
}

#[test]
fn updates_within_the_norm_are_only_rounded() {
    for (grid, norm, _) in grids() {
        for seed in 0..50 {
            let update = of_norm(&values(seed, 64), norm * [1.0 - 1e-6, 0.5, 1e-3][seed as usize % 3]);
            let (integers, clip) = integers(&grid, &update, 1.0);
            assert!(clip.treatment == Treatment::Whole && clip.scale == grid.scale);
            for (integer, x) in integers.iter().zip(&update) {
                let exact = f64::from(*x) / grid.unit();
                let off = exact.abs() - integer.unsigned_abs() as f64;
                assert!((-1e-5..1.0 + 1e-5).contains(&off) && *integer as f64 * exact >= 0.0, "{off}");
            }
        }
    }
}

#[test]
fn clipped_updates_keep_their_direction() {
    for (grid, norm, _) in grids() {
        let update = of_norm(&values(3, 64), norm * 40.0);
        let (integers, clip) = integers(&grid, &update, 1.0);
        assert_eq!(clip.treatment, Treatment::Clipped);
        for (integer, x) in integers.iter().zip(&update) {
            let exact = f64::from(*x) / 40.0 / grid.unit();
            assert!((*integer as f64 - exact).abs() <= 1.0 + 1e-6 * exact.abs(), "{integer} and {exact}");
        }
    }
}

#[test]
fn sums_are_within_a_unit_a_client_of_the_truth() {
    for (grid, norm, _) in grids() {
        let updates: Vec<Vec<f32>> =
            (0..20).map(|k| of_norm(&values(k, 40), norm * 0.2 * (k + 1) as f64)).collect();
        let rows: Vec<Vec<i64>> = updates.iter().map(|update| integers(&grid, update, 1.0).0).collect();
        for i in 0..40 {
            let truth: f64 =
                updates.iter().map(|x| f64::from(x[i]) * (norm / squares(x).norm()).min(1.0)).sum();
            let found = rows.iter().map(|row| row[i]).sum::<i64>() as f64 * grid.unit();
            assert!((found - truth).abs() <= 20.0 * grid.unit() * 1.01 + 1e-7 * norm, "{found} and {truth}");
        }
    }
}

/// With one client more or less, the sums of integers differ by the client's own integers.
#[test]
fn one_client_changes_the_sum_by_no_more_than_the_bound() {
    let grid = Grid::at(Level::L2, 1.0, 0.5).unwrap();
    let add = |sum: &mut Vec<i64>, row: Vec<i64>| sum.iter_mut().zip(row).for_each(|(sum, q)| *sum += q);
    let mut sum = vec![0; 30];
    (0..10).for_each(|seed| add(&mut sum, integers(&grid, &of_norm(&values(seed, 30), 2.0), 1.0).0));
    let mut hostile = vec![vec![f32::MAX; 30], vec![-f32::MAX; 30], vec![1e-45; 30], vec![f32::NAN; 30]];
    hostile.extend([vec![f32::INFINITY; 30], vec![-0.0; 30], vec![f32::MIN_POSITIVE; 30]]);
    for at in 0..30 {
        // One huge value or NaN beside small values.
        for bad in [f32::MAX, -3e38, f32::NAN] {
            let mut update = values(at as u64, 30);
            update[at] = bad;
            hostile.push(update);
        }
    }
    for update in hostile {
        let mut with = sum.clone();
        add(&mut with, integers(&grid, &update, 1.0).0);
        let difference: Vec<i64> = with.iter().zip(&sum).map(|(a, b)| a - b).collect();
        assert!(grid.admits(sum_of_squares(&difference)), "{update:?}");
    }
}

#[test]
fn what_is_not_finite_counts_as_zero_and_zeros_are_whole() {
    for (grid, ..) in grids() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (found, clip) = integers(&grid, &[1.0, bad, 2.0], 1.0);
            assert!(found == [0; 3] && clip == Clip::VOID);
        }
        for zeros in [vec![0.0; 5], vec![-0.0; 5], Vec::new()] {
            let (found, clip) = integers(&grid, &zeros, 1.0);
            assert!(found.iter().all(|x| *x == 0) && clip.treatment == Treatment::Whole);
        }
        // The largest float in one direction.
        let (found, clip) = integers(&grid, &[f32::MAX, 0.0, -1e-45], 1.0);
        assert!(
            found[0] <= grid.bound() as i64 && found[0] >= grid.bound() as i64 - 2 && found[1..] == [0; 2]
        );
        assert_eq!(clip.treatment, Treatment::Clipped);
    }
}

#[test]
fn weights_make_shorter() {
    for (grid, norm, _) in grids() {
        for times in [0.5, 30.0] {
            let update = of_norm(&values(9, 33), norm * times);
            let full = sum_of_squares(&integers(&grid, &update, 1.0).0) as f64;
            for weight in [0.0, 0.25, 0.999] {
                let sum = sum_of_squares(&integers(&grid, &update, weight).0) as f64;
                assert!((sum.sqrt() - weight * full.sqrt()).abs() <= 2.0 * 33f64.sqrt() + 1e-6 * sum.sqrt());
            }
        }
    }
}

/// A sum of no clients still has noise, of the standard deviation that the multiplier gives.
#[test]
fn noise_in_units_is_the_multiplier_times_the_norm() {
    let grid = Grid::at(Level::L2, 0.7, 1.3).unwrap();
    let mut found = vec![0; 20_000];
    noise(Isa::detect(), Stream { key: &[7; 32], domain: 0, segment: 0 }, grid.level(), 0, &mut found);
    let variance = found.iter().map(|x| (*x as f64 * grid.unit()).powi(2)).sum::<f64>() / 20_000.0;
    assert!((variance.sqrt() / (1.3 * 0.7) - 1.0).abs() < 0.02, "{}", variance.sqrt());
}

/// Bounds B, updates, and factors. B over the norm of the update is just below the factor, and the float division
/// rounds up to the factor. The update's squares add up to `(B^2 + 1) / factor^2`, so times the factor they exceed B.
const ROUNDED_UP: [(u64, [f32; 4], u64); 3] = [
    (134_264_557, [214_823.0, 345.0, 78.0, 2.0], 625),
    (140_344_818, [44_910.0, 175.0, 6.0, 6.0], 3125),
    (137_977_952, [62_802.0, 332.0, 41.0, 6.0], 2197),
];

/// The least float that is not below the norm of whole numbers.
fn least_norm(values: &[f32]) -> f64 {
    let square: u128 = values.iter().map(|x| (*x as u128).pow(2)).sum();
    // Norms here have 16 to 18 bits before the point, so at 37 bits more they are whole numbers.
    let is_not_below = |norm: &f64| ((norm * (1u64 << 37) as f64) as u128).pow(2) >= square << 74;
    let mut norm = (square as f64).sqrt().next_up();
    assert!(is_not_below(&norm));
    while is_not_below(&norm.next_down()) {
        norm = norm.next_down();
    }
    norm
}

/// The grid of a bound.
fn grid_of_bound(bound: u64, clip_norm: f64) -> Grid {
    let grid = Grid::at(Level::L3, clip_norm, Level::L3.sigma() / (bound as f64 + 0.5)).unwrap();
    assert_eq!(grid.bound(), bound);
    grid
}

/// A ratio that the float division rounded up is lowered again. Otherwise the integers would exceed the bound.
#[test]
fn a_ratio_that_is_rounded_up_admits_nothing_longer() {
    for (bound, update, factor) in ROUNDED_UP {
        let (least, exact) = (least_norm(&update), update.map(|x| x as i64 * factor as i64));
        assert!(bound as f64 / least == factor as f64, "the division is rounded up to {factor}");
        assert_eq!(sum_of_squares(&exact), u128::from(bound).pow(2) + 1);
        // By the norm of the update; and where that is the norm to clip to.
        for (grid, treatment) in
            [(grid_of_bound(bound, 1.0), Treatment::Clipped), (grid_of_bound(bound, least), Treatment::Whole)]
        {
            let clip = grid.clip_of_norm(least, 1.0);
            let mut found = vec![0; update.len()];
            assert!(grid.admits(quantize(Isa::detect(), &update, &[], clip.scale, &mut found)), "{bound}");
            assert_eq!(clip.treatment, treatment);
            // No value is shorter by more than the rounding.
            assert!(found.iter().zip(&exact).all(|(found, exact)| exact - found == 1), "{found:?}");
            // The negative control.
            let longer = Scale::rounded_down(factor as f64, 0);
            assert!(!grid.admits(quantize(Isa::detect(), &update, &[], longer, &mut found)), "{bound}");
        }
    }
}

#[test]
fn an_update_of_the_norm_to_clip_to_is_whole_and_a_longer_one_is_not() {
    for (grid, norm, _) in grids() {
        assert_eq!(grid.clip_of_norm(norm, 1.0).treatment, Treatment::Whole);
        assert_eq!(grid.clip_of_norm(norm, 1.0).scale, grid.scale);
        // Scales have 32 bits.
        assert_eq!(grid.clip_of_norm(norm * (1.0 + 1e-9), 1.0).treatment, Treatment::Clipped);
    }
}

#[test]
fn integers_of_the_bound_are_admitted_and_longer_ones_are_not() {
    for (grid, ..) in grids() {
        let square = u128::from(grid.bound()).pow(2);
        assert!(grid.admits(square) && !grid.admits(square + 1));
    }
}

/// Exactly: `(B z)^2` is at most the variance, and `((B + 1) z)^2` is larger, up to rounding down.
#[test]
fn noise_is_never_narrower_than_set() {
    for level in [Level::L2, Level::L3] {
        let multipliers = (1..3000).map(|k| level.sigma() / f64::from(k));
        for multiplier in multipliers.flat_map(|z| [z.next_down(), z, z.next_up()]) {
            let Ok(grid) = Grid::at(level, 1.0, multiplier) else {
                assert!(multiplier >= level.sigma().next_down(), "{multiplier}");
                continue;
            };
            assert!(is_at_most_sigma(grid.bound(), multiplier, level), "{level:?} {multiplier}");
            let more = multiplier * (1.0 + 1e-12);
            assert!(!is_at_most_sigma(grid.bound() + 1, more, level), "{level:?} {multiplier}");
        }
    }
}

/// Whether a bound times a multiplier is at most a level's standard deviation, in whole numbers.
fn is_at_most_sigma(bound: u64, multiplier: f64, level: Level) -> bool {
    // The multiplier is `significand * 2^-places`. The root has all bits that fit.
    let places = 1075 - (multiplier.to_bits() >> 52) as i32;
    let significand = u128::from(multiplier.to_bits() & ((1 << 52) - 1) | 1 << 52);
    let variance = u128::from(level.variance());
    let more = variance.leading_zeros() / 2;
    let (product, root) = (u128::from(bound) * significand, (variance << (2 * more)).isqrt());
    let shift = more as i32 - places;
    if shift >= 0 { product << shift <= root } else { product <= root << -shift }
}

#[test]
fn settings_at_the_ends_of_their_ranges() {
    let at = |norm: f64, multiplier: f64| Grid::at(Level::L2, norm, multiplier);
    for norm in [1e-60, 1e60] {
        assert!(at(norm, 1.0).is_ok(), "{norm}");
    }
    for norm in [1e-60f64.next_down(), 1e60f64.next_up(), 0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(at(norm, 1.0), Err(NoGrid::ClipNorm(_))), "{norm}");
    }
    // Bounds from one to 2^40.
    let (sigma, most) = (Level::L2.sigma(), LARGEST_BOUND as f64);
    for (multiplier, bound) in [(sigma / 1.5, 1), (sigma / most * (1.0 + 1e-9), LARGEST_BOUND - 1100)] {
        let found = at(1.0, multiplier).unwrap().bound();
        assert!(found.abs_diff(bound) <= 100, "{multiplier}: {found}");
    }
    for multiplier in [sigma, sigma / most * (1.0 - 1e-9), 0.0, -1.0, f64::NAN] {
        assert!(matches!(at(1.0, multiplier), Err(NoGrid::NoiseMultiplier(_))), "{multiplier}");
    }
}
