//! The mean of the n - F updates with the least diameter, which is their largest distance.
//!
//! - Paper: El Mhamdi et al., Distributed momentum for Byzantine-resilient stochastic gradient descent, 2021, section 2
//!   (minimum diameter averaging); Rousseeuw, Multivariate estimation with high breakdown point, 1985.
//! - Cost: the distances of all updates, and a search that is short unless very many are hostile. Beyond
//!   [`MOST_WORK`] it ends with an error.
//! - Tolerates: fewer than half.
//! - Details: of sets with the same diameter, it takes the set with the lowest ids.

use crate::parallel;
use crate::rules::geometry::Geometry;
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, Warning, mean_of_kept};
use crate::settings::RegistryEntry;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "mda",
    summary: "The mean of the n - F updates with the least diameter.",
    settings: &[],
    parse: |_| Ok(Box::new(Mda)),
};

/// The most work of a search, in comparisons of pairs of clients: some seconds.
pub const MOST_WORK: u64 = 1 << 32;

/// Minimum diameter averaging.
#[derive(Clone, Copy, Debug)]
pub struct Mda;

impl fmt::Display for Mda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mda")
    }
}

impl Rule for Mda {
    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn uses_byzantine(&self) -> bool {
        true
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let geometry = statistics.geometry()?;
        let (clients, hostile) = (statistics.clients(), statistics.hostile());
        let (kept, work, unit) = (clients - hostile, MOST_WORK, "looks at pairs");
        let found = DiameterSearch { geometry, work: 0 }.least_diameter(hostile);
        let (set, rival) = found.ok_or_else(|| RuleError::TooMuchWork {
            rule: self.to_string(),
            kept,
            clients,
            work,
            unit,
        })?;
        let farthest = |i: usize| {
            let distances = (0..clients).filter(|j| set[*j]).map(|j| geometry.distance(i, j));
            distances.fold(0.0, f64::max)
        };
        let distances: Vec<f64> = (0..clients).map(farthest).collect();
        let reasons = ("it is in the set of least diameter", "it is not in the set of least diameter");
        let text = "another set of clients has the same diameter to the numeric bound";
        let warnings = match rival {
            Rival::None => None,
            Rival::Tied => Some(Warning::from(text)),
            Rival::Close => Some(Warning::close_call(text)),
        };
        Ok(Decision { warnings: warnings.into_iter().collect(), ..mean_of_kept(&set, &distances, reasons) })
    }
}

/// Whether another set is as good as the best set.
enum Rival {
    None,
    /// Its diameter is equal, and more exact numbers would not change that.
    Tied,
    /// Its diameter is equal within the numeric bound.
    Close,
}

/// A search for the set of least diameter. Take all pairs farther apart than a diameter. A set within it exists if
/// leaving out at most F clients touches each of these pairs (a vertex cover). The search leaves out the client with
/// the most such pairs, or all its partners.
struct DiameterSearch<'a> {
    geometry: &'a Geometry,
    /// Comparisons of pairs so far.
    work: u64,
}

impl DiameterSearch<'_> {
    /// The members of the set of least diameter that leaves out `out` clients, and whether another set is as good.
    /// `None` means that the search takes too much work.
    fn least_diameter(&mut self, out: usize) -> Option<(Vec<bool>, Rival)> {
        let n = self.geometry.clients();
        let mut diameters: Vec<f64> = vec![0.0];
        diameters.extend((0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| self.squared(i, j)));
        diameters.sort_by(f64::total_cmp);
        diameters.dedup();
        let (mut low, mut high) = (0, diameters.len() - 1);
        while low < high {
            let middle = (low + high) / 2;
            if self.coverable(diameters[middle], &vec![true; n], out)? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let set = self.lowest_ids(diameters[low], out)?;
        let least = diameters[low];
        let bound = self.bound(&set);
        let rival = match self.has_rival(&set, least + bound, out)? {
            false => Rival::None,
            // More exact numbers could tell them apart only if another pair has nearly this distance.
            true if diameters.iter().any(|d| *d != least && (d - least).abs() <= bound) => Rival::Close,
            true => Rival::Tied,
        };
        Some((set, rival))
    }

    fn squared(&self, i: usize, j: usize) -> f64 {
        self.geometry.squared_distance(i, j)
    }

    /// The members that are farther from `i` than a diameter.
    fn partners(&self, i: usize, diameter: f64, members: &[bool]) -> Vec<usize> {
        let far = |j: &usize| members[*j] && *j != i && self.squared(i, *j) > diameter;
        (0..members.len()).filter(far).collect()
    }

    /// Whether leaving out at most `out` members brings the others within a diameter.
    fn coverable(&mut self, diameter: f64, members: &[bool], out: usize) -> Option<bool> {
        parallel::check();
        self.work += (members.len() as u64).pow(2);
        if self.work > MOST_WORK {
            return None;
        }
        let partners =
            (0..members.len()).filter(|i| members[*i]).map(|i| (i, self.partners(i, diameter, members)));
        let partners: Vec<(usize, Vec<usize>)> =
            partners.filter(|(_, partners)| !partners.is_empty()).collect();
        let pairs = partners.iter().map(|(_, partners)| partners.len()).sum::<usize>() / 2;
        let Some((worst, its_partners)) = partners.into_iter().max_by_key(|(_, partners)| partners.len())
        else {
            return Some(true);
        };
        if pairs > out * its_partners.len() {
            return Some(false);
        }
        let without = |left: &[usize]| {
            let mut members = members.to_vec();
            left.iter().for_each(|i| members[*i] = false);
            members
        };
        if its_partners.len() <= out
            && self.coverable(diameter, &without(&its_partners), out - its_partners.len())?
        {
            return Some(true);
        }
        self.coverable(diameter, &without(&[worst]), out - 1)
    }

    /// The set with the lowest ids among those within a diameter.
    fn lowest_ids(&mut self, diameter: f64, mut out: usize) -> Option<Vec<bool>> {
        let n = self.geometry.clients();
        let size = n - out;
        let mut members = vec![true; n];
        for i in 0..n {
            if !members[i] {
                continue;
            }
            let partners = self.partners(i, diameter, &members);
            let mut with = members.clone();
            partners.iter().for_each(|j| with[*j] = false);
            // Members before `i` stay: no member is too far from them.
            if partners.len() <= out && self.coverable(diameter, &with, out - partners.len())? {
                members = with;
                out -= partners.len();
            } else {
                members[i] = false;
                out -= 1;
            }
        }
        let mut left = size;
        for member in &mut members {
            *member = *member && left > 0;
            left -= usize::from(*member);
        }
        Some(members)
    }

    /// A bound on the numeric error of the difference between the diameters of this set and of another.
    fn bound(&self, set: &[bool]) -> f64 {
        let kept: Vec<usize> = (0..set.len()).filter(|i| set[*i]).collect();
        2.0 * self.geometry.largest_error(&kept)
    }

    /// Whether a set without one of these members is also within the diameter.
    fn has_rival(&mut self, set: &[bool], diameter: f64, out: usize) -> Option<bool> {
        let n = set.len();
        if out == 0 {
            return Some(false);
        }
        for i in (0..n).filter(|i| set[*i]) {
            let mut members = vec![true; n];
            members[i] = false;
            if self.coverable(diameter, &members, out - 1)? {
                return Some(true);
            }
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geometry::References;
    use crate::rules::numeric::triangle::Triangle;

    /// Client 0 is far from 1 to 3, and each of these from one more. All others are near. So the client with the most
    /// far partners stays, and its partners leave.
    #[test]
    fn the_partners_of_the_client_with_the_most_may_leave_in_its_place() {
        let far = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 5), (3, 6)];
        let at = |i: usize, j: usize| match (i.max(j) < 7, i == j) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) if far.contains(&(i.min(j), i.max(j))) => -0.3,
            (true, false) => 0.0,
        };
        let geometry = Geometry::new(7, References::default(), Triangle::new(8, at), None, 0.0);
        let found = DiameterSearch { geometry: &geometry, work: 0 }.least_diameter(3);
        let (set, rival) = found.unwrap();
        assert!(matches!(rival, Rival::None));
        assert_eq!(set, [true, false, false, false, true, true, true]);
    }
}
