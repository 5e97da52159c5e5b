//! The mean of the updates nearest to that of a trusted client.
//!
//! - Paper: Farhadkhani et al., Robust collaborative learning with linear gradient overhead, 2023, algorithm 1.
//! - Cost: the distances of all updates, and the mean of those that are kept.
//! - Tolerates: fewer than half, if the trusted client is honest.
//! - Arguments: `trusted`, its id. The n - F nearest are kept, itself among them.

use crate::rules::ranking::{Score, lowest};
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, mean_of_kept};
use crate::settings::{Settings, SpecError};
use std::fmt;

/// MoNNA.
#[derive(Clone, Debug)]
pub struct Monna {
    trusted: String,
}

impl Monna {
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Rule>, SpecError> {
        Ok(Box::new(Self { trusted: settings.require("trusted", "ID")? }))
    }
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

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let geometry = statistics.geometry()?;
        let trusted =
            statistics.ids.iter().position(|id| *id == self.trusted).ok_or_else(|| {
                RuleError::NoSuchClient { rule: self.to_string(), id: self.trusted.clone() }
            })?;
        let n = statistics.clients();
        // Copies of it are as near, but only it is sure to be kept.
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
