//! Every update becomes the mean of its nearest neighbours, itself among them.
//!
//! - Paper: Allouah et al., Fixing by mixing: a recipe for optimal Byzantine ML under heterogeneity, 2023, algorithm 2.
//! - Cost: the distances of all updates. Before a rule that works by coordinate, n x n multiply-adds a coordinate.
//! - Tolerates: fewer than half. F stays.
//! - Arguments: none. n - F are mixed; of neighbours as far, the lowest ids.

use crate::rules::mixing::Mixing;
use crate::rules::pre::{Step, Stepped};
use crate::rules::ranking::{Score, ranked};
use crate::rules::spec::{Settings, SpecError};
use crate::rules::{RuleError, Statistics};
use std::collections::BTreeMap;
use std::fmt;

/// Nearest-neighbour mixing.
#[derive(Clone, Copy, Debug)]
pub struct NearestNeighbourMixing;

impl NearestNeighbourMixing {
    pub(super) fn parse(_: &mut Settings) -> Result<Box<dyn Step>, SpecError> {
        Ok(Box::new(Self))
    }
}

impl fmt::Display for NearestNeighbourMixing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nnm")
    }
}

impl Step for NearestNeighbourMixing {
    fn take(&self, statistics: &Statistics) -> Result<Stepped, RuleError> {
        let geometry = statistics.geometry()?;
        let n = statistics.clients();
        let mixed = n - statistics.hostile();
        let row = |i: usize| {
            let distances: Vec<Score> = (0..n).map(|j| Score::squared_distance(geometry, i, j)).collect();
            let mut row = vec![0.0; n];
            for j in &ranked(&distances)[..mixed] {
                row[*j] = 1.0 / mixed as f64;
            }
            row
        };
        Ok(Stepped {
            mixing: Mixing::new(n, (0..n).map(row).collect()),
            place: (0..n).map(Some).collect(),
            found: vec![BTreeMap::new(); n],
            warnings: Vec::new(),
        })
    }
}
