//! Replaces every update by the mean of its nearest neighbours, itself included.
//!
//! - Paper: Allouah et al., Fixing by mixing: a recipe for optimal Byzantine ML under heterogeneity, 2023, algorithm 2.
//! - Cost: the distances of all updates. Before a rule that works by coordinate, n x n multiply-adds a coordinate.
//!   Before a rule that compares clients, n x n x n multiply-adds more for the distances of the means.
//! - Tolerates: fewer than half.
//! - Leaves: F.
//! - Details: of neighbours that are equally far, it takes those with the lowest ids.

use crate::rules::mixing::{Members, Mixing};
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
        let (rows, close): (Vec<Members>, Vec<Option<Warning>>) = geometry
            .map_distances(16 * n, |i, row| {
                let score = |(j, value): (usize, &f64)| Score { value: *value, error: geometry.error(i, j) };
                let distances: Vec<Score> = row.iter().enumerate().map(score).collect();
                let (nearest, warning) = lowest(&distances, mixed, &statistics.ids);
                let close = warning.filter(|warning| warning.kind == WarningKind::CloseCall);
                (Members::from(&nearest[..]), close)
            })
            .into_iter()
            .unzip();
        Ok(StepOutput {
            mixing: Mixing::means(n, rows),
            place: (0..n).map(Some).collect(),
            found: vec![BTreeMap::new(); n],
            warnings: close
                .into_iter()
                .flatten()
                .take(1)
                .map(|warning| Warning { text: format!("nnm: among its neighbours {warning}"), ..warning })
                .collect(),
        })
    }
}
