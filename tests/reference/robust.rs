//! The oracle of every rule, and the code for the rules that judge whole clients by distance.
//!
//! It works on full vectors in f64, as the papers define the rules. Chosen clients are indices in ascending order.

use crate::reference::vectors::{
    Rows, by_coordinate, coordinate_median, difference, distance, least, mean_of, mean_of_nearest,
    nearest_to, norm, scaled, select, squared_distance, subsets, weighted_mean_row,
};
use crate::reference::{median, spectral, trimmed_mean};

/// The input of a rule: rows of equal weight without a base, the number of hostile clients, and the client that a rule
/// trusts.
pub(crate) struct Case<'a> {
    pub(crate) rows: &'a Rows,
    pub(crate) f: usize,
    pub(crate) trusted: usize,
}

/// The region of the result for any values of the hostile clients.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// A ball around the honest mean. The radius is this function of n and f, times the honest diameter.
    Ball(fn(f64, f64) -> f64),
    /// At each coordinate, at most this many honest ranges outside the honest values.
    Box(f64),
    /// A ball around the honest mean. The radius is this many diagonals of the honest box.
    Diagonals(f64),
}

/// The definition and bounds of a rule from its paper.
pub(crate) struct Oracle {
    pub(crate) rule: &'static str,
    /// The settings for these, besides the required ones.
    pub(crate) settings: &'static str,
    /// The largest number of hostile clients that the rule tolerates among a number of clients.
    pub(crate) most: fn(usize) -> usize,
    /// The clients that the rule keeps. `None` for a rule that does not choose clients.
    pub(crate) kept: Option<fn(&Case) -> Vec<usize>>,
    /// The merged values. `None` is the mean of the kept clients.
    pub(crate) values: Option<fn(&Case) -> Vec<f64>>,
    pub(crate) bound: Bound,
    /// The largest number of clients in a test: smaller for an exponential search.
    pub(crate) clients: usize,
}

impl Oracle {
    const RULE: Self = Self {
        rule: "",
        settings: "",
        most: less_than_half,
        kept: None,
        values: None,
        bound: Bound::Box(0.0),
        clients: 40,
    };

    /// The oracle of a rule. A rule without an oracle fails the tests.
    pub(crate) fn of(rule: &str) -> &'static Self {
        let oracle = ORACLES.iter().find(|oracle| oracle.rule == rule);
        oracle.unwrap_or_else(|| panic!("{rule} has no oracle in {}", file!()))
    }

    pub(crate) fn merged(&self, case: &Case) -> Vec<f64> {
        match (self.values, self.kept) {
            (Some(values), _) => values(case),
            (None, Some(kept)) => mean_of(case.rows, &kept(case)),
            (None, None) => panic!("the oracle of {} says nothing", self.rule),
        }
    }
}

/// The oracle of every rule.
pub(crate) const ORACLES: &[Oracle] = &[
    Oracle {
        rule: "mean",
        most: |_| 0,
        values: Some(|c| mean_of(c.rows, &everyone(c.rows))),
        ..Oracle::RULE
    },
    Oracle { rule: "median", values: Some(|c| coordinate_median(c.rows)), ..Oracle::RULE },
    Oracle {
        rule: "trimmed-mean",
        values: Some(|c| by_coordinate(c.rows, |values| trimmed_mean(values, c.f))),
        ..Oracle::RULE
    },
    // Enough honest values are within one range of the median, and the median is between honest values.
    Oracle { rule: "meamed", values: Some(|c| meamed(c.rows, c.f)), bound: Bound::Box(1.0), ..Oracle::RULE },
    Oracle {
        rule: "krum",
        most: krums_most,
        kept: Some(|c| vec![krum(c.rows, c.f)]),
        bound: Bound::Ball(krums_factor),
        ..Oracle::RULE
    },
    // There are `n - f` honest scores, so the `n - f - 2` lowest are bounded as Krum's is.
    Oracle {
        rule: "multi-krum",
        most: krums_most,
        kept: Some(|c| multi_krum(c.rows, c.f, c.rows.len() - c.f - 2)),
        bound: Bound::Ball(krums_factor),
        ..Oracle::RULE
    },
    // The median of those selected is between honest values, and enough honest values are within one range of it.
    Oracle {
        rule: "bulyan",
        most: bulyans_most,
        kept: Some(|c| bulyan_selection(c.rows, c.f)),
        values: Some(|c| bulyan(c.rows, c.f)),
        bound: Bound::Box(1.0),
        ..Oracle::RULE
    },
    Oracle {
        rule: "geometric-median",
        values: Some(|c| geometric_median(c.rows, &vec![1.0; c.rows.len()])),
        bound: Bound::Ball(geometric_medians_factor),
        ..Oracle::RULE
    },
    // Iterates until the start has no influence.
    Oracle {
        rule: "centered-clipping",
        settings: "tau=auto,iterations=1000",
        values: Some(|c| centered_clipping(c.rows, &vec![0.0; c.rows[0].len()], None, 1000)),
        bound: Bound::Ball(clippings_factor),
        ..Oracle::RULE
    },
    Oracle {
        rule: "mda",
        kept: Some(|c| mda(c.rows, c.f)),
        bound: Bound::Ball(diameters_factor),
        clients: 15,
        ..Oracle::RULE
    },
    Oracle {
        rule: "smea",
        kept: Some(|c| spectral::smea(c.rows, c.f)),
        bound: Bound::Ball(variances_factor),
        clients: 13,
        ..Oracle::RULE
    },
    Oracle {
        rule: "caf",
        kept: Some(|c| spectral::caf_kept(c.rows, c.f)),
        values: Some(|c| spectral::caf(c.rows, c.f)),
        bound: Bound::Ball(filters_factor),
        ..Oracle::RULE
    },
    Oracle {
        rule: "monna",
        kept: Some(|c| monna(c.rows, c.f, c.trusted)),
        bound: Bound::Ball(diameters_factor),
        ..Oracle::RULE
    },
    // The threshold is at most an honest distance from the median, which is between honest values.
    Oracle {
        rule: "distance-trim",
        most: beyond_four_fifths,
        kept: Some(|c| distance_trim(c.rows, 0.8)),
        bound: Bound::Diagonals(2.0),
        ..Oracle::RULE
    },
];

/// The largest number of hostile clients for rules that need fewer than half.
pub(crate) fn less_than_half(clients: usize) -> usize {
    (clients - 1) / 2
}

/// Krum needs `n >= 2f + 3`.
pub(crate) fn krums_most(clients: usize) -> usize {
    clients.saturating_sub(3) / 2
}

/// Bulyan needs `n >= 4f + 3`.
pub(crate) fn bulyans_most(clients: usize) -> usize {
    clients.saturating_sub(3) / 4
}

/// The number of clients whose rank is above four fifths, at most fewer than half.
fn beyond_four_fifths(clients: usize) -> usize {
    (clients - 1 - 8 * (clients - 1) / 10).min(less_than_half(clients))
}

/// Krum's choice has a score of at most `(n - f - 2) D^2`, because every honest client does. If the choice is hostile,
/// at most `f - 1` of its neighbours are hostile and `n - 2f - 1` are honest. The nearest honest one bounds its
/// distance.
fn krums_factor(n: f64, f: f64) -> f64 {
    1.0 + ((n - f - 2.0) / (n - 2.0 * f - 1.0)).sqrt()
}

/// Lopuhaa and Rousseeuw 1991, theorem 2.2, as a multiple of the honest radius.
fn geometric_medians_factor(n: f64, f: f64) -> f64 {
    2.0 * (n - f) / (n - 2.0 * f)
}

/// At distance `r` from the honest mean each honest client pulls with at least `r - D`, each hostile one with at most
/// `r + D`. At the fixed point of clipping they cancel, so `r` is about `n / (n - 2f)` diameters. Twice that allows for
/// pulls that are not parallel.
fn clippings_factor(n: f64, f: f64) -> f64 {
    2.0 + 2.0 * n / (n - 2.0 * f)
}

/// The set has an honest client, and no member is farther from it than the honest diameter. The same holds for the
/// clients nearest to an honest client.
fn diameters_factor(_: f64, _: f64) -> f64 {
    2.0
}

/// The set's variance is at most the honest one, at most `D^2 / 2`, and `n - 2f` of its `n - f` are honest.
fn variances_factor(n: f64, f: f64) -> f64 {
    1.0 + ((n - f) / (n - 2.0 * f) / 2.0).sqrt()
}

/// The filter's error is of the order of `sqrt(f / n) n / (n - 2f)` honest deviations. The constant is set to four.
fn filters_factor(n: f64, f: f64) -> f64 {
    4.0 * n / (n - 2.0 * f)
}

/// The Krum score of each member (Blanchard et al. 2017, section 4): the sum of the squared distances to the
/// nearest `members - f - 2` other members, at least one.
fn scores_among(rows: &Rows, members: &[usize], f: usize) -> Vec<f64> {
    let neighbours = members.len().saturating_sub(f + 2).max(1);
    let score = |i: &usize| {
        let others = members.iter().filter(|j| *j != i);
        let mut squares: Vec<f64> = others.map(|j| squared_distance(&rows[*i], &rows[*j])).collect();
        squares.sort_by(f64::total_cmp);
        squares.iter().take(neighbours).sum()
    };
    members.iter().map(score).collect()
}

/// The Krum score of each client.
pub(crate) fn krum_scores(rows: &Rows, f: usize) -> Vec<f64> {
    scores_among(rows, &everyone(rows), f)
}

fn everyone(rows: &Rows) -> Vec<usize> {
    (0..rows.len()).collect()
}

/// Krum's choice: the lowest score. The lowest index wins a tie.
pub(crate) fn krum(rows: &Rows, f: usize) -> usize {
    least(&krum_scores(rows, f), 1)[0]
}

/// Multi-Krum's choice: the `m` lowest scores. Its result is their plain mean.
pub(crate) fn multi_krum(rows: &Rows, f: usize, m: usize) -> Vec<usize> {
    least(&krum_scores(rows, f), m)
}

/// The clients that Bulyan selects (El Mhamdi et al. 2018, section 4): Krum's choice among the remaining ones, `n - 2f`
/// times.
pub(crate) fn bulyan_selection(rows: &Rows, f: usize) -> Vec<usize> {
    let mut left = everyone(rows);
    let choose = |left: &mut Vec<usize>| left.remove(least(&scores_among(rows, left, f), 1)[0]);
    let mut selected: Vec<usize> = (0..rows.len() - 2 * f).map(|_| choose(&mut left)).collect();
    selected.sort_unstable();
    selected
}

/// Bulyan: at each coordinate the mean of the `n - 4f` selected values nearest to their median.
pub(crate) fn bulyan(rows: &Rows, f: usize) -> Vec<f64> {
    let selected = select(rows, &bulyan_selection(rows, f));
    by_coordinate(&selected, |values| mean_of_nearest(values, median(values), rows.len() - 4 * f))
}

/// `sum_i weights[i] * |z - row_i|`, which the geometric median minimises.
pub(crate) fn total_distance(rows: &Rows, weights: &[f64], z: &[f64]) -> f64 {
    rows.iter().zip(weights).map(|(row, weight)| weight * distance(z, row)).sum()
}

/// Whether a row is the geometric median: the others' pull on it is at most its own weight.
fn is_optimal(rows: &Rows, weights: &[f64], z: &[f64]) -> bool {
    let (mut held, mut pull) = (0.0, vec![0.0; z.len()]);
    for (row, weight) in rows.iter().zip(weights) {
        let apart = distance(row, z);
        if apart == 0.0 {
            held += weight;
        } else {
            let direction = scaled(&difference(row, z), weight / apart);
            pull.iter_mut().zip(direction).for_each(|(sum, x)| *sum += x);
        }
    }
    norm(&pull) <= held * (1.0 + 1e-12)
}

/// The geometric median (Weiszfeld 1937; for learning, Pillutla et al. 2022): a row if a row is optimal, else the limit
/// of Weiszfeld's iteration. It is unique except for an even number of rows on a line.
pub(crate) fn geometric_median(rows: &Rows, weights: &[f64]) -> Vec<f64> {
    if let Some(row) = rows.iter().find(|row| is_optimal(rows, weights, row)) {
        return row.clone();
    }
    let mut z = weighted_mean_row(rows, weights);
    for _ in 0..20_000 {
        let pull = |(row, weight): (&Vec<f64>, &f64)| weight / distance(&z, row).max(1e-12);
        let next = weighted_mean_row(rows, &rows.iter().zip(weights).map(pull).collect::<Vec<_>>());
        let step = distance(&next, &z);
        z = next;
        if step <= 1e-15 * norm(&z) {
            break;
        }
    }
    z
}

/// Centered clipping (Karimireddy et al. 2021, equation 5), `iterations` times from `start`. Without `tau`, each
/// iteration clips at the median of its distances.
pub(crate) fn centered_clipping(rows: &Rows, start: &[f64], tau: Option<f64>, iterations: usize) -> Vec<f64> {
    let mut v = start.to_vec();
    for _ in 0..iterations {
        let distances: Vec<f64> = rows.iter().map(|row| distance(row, &v)).collect();
        let tau = tau.unwrap_or_else(|| median(&distances));
        let clipped = |(row, apart): (&Vec<f64>, &f64)| {
            let factor = if *apart > tau { tau / apart } else { 1.0 };
            scaled(&difference(row, &v), factor)
        };
        let steps: Vec<Vec<f64>> = rows.iter().zip(&distances).map(clipped).collect();
        let step = mean_of(&steps, &everyone(rows));
        v.iter_mut().zip(step).for_each(|(v, step)| *v += step);
    }
    v
}

/// The largest squared distance between two chosen rows.
pub(crate) fn squared_diameter(rows: &Rows, chosen: &[usize]) -> f64 {
    let pairs = chosen.iter().flat_map(|i| chosen.iter().map(move |j| (*i, *j)));
    pairs.map(|(i, j)| squared_distance(&rows[i], &rows[j])).fold(0.0, f64::max)
}

/// Minimum diameter averaging (El Mhamdi et al. 2018; Rousseeuw 1985): the `n - f` rows of least diameter. Of equal
/// sets it takes the first in lexicographic order. Its result is their mean.
pub(crate) fn mda(rows: &Rows, f: usize) -> Vec<usize> {
    let sets = subsets(rows.len(), rows.len() - f);
    let diameters: Vec<f64> = sets.iter().map(|set| squared_diameter(rows, set)).collect();
    sets[least(&diameters, 1)[0]].clone()
}

/// MoNNA (Farhadkhani et al. 2023): the `n - f` clients nearest to a trusted client, which is among them. Its result is
/// their mean.
pub(crate) fn monna(rows: &Rows, f: usize, trusted: usize) -> Vec<usize> {
    nearest_to(rows, trusted, rows.len() - f)
}

/// Mean around the median (Xie et al. 2018, definition 4): at each coordinate the mean of the `n - f` values nearest to
/// the median.
pub(crate) fn meamed(rows: &Rows, f: usize) -> Vec<f64> {
    by_coordinate(rows, |values| mean_of_nearest(values, median(values), rows.len() - f))
}

/// The quantile with linear interpolation between the two values beside it, as NumPy's default.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The clients whose distance to the coordinate median is at most the quantile `keep` of these distances. The rule's
/// result is their mean.
pub(crate) fn distance_trim(rows: &Rows, keep: f64) -> Vec<usize> {
    let centre = coordinate_median(rows);
    let distances: Vec<f64> = rows.iter().map(|row| distance(row, &centre)).collect();
    let threshold = quantile(&distances, keep);
    everyone(rows).into_iter().filter(|i| distances[*i] <= threshold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One value per client.
    fn line(values: &[f64]) -> Vec<Vec<f64>> {
        values.iter().map(|x| vec![*x]).collect()
    }

    #[test]
    fn krum_by_hand() {
        // Two neighbours each: of 0, those at 1 and 3.
        let rows = line(&[0.0, 1.0, 3.0, 4.0, 100.0]);
        assert_eq!(krum_scores(&rows, 1), [10.0, 5.0, 5.0, 10.0, 96.0 * 96.0 + 97.0 * 97.0]);
        assert_eq!(krum(&rows, 1), 1); // Equal to the next: a tie.
        assert_eq!(multi_krum(&rows, 1, 3), [0, 1, 2]);
    }

    #[test]
    fn krum_has_one_neighbour_at_least_and_never_itself() {
        assert_eq!(krum_scores(&line(&[0.0, 3.0]), 0), [9.0, 9.0]);
        assert_eq!(krum_scores(&line(&[0.0, 3.0, 3.0]), 0), [9.0, 0.0, 0.0]);
    }

    /// Seven clients, one hostile: five are selected, three values kept.
    #[test]
    fn bulyan_by_hand() {
        let rows = line(&[-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 1000.0]);
        // Four neighbours at first: 0 scores 1 + 1 + 4 + 4, so does 1, and 0 is first.
        // Three among -2 -1 1 2 3 1000: -1 scores 1 + 4 + 9, 1 scores 1 + 4 + 4, 2 scores 1 + 1 + 9; 1 goes.
        // Two among -2 -1 2 3 1000: -2 scores 1 + 16, -1 and 2 score 1 + 9; -1 goes.
        // One among -2 2 3 1000: 2 and 3 score 1; 2 goes. One among -2 3 1000: -2 and 3 score 25; -2 goes.
        assert_eq!(bulyan_selection(&rows, 1), [0, 1, 2, 3, 4]);
        // The three of -2 -1 0 1 2 that are nearest to 0.
        assert_eq!(bulyan(&rows, 1), [0.0]);
        assert_eq!(bulyan(&line(&[4.0, 6.0, 11.0]), 0), [7.0]);
    }

    #[test]
    fn geometric_median_on_a_line_is_the_median() {
        let rows = line(&[9.0, -4.0, 0.5, 7.0, 100.0]);
        assert_eq!(geometric_median(&rows, &[1.0; 5]), [7.0]);
        assert_eq!(geometric_median(&rows, &[1.0, 9.0, 1.0, 1.0, 1.0]), [-4.0]);
    }

    #[test]
    fn geometric_median_of_a_triangle_is_fermats_point() {
        let height = 3f64.sqrt() / 2.0;
        let rows = [vec![0.0, 0.0], vec![1.0, 0.0], vec![0.5, height]];
        let z = geometric_median(&rows, &[1.0; 3]);
        assert!(distance(&z, &[0.5, height / 3.0]) < 1e-12, "{z:?}");
        // The angle is more than 120 degrees, so the result is its corner.
        let flat = [vec![-10.0, 1.0], vec![10.0, 1.0], vec![0.0, 0.0]];
        assert_eq!(geometric_median(&flat, &[1.0; 3]), [0.0, 0.0]);
    }

    #[test]
    fn geometric_median_is_where_no_pull_is_left() {
        let rows: Vec<Vec<f64>> =
            (0..12).map(|i| (0..5).map(|j| (i as f64 * 1.7 + j as f64 * 2.3).sin()).collect()).collect();
        let weights: Vec<f64> = (0..12).map(|i| 1.0 + i as f64).collect();
        let z = geometric_median(&rows, &weights);
        let mut pull = vec![0.0; 5];
        for (row, weight) in rows.iter().zip(&weights) {
            let direction = scaled(&difference(row, &z), weight / distance(row, &z));
            pull.iter_mut().zip(direction).for_each(|(sum, x)| *sum += x);
        }
        assert!(norm(&pull) < 1e-10 * 78.0, "{pull:?}");
    }

    #[test]
    fn centered_clipping_by_hand() {
        let rows = line(&[1.0, 2.0, 3.0, 1e6]);
        assert_eq!(centered_clipping(&rows, &[0.0], Some(2.0), 1), [7.0 / 4.0]);
        // Without `tau`, the bound is the median of 1, 2, 3 and a million.
        assert_eq!(centered_clipping(&rows, &[0.0], None, 1), [(1.0 + 2.0 + 2.5 + 2.5) / 4.0]);
        assert_eq!(centered_clipping(&rows, &[0.0], Some(1e9), 1), [(6.0 + 1e6) / 4.0]);
        let near = centered_clipping(&rows, &[-50.0], None, 1000)[0];
        assert!((1.0..6.0).contains(&near), "{near}");
    }

    #[test]
    fn mda_takes_the_first_of_the_smallest() {
        let rows = line(&[0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mda(&rows, 2), [0, 1, 2]);
        assert_eq!(mda(&line(&[0.0, 1e6, 2.0, 3.0, 4.0]), 2), [2, 3, 4]);
    }

    #[test]
    fn monna_trusts_one() {
        let rows = line(&[0.0, 1.0, 2.0, 3.0, 1e6]);
        assert_eq!(monna(&rows, 2, 0), [0, 1, 2]);
        assert_eq!(monna(&rows, 2, 3), [1, 2, 3]);
    }

    #[test]
    fn meamed_by_hand() {
        // The median is 2. 1 and 3 are equally near, so 1 comes first.
        assert_eq!(meamed(&line(&[3.0, 1.0, 2.0, 7.0, -9.0]), 3), [1.5]);
        // The median is 2.5, the nearest three 2, 3 and 1.
        assert_eq!(meamed(&line(&[4.0, 3.0, 2.0, 1.0]), 1), [2.0]);
    }

    #[test]
    fn distance_trim_by_hand() {
        let rows = line(&[0.0, 1.0, 2.0, 3.0, 50.0]);
        // Distances 2 1 0 1 48. The rank at four fifths is between the last two: 2 + 0.2 * 46.
        assert_eq!(distance_trim(&rows, 0.8), [0, 1, 2, 3]);
        assert_eq!(distance_trim(&rows, 0.5), [1, 2, 3]);
        assert_eq!(distance_trim(&rows, 1.0), [0, 1, 2, 3, 4]);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.75), 2.5);
    }

    #[test]
    fn all_equal_gives_that_value() {
        let (row, all) = (vec![1.5, -2.0, 0.25], vec![vec![1.5, -2.0, 0.25]; 7]);
        let weights = [1.0; 7];
        assert_eq!(all[krum(&all, 2)], row);
        assert_eq!(multi_krum(&all, 2, 3), [0, 1, 2]);
        assert_eq!(bulyan(&all, 1), row);
        assert_eq!(geometric_median(&all, &weights), row);
        assert_eq!(centered_clipping(&all, &row, None, 3), row);
        assert_eq!(centered_clipping(&all, &[0.0; 3], Some(1e3), 1), row);
        assert_eq!(mda(&all, 3), [0, 1, 2, 3]);
        assert_eq!(monna(&all, 3, 6), [0, 1, 2, 6]);
        assert_eq!(meamed(&all, 3), row);
        assert_eq!(distance_trim(&all, 0.5).len(), 7);
    }

    #[test]
    fn hostile_clients_far_away_are_left_out() {
        let mut rows: Vec<Vec<f64>> = (0..9).map(|i| vec![f64::from(i) / 8.0, 1.0]).collect();
        rows[3] = vec![1e6, -1e6];
        rows[7] = vec![1e6, 1e6];
        let honest = [0, 1, 2, 4, 5, 6, 8];
        assert_eq!((mda(&rows, 2), monna(&rows, 2, 0)), (honest.to_vec(), honest.to_vec()));
        assert_eq!(distance_trim(&rows, 0.75), honest);
        assert!(multi_krum(&rows, 2, 5).iter().all(|i| honest.contains(i)));
        for got in [&rows[krum(&rows, 2)], &bulyan(&rows[..7], 1), &meamed(&rows, 2)] {
            assert!((0.0..=1.0).contains(&got[0]) && got[1] == 1.0, "{got:?}");
        }
        assert!(distance(&geometric_median(&rows, &[1.0; 9]), &[0.5, 1.0]) < 1.0);
    }
}
