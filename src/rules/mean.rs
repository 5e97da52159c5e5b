//! The mean by the clients' weights. By examples it is federated averaging.
//!
//! - Paper: McMahan et al., Communication-efficient learning of deep networks from decentralized data, 2017.
//! - Cost: one multiply-add a value.
//! - Tolerates: no hostile client. One client can move it anywhere.

use crate::rules::{Decision, Reduction, Rule, RuleError, Statistics, Verdict};
use crate::settings::RegistryEntry;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "mean",
    summary: "The mean of the updates by weight.",
    settings: &[],
    parse: |_| Ok(Box::new(Mean)),
};

/// The weighted mean.
#[derive(Clone, Copy, Debug)]
pub struct Mean;

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mean")
    }
}

impl Rule for Mean {
    fn uses_weights(&self) -> bool {
        true
    }

    fn compares_clients(&self) -> bool {
        false
    }

    fn tolerates(&self, _: usize) -> usize {
        0
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        Ok(weighted_mean(&statistics.weights, "every client has its weight"))
    }
}

/// The decision to take the mean with these weights. It does not keep a client whose weight is zero.
pub(super) fn weighted_mean(weights: &[f64], reason: &str) -> Decision {
    let total: f64 = weights.iter().sum();
    let verdict = |weight: &f64| Verdict {
        kept: *weight > 0.0,
        weight: Some(weight / total),
        score: None,
        reason: if *weight > 0.0 { reason } else { "its weight is zero" }.to_owned(),
    };
    Decision {
        verdicts: weights.iter().map(verdict).collect(),
        recipe: Reduction::WeightedMean { weights: weights.to_vec() }.into(),
        warnings: Vec::new(),
    }
}
