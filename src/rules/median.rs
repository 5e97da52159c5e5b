//! The unweighted median of every coordinate; the midpoint of the middle two for an even number.
//!
//! - Paper: Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, 2018,
//!   definition 1.
//! - Cost: a selection network, about ten comparisons a value for 32 clients.
//! - Tolerates: fewer than half.

use crate::rules::{Decision, OrderStatistic, Rule, RuleError, Statistics, Verdict};
use crate::settings::RegistryEntry;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "median",
    summary: "The median of every coordinate; of an even number of clients, the midpoint of the middle \
              two.",
    settings: &[],
    parse: |_| Ok(Box::new(Median)),
};

/// The coordinate-wise median.
#[derive(Clone, Copy, Debug)]
pub struct Median;

impl fmt::Display for Median {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("median")
    }
}

impl Rule for Median {
    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let reason = "the median chooses by coordinate, not by client";
        Ok(Decision {
            recipe: OrderStatistic::Median.into(),
            verdicts: every_client_kept(statistics.clients(), reason),
            warnings: Vec::new(),
        })
    }
}

/// Verdicts that keep every client, for a rule that works by coordinate.
pub(super) fn every_client_kept(clients: usize, reason: &str) -> Vec<Verdict> {
    let verdict = Verdict { kept: true, weight: None, score: None, reason: reason.to_owned() };
    vec![verdict; clients]
}
