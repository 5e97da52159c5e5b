//! Each rule against its oracle.
//!
//! Every rule runs on rounds without ties. Then each runs on rounds with ties, duplicates and rows on a line, with each
//! way to measure distances.

use super::{
    DISTANCES, Round, any_index, assert_near, assert_within, bulyans_most, config, examples, krums_most,
    less_than_half, magnitude, merge, merge_against, rules, scattered, tied, wide, write_base, write_round,
};
use crate::reference::robust as oracle;
use crate::reference::spectral;
use crate::reference::vectors::{mean_of, squared_distance, subsets};
use fedmill::rules::parse;
use fedmill::settings::Definition;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

/// Fails unless the rule keeps the clients of the oracle, and merges to `want`, or to their mean.
fn check(round: &Round, rule: &str, f: Option<usize>, chosen: &[usize], want: Option<Vec<f64>>) {
    let (dir, rows) = (write_round(round), wide(round));
    let want = want.unwrap_or_else(|| mean_of(&rows, chosen));
    let byzantine = f.map(|f| f.to_string());
    for distances in DISTANCES {
        let assumed: Vec<&str> = byzantine.iter().flat_map(|f| ["--byzantine", f]).collect();
        let got = merge(&dir, rule, &[&assumed, distances].concat());
        assert_eq!(got.kept(), chosen, "{rule}, f {f:?}, {distances:?}: {rows:?}");
        assert_near(&got.values, &want, magnitude(&rows), rule);
    }
}

/// Fails unless the shares in the report give the merged values.
fn check_shares(rows: &[Vec<f64>], got: &super::Merged) {
    let shares = got.shares();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
    let want: Vec<f64> = (0..rows[0].len())
        .map(|j| rows.iter().zip(&shares).map(|(row, share)| share * row[j]).sum())
        .collect();
    assert_near(&got.values, &want, magnitude(rows), "the shares' sum");
}

/// Rounds without similar clients.
fn untied(clients: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Round> {
    (clients, 5..=12usize).prop_flat_map(|(clients, values)| {
        proptest::collection::vec(proptest::collection::vec(-1.0f32..1.0, values), clients)
    })
}

/// Iterations and filters end within a hundred-thousandth of the oracle.
#[test]
fn every_rule_is_its_oracle() {
    for (rule, oracle) in rules(0) {
        let least = parse(&rule, Definition::Paper).unwrap().least_clients();
        let check = |(round, f): (Round, Index)| {
            let (f, rows) = (f.index((oracle.most)(round.len()) + 1), wide(&round));
            let case = oracle::Case { rows: &rows, f, trusted: 0 };
            let got = merge_against(&write_round(&round), &rule, f, &["--weights", "uniform"]);
            if let Some(kept) = oracle.kept {
                assert_eq!(got.kept(), kept(&case), "{rule}, f {f}: {rows:?}");
            }
            assert_within(&got.values, &oracle.merged(&case), 1e-5 * magnitude(&rows), &rule);
            Ok(())
        };
        TestRunner::new(config(16)).run(&(untied(least..=11), any_index()), check).unwrap();
    }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn krum(round in tied(3..=40), f in any_index()) {
        let f = f.index(krums_most(round.len()) + 1);
        let chosen = oracle::krum(&wide(&round), f);
        check(&round, "krum", Some(f), &[chosen], None);
    }

    /// The report's scores are those of the paper, or proportional to them.
    #[test]
    fn krum_scores(round in tied(3..=40), f in any_index()) {
        let f = f.index(krums_most(round.len()) + 1);
        let want = oracle::krum_scores(&wide(&round), f);
        let got = merge_against(&write_round(&round), "krum", f, &[]).scores();
        let (most, most_got) = want.iter().zip(&got).fold((0.0, 0.0), |a, b| if *b.0 > a.0 { (*b.0, *b.1) } else { a });
        for (got, want) in got.iter().zip(&want) {
            prop_assert!((got * most - want * most_got).abs() <= 1e-9 * most * most_got, "{} {}", got, want);
        }
    }

    #[test]
    fn multi_krum(round in tied(3..=40), f in any_index(), m in proptest::option::of(any_index())) {
        let f = f.index(krums_most(round.len()) + 1);
        let most = round.len() - f - 2;
        let m = m.map(|m| m.index(most) + 1);
        let rule = m.map_or_else(|| "multi-krum".to_owned(), |m| format!("multi-krum:m={m}"));
        let chosen = oracle::multi_krum(&wide(&round), f, m.unwrap_or(most));
        check(&round, &rule, Some(f), &chosen, None);
    }

    #[test]
    fn bulyan(round in tied(3..=40), f in any_index()) {
        let (f, rows) = (f.index(bulyans_most(round.len()) + 1), wide(&round));
        check(&round, "bulyan", Some(f), &oracle::bulyan_selection(&rows, f), Some(oracle::bulyan(&rows, f)));
    }

    /// Rows on a line may have many geometric medians. So the test compares the sum of distances, which each minimises.
    #[test]
    fn geometric_median_makes_the_total_distance_least(round in tied(1..=40), uneven in any::<bool>()) {
        let (dir, rows) = (write_round(&round), wide(&round));
        let weights: Vec<f64> = (0..rows.len()).map(|i| if uneven { examples(i) } else { 1.0 }).collect();
        let least = oracle::total_distance(&rows, &weights, &oracle::geometric_median(&rows, &weights));
        let total: f64 = weights.iter().sum();
        for distances in DISTANCES {
            let how = if uneven { "examples" } else { "uniform" };
            let got = merge(&dir, "geometric-median", &[&["--weights", how], distances].concat());
            let more = oracle::total_distance(&rows, &weights, &got.values) - least;
            // Near a kink the sum grows as fast as the distance moved; this is a hundred-thousandth of the spread.
            prop_assert!(more <= 1e-5 * total * magnitude(&rows).max(1e-30), "{} more than {}", more, least);
            check_shares(&rows, &got);
        }
    }

    /// In several dimensions the median is one point, found to a hundred-thousandth of the spread.
    #[test]
    fn geometric_median(round in scattered(3..=40, 5..=12), uneven in any::<bool>()) {
        let (dir, rows) = (write_round(&round), wide(&round));
        let weights: Vec<f64> = (0..rows.len()).map(|i| if uneven { examples(i) } else { 1.0 }).collect();
        let lines: String = weights.iter().enumerate().map(|(i, w)| format!("{} {w}\n", super::id(i))).collect();
        dir.write("weights.txt", lines);
        let want = oracle::geometric_median(&rows, &weights);
        let got = merge(&dir, "geometric-median", &["--weights", "weights.txt"]);
        assert_within(&got.values, &want, 1e-5 * magnitude(&rows), "geometric-median");
    }

    /// The iteration starts from the base.
    #[test]
    fn centered_clipping(round in tied(1..=40), tau in proptest::option::of(1u8..80), iterations in 1usize..6) {
        let (dir, rows) = (write_round(&round), wide(&round));
        let base: Vec<f32> = (0..round[0].len()).map(|j| j as f32 / 16.0 - 0.25).collect();
        write_base(&dir, &base);
        let tau = tau.map(|tau| f64::from(tau) / 8.0);
        let how = tau.map_or_else(|| "auto".to_owned(), |tau| tau.to_string());
        let rule = format!("centered-clipping:tau={how},iterations={iterations}");
        let start = wide(&[base]).swap_remove(0);
        let want = oracle::centered_clipping(&rows, &start, tau, iterations);
        for distances in DISTANCES {
            let got = merge(&dir, &rule, &[&["--base", "base.safetensors", "--kind", "weights"], distances].concat());
            assert_near(&got.values, &want, magnitude(&rows).max(1.0), &rule);
        }
    }

    #[test]
    fn mda(round in tied(1..=11), f in any_index()) {
        let f = f.index(less_than_half(round.len()) + 1);
        check(&round, "mda", Some(f), &oracle::mda(&wide(&round), f), None);
    }

    /// Of sets whose variances differ only by rounding, any is right.
    #[test]
    fn smea(round in tied(1..=11), f in any_index()) {
        let (f, dir, rows) = (f.index(less_than_half(round.len()) + 1), write_round(&round), wide(&round));
        let least = spectral::top_variance(&rows, &spectral::smea(&rows, f));
        for distances in DISTANCES {
            let got = merge_against(&dir, "smea", f, distances);
            let kept = got.kept();
            prop_assert_eq!(kept.len(), rows.len() - f);
            let variance = spectral::top_variance(&rows, &kept);
            prop_assert!(variance <= least * (1.0 + 1e-6) + 1e-9, "{:?} has {}, not {}", kept, variance, least);
            assert_near(&got.values, &mean_of(&rows, &kept), magnitude(&rows), "smea");
        }
    }

    /// If the choice is clear, it is the oracle's.
    #[test]
    fn smea_chooses_the_one_best_set(round in scattered(3..=9, 3..=8), f in any_index()) {
        let (f, rows) = (f.index(less_than_half(round.len()) + 1), wide(&round));
        let variances = subsets(rows.len(), rows.len() - f);
        let mut variances: Vec<f64> = variances.iter().map(|set| spectral::top_variance(&rows, set)).collect();
        variances.sort_by(f64::total_cmp);
        prop_assume!(variances.len() == 1 || variances[1] > 1.0001 * variances[0]);
        check(&round, "smea", Some(f), &spectral::smea(&rows, f), None);
    }

    /// Without similar rows, the direction of most variance is unique. Filtering changes weights many times, and the
    /// errors add up to a hundred-thousandth.
    #[test]
    fn caf(round in scattered(2..=40, 3..=12), f in any_index(), far in 0u8..3) {
        let f = f.index(less_than_half(round.len()) + 1);
        let mut round = round;
        round.iter_mut().take(f).flatten().for_each(|x| *x *= 8f32.powi(i32::from(far)));
        let (dir, rows) = (write_round(&round), wide(&round));
        let want = spectral::caf(&rows, f);
        for distances in DISTANCES {
            let got = merge_against(&dir, "caf", f, distances);
            assert_within(&got.values, &want, 1e-5 * magnitude(&rows), "caf");
            check_shares(&rows, &got);
        }
    }

    #[test]
    fn monna(round in tied(1..=40), f in any_index(), trusted in any_index()) {
        let (f, rows) = (f.index(less_than_half(round.len()) + 1), wide(&round));
        let trusted = trusted.index(rows.len());
        let rule = format!("monna:trusted={}", super::id(trusted));
        check(&round, &rule, Some(f), &oracle::monna(&rows, f, trusted), None);
    }

    #[test]
    fn meamed(round in tied(1..=40), f in any_index()) {
        let (f, rows) = (f.index(less_than_half(round.len()) + 1), wide(&round));
        let got = merge_against(&write_round(&round), "meamed", f, &[]);
        assert_near(&got.values, &oracle::meamed(&rows, f), magnitude(&rows), "meamed");
    }

    #[test]
    fn distance_trim(round in tied(1..=40), keep in prop_oneof![Just(0.5), Just(0.75), Just(0.8), Just(1.0)]) {
        let chosen = oracle::distance_trim(&wide(&round), keep);
        check(&round, &format!("distance-trim:keep={keep}"), None, &chosen, None);
        if keep == 0.8 {
            check(&round, "distance-trim", None, &chosen, None);
        }
    }

    /// For rules that choose clients and take their mean, the report has equal shares.
    #[test]
    fn shares_are_reported(round in tied(7..=11), f in 0usize..2) {
        let (dir, rows) = (write_round(&round), wide(&round));
        for rule in ["krum", "multi-krum:m=3", "mda", "smea", "monna:trusted=client-03"] {
            check_shares(&rows, &merge_against(&dir, rule, f, &[]));
        }
        check_shares(&rows, &merge(&dir, "distance-trim:keep=0.5", &[]));
    }

    /// The common part of all rows does not change the comparison of clients: the base shifts nothing.
    #[test]
    fn choices_do_not_depend_on_the_base(round in tied(7..=11), f in 0usize..2, shift in -64i8..=64) {
        let dir = write_round(&round);
        let base: Vec<f32> = (0..round[0].len()).map(|j| f32::from(shift) / 16.0 + j as f32).collect();
        write_base(&dir, &base);
        for rule in ["krum", "multi-krum", "bulyan", "mda", "monna:trusted=client-02"] {
            let plain = merge_against(&dir, rule, f, &[]);
            let based = merge_against(&dir, rule, f, &["--base", "base.safetensors", "--kind", "weights"]);
            prop_assert_eq!(plain.kept(), based.kept(), "{}", rule);
            assert_near(&based.values, &plain.values, 16.0, rule);
        }
    }
}

/// The cases above need this: squares of differences of sixteenths up to 4, and of rows on a line, are exact in f32.
#[test]
fn sixteenths_have_exact_distances() {
    let (a, b) = (vec![4.0 + 1.0 / 16.0; 12], vec![-4.0; 12]);
    let square = squared_distance(&a, &b);
    assert_eq!(square, f64::from(square as f32));
    assert!(square * 1024.0 < f64::from(1 << 24)); // Also in thirty-seconds, because midpoints are.
}
