//! A weighted mean: clients lose weight along the direction of most variance.
//!
//! - Paper: Allouah, Guerraoui and Stephan, Towards trustworthy federated learning with untrusted participants, 2025,
//!   algorithm 2 (covariance bound-agnostic filter).
//! - Cost: the inner products of all updates and a few small eigenproblems; then a weighted mean.
//! - Tolerates: fewer than half.
//! - Details: all weights start at one. While they add up to more than n - 2F, each is multiplied by `1 - t_i / max t`.
//!   `t_i` is the squared projection of client i's difference from the weighted mean on the leading eigenvector of the
//!   weighted covariance. The result is the mean with the least leading eigenvalue.
//! - Elsewhere: ByzFL takes one power iteration from a random start for the eigenvector, so its results vary.

use crate::rules::geometry::Geometry;
use crate::rules::mean::weighted_mean;
use crate::rules::numeric::eigen::{leading_pair, power_of_two_above};
use crate::rules::numeric::lanczos;
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics};
use crate::settings::RegistryEntry;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "caf",
    summary: "A weighted mean: clients far out in the direction of most variance lose weight, until all \
              weights together are at most n - 2F.",
    settings: &[],
    parse: |_| Ok(Box::new(Caf)),
};

/// The covariance bound-agnostic filter.
#[derive(Clone, Copy, Debug)]
pub struct Caf;

impl fmt::Display for Caf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("caf")
    }
}

impl Rule for Caf {
    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn uses_byzantine(&self) -> bool {
        true
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let geometry = statistics.geometry()?;
        let weights = filtered_weights(geometry, statistics.hostile());
        let total: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let distances = geometry.squared_distances_to(&geometry.combination(&shares));
        let mut decision = weighted_mean(&weights, "the filter left it this weight");
        for (verdict, distance) in decision.verdicts.iter_mut().zip(&distances) {
            verdict.score = Some(distance.sqrt());
            if !verdict.kept {
                "the filter took all its weight".clone_into(&mut verdict.reason);
            }
        }
        Ok(decision)
    }
}

/// The weights of the mean with the least leading eigenvalue.
fn filtered_weights(geometry: &Geometry, hostile: usize) -> Vec<f64> {
    let n = geometry.clients();
    let mut weights = vec![1.0; n];
    let start = lanczos::start(&geometry.diagonal()[..n]);
    let (mut best, mut least) = (weights.clone(), f64::INFINITY);
    while weights.iter().sum::<f64>() > (n - 2 * hostile) as f64 {
        let (eigenvalue, projections) = leading_direction(geometry, &weights, &start);
        if eigenvalue < least {
            (best, least) = (weights.clone(), eigenvalue);
        }
        // A client without weight does not count: if it is far away, no other client would lose weight any more.
        let counts = projections.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0);
        let most = counts.fold(0.0f64, |most, (t, _)| most.max(*t));
        if most == 0.0 {
            break;
        }
        for (weight, projection) in weights.iter_mut().zip(&projections) {
            *weight *= (1.0 - projection / most).max(0.0);
        }
    }
    best
}

/// The leading eigenvalue of the weighted covariance, and every client's squared projection on its eigenvector.
///
/// With `D` the differences from the weighted mean, one in each row, and `s_i = sqrt(w_i / sum w)`, the covariance
/// `(sD)' (sD)` and the small matrix `(sD) (sD)'` share their eigenvalues; an eigenvector `u` of the small one gives
/// `(sD)' u / sqrt(lambda)`. For many clients the search starts at `start`.
fn leading_direction(geometry: &Geometry, weights: &[f64], start: &[f64]) -> (f64, Vec<f64>) {
    let total: f64 = weights.iter().sum();
    let roots: Vec<f64> = weights.iter().map(|weight| (weight / total).sqrt()).collect();
    let scaled = |u: &[f64]| u.iter().zip(&roots).map(|(u, root)| root * u).collect::<Vec<f64>>();
    let (eigenvalue, projected) = if is_small(geometry) {
        let products = geometry.about_mean(weights);
        let (eigenvalue, u) = leading_pair(products.clone().scaled(&roots));
        (eigenvalue, products.times(&scaled(&u)))
    } else {
        let pulls = geometry.pulls(weights);
        let times = |u: &[f64]| geometry.times_about_mean(&pulls, &scaled(u));
        let (eigenvalue, u) = lanczos::leading_pair(start.to_vec(), |u| scaled(&times(u)));
        let projected = times(&u);
        (eigenvalue, projected)
    };
    if eigenvalue <= 0.0 {
        return (0.0, vec![0.0; weights.len()]);
    }
    // A power of two changes no bit, and keeps the square of a sum within f64, whatever the size of the values.
    let scale = power_of_two_above(eigenvalue);
    let projection = |sum: &f64| (sum / scale).powi(2) / (eigenvalue / scale) * scale;
    (eigenvalue, projected.iter().map(projection).collect())
}

/// The most clients whose whole spectrum is computed.
const FEW: usize = 128;

/// The largest value whose squares surely fit f64 with their sums.
const LARGEST: f64 = 1e140;

/// Whether the whole spectrum is computed: for few clients, and for values that only it can scale.
fn is_small(geometry: &Geometry) -> bool {
    geometry.clients() <= FEW || geometry.diagonal()[..geometry.clients()].iter().any(|x| *x > LARGEST)
}
