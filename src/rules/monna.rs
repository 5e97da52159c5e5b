//! The mean of the updates nearest to the update of a trusted client.
//!
//! - Paper: Farhadkhani et al., Robust collaborative learning with linear gradient overhead, 2023, algorithm 1.
//! - Cost: the distances of all updates, and the mean of the updates kept.
//! - Tolerates: fewer than half, if the trusted client is honest.

use crate::rules::ranking::{Score, lowest};
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, mean_of_kept};
use crate::settings::{RegistryEntry, Setting};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "monna",
    summary: "The mean of the n - F updates nearest to the update of a client that you trust, which is \
              one of them.",
    settings: &[Setting::required("trusted", "ID", "id of the client")],
    parse: |settings| Ok(Box::new(Monna { trusted: settings.require("trusted")? })),
};

/// MoNNA.
#[derive(Clone, Debug)]
pub struct Monna {
    trusted: String,
}

impl fmt::Display for Monna {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "monna:trusted={}", self.trusted)
    }
}

impl Rule for Monna {
    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn uses_byzantine(&self) -> bool {
        true
    }

    fn trusted(&self) -> Option<&str> {
        Some(&self.trusted)
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let geometry = statistics.geometry()?;
        let trusted =
            statistics.ids.iter().position(|id| *id == self.trusted).ok_or_else(|| {
                RuleError::NoSuchClient { rule: self.to_string(), id: self.trusted.clone() }
            })?;
        let n = statistics.clients();
        // Copies of its update are equally near, but the trusted client itself has to be kept.
        let score = |i: usize| match i == trusted {
            true => Score::exact(f64::NEG_INFINITY),
            false => Score::squared_distance(geometry, i, trusted),
        };
        let scores: Vec<Score> = (0..n).map(score).collect();
        let (kept, warning) = lowest(&scores, n - statistics.hostile(), &statistics.ids);
        let distances: Vec<f64> = (0..n).map(|i| geometry.distance(i, trusted)).collect();
        let reasons = ("it is near the trusted client", "it is far from the trusted client");
        Ok(Decision { warnings: warning.into_iter().collect(), ..mean_of_kept(&kept, &distances, reasons) })
    }
}
