//! The oracles of rules that judge clients by the covariance of their rows, and an eigensolver.

use crate::reference::vectors::{
    Rows, difference, dot, least, mean_of, scaled, select, subsets, weighted_mean_row,
};

/// Eigenvalues of a symmetric matrix, and eigenvectors in columns: Jacobi's rotations until all values off the diagonal
/// vanish (Golub and Van Loan, section 8.5).
fn eigen(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = a.len();
    let mut v: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(i == j)).collect()).collect();
    for _ in 0..100 {
        let mut turned = false;
        for (p, q) in (0..n).flat_map(|p| (p + 1..n).map(move |q| (p, q))) {
            if a[p][q].abs() > 1e-17 * (a[p][p] * a[q][q]).abs().sqrt() {
                rotate(&mut a, &mut v, p, q);
                turned = true;
            }
        }
        if !turned {
            break;
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), v)
}

/// The rotation of rows and columns `p` and `q` after which `a[p][q]` is zero.
fn rotate(a: &mut [Vec<f64>], v: &mut [Vec<f64>], p: usize, q: usize) {
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for row in a.iter_mut().chain(v.iter_mut()) {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
    let (row_p, row_q) = (a[p].clone(), a[q].clone());
    let turn = |x: f64, y: f64| row_p.iter().zip(&row_q).map(|(a, b)| x * a + y * b).collect();
    (a[p], a[q]) = (turn(c, -s), turn(s, c));
    (a[p][q], a[q][p]) = (0.0, 0.0);
}

/// The largest eigenvalue of `sum_i c[i] (row_i - mu) (row_i - mu)^T / sum c` and its unit eigenvector; `mu` is the
/// mean weighted by `c`. They follow from the Gram matrix of the centred rows, which has the same nonzero eigenvalues.
fn top_eigenpair(rows: &Rows, c: &[f64], mu: &[f64]) -> (f64, Vec<f64>) {
    let total: f64 = c.iter().sum();
    let centred: Vec<Vec<f64>> =
        rows.iter().zip(c).map(|(row, c)| scaled(&difference(row, mu), (c / total).sqrt())).collect();
    let gram = centred.iter().map(|a| centred.iter().map(|b| dot(a, b)).collect()).collect();
    let (values, vectors) = eigen(gram);
    let top = (0..values.len()).fold(0, |top, i| if values[i] > values[top] { i } else { top });
    let mut direction = vec![0.0; mu.len()];
    for (row, vector) in centred.iter().zip(&vectors) {
        direction.iter_mut().zip(row).for_each(|(sum, x)| *sum += vector[top] * x);
    }
    let length = dot(&direction, &direction).sqrt().max(f64::MIN_POSITIVE);
    (values[top].max(0.0), scaled(&direction, 1.0 / length))
}

/// The largest eigenvalue of the covariance of the chosen rows.
pub(crate) fn top_variance(rows: &Rows, chosen: &[usize]) -> f64 {
    top_eigenpair(&select(rows, chosen), &vec![1.0; chosen.len()], &mean_of(rows, chosen)).0
}

/// Smallest maximum eigenvalue averaging (Allouah et al. 2023): the `n - f` rows whose covariance has the least top
/// eigenvalue. Of equal sets it takes the first in lexicographic order. Its result is their mean.
pub(crate) fn smea(rows: &Rows, f: usize) -> Vec<usize> {
    let sets = subsets(rows.len(), rows.len() - f);
    let variances: Vec<f64> = sets.iter().map(|set| top_variance(rows, set)).collect();
    sets[least(&variances, 1)[0]].clone()
}

/// The weights of the covariance-bound agnostic filter (Allouah et al. 2025). They shrink along the direction of most
/// variance while more than `n - 2f` are left. Of all weights on the way, the result is those whose covariance has the
/// least top eigenvalue.
///
/// The largest deviation is over clients that still have weight. Otherwise one removed client far away would keep the
/// other weights from ever changing.
pub(crate) fn caf_weights(rows: &Rows, f: usize) -> Vec<f64> {
    let n = rows.len();
    let mut c = vec![1.0; n];
    let (mut best, mut result) = (f64::INFINITY, c.clone());
    while f > 0 && c.iter().sum::<f64>() > (n - 2 * f) as f64 {
        let mu = weighted_mean_row(rows, &c);
        let (lambda, direction) = top_eigenpair(rows, &c, &mu);
        if lambda < best {
            (best, result) = (lambda, c.clone());
        }
        let deviations: Vec<f64> =
            rows.iter().map(|row| dot(&direction, &difference(row, &mu)).powi(2)).collect();
        let weighing = deviations.iter().zip(&c).filter(|(_, c)| **c > 0.0);
        let most = weighing.map(|(deviation, _)| *deviation).fold(0.0, f64::max);
        if most == 0.0 {
            break; // No variance is left, so no weights can be better.
        }
        c.iter_mut().zip(&deviations).for_each(|(c, deviation)| *c *= (1.0 - deviation / most).max(0.0));
    }
    result
}

/// The clients with some weight after the filter.
pub(crate) fn caf_kept(rows: &Rows, f: usize) -> Vec<usize> {
    let weights = caf_weights(rows, f);
    (0..rows.len()).filter(|i| weights[*i] > 0.0).collect()
}

/// The filter's result: the mean with its weights.
pub(crate) fn caf(rows: &Rows, f: usize) -> Vec<f64> {
    weighted_mean_row(rows, &caf_weights(rows, f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::vectors::distance;

    #[test]
    fn eigenvalues_by_hand() {
        let (mut values, _) = eigen(vec![vec![2.0, 1.0, 0.0], vec![1.0, 2.0, 0.0], vec![0.0, 0.0, -5.0]]);
        values.sort_by(f64::total_cmp);
        for (value, want) in values.iter().zip([-5.0, 1.0, 3.0]) {
            assert!((value - want).abs() < 1e-14, "{values:?}");
        }
    }

    #[test]
    fn eigenvectors_give_the_matrix_back() {
        let n = 9;
        let a: Vec<Vec<f64>> =
            (0..n).map(|i| (0..n).map(|j| ((i * j + i + j) as f64 * 0.7).cos()).collect()).collect();
        let (values, vectors) = eigen(a.clone());
        for i in 0..n {
            for j in 0..n {
                let got: f64 = (0..n).map(|k| vectors[i][k] * values[k] * vectors[j][k]).sum();
                assert!((got - a[i][j]).abs() < 1e-12, "{i} {j}");
            }
        }
    }

    #[test]
    fn top_direction_is_where_the_variance_is() {
        let rows = [vec![0.0, 3.0], vec![0.0, -3.0], vec![1.0, 0.0], vec![-1.0, 0.0]];
        let (lambda, direction) = top_eigenpair(&rows, &[1.0; 4], &[0.0, 0.0]);
        assert!((lambda - 4.5).abs() < 1e-14 && (direction[1].abs() - 1.0).abs() < 1e-14);
        let (lambda, direction) = top_eigenpair(&rows, &[0.0, 0.0, 2.0, 2.0], &[0.0, 0.0]);
        assert!((lambda - 1.0).abs() < 1e-14 && (direction[0].abs() - 1.0).abs() < 1e-14);
    }

    #[test]
    fn all_equal_gives_that_value() {
        let all = vec![vec![1.5, -2.0]; 7];
        assert_eq!(smea(&all, 3), [0, 1, 2, 3]);
        assert_eq!(caf(&all, 3), [1.5, -2.0]);
    }

    #[test]
    fn hostile_clients_far_away_are_left_out() {
        let mut rows: Vec<Vec<f64>> = (0..9).map(|i| vec![(f64::from(i) * 1.3).sin(), 1.0]).collect();
        rows[3] = vec![1e6, -1e6];
        rows[7] = vec![1e6, 3e6];
        let honest = [0, 1, 2, 4, 5, 6, 8];
        assert_eq!(smea(&rows, 2), honest);
        let got = caf(&rows, 2);
        assert!(got[0].abs() <= 1.0 && (got[1] - 1.0).abs() < 1e-9, "{got:?}");
    }

    #[test]
    fn caf_by_hand() {
        // The first round removes 10 (deviation 7.5 from the mean of 2.5) and leaves 1 - 1/9 of each zero; then no
        // variance is left.
        let rows = [vec![0.0], vec![0.0], vec![10.0], vec![0.0]];
        assert_eq!(caf(&rows, 1), [0.0]);
        assert_eq!(caf(&rows, 0), [2.5]);
        assert_eq!(caf_weights(&rows, 1)[2], 0.0);
    }

    /// The second direction appears after the first is cleared, though the clients far along the first keep their
    /// distance.
    #[test]
    fn caf_goes_on_after_it_removed_the_farthest() {
        let mut rows: Vec<Vec<f64>> = (0..9).map(|i| vec![f64::from(i % 3), f64::from(i / 3)]).collect();
        rows[0] = vec![1e15, 1e15];
        rows[1] = vec![0.0, -1e6];
        let weights = caf_weights(&rows, 2);
        assert_eq!(weights[..2], [0.0, 0.0]);
        assert!(distance(&caf(&rows, 2), &[1.1, 1.2]) < 1.0, "{weights:?}");
    }
}
