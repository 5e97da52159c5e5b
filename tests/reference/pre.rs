//! The oracle of every step before a rule: rows in, rows out.

use crate::reference::median;
use crate::reference::robust::geometric_median;
use crate::reference::vectors::{Rows, distance, dot, least, mean_of, nearest_to, norm, scaled, select};

/// The rows that a step makes from rows without a base, for a number of hostile clients.
type Oracle = fn(&Rows, usize) -> Vec<Vec<f64>>;

/// The oracle of every step with its required settings. `None` is a random step, which has its own tests.
const ORACLES: &[(&str, Option<Oracle>)] = &[
    ("nnm", Some(nnm)),
    ("bucketing", None),
    ("clip", Some(|rows, _| clip(rows, 1.5))),
    ("arc", Some(arc)),
    ("outliers", Some(|rows, f| select(rows, &outliers(rows, f)))),
];

/// The oracle of a step. A step without an oracle fails the tests.
pub(crate) fn oracle_of(step: &str) -> Option<Oracle> {
    let oracle = ORACLES.iter().find(|(name, _)| *name == step);
    oracle.unwrap_or_else(|| panic!("{step} has no oracle in {}", file!())).1
}

/// Nearest-neighbour mixing (Allouah et al. 2023): each row becomes the mean of the `n - f` rows nearest to it, itself
/// included.
pub(crate) fn nnm(rows: &Rows, f: usize) -> Vec<Vec<f64>> {
    (0..rows.len()).map(|i| mean_of(rows, &nearest_to(rows, i, rows.len() - f))).collect()
}

/// Rows shortened to a length of at most `most`.
pub(crate) fn clip(rows: &Rows, most: f64) -> Vec<Vec<f64>> {
    let shorten = |row: &Vec<f64>| if norm(row) > most { scaled(row, most / norm(row)) } else { row.clone() };
    rows.iter().map(shorten).collect()
}

/// Adaptive robust clipping (Allouah et al. 2025): the `2f (n - f) / n` longest rows, rounded down, are shortened to
/// the longest of the others.
pub(crate) fn arc(rows: &Rows, f: usize) -> Vec<Vec<f64>> {
    let n = rows.len();
    let shortened = 2 * f * (n - f) / n;
    let mut norms: Vec<f64> = rows.iter().map(|row| norm(row)).collect();
    norms.sort_by(f64::total_cmp);
    clip(rows, norms[n - shortened - 1])
}

/// The distance of each value from the mean, in standard deviations of the population, signed. Zeros if there is no
/// deviation.
fn z_scores(values: &[f64]) -> Vec<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    values.iter().map(|x| if deviation > 0.0 { (x - mean) / deviation } else { 0.0 }).collect()
}

/// A score of each client's oddness: its median distance to the others, and its angle to the geometric median.
pub(crate) fn outlier_scores(rows: &Rows) -> Vec<f64> {
    let apart = |i: usize| {
        let others = (0..rows.len()).filter(|j| *j != i);
        median(&others.map(|j| distance(&rows[i], &rows[j])).collect::<Vec<_>>())
    };
    let centre = geometric_median(rows, &vec![1.0; rows.len()]);
    let turned = |row: &Vec<f64>| 1.0 - dot(row, &centre) / (norm(row) * norm(&centre));
    let distances: Vec<f64> = (0..rows.len()).map(apart).collect();
    let angles: Vec<f64> = rows.iter().map(turned).collect();
    z_scores(&distances).iter().zip(z_scores(&angles)).map(|(a, b)| a + b).collect()
}

/// The clients that stay when the `f` oddest leave. Of two equally odd clients, the first stays.
pub(crate) fn outliers(rows: &Rows, f: usize) -> Vec<usize> {
    least(&outlier_scores(rows), rows.len() - f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nnm_by_hand() {
        let rows = [vec![0.0], vec![1.0], vec![2.0], vec![9.0]];
        assert_eq!(nnm(&rows, 2), [[0.5], [0.5], [1.5], [5.5]]); // 1 is as near to 0 as to 2.
        assert_eq!(nnm(&rows, 0), [[3.0]; 4]);
        assert_eq!(nnm(&rows, 3), rows);
    }

    #[test]
    fn clip_by_hand() {
        let rows = [vec![3.0, 4.0], vec![0.5, 0.0], vec![0.0, 0.0]];
        assert_eq!(clip(&rows, 2.5), [[1.5, 2.0], [0.5, 0.0], [0.0, 0.0]]);
    }

    #[test]
    fn arc_by_hand() {
        let rows = [vec![1.0], vec![-2.0], vec![30.0], vec![400.0], vec![0.5]];
        // 2 * 1 * 4 / 5 is 1.6: one.
        assert_eq!(arc(&rows, 1), [[1.0], [-2.0], [30.0], [30.0], [0.5]]);
        // 2 * 2 * 3 / 5 is 2.4: two.
        assert_eq!(arc(&rows, 2), [[1.0], [-2.0], [2.0], [2.0], [0.5]]);
        assert_eq!(arc(&rows, 0), rows);
    }

    #[test]
    fn z_scores_by_hand() {
        assert_eq!(z_scores(&[1.0, 3.0, 1.0, 3.0]), [-1.0, 1.0, -1.0, 1.0]);
        assert_eq!(z_scores(&[5.0, 5.0]), [0.0, 0.0]);
    }

    #[test]
    fn outliers_are_far_or_turned() {
        let mut rows: Vec<Vec<f64>> = (0..8).map(|i| vec![1.0, f64::from(i) / 100.0, 0.0]).collect();
        rows[2] = vec![-1.0, 0.1, 0.0]; // The opposite direction.
        rows[5] = vec![1.0, 1.0, 50.0]; // Far away.
        assert_eq!(outliers(&rows, 2), [0, 1, 3, 4, 6, 7]);
    }

    #[test]
    fn equal_rows_are_not_odd() {
        assert_eq!(outliers(&[vec![1.0], vec![1.0], vec![1.0]], 1), [0, 1]);
    }
}
