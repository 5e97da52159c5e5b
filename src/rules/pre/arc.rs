//! The longest deltas are brought to the length of the longest of the others.
//!
//! - Paper: Allouah et al., Adaptive gradient clipping for robust federated learning, 2025, algorithm 2 (adaptive
//!   robust clipping).
//! - Cost: the norms of all updates. Before a rule that works by coordinate, updates are scaled tile by tile.
//! - Tolerates: fewer than half. F stays.
//! - Arguments: none. `floor(2 F (n - F) / n)` deltas are clipped.

use crate::rules::pre::clip::clipped;
use crate::rules::pre::{Step, Stepped};
use crate::rules::{RuleError, Statistics};
use crate::settings::{Settings, SpecError};
use std::fmt;

/// Adaptive robust clipping.
#[derive(Clone, Copy, Debug)]
pub struct Arc;

impl Arc {
    pub(super) fn parse(_: &mut Settings) -> Result<Box<dyn Step>, SpecError> {
        Ok(Box::new(Self))
    }
}

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

    fn take(&self, statistics: &Statistics) -> Result<Stepped, RuleError> {
        let (n, f) = (statistics.clients(), statistics.hostile());
        let geometry = statistics.geometry()?;
        let mut norms: Vec<f64> = (0..n).map(|i| geometry.norm(i)).collect();
        norms.sort_by(f64::total_cmp);
        let longest = 2 * f * (n - f) / n;
        clipped(statistics, norms[n - longest - 1])
    }
}
