//! Results keep the bounds of their analysis, for any hostile clients that a rule tolerates.
//!
//! The hostile clients are in any direction, near or up to 10^12 times as far as the honest ones.

use super::{Round, config, merge_against, rules, wide, write_round};
use crate::harness::shortest;
use crate::reference::robust::{Bound, Case, Oracle, squared_diameter};
use crate::reference::vectors::{column, distance, mean_of};
use fedmill::rules::{RULES, parse};
use fedmill::settings::Definition;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use std::ops::RangeInclusive;

/// A round, and which of its clients are honest, in ascending order.
type Attacked = (Round, Vec<usize>);

/// Rounds of `n` clients with at most as many hostile ones as the rule tolerates.
fn attacked(clients: RangeInclusive<usize>, most: fn(usize) -> usize) -> impl Strategy<Value = Attacked> {
    let sizes = (clients, 1usize..=12).prop_flat_map(move |(n, d)| (Just(n), Just(d), 0..=most(n)));
    sizes.prop_flat_map(|(n, d, f)| {
        let row = || proptest::collection::vec(-1.0f32..1.0, d);
        let honest = proptest::collection::vec(row(), n - f);
        // All hostile clients send the same row, or each sends another.
        let hostile = prop_oneof![
            proptest::collection::vec((row(), 0i32..=12), f),
            (row(), 0i32..=12).prop_map(move |attack| vec![attack; f]),
        ];
        (honest, hostile, Just((0..n).collect::<Vec<usize>>()).prop_shuffle()).prop_map(place)
    })
}

type Parts = (Round, Vec<(Vec<f32>, i32)>, Vec<usize>);

/// Puts honest and hostile rows at the shuffled indices. The honest rows are around ten, far from the origin.
fn place((honest, hostile, places): Parts) -> Attacked {
    let honest = honest.into_iter().map(|row| row.iter().map(|x| x + 10.0).collect::<Vec<f32>>());
    let far = |(row, scale): (Vec<f32>, i32)| row.iter().map(|x| x * 10f32.powi(scale)).collect();
    let mut good = places[..honest.len()].to_vec();
    let mut rows: Vec<(usize, Vec<f32>)> =
        places.into_iter().zip(honest.chain(hostile.into_iter().map(far))).collect();
    rows.sort_by_key(|(place, _)| *place);
    good.sort_unstable();
    (rows.into_iter().map(|(_, row)| row).collect(), good)
}

/// Fails unless the result is within the bound.
#[track_caller]
fn assert_bounded((round, honest): &Attacked, got: &[f64], bound: Bound, rule: &str) {
    let rows = wide(round);
    let (n, f) = (rows.len() as f64, (rows.len() - honest.len()) as f64);
    let good: Vec<Vec<f64>> = honest.iter().map(|i| rows[*i].clone()).collect();
    let ranges: Vec<(f64, f64)> = (0..got.len())
        .map(|j| {
            let values = column(&good, j);
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            (low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        })
        .collect();
    let most = match bound {
        Bound::Ball(factor) => factor(n, f) * squared_diameter(&rows, honest).sqrt(),
        Bound::Diagonals(times) => {
            times * ranges.iter().map(|(low, high)| (high - low).powi(2)).sum::<f64>().sqrt()
        }
        Bound::Box(beyond) => {
            for (j, (got, (low, high))) in got.iter().zip(ranges).enumerate() {
                let slack = beyond * (high - low) + 1e-5;
                let fine = (low - slack..=high + slack).contains(got);
                assert!(fine, "{rule}, value {j}: {got} is outside {low} to {high} and {slack}");
            }
            return;
        }
    };
    let (away, most) = (distance(got, &mean_of(&rows, honest)), most + 1e-4);
    assert!(away <= most, "{rule}, {f} of {n}: {away:e} from the honest mean, at most {most:e}");
}

/// Rounds that a rule tolerates, and a random number that chooses an honest client.
fn rounds_for(rule: &str, oracle: &Oracle, most: usize) -> impl Strategy<Value = (Attacked, Index)> + use<> {
    let least = parse(rule, Definition::Paper).unwrap().least_clients();
    (attacked(least..=most, oracle.most), any::<Index>())
}

/// Each test takes half of the rules. `--byzantine` is the exact number of hostile clients. The trusted client is
/// honest.
fn every_other_rule_is_bounded(part: usize) {
    for (place, entry) in RULES.iter().enumerate().skip(part).step_by(2) {
        let oracle = Oracle::of(entry.name);
        let rounds = rounds_for(&shortest(entry, "client-00"), oracle, oracle.clients);
        let check = |(attacked, trusted): (Attacked, Index)| {
            let (round, honest) = &attacked;
            let rule = rules(honest[trusted.index(honest.len())]).swap_remove(place).0;
            let f = round.len() - honest.len();
            let merged = merge_against(&write_round(round), &rule, f, &["--weights", "uniform"]);
            assert_bounded(&attacked, &merged.values, oracle.bound, &rule);
            Ok(())
        };
        TestRunner::new(config(32)).run(&rounds, check).unwrap();
    }
}

#[test]
fn every_rule_stays_where_its_analysis_says() {
    every_other_rule_is_bounded(0);
}

#[test]
fn and_so_does_every_other() {
    every_other_rule_is_bounded(1);
}

/// The oracles stay within the bounds too.
#[test]
fn oracles_stay_where_their_analyses_say() {
    for (rule, oracle) in rules(0) {
        // Searches through all sets are slow.
        let rounds = rounds_for(&rule, oracle, if oracle.clients < 40 { 9 } else { 30 });
        let check = |(attacked, trusted): (Attacked, Index)| {
            let (rows, honest) = (wide(&attacked.0), &attacked.1);
            let trusted = honest[trusted.index(honest.len())];
            let got = oracle.merged(&Case { rows: &rows, f: rows.len() - honest.len(), trusted });
            assert_bounded(&attacked, &got, oracle.bound, &rule);
            Ok(())
        };
        TestRunner::new(config(300)).run(&rounds, check).unwrap();
    }
}

/// The check notices a wrong result: the plain mean with a far client is outside every bound.
#[test]
fn the_mean_is_outside_every_bound() {
    let mut round: Round = (0..9).map(|i| vec![10.0 + i as f32 / 9.0, 10.0 - i as f32 / 9.0]).collect();
    round[4] = vec![1e9, 0.0];
    let honest: Vec<usize> = (0..9).filter(|i| *i != 4).collect();
    let mean = mean_of(&wide(&round), &(0..9).collect::<Vec<_>>());
    for (rule, oracle) in rules(0) {
        let attacked = (round.clone(), honest.clone());
        let inside = std::panic::catch_unwind(|| assert_bounded(&attacked, &mean, oracle.bound, &rule));
        assert!(inside.is_err(), "{rule}");
    }
}
