//! Deltas that are longer than a length are brought to it.
//!
//! - Paper: Sun et al., Can you really backdoor federated learning?, 2019, section 4.
//! - Cost: the norms of all updates. Before a rule that works by coordinate, updates are scaled tile by tile.
//! - Tolerates: any number; it bounds what each can do and finds nobody. F stays.
//! - Arguments: `norm`, the length.

use crate::rules::mixing::Mixing;
use crate::rules::pre::{Step, Stepped};
use crate::rules::{RuleError, Statistics};
use crate::settings::{Positive, Settings, SpecError};
use std::collections::BTreeMap;
use std::fmt;

/// Clipping to a fixed length.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    norm: Positive,
}

impl Clip {
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Step>, SpecError> {
        Ok(Box::new(Self { norm: settings.require("norm", "1.5")? }))
    }
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

    fn take(&self, statistics: &Statistics) -> Result<Stepped, RuleError> {
        clipped(statistics, self.norm.0)
    }
}

/// Deltas scaled down to a length where they are longer.
pub(super) fn clipped(statistics: &Statistics, length: f64) -> Result<Stepped, RuleError> {
    let geometry = statistics.geometry()?;
    let n = statistics.clients();
    let norms: Vec<f64> = (0..n).map(|i| geometry.norm(i)).collect();
    let factors: Vec<f64> =
        norms.iter().map(|norm| if *norm > length { length / norm } else { 1.0 }).collect();
    let found = |(norm, factor): (&f64, &f64)| BTreeMap::from([("norm", *norm), ("factor", *factor)]);
    Ok(Stepped {
        mixing: Mixing::diagonal(&factors),
        place: (0..n).map(Some).collect(),
        found: norms.iter().zip(&factors).map(found).collect(),
        warnings: Vec::new(),
    })
}
