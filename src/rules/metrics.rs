//! Metrics that describe a round as a whole, from the inner products of the deltas.
//!
//! The deltas are `d_i`, the weights `w` add up to one, `G_ij = <d_i, d_j>` and `C_ij = G_ij / (|d_i| |d_j|)`.
//! docs/metrics.md has the formulas and their meaning. Signal and noise are the unbiased estimates of McCandlish et
//! al., An empirical model of large-batch training, 2018, appendix A; effective rank is Roy and Vetterli's, The
//! effective rank: a measure of effective dimensionality, 2007.

use crate::rules::clusters::Clusters;
use crate::rules::eigen::eigenvalues;
use crate::rules::geometry::{Geometry, Matrix, dot};

/// The metrics of a round. A metric is `None` where it is not defined: for a single client, or for deltas that are zero.
#[derive(Clone, PartialEq, Debug)]
pub struct RoundMetrics {
    /// Mean cosine between two clients' deltas.
    pub coherence: Option<f64>,
    /// Length of the weighted mean delta over the weighted mean of the lengths: one if all deltas have one direction.
    pub alignment: Option<f64>,
    /// The part of the mean delta's squared length that is not noise from differences of clients, from 0 to 1.
    pub signal_fraction: Option<f64>,
    /// Variance between clients over the squared length of the true mean: the number of clients that reveals the mean.
    pub noise_scale: Option<f64>,
    /// The number of directions of the deltas, from 1 to the number of clients.
    pub effective_rank: Option<f64>,
    /// The groups of clients whose deltas point in similar directions.
    pub clusters: Option<Clusters>,
    /// The influence of each client on the weighted mean.
    pub influence: Vec<Influence>,
}

/// The change of the weighted mean when one client is left out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Influence {
    /// The distance by which the weighted mean moves.
    pub distance: Option<f64>,
    /// One minus the cosine between the means with and without the client.
    pub angle: Option<f64>,
}

impl RoundMetrics {
    /// The metrics of clients with these weights.
    pub fn of(geometry: &Geometry, weights: &[f64]) -> Self {
        let products = geometry.products();
        let total: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let cosines = cosines(&products);
        let (signal_fraction, noise_scale) = signal_and_noise(&products);
        Self {
            coherence: cosines.as_ref().and_then(coherence),
            alignment: alignment(&products, &shares),
            signal_fraction,
            noise_scale,
            effective_rank: cosines.as_ref().and_then(effective_rank),
            clusters: cosines.as_ref().map(Clusters::of),
            influence: influence(geometry, &products, &shares),
        }
    }
}

fn finite(x: f64) -> Option<f64> {
    Some(x).filter(|x| x.is_finite())
}

fn sum(matrix: &Matrix) -> f64 {
    (0..matrix.size()).map(|i| matrix.row(i).iter().sum::<f64>()).sum()
}

fn trace(matrix: &Matrix) -> f64 {
    (0..matrix.size()).map(|i| matrix.at(i, i)).sum()
}

/// The cosines between all deltas; `None` if a delta is zero and so has no direction.
fn cosines(products: &Matrix) -> Option<Matrix> {
    let n = products.size();
    let lengths: Vec<f64> = (0..n).map(|i| products.at(i, i).sqrt()).collect();
    let cosine = |i: usize, j: usize| match i == j {
        true => 1.0,
        false => (products.at(i, j) / (lengths[i] * lengths[j])).clamp(-1.0, 1.0),
    };
    lengths.iter().all(|length| *length > 0.0).then(|| Matrix::new(n, cosine))
}

fn coherence(cosines: &Matrix) -> Option<f64> {
    let n = cosines.size() as f64;
    finite((sum(cosines) - n) / (n * (n - 1.0)))
}

fn alignment(products: &Matrix, shares: &[f64]) -> Option<f64> {
    let lengths: f64 = shares.iter().enumerate().map(|(i, share)| share * products.at(i, i).sqrt()).sum();
    finite(mean_product(products, shares, shares).max(0.0).sqrt() / lengths)
}

/// `a' G b`.
fn mean_product(products: &Matrix, a: &[f64], b: &[f64]) -> f64 {
    a.iter().enumerate().map(|(i, a)| a * dot(products.row(i), b)).sum()
}

fn signal_and_noise(products: &Matrix) -> (Option<f64>, Option<f64>) {
    let n = products.size() as f64;
    let (mean_square, square_of_mean) = (trace(products) / n, sum(products) / (n * n));
    let noise = n * (mean_square - square_of_mean) / (n - 1.0);
    let signal = (n * square_of_mean - mean_square) / (n - 1.0);
    let fraction = signal / (signal + noise / n);
    (finite(fraction).map(|x| x.clamp(0.0, 1.0)), finite(noise / signal))
}

/// The exponential of the entropy of the eigenvalues.
fn effective_rank(cosines: &Matrix) -> Option<f64> {
    let values: Vec<f64> = eigenvalues(cosines).into_iter().filter(|value| *value > 0.0).collect();
    let total: f64 = values.iter().sum();
    let parts = values.iter().map(|value| value / total);
    finite(parts.map(|part| -part * part.ln()).sum::<f64>().exp())
}

fn influence(geometry: &Geometry, products: &Matrix, shares: &[f64]) -> Vec<Influence> {
    let distances = geometry.squared_distances_to(&geometry.combination(shares));
    let pulls: Vec<f64> = (0..shares.len()).map(|i| dot(products.row(i), shares)).collect();
    let square = dot(&pulls, shares);
    let influence = |(i, share): (usize, &f64)| {
        // u - u_-i = w_i / (1 - w_i) (d_i - u), and u_-i = (u - w_i d_i) / (1 - w_i).
        let rest = 1.0 - share;
        let without = square - 2.0 * share * pulls[i] + share * share * products.at(i, i);
        let cosine = (square - share * pulls[i]) / (square * without).sqrt();
        Influence {
            distance: finite(share / rest * distances[i].sqrt()).filter(|_| rest > 0.0),
            angle: finite(1.0 - cosine.clamp(-1.0, 1.0)),
        }
    };
    shares.iter().enumerate().map(influence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geometry::tests::geometry_of;

    #[test]
    fn orthogonal_deltas() {
        let metrics = RoundMetrics::of(&geometry_of(&[vec![1.0, 0.0], vec![0.0, 1.0]]), &[1.0, 1.0]);
        assert!(metrics.coherence.unwrap().abs() < 1e-15);
        assert!((metrics.alignment.unwrap() - 0.5f64.sqrt()).abs() < 1e-15);
        assert!((metrics.effective_rank.unwrap() - 2.0).abs() < 1e-14);
        assert_eq!(metrics.signal_fraction, Some(0.0));
        let first = metrics.influence[0];
        assert!((first.distance.unwrap() - 0.5f64.sqrt()).abs() < 1e-15);
        assert!((first.angle.unwrap() - (1.0 - 0.5f64.sqrt())).abs() < 1e-15);
    }

    #[test]
    fn equal_deltas_are_all_signal() {
        let metrics = RoundMetrics::of(&geometry_of(&[vec![3.0], vec![3.0], vec![3.0]]), &[1.0, 2.0, 3.0]);
        assert_eq!((metrics.coherence, metrics.alignment), (Some(1.0), Some(1.0)));
        assert_eq!((metrics.signal_fraction, metrics.noise_scale), (Some(1.0), Some(0.0)));
        assert!((metrics.effective_rank.unwrap() - 1.0).abs() < 1e-14);
        assert!(metrics.influence.iter().all(|influence| influence.distance == Some(0.0)));
    }

    #[test]
    fn one_client_or_none_moving_has_no_metrics() {
        let alone = RoundMetrics::of(&geometry_of(&[vec![1.0]]), &[1.0]);
        assert_eq!((alone.coherence, alone.noise_scale, alone.influence[0].distance), (None, None, None));
        let still = RoundMetrics::of(&geometry_of(&[vec![0.0], vec![1.0]]), &[1.0, 1.0]);
        assert_eq!((still.coherence, still.effective_rank, still.clusters), (None, None, None));
    }
}
