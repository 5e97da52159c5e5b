//! Every rule, files to file, against the oracle, and properties that follow from its definition.

use crate::harness::{Dir, Model, Update, fedmill};
use crate::reference;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const CLIENTS: std::ops::Range<usize> = 1..41;

/// Clients' values, one row each. They include ties, zeros of both signs and values far apart.
fn rounds() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let value = prop_oneof![
        4 => -1.0f32..1.0,
        1 => (-3i8..4).prop_map(f32::from),
        1 => Just(-0.0f32),
        1 => prop_oneof![Just(3e38f32), Just(-3e38), Just(1e-45), Just(1e20)],
    ];
    (CLIENTS, 1usize..40).prop_flat_map(move |(clients, values)| {
        proptest::collection::vec(proptest::collection::vec(value.clone(), values), clients)
    })
}

/// Weights that are counts or fractions.
fn weights(clients: usize) -> Vec<f64> {
    (0..clients).map(|i| if i % 3 == 0 { 0.25 + i as f64 } else { (i * i % 17) as f64 + 1.0 }).collect()
}

fn write_round(dir: &Dir, round: &[Vec<f32>]) {
    for (i, (row, weight)) in round.iter().zip(weights(round.len())).enumerate() {
        Update::new(&format!("in/client-{i:02}"))
            .f32("w", &[row.len()], row)
            .meta("num_examples", &weight.to_string())
            .write(dir);
    }
}

fn merged(dir: &Dir, args: &[&str]) -> Vec<f32> {
    let all = [&["aggregate", "-q", "in", "-o", "merged.safetensors"], args].concat();
    fedmill(dir, &all).assert_merged("merged.safetensors");
    Model::read(dir, "merged.safetensors").f32("w")
}

fn merge_round(round: &[Vec<f32>], args: &[&str]) -> Vec<f32> {
    let dir = Dir::new();
    write_round(&dir, round);
    merged(&dir, args)
}

fn column(round: &[Vec<f32>], j: usize) -> Vec<f64> {
    round.iter().map(|row| f64::from(row[j])).collect()
}

/// Each merged value equals the oracle's, up to one step of f32 and the error of the sum.
fn assert_matches(round: &[Vec<f32>], got: &[f32], oracle: impl Fn(&[f64]) -> f64) {
    for (j, got) in got.iter().enumerate() {
        let values = column(round, j);
        let scale = values.iter().fold(0.0f64, |a, x| a.max(x.abs()));
        let (got, want) = (f64::from(*got), oracle(&values));
        let step = f64::from(f32::EPSILON) * want.abs() + 1e-45;
        let bound = step + 4.0 * values.len() as f64 * f64::EPSILON * scale;
        assert!((got - want).abs() <= bound, "value {j} of {values:?}: got {got:e}, expected {want:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, rng_seed: RngSeed::Fixed(17), ..ProptestConfig::default() })]

    #[test]
    fn mean_matches_the_oracle(round in rounds()) {
        let weights = weights(round.len());
        assert_matches(&round, &merge_round(&round, &["--rule", "mean"]), |values| {
            reference::weighted_mean(values, &weights)
        });
    }

    #[test]
    fn median_is_the_oracles_rounded_once(round in rounds()) {
        let got = merge_round(&round, &["--rule", "median"]);
        for (j, got) in got.iter().enumerate() {
            prop_assert_eq!(*got, reference::median(&column(&round, j)) as f32);
        }
    }

    #[test]
    fn trimmed_mean_matches_the_oracle(round in rounds(), fraction in 0.0f64..0.5) {
        let cut = ((fraction * round.len() as f64) as usize).min((round.len() - 1) / 2);
        let got = merge_round(&round, &["--rule", &format!("trimmed-mean:cut={cut}")]);
        assert_matches(&round, &got, |values| reference::trimmed_mean(values, cut));
    }

    #[test]
    fn trimmed_mean_that_cuts_nothing_is_the_unweighted_mean(round in rounds()) {
        let dir = Dir::new();
        write_round(&dir, &round);
        let trimmed = merged(&dir, &["--rule", "trimmed-mean:cut=0"]);
        let mean = merged(&dir, &["--rule", "mean", "--weights", "uniform"]);
        prop_assert_eq!(bits(&trimmed), bits(&mean));
    }

    /// The assignment of values to clients does not matter to rules without weights.
    #[test]
    fn order_statistics_do_not_depend_on_names(round in rounds(), turn in 0usize..40) {
        let mut turned = round.clone();
        turned.rotate_left(turn % round.len());
        turned.reverse();
        // Without a cut, trimmed mean is the mean, which adds in order of client id.
        let cut = ((round.len() - 1) / 3).max(1);
        let rules = ["median".to_owned(), format!("trimmed-mean:cut={cut}")];
        for rule in &rules[..if 2 * cut < round.len() { 2 } else { 1 }] {
            prop_assert_eq!(bits(&merge_round(&round, &["--rule", rule])), bits(&merge_round(&turned, &["--rule", rule])));
        }
    }

    /// Powers of two scale every rule exactly, for values far from the ends of f32.
    #[test]
    fn rules_scale_with_their_inputs(seed in 0u32..1000, exponent in -8i32..9) {
        let round = smooth(seed);
        let factor = 2f32.powi(exponent);
        let scaled: Vec<Vec<f32>> = round.iter().map(|row| row.iter().map(|x| x * factor).collect()).collect();
        for rule in ["mean", "median", "trimmed-mean:cut=3"] {
            let plain: Vec<f32> = merge_round(&round, &["--rule", rule]).iter().map(|x| x * factor).collect();
            prop_assert_eq!(bits(&plain), bits(&merge_round(&scaled, &["--rule", rule])));
        }
    }

    /// Sums of sixteenths are exact, so rules move exactly with their inputs.
    #[test]
    fn rules_move_with_their_inputs(seed in 0u32..1000, shift in -40i8..41) {
        let sixteenths = |x: f32| (x * 64.0).round() / 16.0;
        let round: Vec<Vec<f32>> = smooth(seed).iter().map(|row| row.iter().map(|x| sixteenths(*x)).collect()).collect();
        let shift = f32::from(shift) / 16.0;
        let moved: Vec<Vec<f32>> = round.iter().map(|row| row.iter().map(|x| x + shift).collect()).collect();
        for rule in ["median", "trimmed-mean:cut=3", "mean"] {
            let plain = merge_round(&round, &["--rule", rule]);
            for (a, b) in plain.iter().zip(merge_round(&moved, &["--rule", rule])) {
                prop_assert!((a + shift - b).abs() <= 4.0 * f32::EPSILON * (1.0 + b.abs()), "{} {} {}", rule, a, b);
            }
        }
    }

    /// With a base, weights and the matching deltas give the same model.
    #[test]
    fn deltas_and_weights_agree(seed in 0u32..1000) {
        let (round, base) = (smooth(seed), smooth(seed + 5000).swap_remove(0));
        let dir = Dir::new();
        Update::new("base").f32("w", &[base.len()], &base).write(&dir);
        for (i, row) in round.iter().enumerate() {
            let delta: Vec<f64> = row.iter().zip(&base).map(|(x, b)| f64::from(*x) - f64::from(*b)).collect();
            Update::new(&format!("weights/c{i:02}")).f32("w", &[row.len()], row).write(&dir);
            Update::new(&format!("deltas/c{i:02}")).f64("w", &[row.len()], &delta).meta("kind", "delta").write(&dir);
        }
        for rule in ["mean", "median", "trimmed-mean:cut=2"] {
            let merge = |updates: &str| {
                let args = ["aggregate", "-q", "--rule", rule, "--base", "base.safetensors", updates, "-o", "m.safetensors"];
                fedmill(&dir, &args).assert_merged("m.safetensors");
                Model::read(&dir, "m.safetensors").f32("w")
            };
            for (a, b) in merge("weights").into_iter().zip(merge("deltas")) {
                prop_assert!((a - b).abs() <= f32::EPSILON * a.abs().max(b.abs()), "{} {} {}", rule, a, b);
            }
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn smooth(seed: u32) -> Vec<Vec<f32>> {
    let value = |i: usize, j: usize| (seed as f32 * 0.37 + i as f32 * 1.7 + j as f32 * 0.9).sin();
    (0..11).map(|i| (0..20).map(|j| value(i, j)).collect()).collect()
}

/// The round of the README: a robust rule stays near the honest clients, and the mean does not.
#[test]
fn real_round_is_saved_by_robust_rules() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist-round");
    let (base, updates) = (format!("{data}/base.safetensors"), format!("{data}/updates"));
    let honest: Vec<String> = (0..16).map(|i| format!("{updates}/client-{i:02}.safetensors")).collect();
    let dir = Dir::new();
    let merge = |rule: &str, updates: &[&str]| {
        let args = [&["aggregate", "--rule", rule, "--base", &base, "-o", "m.safetensors"], updates].concat();
        fedmill(&dir, &args).assert_merged("m.safetensors");
        Model::read(&dir, "m.safetensors").f32("fc1.weight")
    };
    let honest: Vec<&str> = honest.iter().map(String::as_str).collect();
    let target = merge("mean", &honest);
    let distance = |merged: Vec<f32>| -> f32 {
        merged.iter().zip(&target).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
    };
    let mean = distance(merge("mean", &[&updates]));
    let median = distance(merge("median", &[&updates]));
    let trimmed = distance(merge("trimmed-mean:cut=4", &[&updates]));
    assert!(mean > 10.0 * median && mean > 10.0 * trimmed, "mean {mean}, median {median}, trimmed {trimmed}");
}

#[test]
fn weights_may_be_a_number_of_the_metadata() {
    let dir = Dir::new();
    for (client, (tokens, value)) in [("1e3", 1.0_f32), ("3000", 5.0)].into_iter().enumerate() {
        Update::new(&format!("in/c{client}")).f32("a", &[1], &[value]).meta("tokens", tokens).write(&dir);
    }
    let by = |weights: &str| fedmill(&dir, &["aggregate", "in", "--weights", weights, "-o", "m.safetensors"]);
    by("metadata:tokens").assert_merged("m.safetensors");
    assert_eq!(Model::read(&dir, "m.safetensors").f32("a"), [4.0]);
    by("metadata:words")
        .assert_fails(2, &["metadata `words` is missing, expected a number from 0 to 2^53, as the weight"]);
    Update::new("in/c0").f32("a", &[1], &[1.0]).meta("tokens", "-1").write(&dir);
    by("metadata:tokens").assert_fails(2, &["metadata `tokens` is `-1`, expected a number from 0 to 2^53"]);
}
