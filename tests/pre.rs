//! The steps before a rule, files to files: against their oracles, alone and chained; properties.

use crate::harness::shortest;
use crate::reference::vectors::{coordinate_median, mean_of, norm, scaled, select};
use crate::reference::{pre as oracle, robust, trimmed_mean, vectors};
use crate::robust::{
    DISTANCES, Round, any_index, assert_near, assert_within, config, krums_most, less_than_half, magnitude,
    merge, merge_against, scattered, tied, wide, write_base, write_round,
};
use fedmill::rules::pre::STEPS;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

const UNIFORM: [&str; 2] = ["--weights", "uniform"];

/// The magnitude that errors are relative to.
fn scale(rows: &[Vec<f64>]) -> f64 {
    magnitude(rows).max(1e-30)
}

/// Every step before the median, on rounds without ties.
#[test]
fn every_step_is_its_oracle() {
    let rounds = proptest::collection::vec(proptest::collection::vec(-2.0f32..3.0, 7), 4..=15);
    for entry in STEPS {
        let Some(oracle) = oracle::oracle_of(entry.name) else { continue };
        let step = shortest(entry, "");
        let check = |(round, f): (Round, Index)| {
            let (f, rows) = (f.index((round.len() - 1) / 3 + 1), wide(&round));
            let got = merge_against(&write_round(&round), "median", f, &["--pre", &step]);
            assert_within(&got.values, &coordinate_median(&oracle(&rows, f)), 1e-5 * scale(&rows), &step);
            Ok(())
        };
        TestRunner::new(config(32)).run(&(rounds.clone(), any_index()), check).unwrap();
    }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn nnm_then_median_and_trimmed_mean(round in tied(1..=40), f in any_index()) {
        let (f, dir, rows) = (f.index(less_than_half(round.len()) + 1), write_round(&round), wide(&round));
        let mixed = oracle::nnm(&rows, f);
        for distances in DISTANCES {
            let args = [&["--pre", "nnm"], distances].concat();
            let got = merge_against(&dir, "median", f, &args);
            assert_near(&got.values, &coordinate_median(&mixed), scale(&rows), "nnm, median");
            let got = merge_against(&dir, "trimmed-mean", f, &args);
            let want = vectors::by_coordinate(&mixed, |values| trimmed_mean(values, f));
            assert_near(&got.values, &want, scale(&rows), "nnm, trimmed-mean");
        }
    }

    /// Means are rounded, so any mixed row with an equal score is right.
    #[test]
    fn nnm_then_krum(round in tied(3..=40), f in any_index()) {
        let (f, rows) = (f.index(krums_most(round.len()) + 1), wide(&round));
        let mixed = oracle::nnm(&rows, f);
        let scores = robust::krum_scores(&mixed, f);
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let bound = least * (1.0 + 1e-5) + 1e-9 * scale(&rows).powi(2);
        let got = merge_against(&write_round(&round), "krum", f, &["--pre", "nnm"]).values;
        let taken = mixed.iter().zip(&scores).filter(|(_, score)| **score <= bound);
        let apart = taken.map(|(row, _)| vectors::distance(row, &got)).fold(f64::INFINITY, f64::min);
        prop_assert!(apart <= 1e-5 * scale(&rows), "{:?} is none of the best", got);
    }

    #[test]
    fn nnm_then_geometric_median(round in scattered(3..=40, 5..=12), f in any_index()) {
        let (f, dir, rows) = (f.index(less_than_half(round.len()) + 1), write_round(&round), wide(&round));
        let (mixed, weights) = (oracle::nnm(&rows, f), vec![1.0; round.len()]);
        let least = robust::total_distance(&mixed, &weights, &robust::geometric_median(&mixed, &weights));
        let got = merge_against(&dir, "geometric-median", f, &[&["--pre", "nnm"][..], &UNIFORM].concat());
        let more = robust::total_distance(&mixed, &weights, &got.values) - least;
        prop_assert!(more <= 1e-5 * scale(&rows) * weights.len() as f64, "{} more than {}", more, least);
    }

    #[test]
    fn clip_then_mean(round in tied(1..=40), most in 1u8..100) {
        let (dir, rows, most) = (write_round(&round), wide(&round), f64::from(most) / 8.0);
        let step = format!("clip:norm={most}");
        let want = mean_of(&oracle::clip(&rows, most), &(0..rows.len()).collect::<Vec<_>>());
        for distances in DISTANCES {
            let got = merge(&dir, "mean", &[&["--pre", &step][..], &UNIFORM, distances].concat());
            assert_near(&got.values, &want, scale(&rows), &step);
            prop_assert!(norm(&got.values) <= most * (1.0 + 1e-5));
        }
    }

    /// If there is a base, the step clips deltas.
    #[test]
    fn clip_of_deltas(round in tied(1..=20), most in 1u8..100) {
        let (dir, rows, most) = (write_round(&round), wide(&round), f64::from(most) / 8.0);
        let base: Vec<f32> = (0..round[0].len()).map(|j| j as f32 / 16.0 - 0.25).collect();
        write_base(&dir, &base);
        let base = wide(&[base]).swap_remove(0);
        let deltas: Vec<Vec<f64>> = rows.iter().map(|row| vectors::difference(row, &base)).collect();
        let clipped = coordinate_median(&oracle::clip(&deltas, most));
        let want: Vec<f64> = base.iter().zip(clipped).map(|(b, x)| b + x).collect();
        let step = format!("clip:norm={most}");
        let got = merge(&dir, "median", &["--pre", &step, "--base", "base.safetensors", "--kind", "weights"]);
        assert_near(&got.values, &want, scale(&rows).max(1.0), &step);
    }

    #[test]
    fn arc_then_median(round in tied(1..=40), f in any_index(), far in any::<bool>()) {
        let f = f.index(less_than_half(round.len()) + 1);
        let mut round = round;
        if far {
            round.iter_mut().take(f).flatten().for_each(|x| *x *= 1024.0);
        }
        let (dir, rows) = (write_round(&round), wide(&round));
        let want = coordinate_median(&oracle::arc(&rows, f));
        for distances in DISTANCES {
            let got = merge_against(&dir, "median", f, &[&["--pre", "arc"], distances].concat());
            assert_near(&got.values, &want, scale(&rows), "arc, median");
        }
    }

    /// The removed clients are at least as odd as the others, up to the error of the geometric median. The rule reads
    /// only the others.
    #[test]
    fn outliers_then_median(round in scattered(4..=40, 3..=12), f in any_index(), turned in any::<bool>()) {
        let f = f.index((round.len() - 1) / 3 + 1);
        let mut round = round;
        let change = |row: &mut Vec<f32>| row.iter_mut().for_each(|x| *x *= if turned { -1.0 } else { 64.0 });
        round.iter_mut().flatten().for_each(|x| *x += 4.0625); // Directions with a meaning: no row is zero.
        round.iter_mut().take(f).for_each(change);
        let (dir, rows) = (write_round(&round), wide(&round));
        let scores = oracle::outlier_scores(&rows);
        for distances in DISTANCES {
            let got = merge_against(&dir, "median", f, &[&["--pre", "outliers"], distances].concat());
            let kept = got.kept();
            prop_assert_eq!(kept.len(), rows.len() - f);
            let most = kept.iter().map(|i| scores[*i]).fold(f64::NEG_INFINITY, f64::max);
            let dropped = (0..rows.len()).filter(|i| !kept.contains(i)).map(|i| scores[i]);
            prop_assert!(dropped.fold(f64::INFINITY, f64::min) >= most - 1e-4, "{:?} of {:?}", kept, scores);
            assert_near(&got.values, &coordinate_median(&select(&rows, &kept)), scale(&rows), "outliers, median");
        }
    }

    /// Steps run in the given order. Clipped rows often have equal distances. Then rounding decides which rows are
    /// mixed, so the test leaves such rounds out.
    #[test]
    fn steps_are_a_chain(round in scattered(5..=20, 2..=8), f in any_index()) {
        let (f, dir, rows) = (f.index(less_than_half(round.len()) + 1), write_round(&round), wide(&round));
        prop_assume!(has_sure_neighbours(&oracle::clip(&rows, 2.0), f));
        let clip_nnm = oracle::nnm(&oracle::clip(&rows, 2.0), f);
        let nnm_clip = oracle::clip(&oracle::nnm(&rows, f), 2.0);
        let nnm_arc = oracle::arc(&oracle::nnm(&rows, f), f);
        let steps = |a, b| ["--pre", a, "--pre", b];
        for (steps, want) in [
            (steps("nnm", "clip:norm=2"), nnm_clip),
            (steps("nnm", "arc"), nnm_arc),
            (steps("clip:norm=2", "nnm"), clip_nnm),
        ] {
            let got = merge_against(&dir, "median", f, &steps).values;
            assert_near(&got, &coordinate_median(&want), scale(&rows), &format!("{steps:?}"));
        }
    }

    /// A bucket without hostile clients holds an honest mean, and most buckets hold no hostile client.
    #[test]
    fn bucketing_keeps_the_median_between_honest_values(
        round in tied(9..=40), size in 1usize..=3, seed in 0u64..1000, f in any_index(),
    ) {
        let buckets = round.len().div_ceil(size);
        let f = f.index(less_than_half(buckets) + 1);
        let mut round = round;
        round.iter_mut().step_by(2).take(f).flatten().for_each(|x| *x = 1e6);
        let honest = |i: &usize| i % 2 == 1 || i / 2 >= f;
        let rows = wide(&round);
        let args = ["--pre", &format!("bucketing:s={size}"), "--seed", &seed.to_string()];
        let got = merge_against(&write_round(&round), "median", f, &args).values;
        for (j, got) in got.iter().enumerate() {
            let values = || (0..rows.len()).filter(honest).map(|i| rows[i][j]);
            let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
            prop_assert!((low - 1e-5..=high + 1e-5).contains(got), "{} is not in {} to {}", got, low, high);
        }
    }

    /// Buckets of equal size have the clients' mean as their mean. A single bucket is that mean.
    #[test]
    fn bucketing_keeps_the_mean(round in tied(12..=12), size in prop_oneof![Just(1), Just(3), Just(4), Just(12), Just(50)]) {
        let (dir, rows) = (write_round(&round), wide(&round));
        let want = mean_of(&rows, &(0..12).collect::<Vec<_>>());
        let args = ["--pre", &format!("bucketing:s={size}"), "--seed", "3"];
        let got = merge(&dir, "mean", &[&args[..], &UNIFORM].concat());
        assert_within(&got.values, &want, 1e-6 * scale(&rows), "bucketing, mean");
        if size >= 12 {
            assert_near(&merge(&dir, "median", &args).values, &want, scale(&rows), "one bucket");
        }
    }
}

/// Whether the `n - f` nearest rows of each row are clear despite rounding.
fn has_sure_neighbours(rows: &[Vec<f64>], f: usize) -> bool {
    let last = rows.len() - f;
    rows.iter().all(|row| {
        let mut distances: Vec<f64> = rows.iter().map(|other| vectors::distance(row, other)).collect();
        distances.sort_by(f64::total_cmp);
        f == 0 || distances[last] - distances[last - 1] > 1e-6
    })
}

/// Each client sends a different power of two, so a sum shows which clients it has.
fn powers(clients: usize) -> Round {
    (0..clients).map(|i| vec![2f32.powi(i as i32)]).collect()
}

/// The bucket that the median of three takes: the sum of its members, as bits.
fn middle_bucket(seed: u64) -> u32 {
    let args = ["--pre", "bucketing:s=3", "--seed", &seed.to_string()];
    let got = merge(&write_round(&powers(9)), "median", &args).values[0] * 3.0;
    assert!((got - got.round()).abs() < 1e-3, "{got} is not a sum of powers of two");
    got.round() as u32
}

#[test]
fn buckets_have_the_set_size_and_the_seed_shuffles_them() {
    let buckets: Vec<u32> = (0..12).map(middle_bucket).collect();
    assert!(buckets.iter().all(|bucket| bucket.count_ones() == 3 && *bucket < 1 << 9), "{buckets:?}");
    assert!(buckets.iter().any(|bucket| *bucket != buckets[0]), "the seed makes no difference");
    assert_eq!(
        buckets,
        (0..12).map(middle_bucket).collect::<Vec<_>>(),
        "the same seed gives the same buckets"
    );
}

/// Seven clients in pairs: the last bucket has one.
#[test]
fn last_bucket_may_be_short() {
    let mut seen = [false; 3];
    for seed in 0..40 {
        let args = ["--pre", "bucketing:s=2", "--seed", &seed.to_string()];
        // Without hostile clients, Krum takes one of the four buckets.
        let got = merge(&write_round(&powers(7)), "krum", &args).values[0];
        let members = if got.fract() == 0.5 { 2 } else { (got as u32).count_ones() };
        assert!((1..=2).contains(&members), "{got}");
        seen[members as usize] = true;
    }
    assert!(seen[2], "no bucket of two was taken");
}

/// A mean lies within the range of its inputs, so a step that only mixes leaves equal rows unchanged.
#[test]
fn all_equal_rows_stay() {
    let row = [1.5f32, -0.1, 3e-9, 0.0, 7e7];
    let (dir, want) = (write_round(&vec![row.to_vec(); 9]), wide(&[row.to_vec()]).swap_remove(0));
    let long = |step: String| if step == "clip:norm=1.5" { "clip:norm=1e9".to_owned() } else { step };
    for step in STEPS.iter().map(|entry| long(shortest(entry, ""))) {
        let got = merge_against(&dir, "median", 2, &["--pre", &step, "--seed", "1"]).values;
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-6 * want.abs(), "{step}: {got:e}, not {want:e}");
        }
    }
}

/// Clipping does not change directions.
#[test]
fn clipped_rows_point_the_same_way() {
    let round = vec![vec![300.0f32, -400.0, 0.0]];
    let got = merge(&write_round(&round), "mean", &["--pre", "clip:norm=1", "--weights", "uniform"]);
    assert_near(&got.values, &scaled(&[3.0, -4.0, 0.0], 0.2), 1.0, "clip");
}

/// Hostile rows of 1e30 among honest ones. Steps that tolerate them remove them completely.
#[test]
fn huge_clients_move_nothing() {
    let value = |i: usize, j: usize| 1.0 + ((i * 7 + j * 3) % 11) as f32 / 16.0;
    let mut round: Round = (0..13).map(|i| (0..6).map(|j| value(i, j)).collect()).collect();
    for (place, sign) in [(2, 1.0), (5, -1.0), (11, 1.0)] {
        round[place] = vec![sign * 1e30; 6];
    }
    let dir = write_round(&round);
    for step in STEPS.iter().map(|entry| shortest(entry, "")) {
        for rule in ["median", "geometric-median", "trimmed-mean"] {
            let args = ["--pre", &step, "--seed", "1", "--weights", "uniform"];
            let got = merge_against(&dir, rule, 3, &args).values;
            assert!(got.iter().all(|x| x.is_finite() && (x - 1.3).abs() < 10.0), "{step}, {rule}: {got:?}");
        }
    }
}
