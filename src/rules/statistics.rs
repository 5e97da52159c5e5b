//! The statistics of the clients on which a rule decides.

use crate::rules::RuleError;
use crate::rules::geometry::Geometry;

/// The statistics of the clients, in order of client id.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// The id of each client.
    pub ids: Vec<String>,
    /// The weight of each client by `--weights`: its examples, one for each, or from a file.
    pub weights: Vec<f64>,
    /// The number of hostile clients assumed; `None` without `--byzantine`.
    pub byzantine: Option<usize>,
    /// The seed for steps that shuffle clients.
    pub seed: u64,
    /// Their distances; `None` if they were not measured.
    pub geometry: Option<Geometry>,
}

impl Statistics {
    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.weights.len()
    }

    /// The number of hostile clients assumed; zero without `--byzantine`.
    pub fn hostile(&self) -> usize {
        self.byzantine.unwrap_or(0)
    }

    /// The geometry, for a rule or step that declares that it needs it.
    ///
    /// # Errors
    ///
    /// When it was not measured.
    pub fn geometry(&self) -> Result<&Geometry, RuleError> {
        self.geometry.as_ref().ok_or(RuleError::NotMeasured { what: "the distances of the updates" })
    }
}

/// The measurements that a rule needs, least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Needs {
    /// None: the rule works by coordinate.
    Nothing,
    /// The geometry of the updates.
    Geometry,
    /// The geometry of the updates and of their coordinate median.
    Median,
}
