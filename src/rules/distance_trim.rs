//! The mean of the updates that are not far from the coordinate median.
//!
//! - Source: a common server-side heuristic; a whole-update form of trimming.
//! - Cost: the distances to the median, which the first pass sorts; then the mean of the updates kept.
//! - Tolerates: the number of clients that it leaves out, and fewer than half.
//! - Details: the quantile interpolates linearly between two distances, as in NumPy and PyTorch.

use crate::rules::ranking::{Score, lowest, ranked};
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, less_than_half, mean_of_kept};
use crate::settings::{RegistryEntry, Setting, spec_text, value};
use std::fmt;
use std::str::FromStr;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "distance-trim",
    summary: "The mean of the updates whose distance to the coordinate median is within a quantile of \
              these distances.",
    settings: &[Setting::new("keep", "0.8", "the quantile, from 0 to 1")],
    parse: |settings| Ok(Box::new(DistanceTrim { keep: settings.take("keep")? })),
};

/// The trim by distance.
#[derive(Clone, Debug)]
pub struct DistanceTrim {
    keep: Option<Quantile>,
}

/// A number from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Quantile(f64);

impl FromStr for Quantile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|x| (0.0..=1.0).contains(x));
        number.map(Self).ok_or_else(|| format!("found `{text}`, expected a number from 0 to 1"))
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl DistanceTrim {
    /// The number of nearest clients within the quantile, before ties. A product just below a whole number, because of
    /// rounding, counts as that number.
    fn count(&self, clients: usize) -> usize {
        let keep = self.keep.map_or(0.8, |keep| keep.0);
        (keep * (clients - 1) as f64 + 1e-9).floor() as usize + 1
    }
}

impl fmt::Display for DistanceTrim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("distance-trim", &[("keep", value(&self.keep))]))
    }
}

impl Rule for DistanceTrim {
    fn needs(&self) -> Needs {
        Needs::Median
    }

    fn tolerates(&self, clients: usize) -> usize {
        (clients - self.count(clients)).min(less_than_half(clients))
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let geometry = statistics.geometry()?;
        let median = geometry.median().ok_or(RuleError::NotMeasured { what: "distances to the median" })?;
        let n = statistics.clients();
        let scores: Vec<Score> = (0..n).map(|i| Score::squared_distance(geometry, i, median)).collect();
        let order = ranked(&scores);
        let farthest = scores[order[self.count(n) - 1]].value;
        // A client exactly at the quantile is within it.
        let count = scores.iter().filter(|score| score.value <= farthest).count();
        let (kept, warning) = lowest(&scores, count, &statistics.ids);
        let distances: Vec<f64> = scores.iter().map(|score| score.value.sqrt()).collect();
        let reasons = ("it is near the coordinate median", "it is far from the coordinate median");
        Ok(Decision { warnings: warning.into_iter().collect(), ..mean_of_kept(&kept, &distances, reasons) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(keep: Option<f64>, clients: usize) -> usize {
        DistanceTrim { keep: keep.map(Quantile) }.count(clients)
    }

    #[test]
    fn a_product_just_below_a_whole_number_is_that_number() {
        // 0.58 * 50 is 28.999999999999996 in f64.
        assert_eq!((count(Some(0.58), 51), count(Some(0.579_999), 51)), (30, 29));
        assert_eq!((count(Some(1.0 - 0.9e-9), 2), count(Some(1.0 - 1.1e-9), 2)), (2, 1));
        assert_eq!((count(Some(0.5 - 0.4e-9), 3), count(Some(0.5 - 0.6e-9), 3)), (2, 1));
    }

    #[test]
    fn the_count_is_that_of_whole_numbers() {
        for clients in 1..200 {
            assert_eq!(count(Some(0.0), clients), 1);
            assert_eq!(count(Some(1.0), clients), clients);
            // In whole numbers.
            assert_eq!(count(None, clients), 4 * (clients - 1) / 5 + 1);
            for percent in 0..=100 {
                let found = count(Some(percent as f64 / 100.0), clients);
                assert_eq!(found, percent * (clients - 1) / 100 + 1, "{percent} {clients}");
            }
        }
    }

    #[test]
    fn those_that_are_left_out_may_be_hostile_up_to_half() {
        let tolerates = |keep, clients| DistanceTrim { keep: Some(Quantile(keep)) }.tolerates(clients);
        assert_eq!((tolerates(0.8, 6), tolerates(0.8, 11)), (1, 2));
        assert_eq!((tolerates(0.0, 6), tolerates(0.0, 7), tolerates(1.0, 7)), (2, 3, 0));
    }
}
