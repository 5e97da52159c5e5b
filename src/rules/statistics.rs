//! What a rule may know about the clients before it decides.

use crate::rules::RuleError;
use crate::rules::geometry::Geometry;

/// What a rule may know about the clients, in order of client id.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// The id of each client.
    pub ids: Vec<String>,
    /// The weight of each client as the run was told: examples, one each, or from a file.
    pub weights: Vec<f64>,
    /// How many clients are assumed hostile, if the run says.
    pub byzantine: Option<usize>,
    /// What shuffles them, where something does.
    pub seed: u64,
    /// Their distances, if they were measured.
    pub geometry: Option<Geometry>,
}

impl Statistics {
    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.weights.len()
    }

    /// How many clients are assumed hostile; none if the run does not say.
    pub fn hostile(&self) -> usize {
        self.byzantine.unwrap_or(0)
    }

    /// The geometry, for those that said they need it.
    ///
    /// # Errors
    ///
    /// When it was not measured.
    pub fn geometry(&self) -> Result<&Geometry, RuleError> {
        self.geometry.as_ref().ok_or(RuleError::NotMeasured { what: "the distances of the updates" })
    }
}

/// What a rule must know of the updates, least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Needs {
    /// Nothing: it works by coordinate.
    Nothing,
    /// Their geometry.
    Geometry,
    /// Their geometry and their coordinate median.
    Median,
}
