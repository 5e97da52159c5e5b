//! The mean, weighted by what the run says; by examples it is federated averaging.
//!
//! - Paper: McMahan et al., Communication-efficient learning of deep networks from decentralized data, 2017.
//! - Cost: one multiply-add a value.
//! - Tolerates: nobody. One client can move it anywhere.
//! - Arguments: none.

use crate::rules::{Decision, Reduction, Rule, RuleError, Statistics, Verdict};
use crate::settings::{Settings, SpecError};
use std::fmt;

/// The weighted mean.
#[derive(Clone, Copy, Debug)]
pub struct Mean;

impl Mean {
    pub(super) fn parse(_: &mut Settings) -> Result<Box<dyn Rule>, SpecError> {
        Ok(Box::new(Self))
    }
}

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

/// The decision to take the mean with these weights. A client of weight zero has no part in it.
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
