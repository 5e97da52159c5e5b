//! Hostile clients anywhere, in any direction, near or a million million times as far: the result stays where the
//! rule's analysis says.

use super::{
    Merged, Round, bulyans_most, config, id, krums_most, less_than_half, merge_against, wide, write_round,
};
use crate::reference::robust::{self, squared_diameter};
use crate::reference::spectral;
use crate::reference::vectors::{column, distance, mean_of};
use proptest::prelude::*;

/// A round, and which of its clients are honest, in ascending order.
type Attacked = (Round, Vec<usize>);

/// `n` clients of which as many are hostile as the rule stands, or fewer.
fn attacked(
    clients: std::ops::RangeInclusive<usize>,
    most: fn(usize) -> usize,
) -> impl Strategy<Value = Attacked> {
    let sizes = (clients, 1usize..=12).prop_flat_map(move |(n, d)| (Just(n), Just(d), 0..=most(n)));
    sizes.prop_flat_map(|(n, d, f)| {
        let row = || proptest::collection::vec(-1.0f32..1.0, d);
        let honest = proptest::collection::vec(row(), n - f);
        // All of one mind, or each for itself.
        let hostile = prop_oneof![
            proptest::collection::vec((row(), 0i32..=12), f),
            (row(), 0i32..=12).prop_map(move |attack| vec![attack; f]),
        ];
        (honest, hostile, Just((0..n).collect::<Vec<usize>>()).prop_shuffle()).prop_map(place)
    })
}

type Parts = (Round, Vec<(Vec<f32>, i32)>, Vec<usize>);

/// Puts honest and hostile rows where the shuffle says. The honest ones are around ten, far from the origin.
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

/// Runs the rule with exactly as many assumed hostile as there are.
fn run((round, honest): &Attacked, rule: &str) -> Merged {
    merge_against(&write_round(round), rule, round.len() - honest.len(), &["--weights", "uniform"])
}

/// The rule's result is no farther from the honest mean than `factor(n, f)` honest diameters.
fn assert_in_ball(attacked: &Attacked, rule: &str, factor: fn(f64, f64) -> f64) {
    assert_near_honest(attacked, &run(attacked, rule).values, rule, factor);
}

fn assert_near_honest((round, honest): &Attacked, got: &[f64], rule: &str, factor: fn(f64, f64) -> f64) {
    let rows = wide(round);
    let (n, f) = (rows.len() as f64, (rows.len() - honest.len()) as f64);
    let diameter = squared_diameter(&rows, honest).sqrt();
    let (away, bound) = (distance(got, &mean_of(&rows, honest)), factor(n, f) * diameter + 1e-4);
    assert!(away <= bound, "{rule}, {f} of {n}: {away:e} from the honest mean, at most {bound:e}");
}

/// At each coordinate, the result is no farther outside the honest values than `beyond` times their range.
fn assert_in_box((round, honest): &Attacked, got: &[f64], beyond: f64, rule: &str) {
    let rows = wide(round);
    let good: Vec<Vec<f64>> = honest.iter().map(|i| rows[*i].clone()).collect();
    for (j, got) in got.iter().enumerate() {
        let values = column(&good, j);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let slack = beyond * (high - low) + 1e-5;
        let fine = (low - slack..=high + slack).contains(got);
        assert!(fine, "{rule}, value {j}: {got} is outside {low} to {high} and {slack}");
    }
}

/// Krum's choice has a score of at most `(n - f - 2) D^2`, as every honest client has. If it is hostile, at most
/// `f - 1` of its neighbours are, so `n - 2f - 1` are honest, and the nearest of these bounds how far it is.
fn krums_factor(n: f64, f: f64) -> f64 {
    1.0 + ((n - f - 2.0) / (n - 2.0 * f - 1.0)).sqrt()
}

/// Lopuhaa and Rousseeuw 1991, theorem 2.2: so many times the honest radius.
fn geometric_medians_factor(n: f64, f: f64) -> f64 {
    2.0 * (n - f) / (n - 2.0 * f)
}

/// At a distance of `r` from the honest mean each honest client pulls with at least `r - D`, each hostile one with
/// at most `r + D`, and where clipping rests they cancel: `r` is about `n / (n - 2f)` diameters. Twice that, for
/// pulls that are not parallel.
fn clippings_factor(n: f64, f: f64) -> f64 {
    2.0 + 2.0 * n / (n - 2.0 * f)
}

/// The set has an honest client, and no member is farther from it than the honest diameter. So for those nearest to
/// an honest client.
fn diameters_factor(_: f64, _: f64) -> f64 {
    2.0
}

/// The set's variance is at most the honest one, at most `D^2 / 2`, and `n - 2f` of its `n - f` are honest.
fn variances_factor(n: f64, f: f64) -> f64 {
    1.0 + ((n - f) / (n - 2.0 * f) / 2.0).sqrt()
}

/// The filter's error is of the order of `sqrt(f / n) n / (n - 2f)` honest deviations; four for the constant.
fn filters_factor(n: f64, f: f64) -> f64 {
    4.0 * n / (n - 2.0 * f)
}

/// How many clients have a place behind four fifths of the way, and are fewer than half.
fn beyond_four_fifths(clients: usize) -> usize {
    (clients - 1 - 8 * (clients - 1) / 10).min(less_than_half(clients))
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn krum_stays_in_its_ball(attacked in attacked(3..=40, krums_most)) {
        assert_in_ball(&attacked, "krum", krums_factor);
    }

    /// There are `n - f` honest scores, so the `n - f - 2` lowest are bounded as Krum's is.
    #[test]
    fn multi_krum_stays_in_its_ball(attacked in attacked(3..=40, krums_most)) {
        assert_in_ball(&attacked, "multi-krum", krums_factor);
    }

    /// The median of those selected is between honest values, and enough honest values are within one range of it.
    #[test]
    fn bulyan_stays_in_its_box(attacked in attacked(3..=40, bulyans_most)) {
        assert_in_box(&attacked, &run(&attacked, "bulyan").values, 1.0, "bulyan");
    }

    #[test]
    fn meamed_stays_in_its_box(attacked in attacked(1..=40, less_than_half)) {
        assert_in_box(&attacked, &run(&attacked, "meamed").values, 1.0, "meamed");
    }

    #[test]
    fn coordinate_rules_stay_between_honest_values(attacked in attacked(1..=40, less_than_half)) {
        for rule in ["median", "trimmed-mean"] {
            assert_in_box(&attacked, &run(&attacked, rule).values, 0.0, rule);
        }
    }

    #[test]
    fn geometric_median_stays_in_its_ball(attacked in attacked(1..=40, less_than_half)) {
        assert_in_ball(&attacked, "geometric-median", geometric_medians_factor);
    }

    #[test]
    fn centered_clipping_stays_in_its_ball(attacked in attacked(1..=40, less_than_half)) {
        let rule = "centered-clipping:tau=auto,iterations=1000";
        assert_in_ball(&attacked, rule, clippings_factor);
    }

    #[test]
    fn mda_stays_in_its_ball(attacked in attacked(1..=15, less_than_half)) {
        assert_in_ball(&attacked, "mda", diameters_factor);
    }

    #[test]
    fn smea_stays_in_its_ball(attacked in attacked(1..=13, less_than_half)) {
        assert_in_ball(&attacked, "smea", variances_factor);
    }

    #[test]
    fn caf_stays_in_its_ball(attacked in attacked(1..=40, less_than_half)) {
        assert_in_ball(&attacked, "caf", filters_factor);
    }

    #[test]
    fn monna_stays_in_its_ball(attacked in attacked(1..=40, less_than_half), trusted in any::<proptest::sample::Index>()) {
        let trusted = attacked.1[trusted.index(attacked.1.len())];
        assert_in_ball(&attacked, &format!("monna:trusted={}", id(trusted)), diameters_factor);
    }

    /// The threshold is at most an honest distance from the median, which is between honest values.
    #[test]
    fn distance_trim_stays_in_its_ball(attacked in attacked(1..=40, beyond_four_fifths)) {
        let rows = wide(&attacked.0);
        let good: Vec<Vec<f64>> = attacked.1.iter().map(|i| rows[*i].clone()).collect();
        let ranges = (0..rows[0].len()).map(|j| {
            let values = column(&good, j);
            values.iter().copied().fold(f64::MIN, f64::max) - values.iter().copied().fold(f64::MAX, f64::min)
        });
        let bound = 2.0 * ranges.map(|range| range * range).sum::<f64>().sqrt();
        let got = run(&attacked, "distance-trim:keep=0.8").values;
        let away = distance(&got, &mean_of(&rows, &attacked.1));
        prop_assert!(away <= bound + 1e-4, "{} from the honest mean, at most {}", away, bound);
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// The bounds themselves: the oracles stay within them, too, and come near none by accident.
    #[test]
    fn oracles_stay_in_their_balls(attacked in attacked(1..=30, less_than_half)) {
        let (rows, f) = (wide(&attacked.0), attacked.0.len() - attacked.1.len());
        let weights = vec![1.0; rows.len()];
        let start = vec![0.0; rows[0].len()];
        let check = |got: &[f64], rule, factor| assert_near_honest(&attacked, got, rule, factor);
        check(&robust::geometric_median(&rows, &weights), "geometric-median", geometric_medians_factor);
        let clipped = robust::centered_clipping(&rows, &start, None, 1000);
        check(&clipped, "centered-clipping", clippings_factor);
        check(&spectral::caf(&rows, f), "caf", filters_factor);
        check(&mean_of(&rows, &robust::monna(&rows, f, attacked.1[0])), "monna", diameters_factor);
        assert_in_box(&attacked, &robust::meamed(&rows, f), 1.0, "meamed");
        if rows.len() >= 2 * f + 3 {
            check(&rows[robust::krum(&rows, f)], "krum", krums_factor);
            check(&mean_of(&rows, &robust::multi_krum(&rows, f, rows.len() - f - 2)), "multi-krum", krums_factor);
        }
        if rows.len() >= 4 * f + 3 {
            assert_in_box(&attacked, &robust::bulyan(&rows, f), 1.0, "bulyan");
        }
        if rows.len() <= 9 {
            check(&mean_of(&rows, &robust::mda(&rows, f)), "mda", diameters_factor);
            check(&mean_of(&rows, &spectral::smea(&rows, f)), "smea", variances_factor);
        }
    }
}
