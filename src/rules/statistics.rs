//! The statistics of the clients on which a rule decides.

use crate::rules::RuleError;
use crate::rules::geometry::{Geometry, References};
use crate::rules::mixing::Mixing;

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

/// How the run computes distances between clients.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Distances {
    /// From differences for few clients, else from the Gram matrix.
    #[default]
    Auto,
    /// From the Gram matrix.
    Gram,
    /// From differences: one more subtraction per pair and coordinate. Exact even if clients are far from the centre.
    Direct,
}

/// The most clients whose distances `Auto` computes from differences: for so few they cost almost nothing.
const DIRECT_CLIENTS: usize = 16;

impl Distances {
    /// The method that `Auto` means for this number of clients.
    #[must_use]
    pub fn resolved(self, clients: usize) -> Self {
        match self {
            Self::Auto if clients <= DIRECT_CLIENTS => Self::Direct,
            Self::Auto => Self::Gram,
            chosen => chosen,
        }
    }
}

/// The precision of measured numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// The cheapest: products in f32.
    Usual,
    /// Products in f64, for a choice that depends on less than the usual bound.
    F64,
}

/// The measurements that a decision asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GeometryRequest<'m> {
    /// Number of updates.
    pub updates: usize,
    /// How distances are computed.
    pub distances: Distances,
    /// The points to measure besides the updates and the origin.
    pub references: References,
    /// Whether to count signs.
    pub with_signs: bool,
    /// The precision of the numbers.
    pub precision: Precision,
    /// The number of clients assumed hostile; `None` without `--byzantine`.
    pub hostile: Option<usize>,
    /// The updates as combinations of the clients' updates; `None` for the clients' updates themselves.
    pub mixing: Option<&'m Mixing>,
    /// The same for statistics, without the factors that shorten deltas.
    pub unscaled: Option<&'m Mixing>,
}

impl GeometryRequest<'_> {
    /// Updates and references: the points whose inner products are measured.
    pub fn points(&self) -> usize {
        self.updates + self.references.count()
    }

    /// Whether distances between updates come from differences.
    pub fn is_direct(&self) -> bool {
        self.precision == Precision::Usual && self.distances.resolved(self.updates) == Distances::Direct
    }
}

/// The result of a measurement.
#[derive(Clone, Debug)]
pub struct GeometryResult {
    /// The geometry of the updates.
    pub geometry: Geometry,
    /// Mean over the coordinates of `|sum_i sign(delta_i)| / n`; `None` if signs were not counted.
    pub sign_agreement: Option<f64>,
}
