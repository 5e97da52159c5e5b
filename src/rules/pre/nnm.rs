//! Replaces every update by the mean of its nearest neighbours, itself included.
//!
//! - Paper: Allouah et al., Fixing by mixing: a recipe for optimal Byzantine ML under heterogeneity, 2023, algorithm 2.
//! - Cost: the distances of all updates. Before a rule that works by coordinate, n x n multiply-adds a coordinate.
//! - Tolerates: fewer than half.
//! - Leaves: F.
//! - Details: of neighbours that are equally far, it takes those with the lowest ids.

use crate::rules::mixing::Mixing;
use crate::rules::pre::{Step, StepOutput};
use crate::rules::ranking::{Score, lowest};
use crate::rules::{RuleError, Statistics, Warning, WarningKind};
use crate::settings::RegistryEntry;
use std::collections::BTreeMap;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Step>> = RegistryEntry {
    name: "nnm",
    summary: "Every update becomes the mean of the n - F updates nearest to it, itself included.",
    settings: &[],
    parse: |_| Ok(Box::new(NearestNeighbourMixing)),
};

/// Nearest-neighbour mixing.
#[derive(Clone, Copy, Debug)]
pub struct NearestNeighbourMixing;

impl fmt::Display for NearestNeighbourMixing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nnm")
    }
}

impl Step for NearestNeighbourMixing {
    fn take(&self, statistics: &Statistics) -> Result<StepOutput, RuleError> {
        let geometry = statistics.geometry()?;
        let n = statistics.clients();
        let mixed = n - statistics.hostile();
        let mut close = None;
        let rows = (0..n).map(|i| {
            let distances: Vec<Score> = (0..n).map(|j| Score::squared_distance(geometry, i, j)).collect();
            let (nearest, warning) = lowest(&distances, mixed, &statistics.ids);
            close = close.take().or(warning.filter(|warning| warning.kind == WarningKind::CloseCall));
            nearest.iter().map(|near| if *near { 1.0 / mixed as f64 } else { 0.0 }).collect()
        });
        Ok(StepOutput {
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
