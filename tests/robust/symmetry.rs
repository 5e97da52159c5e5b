//! Order, names, origin and unit of the clients' values change only what they should.

use super::{
    Merged, Round, assert_within, config, merge, merge_against, scattered, tolerant, write_base, write_round,
};
use crate::harness::fedmill;
use proptest::prelude::*;

/// Rules that only add, compare and divide by counts: exact for powers of two.
const SELECTING: [&str; 7] =
    ["krum", "multi-krum", "bulyan", "mda", "monna:trusted=client-00", "meamed", "distance-trim"];

/// Rules that take roots: their results move and scale up to rounding.
const ROOTED: [&str; 3] = ["geometric-median", "smea", "caf"];

fn run(round: &Round, rule: &str) -> Merged {
    let dir = write_round(round);
    if rule == "distance-trim" { merge(&dir, rule, &[]) } else { merge_against(&dir, rule, 2, &[]) }
}

fn map(round: &Round, change: impl Fn(f32) -> f32) -> Round {
    round.iter().map(|row| row.iter().map(|x| change(*x)).collect()).collect()
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn rules_scale_with_their_inputs(round in scattered(11..=12, 3..=10), exponent in -30i32..=30) {
        let factor = 2f32.powi(exponent);
        let scaled = map(&round, |x| x * factor);
        let unit = f64::from(factor);
        for rule in SELECTING {
            let (plain, scaled) = (run(&round, rule), run(&scaled, rule));
            let want: Vec<f64> = plain.values.iter().map(|x| x * unit).collect();
            prop_assert_eq!((scaled.kept(), &scaled.values), (plain.kept(), &want), "{}", rule);
        }
        for rule in ROOTED.into_iter().chain(["centered-clipping:tau=auto,iterations=3"]) {
            let want: Vec<f64> = run(&round, rule).values.iter().map(|x| x * unit).collect();
            assert_within(&run(&scaled, rule).values, &want, 4e-5 * unit, rule);
        }
    }

    /// Sums of sixteenths are exact.
    #[test]
    fn rules_move_with_their_inputs(
        round in scattered(11..=12, 3..=10),
        shift in proptest::collection::vec(-640i16..=640, 10),
    ) {
        let shift: Vec<f32> = shift.into_iter().map(|x| f32::from(x) / 16.0).collect();
        let add = |row: &Vec<f32>| row.iter().zip(&shift).map(|(x, s)| x + s).collect();
        let moved: Round = round.iter().map(add).collect();
        for rule in SELECTING.into_iter().chain(ROOTED) {
            let (plain, moved) = (run(&round, rule), run(&moved, rule));
            prop_assert_eq!(plain.kept(), moved.kept(), "{}", rule);
            let want: Vec<f64> = plain.values.iter().zip(&shift).map(|(x, s)| x + f64::from(*s)).collect();
            assert_within(&moved.values, &want, 8e-5, rule);
        }
    }

    /// If base and updates move together, the merged model moves with them, also for rules that start at the base.
    #[test]
    fn rules_move_with_the_base(round in scattered(11..=12, 3..=10), shift in -640i16..=640) {
        let shift = f32::from(shift) / 16.0;
        let base = vec![0.5; round[0].len()];
        let merged = |shift: f32, rule: &str| {
            let dir = write_round(&map(&round, |x| x + shift));
            write_base(&dir, &base.iter().map(|x| x + shift).collect::<Vec<f32>>());
            merge_against(&dir, rule, 2, &["--base", "base.safetensors", "--kind", "weights"])
        };
        for rule in ["krum", "geometric-median", "caf", "centered-clipping:tau=0.5,iterations=2"] {
            let want: Vec<f64> = merged(0.0, rule).values.iter().map(|x| x + f64::from(shift)).collect();
            assert_within(&merged(shift, rule).values, &want, 8e-5, rule);
        }
    }

    /// A permutation of the clients does not change the result of Krum and others, only the names. Minimum diameter
    /// averaging and Bulyan are left out: names decide between sets of equal diameter, and between two clients that are
    /// each other's only neighbour.
    #[test]
    fn names_make_no_difference(
        round in scattered(11..=11, 6..=10),
        places in Just((0..11).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let renamed: Round = places.iter().map(|place| round[*place].clone()).collect();
        for rule in ["krum", "multi-krum", "smea", "distance-trim"] {
            let (plain, renamed) = (run(&round, rule), run(&renamed, rule));
            let mut kept: Vec<usize> = renamed.kept().iter().map(|place| places[*place]).collect();
            kept.sort_unstable();
            prop_assert_eq!(plain.kept(), kept, "{}", rule);
            assert_within(&renamed.values, &plain.values, 4e-6, rule);
        }
        for rule in ["meamed", "caf"] {
            assert_within(&run(&renamed, rule).values, &run(&round, rule).values, 4e-5, rule);
        }
    }
}

/// The order of files changes no byte of the model.
#[test]
fn order_of_files_changes_nothing() {
    let value = |i: usize, j: usize| (i as f32 * 1.7 + j as f32 * 0.9).sin();
    let round: Round = (0..13).map(|i| (0..3000).map(|j| value(i, j)).collect()).collect();
    let dir = write_round(&round);
    let mut files: Vec<String> = (0..13).map(|i| format!("in/{}.safetensors", super::id(i))).collect();
    let bytes = |files: &[String], rule: &str, more: &[&str]| {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let args = ["aggregate", "-q", "-o", "m.safetensors", "--rule", rule];
        fedmill(&dir, &[&args, more, &files].concat()).assert_merged("m.safetensors");
        dir.read("m.safetensors")
    };
    let pre = [&[][..], &["--pre", "nnm"], &["--pre", "bucketing:s=2", "--seed", "7"], &["--pre", "arc"]];
    let rules = tolerant();
    let mut runs: Vec<(&str, Vec<&str>)> =
        rules.iter().map(|(rule, _)| (rule.as_str(), vec!["--byzantine", "2"])).collect();
    runs.extend(pre.iter().map(|steps| ("median", [*steps, &["--byzantine", "2"]].concat())));
    for (rule, args) in runs {
        let want = bytes(&files, rule, &args);
        for turn in 1..3 {
            files.rotate_left(turn * 3);
            files.reverse();
            assert!(bytes(&files, rule, &args) == want, "{rule} {args:?}: the order of files shows");
        }
    }
}

/// Threads and the instruction set do not, either.
#[test]
fn threads_and_instruction_sets_change_nothing() {
    let value = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 100_003) as f32 / 50_000.0 - 1.0;
    let round: Round = (0..13).map(|i| (0..70_001).map(|j| value(i, j)).collect()).collect();
    let dir = write_round(&round);
    for (rule, _) in tolerant() {
        let want = merge_against(&dir, &rule, 2, &["--threads", "1"]);
        for args in [["--threads", "2"], ["--threads", "5"], ["--isa", "portable"]] {
            let got = merge_against(&dir, &rule, 2, &args);
            assert_eq!(got.report["clients"], want.report["clients"], "{rule} {args:?}");
            assert!(got.values == want.values, "{rule} {args:?} show");
        }
    }
}
