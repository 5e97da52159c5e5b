//! Leaves out the F clients that stand out most by distance and by direction.
//!
//! - Source: the score of several federated servers, with both parts standardised so that neither swamps the other.
//! - Cost: the inner products of all updates.
//! - Tolerates: fewer than half.
//! - Leaves: F, of n - F updates: it may have left out honest clients, so the rule still assumes F.
//! - Details: a client's score is the sum of two numbers: the median of its distances to the others, and one minus the
//!   cosine between its delta and the geometric median of all. Each number counts less its mean over the clients,
//!   divided by its standard deviation.

use crate::rules::geometric_median::geometric_median;
use crate::rules::geometry::Geometry;
use crate::rules::mixing::Mixing;
use crate::rules::numeric::eigen::power_of_two_above;
use crate::rules::pre::{Step, StepOutput};
use crate::rules::ranking::{Score, lowest, median};
use crate::rules::{RuleError, Statistics, Warning};
use crate::settings::RegistryEntry;
use std::collections::BTreeMap;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Step>> = RegistryEntry {
    name: "outliers",
    summary: "The F clients that stand out most are left out: by median distance to the others plus angle \
              to the geometric median, both standardised.",
    settings: &[],
    parse: |_| Ok(Box::new(Outliers)),
};

/// The step that leaves out outliers.
#[derive(Clone, Copy, Debug)]
pub struct Outliers;

impl fmt::Display for Outliers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outliers")
    }
}

impl Step for Outliers {
    fn uses_lengths(&self) -> bool {
        true
    }

    fn take(&self, statistics: &Statistics) -> Result<StepOutput, RuleError> {
        let geometry = statistics.geometry()?;
        let n = statistics.clients();
        let (distances, angles) = (median_distances(geometry), angles_to_centre(geometry));
        let (distance_z, angle_z) = (standardised(&distances), standardised(&angles));
        let scores: Vec<Score> =
            distance_z.iter().zip(&angle_z).map(|(d, a)| Score { value: d + a, error: 1e-9 }).collect();
        let (kept, warning) = lowest(&scores, n - statistics.hostile(), &statistics.ids);
        let chosen: Vec<usize> = (0..n).filter(|i| kept[*i]).collect();
        let mut place = vec![None; n];
        for (row, i) in chosen.iter().enumerate() {
            place[*i] = Some(row);
        }
        let found = |i: usize| {
            BTreeMap::from([
                ("median_distance", distances[i]),
                ("median_distance_z", distance_z[i]),
                ("angle", angles[i]),
                ("angle_z", angle_z[i]),
                ("score", scores[i].value),
            ])
        };
        Ok(StepOutput {
            mixing: Mixing::choose(n, &chosen),
            place,
            found: (0..n).map(found).collect(),
            warnings: warning
                .into_iter()
                .map(|warning| Warning { text: format!("outliers: {warning}"), ..warning })
                .collect(),
        })
    }
}

/// For each client, the median of its distances to the others.
fn median_distances(geometry: &Geometry) -> Vec<f64> {
    geometry.map_distances(8 * geometry.clients(), |i, row| {
        let others = row.iter().enumerate().filter(|(j, _)| *j != i);
        median(others.map(|(_, squared)| squared.sqrt()).collect())
    })
}

/// For each client, one minus the cosine between its delta and the geometric median; one if its delta is zero.
fn angles_to_centre(geometry: &Geometry) -> Vec<f64> {
    let n = geometry.clients();
    let centre = geometric_median(geometry, &vec![1.0; n]).coefficients;
    let distances = geometry.squared_distances_to(&geometry.combination(&centre));
    let own = distances[geometry.origin()];
    let angle = |i: usize| {
        // The three sides of the triangle of origin, centre and client give its angle at the origin.
        let norm = geometry.norm(i);
        let product = (own + norm * norm - distances[i]) / 2.0;
        let cosine = product / (own.sqrt() * norm);
        if cosine.is_finite() { 1.0 - cosine.clamp(-1.0, 1.0) } else { 1.0 }
    };
    (0..n).map(angle).collect()
}

/// The values less their mean, over their standard deviation; zeros if they do not differ.
fn standardised(values: &[f64]) -> Vec<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    // A power of two changes no bit, and keeps squares within f64.
    let farthest = values.iter().map(|x| (x - mean).abs()).fold(0.0, f64::max);
    let scale = if farthest > 0.0 { power_of_two_above(farthest) } else { 1.0 };
    let squares = values.iter().map(|x| ((x - mean) / scale).powi(2)).sum::<f64>();
    let deviation = (squares / n).sqrt() * scale;
    let differs = deviation > 1e-12 * mean.abs();
    values.iter().map(|x| if differs { (x - mean) / deviation } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardised_values_have_mean_zero_and_deviation_one() {
        let root = 5f64.sqrt();
        let expected = [-3.0 / root, -1.0 / root, 1.0 / root, 3.0 / root];
        for (found, expected) in standardised(&[1.0, 3.0, 5.0, 7.0]).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        assert_eq!(standardised(&[2.0; 3]), [0.0; 3]);
    }
}
