//! The oracles of the rules that judge whole clients by distance: on full vectors, naive, in f64, as the papers
//! write them. Chosen clients are indices in ascending order.

use crate::reference::median;
use crate::reference::vectors::{
    Rows, by_coordinate, coordinate_median, difference, distance, least, mean_of, mean_of_nearest,
    nearest_to, norm, scaled, select, squared_distance, subsets, weighted_mean_row,
};

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

/// Krum's choice: the lowest score, ties to the lowest index.
pub(crate) fn krum(rows: &Rows, f: usize) -> usize {
    least(&krum_scores(rows, f), 1)[0]
}

/// Multi-Krum's choice: the `m` lowest scores; its result is their plain mean.
pub(crate) fn multi_krum(rows: &Rows, f: usize, m: usize) -> Vec<usize> {
    least(&krum_scores(rows, f), m)
}

/// Those whom Bulyan selects (El Mhamdi et al. 2018, section 4): Krum's choice among those left, `n - 2f` times.
pub(crate) fn bulyan_selection(rows: &Rows, f: usize) -> Vec<usize> {
    let mut left = everyone(rows);
    let choose = |left: &mut Vec<usize>| left.remove(least(&scores_among(rows, left, f), 1)[0]);
    let mut selected: Vec<usize> = (0..rows.len() - 2 * f).map(|_| choose(&mut left)).collect();
    selected.sort_unstable();
    selected
}

/// Bulyan: at each coordinate the mean of the `n - 4f` values selected that are nearest to their median.
pub(crate) fn bulyan(rows: &Rows, f: usize) -> Vec<f64> {
    let selected = select(rows, &bulyan_selection(rows, f));
    by_coordinate(&selected, |values| mean_of_nearest(values, median(values), rows.len() - 4 * f))
}

/// `sum_i weights[i] * |z - row_i|`, which the geometric median makes least.
pub(crate) fn total_distance(rows: &Rows, weights: &[f64], z: &[f64]) -> f64 {
    rows.iter().zip(weights).map(|(row, weight)| weight * distance(z, row)).sum()
}

/// Whether a row is the geometric median: the pull of the others is not more than the weight that lies on it.
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

/// The geometric median (Weiszfeld 1937; for learning, Pillutla et al. 2022): a row if one is optimal, else what
/// Weiszfeld's iteration converges to. Not unique only for an even number of rows on a line.
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
/// iteration clips at the median of the distances that it finds.
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

/// The largest squared distance between two of the rows chosen.
pub(crate) fn squared_diameter(rows: &Rows, chosen: &[usize]) -> f64 {
    let pairs = chosen.iter().flat_map(|i| chosen.iter().map(move |j| (*i, *j)));
    pairs.map(|(i, j)| squared_distance(&rows[i], &rows[j])).fold(0.0, f64::max)
}

/// Minimum diameter averaging (El Mhamdi et al. 2018; Rousseeuw 1985): the `n - f` of least diameter, the first in
/// lexicographic order of those as small; its result is their mean.
pub(crate) fn mda(rows: &Rows, f: usize) -> Vec<usize> {
    let sets = subsets(rows.len(), rows.len() - f);
    let diameters: Vec<f64> = sets.iter().map(|set| squared_diameter(rows, set)).collect();
    sets[least(&diameters, 1)[0]].clone()
}

/// MoNNA (Farhadkhani et al. 2023): the `n - f` nearest to a client that is trusted, itself one of them; its result
/// is their mean.
pub(crate) fn monna(rows: &Rows, f: usize, trusted: usize) -> Vec<usize> {
    nearest_to(rows, trusted, rows.len() - f)
}

/// Mean around the median (Xie et al. 2018, definition 4): at each coordinate the mean of the `n - f` values nearest
/// to the median.
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

/// Those no farther from the coordinate median than the quantile `keep` of these distances; its result is their mean.
pub(crate) fn distance_trim(rows: &Rows, keep: f64) -> Vec<usize> {
    let centre = coordinate_median(rows);
    let distances: Vec<f64> = rows.iter().map(|row| distance(row, &centre)).collect();
    let threshold = quantile(&distances, keep);
    everyone(rows).into_iter().filter(|i| distances[*i] <= threshold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One value a client.
    fn line(values: &[f64]) -> Vec<Vec<f64>> {
        values.iter().map(|x| vec![*x]).collect()
    }

    #[test]
    fn krum_by_hand() {
        // Two neighbours each: of 0, those at 1 and 3.
        let rows = line(&[0.0, 1.0, 3.0, 4.0, 100.0]);
        assert_eq!(krum_scores(&rows, 1), [10.0, 5.0, 5.0, 10.0, 96.0 * 96.0 + 97.0 * 97.0]);
        assert_eq!(krum(&rows, 1), 1); // A tie with the next.
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
        // Of -2 -1 0 1 2 the three nearest to 0.
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
        // An angle of more than 120 degrees: its corner.
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
        // Not given, the bound is the median of 1, 2, 3 and a million.
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
        // The median is 2; 1 and 3 are as near, so 1 comes first.
        assert_eq!(meamed(&line(&[3.0, 1.0, 2.0, 7.0, -9.0]), 3), [1.5]);
        // The median is 2.5, the nearest three 2, 3 and 1.
        assert_eq!(meamed(&line(&[4.0, 3.0, 2.0, 1.0]), 1), [2.0]);
    }

    #[test]
    fn distance_trim_by_hand() {
        let rows = line(&[0.0, 1.0, 2.0, 3.0, 50.0]);
        // Distances 2 1 0 1 48; four fifths of the way is between the last two: 2 + 0.2 * 46.
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
