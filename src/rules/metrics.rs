//! Metrics that describe a round as a whole, from the inner products of the deltas.
//!
//! The deltas are `d_i`, the weights `w` add up to one, `G_ij = <d_i, d_j>` and `C_ij = G_ij / (|d_i| |d_j|)`.
//! docs/metrics.md has the formulas and their meaning. Signal and noise are the unbiased estimates of McCandlish et
//! al., An empirical model of large-batch training, 2018, appendix A; effective rank is Roy and Vetterli's, The
//! effective rank: a measure of effective dimensionality, 2007.

use crate::rules::clusters::{Clusters, Cosines, cosine};
use crate::rules::geometry::{Geometry, dot};
use crate::rules::numeric::eigen::eigenvalues;
use crate::rules::numeric::triangle::Triangle;

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
    /// The number of directions of the deltas, from 1 to the number of clients. `None` for more than [`MOST_RANKED`].
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
        let total: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let products = Products::of(geometry, &shares);
        let (signal_fraction, noise_scale) = products.signal_and_noise();
        let cosines = Cosines::of(geometry, &products.lengths);
        Self {
            coherence: cosines.and_then(|_| products.coherence()),
            alignment: products.alignment(&shares),
            signal_fraction,
            noise_scale,
            clusters: cosines.map(Clusters::of),
            effective_rank: cosines.and_then(effective_rank),
            influence: influence(geometry, &products, &shares),
        }
    }
}

fn finite(x: f64) -> Option<f64> {
    Some(x).filter(|x| x.is_finite())
}

/// Sums over the inner products of each client's delta with all deltas.
struct Products {
    /// The length of each delta.
    lengths: Vec<f64>,
    /// The squared length of each delta.
    squares: Vec<f64>,
    /// The sum of each delta's products.
    sums: Vec<f64>,
    /// The sum of each delta's cosines.
    cosines: Vec<f64>,
    /// The product of each delta with the weighted mean.
    pulls: Vec<f64>,
}

impl Products {
    fn of(geometry: &Geometry, shares: &[f64]) -> Self {
        let n = geometry.clients();
        let squares: Vec<f64> = (0..n).map(|i| geometry.norm(i).powi(2)).collect();
        let lengths: Vec<f64> = squares.iter().map(|square| square.sqrt()).collect();
        let sums = geometry.map_products(8 * n, |i, row| {
            let cosines = row.iter().enumerate().map(|(j, product)| cosine(&lengths, i, j, *product));
            [row.iter().sum::<f64>(), cosines.sum(), dot(row, shares)]
        });
        let of = |k: usize| sums.iter().map(|sums| sums[k]).collect();
        Self { sums: of(0), cosines: of(1), pulls: of(2), lengths, squares }
    }

    fn coherence(&self) -> Option<f64> {
        let n = self.lengths.len() as f64;
        let sum: f64 = self.cosines.iter().sum();
        finite((sum - n) / (n * (n - 1.0)))
    }

    fn alignment(&self, shares: &[f64]) -> Option<f64> {
        let lengths: f64 = shares.iter().zip(&self.lengths).map(|(share, length)| share * length).sum();
        finite(dot(shares, &self.pulls).max(0.0).sqrt() / lengths)
    }

    fn signal_and_noise(&self) -> (Option<f64>, Option<f64>) {
        let n = self.squares.len() as f64;
        let mean_square = self.squares.iter().sum::<f64>() / n;
        let square_of_mean = self.sums.iter().sum::<f64>() / (n * n);
        let noise = n * (mean_square - square_of_mean) / (n - 1.0);
        let signal = (n * square_of_mean - mean_square) / (n - 1.0);
        let fraction = signal / (signal + noise / n);
        (finite(fraction).map(|x| x.clamp(0.0, 1.0)), finite(noise / signal))
    }
}

/// The most clients whose effective rank is computed: its eigenvalues take n x n x n multiply-adds.
pub const MOST_RANKED: usize = 1024;

/// The exponential of the entropy of the eigenvalues; `None` for more than [`MOST_RANKED`] clients.
fn effective_rank(cosines: Cosines<'_>) -> Option<f64> {
    if cosines.size() > MOST_RANKED {
        return None;
    }
    let matrix = Triangle::new(cosines.size(), |i, j| cosines.at(i, j));
    let values: Vec<f64> = eigenvalues(matrix).into_iter().filter(|value| *value > 0.0).collect();
    let total: f64 = values.iter().sum();
    let parts = values.iter().map(|value| value / total);
    finite(parts.map(|part| -part * part.ln()).sum::<f64>().exp())
}

fn influence(geometry: &Geometry, products: &Products, shares: &[f64]) -> Vec<Influence> {
    let distances = geometry.squared_distances_to(&geometry.combination(shares));
    let (pulls, square) = (&products.pulls, dot(&products.pulls, shares));
    let influence = |(i, share): (usize, &f64)| {
        // u - u_-i = w_i / (1 - w_i) (d_i - u), and u_-i = (u - w_i d_i) / (1 - w_i).
        let rest = 1.0 - share;
        let without = square - 2.0 * share * pulls[i] + share * share * products.squares[i];
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

    #[test]
    fn signal_is_what_two_deltas_share() {
        // The mean is (2, 0.5). |d|^2 is 4.5 on average and |mean|^2 4.25: noise 0.5 and signal 4.
        let metrics = RoundMetrics::of(&geometry_of(&[vec![2.0, 0.0], vec![2.0, 1.0]]), &[1.0, 1.0]);
        assert!((metrics.signal_fraction.unwrap() - 4.0 / 4.25).abs() < 1e-14);
        assert!((metrics.noise_scale.unwrap() - 0.125).abs() < 1e-14);
    }
}
