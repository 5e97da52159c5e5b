//! Shortens the longest deltas to the length of the longest of the others.
//!
//! - Paper: Allouah et al., Adaptive gradient clipping for robust federated learning, 2025, algorithm 2 (adaptive
//!   robust clipping).
//! - Cost: the norms of all updates. Before a rule that works by coordinate, updates are scaled tile by tile.
//! - Tolerates: fewer than half.
//! - Leaves: F.
//! - Details: lengths are those of the parameters, as for `clip`.

use crate::rules::pre::clip::clip_to;
use crate::rules::pre::{Step, StepOutput};
use crate::rules::{RuleError, Statistics};
use crate::settings::RegistryEntry;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Step>> = RegistryEntry {
    name: "arc",
    summary: "The `floor(2 F (n - F) / n)` longest deltas are shortened to the length of the longest of \
              the others.",
    settings: &[],
    parse: |_| Ok(Box::new(Arc)),
};

/// Adaptive robust clipping.
#[derive(Clone, Copy, Debug)]
pub struct Arc;

impl fmt::Display for Arc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("arc")
    }
}

impl Step for Arc {
    fn uses_lengths(&self) -> bool {
        true
    }

    fn compares_clients(&self) -> bool {
        false
    }

    fn take(&self, statistics: &Statistics) -> Result<StepOutput, RuleError> {
        let (n, f) = (statistics.clients(), statistics.hostile());
        let geometry = statistics.geometry()?.parameters();
        let mut norms: Vec<f64> = (0..n).map(|i| geometry.norm(i)).collect();
        norms.sort_by(f64::total_cmp);
        let longest = 2 * f * (n - f) / n;
        clip_to(statistics, norms[n - longest - 1])
    }
}
