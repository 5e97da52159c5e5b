//! Shortens deltas that are longer than a length to that length.
//!
//! - Paper: Sun et al., Can you really backdoor federated learning?, 2019, section 4.
//! - Cost: the norms of all updates. Before a rule that works by coordinate, updates are scaled tile by tile.
//! - Tolerates: any number; it bounds every client and finds no hostile client.
//! - Leaves: F.
//! - Details: the length is that of the parameters. Statistics are neither measured nor shortened, and the rule after the
//!   step sees them as they were sent.

use crate::rules::mixing::Mixing;
use crate::rules::pre::{Step, StepOutput};
use crate::rules::{RuleError, Statistics};
use crate::settings::{Positive, RegistryEntry, Setting};
use std::collections::BTreeMap;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Step>> = RegistryEntry {
    name: "clip",
    summary: "Longer deltas are shortened to a length.",
    settings: &[Setting::required("norm", "1.5", "the length")],
    parse: |settings| Ok(Box::new(Clip { norm: settings.require("norm")? })),
};

/// Clipping to a fixed length.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    norm: Positive,
}

impl fmt::Display for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clip:norm={}", self.norm)
    }
}

impl Step for Clip {
    fn uses_lengths(&self) -> bool {
        true
    }

    fn uses_byzantine(&self) -> bool {
        false
    }

    fn tolerates(&self, clients: usize) -> usize {
        clients
    }

    fn compares_clients(&self) -> bool {
        false
    }

    fn take(&self, statistics: &Statistics) -> Result<StepOutput, RuleError> {
        clip_to(statistics, self.norm.0)
    }
}

/// Scales deltas down to `length` where their parameters are longer.
pub(super) fn clip_to(statistics: &Statistics, length: f64) -> Result<StepOutput, RuleError> {
    let geometry = statistics.geometry()?.parameters();
    let n = statistics.clients();
    let norms: Vec<f64> = (0..n).map(|i| geometry.norm(i)).collect();
    let factors: Vec<f64> =
        norms.iter().map(|norm| if *norm > length { length / norm } else { 1.0 }).collect();
    let found = |(norm, factor): (&f64, &f64)| BTreeMap::from([("norm", *norm), ("factor", *factor)]);
    Ok(StepOutput {
        mixing: Mixing::diagonal(&factors),
        place: (0..n).map(Some).collect(),
        found: norms.iter().zip(&factors).map(found).collect(),
        warnings: Vec::new(),
    })
}
