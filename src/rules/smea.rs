//! The mean of the n - F updates whose covariance has the least leading eigenvalue.
//!
//! - Paper: Allouah et al., On the privacy-robustness-utility trilemma in distributed learning, 2023, section 4.
//! - Cost: the inner products of all updates, and a search. Its steps grow like the number of subsets where hostile
//!   clients do not stand out. Beyond [`MOST_WORK`] it ends with an error.
//! - Tolerates: fewer than half.
//! - Elsewhere: ByzFL takes one power iteration from a random start for the eigenvalue, so its results vary.

use crate::parallel;
use crate::rules::geometry::Geometry;
use crate::rules::numeric::eigen::largest_eigenvalue;
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, Warning, mean_of_kept};
use crate::settings::RegistryEntry;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "smea",
    summary: "The mean of the n - F updates whose covariance has the least leading eigenvalue.",
    settings: &[],
    parse: |_| Ok(Box::new(Smea)),
};

/// The most work of a search, in multiply-adds of its eigenproblems (the cube of their size): some seconds.
pub const MOST_WORK: u64 = 1 << 33;

/// SMEA.
#[derive(Clone, Copy, Debug)]
pub struct Smea;

impl fmt::Display for Smea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("smea")
    }
}

impl Rule for Smea {
    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn uses_byzantine(&self) -> bool {
        true
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let geometry = statistics.geometry()?;
        let (clients, work, unit) = (statistics.clients(), MOST_WORK, "multiply-adds");
        let kept = clients - statistics.hostile();
        let search = VarianceSearch::run(geometry, kept).ok_or_else(|| RuleError::TooMuchWork {
            rule: self.to_string(),
            kept,
            clients,
            work,
            unit,
        })?;
        let is_kept: Vec<bool> = (0..clients).map(|i| search.best.contains(&i)).collect();
        let share = 1.0 / kept as f64;
        let mean: Vec<f64> = is_kept.iter().map(|kept| if *kept { share } else { 0.0 }).collect();
        let distances = geometry.squared_distances_to(&geometry.combination(&mean));
        let distances: Vec<f64> = distances[..clients].iter().map(|d| d.sqrt()).collect();
        let reasons = ("it is in the set of least variance", "it is not in the set of least variance");
        let warnings = search.close.then(|| {
            Warning::close_call("another set of clients has the same leading variance to the numeric bound")
        });
        Ok(Decision {
            warnings: warnings.into_iter().collect(),
            ..mean_of_kept(&is_kept, &distances, reasons)
        })
    }
}

/// A search by branch and bound: it adds clients or leaves them out one by one, those farthest from the others first.
/// The scatter of a set only grows with its members, so a part of a set bounds it from below.
struct VarianceSearch<'a> {
    geometry: &'a Geometry,
    order: Vec<usize>,
    size: usize,
    best: Vec<usize>,
    least: f64,
    /// Whether another whole set is equal within the numeric bound.
    close: bool,
    work: u64,
}

impl<'a> VarianceSearch<'a> {
    /// Searches; `None` means that it takes too much work.
    fn run(geometry: &'a Geometry, size: usize) -> Option<Self> {
        let n = geometry.clients();
        let remoteness: Vec<f64> =
            (0..n).map(|i| (0..n).map(|j| geometry.squared_distance(i, j)).sum()).collect();
        let mut order: Vec<usize> = (0..n).collect();
        // Of clients that are equally far, those with the highest ids are left out first.
        order.sort_by(|a, b| remoteness[*b].total_cmp(&remoteness[*a]).then(b.cmp(a)));
        let (best, least) = (Vec::new(), f64::INFINITY);
        let mut search = Self { geometry, order, size, best, least, close: false, work: 0 };
        search.branch(0, &mut Vec::new())?;
        search.best.sort_unstable();
        Some(search)
    }

    /// Decides on clients from place `next` of the order on, given the members so far.
    fn branch(&mut self, next: usize, members: &mut Vec<usize>) -> Option<()> {
        if members.len() == self.size {
            return Some(());
        }
        let left_out = next - members.len();
        if left_out < self.order.len() - self.size {
            self.branch(next + 1, members)?;
        }
        members.push(self.order[next]);
        parallel::check();
        self.work += (members.len() as u64).pow(3);
        if self.work > MOST_WORK {
            return None;
        }
        let scatter = largest_eigenvalue(self.geometry.scatter(members));
        if members.len() == self.size {
            self.judge(members, scatter);
        } else if scatter < self.least {
            self.branch(next + 1, members)?;
        }
        members.pop();
        Some(())
    }

    fn judge(&mut self, members: &[usize], scatter: f64) {
        let bound = self.geometry.largest_error(members);
        let gap = self.least - scatter;
        self.close = if gap > bound { false } else { self.close || gap.abs() <= bound };
        if scatter < self.least {
            self.least = scatter;
            self.best = members.to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geometry::tests::geometry_of;

    #[test]
    fn a_choice_is_close_until_a_clearly_better_set_is_found() {
        let geometry = geometry_of(&[vec![0.0, 1.0], vec![2.0, 0.0], vec![3.0, 1.0]]);
        let (order, best) = (Vec::new(), Vec::new());
        let mut search =
            VarianceSearch { geometry: &geometry, order, size: 2, best, least: 10.0, close: false, work: 0 };
        for (scatter, close, least) in
            [(12.0, false, 10.0), (10.0, true, 10.0), (4.0, false, 4.0), (5.0, false, 4.0)]
        {
            search.judge(&[0, 1], scatter);
            assert_eq!((search.close, search.least), (close, least), "{scatter}");
        }
    }
}
