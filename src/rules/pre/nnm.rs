//! Every update becomes the mean of its nearest neighbours, itself among them.
//!
//! - Paper: Allouah et al., Fixing by mixing: a recipe for optimal Byzantine ML under heterogeneity, 2023, algorithm 2.
//! - Cost: the distances of all updates. Before a rule that works by coordinate, n x n multiply-adds a coordinate.
//! - Tolerates: fewer than half. F stays.
//! - Arguments: none. n - F are mixed; of neighbours as far, the lowest ids.

use crate::rules::mixing::Mixing;
use crate::rules::pre::{Step, Stepped};
use crate::rules::ranking::{Score, lowest};
use crate::rules::{RuleError, Statistics, Warning};
use crate::settings::{Settings, SpecError};
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
        let mut close = None;
        let rows = (0..n).map(|i| {
            let distances: Vec<Score> = (0..n).map(|j| Score::squared_distance(geometry, i, j)).collect();
            let (nearest, warning) = lowest(&distances, mixed, &statistics.ids);
            close = close.take().or(warning.filter(|warning| warning.is_close_call));
            nearest.iter().map(|near| if *near { 1.0 / mixed as f64 } else { 0.0 }).collect()
        });
        Ok(Stepped {
            mixing: Mixing::new(n, rows.collect()),
            place: (0..n).map(Some).collect(),
            found: vec![BTreeMap::new(); n],
            warnings: close
                .into_iter()
                .map(|warning| Warning { text: format!("nnm: among its neighbours {warning}"), ..warning })
                .collect(),
        })
    }
}
