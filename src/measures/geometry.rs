//! Metrics of a round from the inner products of the clients' deltas.
//!
//! The formulas are those of [`crate::rules::metrics`], which the report of a merge has too.

use crate::rules::geometry::{Geometry, References};
use crate::rules::metrics::RoundMetrics;
use crate::rules::numeric::triangle::Triangle;

/// The most by which a Gram matrix may miss symmetry, or a product the lengths of its two deltas, relative to these.
const TOLERANCE: f64 = 1e-6;

/// The geometry of deltas with these inner products.
///
/// Inner products about the origin lose the digits in which deltas agree: two deltas that differ by a part e of their
/// length have a distance with a relative error of about 1e-16 / e^2.
///
/// # Errors
///
/// When the rows are no Gram matrix; with the place, what was found and what was expected.
pub fn of_products(rows: &[Vec<f64>]) -> Result<Geometry, String> {
    let n = rows.len();
    if n == 0 {
        return Err("found no row, expected one for each client".to_owned());
    }
    for (i, row) in rows.iter().enumerate() {
        if row.len() != n {
            return Err(format!("[{i}]: found {} values, expected {n}, one for each row", row.len()));
        }
        if let Some(j) = row.iter().position(|value| !value.is_finite()) {
            return Err(format!("[{i}][{j}]: found {}, expected a finite number", row[j]));
        }
    }
    for (i, row) in rows.iter().enumerate() {
        if row[i] < 0.0 {
            return Err(format!("[{i}][{i}]: found {}, expected a square from 0 on", row[i]));
        }
        for (j, value) in row.iter().enumerate() {
            let most = (row[i] * rows[j][j]).sqrt();
            if (value - rows[j][i]).abs() > TOLERANCE * most {
                return Err(format!("[{i}][{j}]: found {value}, and [{j}][{i}] is {}", rows[j][i]));
            }
            if value.abs() > most * (1.0 + TOLERANCE) {
                return Err(format!(
                    "[{i}][{j}]: found {value}, expected at most {most}, the product of lengths"
                ));
            }
        }
    }
    // The origin comes behind the clients: its products are 0.
    let at = |i: usize, j: usize| if i.max(j) < n { rows[i][j] } else { 0.0 };
    Ok(Geometry::new(n, References::default(), Triangle::new(n + 1, at), None, f64::EPSILON))
}

/// The metrics of a round and their names, in the order of [`super::METRICS`].
pub fn named(metrics: &RoundMetrics) -> [(&'static str, Option<f64>); 11] {
    let clusters = metrics.clusters.as_ref();
    let largest = |of: fn(&crate::rules::metrics::Influence) -> Option<f64>| {
        metrics.influence.iter().filter_map(of).reduce(f64::max)
    };
    [
        ("signal_fraction", metrics.signal_fraction),
        ("noise_scale", metrics.noise_scale),
        ("coherence", metrics.coherence),
        ("alignment", metrics.alignment),
        ("effective_rank", metrics.effective_rank),
        ("clusters", clusters.map(|clusters| clusters.count as f64)),
        ("cluster_silhouette", clusters.and_then(|clusters| clusters.silhouette)),
        ("cosine_inside", clusters.and_then(|clusters| clusters.inside)),
        ("cosine_between", clusters.and_then(|clusters| clusters.between)),
        ("largest_influence", largest(|influence| influence.distance)),
        ("largest_turn", largest(|influence| influence.angle)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_gram_matrix_is_named() {
        let refused = |rows: &[Vec<f64>], expected: &str| {
            let why = of_products(rows).unwrap_err();
            assert!(why.starts_with(expected), "{why}");
        };
        refused(&[], "found no row");
        refused(&[vec![1.0, 0.0]], "[0]: found 2 values, expected 1");
        refused(&[vec![-1.0]], "[0][0]: found -1");
        refused(&[vec![f64::NAN]], "[0][0]: found NaN");
        refused(&[vec![1.0, 0.5], vec![0.25, 1.0]], "[0][1]: found 0.5, and [1][0] is 0.25");
        refused(&[vec![1.0, 2.0], vec![2.0, 1.0]], "[0][1]: found 2, expected at most 1");
    }
}
