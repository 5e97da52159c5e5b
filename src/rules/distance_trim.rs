//! The mean of the updates that are not far from the coordinate median.
//!
//! - Source: a common server-side heuristic; a whole-update form of trimming.
//! - Cost: the distances to the median, which the first pass sorts; then the mean of the updates kept.
//! - Tolerates: as many as it leaves out, and fewer than half.
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
    /// The number of nearest clients within the quantile, before ties. A product just below a whole number, by
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
