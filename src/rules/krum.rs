//! The one update with the least sum of squared distances to its nearest neighbours.
//!
//! - Paper: Blanchard et al., Machine learning with adversaries: Byzantine tolerant gradient descent, 2017, section 4.
//! - Cost: the distances of all updates, and a copy of one update.
//! - Tolerates: F where n >= 2F + 3.
//! - Details: a client's score is the sum over its n - F - 2 nearest other clients.
//! - Elsewhere: ByzFL counts n - F - 1 neighbours and takes their mean (n > 2F). Flower counts max(1, n - F - 2) and
//!   has no condition on n.

use crate::parallel;
use crate::rules::geometry::Geometry;
use crate::rules::numeric::sum::Sum;
use crate::rules::ranking::{Score, lowest};
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, less_than_half, mean_of_kept};
use crate::settings::{Definition, RegistryEntry};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "krum",
    summary: "The one update with the least sum of squared distances to its n - F - 2 nearest others.",
    settings: &[],
    parse: |settings| Ok(Box::new(Krum { definition: settings.definition() })),
};

/// Krum.
#[derive(Clone, Copy, Debug)]
pub struct Krum {
    definition: Definition,
}

impl fmt::Display for Krum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("krum")
    }
}

impl Rule for Krum {
    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn definition(&self) -> Definition {
        self.definition
    }

    fn uses_byzantine(&self) -> bool {
        true
    }

    fn least_clients(&self) -> usize {
        least_clients(self.definition)
    }

    fn tolerates(&self, clients: usize) -> usize {
        tolerates(self.definition, clients)
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let scores = scores(self.definition, statistics)?;
        let (kept, warning) = lowest(&scores, 1, &statistics.ids);
        let values: Vec<f64> = scores.iter().map(|score| score.value).collect();
        let reasons = ("its score is the lowest", "another's score is lower");
        Ok(Decision { warnings: warning.into_iter().collect(), ..mean_of_kept(&kept, &values, reasons) })
    }
}

/// The fewest clients that the definition needs.
pub(super) fn least_clients(definition: Definition) -> usize {
    match definition {
        Definition::Paper | Definition::Tff => 3,
        Definition::Byzfl | Definition::Flower | Definition::FlowerLegacy => 1,
    }
}

/// The most hostile clients that the definition allows.
pub(super) fn tolerates(definition: Definition, clients: usize) -> usize {
    match definition {
        Definition::Paper | Definition::Tff => clients.saturating_sub(3) / 2,
        Definition::Byzfl => less_than_half(clients),
        Definition::Flower | Definition::FlowerLegacy => clients.saturating_sub(1),
    }
}

/// The score of every client by one definition.
pub(super) fn scores(definition: Definition, statistics: &Statistics) -> Result<Vec<Score>, RuleError> {
    let (n, f) = (statistics.clients(), statistics.hostile());
    let geometry = statistics.geometry()?;
    let neighbours = match definition {
        Definition::Paper | Definition::Flower | Definition::FlowerLegacy | Definition::Tff => {
            neighbours(n, f)
        }
        Definition::Byzfl => n.saturating_sub(f + 1),
    };
    let mut scores = geometry.map_distances(8 * n, |client, row| {
        let errors = |other: usize| geometry.error(client, other);
        score(row, client, neighbours, errors)
    });
    if definition == Definition::Byzfl && neighbours > 0 {
        for score in &mut scores {
            score.value /= neighbours as f64;
            score.error /= neighbours as f64;
        }
    }
    Ok(scores)
}

/// The number of neighbours that count in a set of `n`: at least one, since without neighbours every score is zero.
pub(super) fn neighbours(n: usize, f: usize) -> usize {
    n.saturating_sub(f + 2).max(1)
}

/// The score of each member of a set: the sum of its squared distances to its nearest `neighbours` other members.
pub(super) fn scores_among(geometry: &Geometry, members: &[usize], neighbours: usize) -> Vec<Score> {
    parallel::map(members.len(), 8 * members.len(), |own| {
        let client = members[own];
        let row: Vec<f64> = members.iter().map(|other| geometry.squared_distance(client, *other)).collect();
        score(&row, own, neighbours, |other| geometry.error(client, members[other]))
    })
}

/// The score of a client from its squared distances to all members of a set, `own` being its own place: the sum of the
/// `neighbours` smallest others.
///
/// It is the sum of the values below the largest that counts, and as often as needed that value. Sums keep twice the
/// digits of f64. So equal distances give equal scores in any order, and ties stay ties.
pub(super) fn score(row: &[f64], own: usize, neighbours: usize, error: impl Fn(usize) -> f64) -> Score {
    let neighbours = neighbours.min(row.len() - 1);
    if neighbours == 0 {
        return Score::exact(0.0);
    }
    let mut others: Vec<f64> = Vec::with_capacity(row.len() - 1);
    others.extend_from_slice(&row[..own]);
    others.extend_from_slice(&row[own + 1..]);
    let most = *others.select_nth_unstable_by(neighbours - 1, f64::total_cmp).1;
    let (mut sum, mut errors, mut count) = (Sum::default(), 0.0, 0);
    for (other, value) in row.iter().enumerate().filter(|(other, value)| *other != own && **value < most) {
        sum.add(*value);
        errors += error(other);
        count += 1;
    }
    let equal = row.iter().enumerate().filter(|(other, value)| *other != own && **value == most);
    errors += equal.take(neighbours - count).map(|(other, _)| error(other)).sum::<f64>();
    Score { value: sum.value() + (neighbours - count) as f64 * most, error: errors }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The conditions as the paper and the libraries write them.
    #[test]
    fn every_definition_tolerates_what_its_condition_says() {
        for n in 0..40 {
            let most = |may: fn(usize, usize) -> bool| (0..=n).take_while(|f| may(n, *f)).last().unwrap_or(0);
            for paper in [Definition::Paper, Definition::Tff] {
                assert_eq!(tolerates(paper, n), most(|n, f| n >= 2 * f + 3), "{n}");
            }
            assert_eq!(tolerates(Definition::Byzfl, n), most(|n, f| n > 2 * f), "{n}");
            // No condition, except that one client is honest.
            assert_eq!(tolerates(Definition::Flower, n), most(|n, f| f < n), "{n}");
        }
    }

    #[test]
    fn every_definition_has_its_least_number_of_clients() {
        let least = |definition| {
            let works = |n: &usize| *n >= least_clients(definition);
            (0..10).find(works)
        };
        assert_eq!((least(Definition::Paper), least(Definition::Tff)), (Some(3), Some(3)));
        assert_eq!((least(Definition::Byzfl), least(Definition::Flower)), (Some(1), Some(1)));
    }

    #[test]
    fn one_neighbour_counts_at_least() {
        for (n, f, expected) in [(7, 2, 3), (5, 2, 1), (4, 2, 1), (3, 2, 1), (2, 2, 1), (4, 1, 1), (5, 1, 2)]
        {
            assert_eq!(neighbours(n, f), expected, "{n} {f}");
        }
    }

    #[test]
    fn errors_are_those_of_the_neighbours_that_count() {
        let error = |other: usize| 10f64.powi(other as i32);
        let row = [0.0, 1.0, 2.0, 2.0, 5.0];
        assert_eq!(score(&row, 0, 2, error), Score { value: 3.0, error: 110.0 });
        assert_eq!(score(&row, 0, 3, error), Score { value: 5.0, error: 1110.0 });
    }
}
