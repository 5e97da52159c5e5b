//! A reducer combines the rows of one tile into merged values. A recipe compiles to a weighted sum or an order statistic;
//! modes bring reducers of their own.

use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::select::Select;
use crate::engine::passes::combine::weighted_sum::WeightedSum;
use crate::engine::passes::error::PassError;
use crate::rules::{Recipe, Reduction};
use crate::updates::set::{UpdateSet, ValueKind};
use crate::updates::source::Placement;

/// Combines rows, tile by tile. It is called once a tile, so that a call through a pointer costs nothing.
pub trait Reducer: Sync {
    /// The clients that are read, by their numbers, in order.
    fn clients(&self) -> &[usize];

    /// Rows that one thread holds at once, at least one.
    fn rows_at_once(&self) -> usize;

    /// Whether the base has a part, where rows are not deltas.
    fn uses_base(&self) -> bool;

    /// Where tiles are cut.
    fn cut(&self) -> Cut {
        Cut::ForCaches
    }

    /// Where rows are that it reads beside the clients' rows: the working floats of tiles hold them too.
    fn other_rows(&self) -> Vec<&Placement> {
        Vec::new()
    }

    /// Merges one tile and finishes its values.
    ///
    /// # Errors
    ///
    /// When a row cannot be read or is not finite, or a merged value does not fit.
    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError>;

    /// Checks what the tiles added up to, after the last one and before anything is published.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn finish(&self) -> Result<(), PassError> {
        Ok(())
    }

    /// The same reduction as the GPU computes it.
    ///
    /// # Errors
    ///
    /// Why it has no shader.
    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly>;
}

/// Where tiles are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// For the caches, within sections.
    ForCaches,
    /// At multiples of so many coordinates and between tensors of different floats, and nowhere else.
    AtMultiples(usize),
}

/// A reduction that the GPU has a shader for.
#[derive(Clone, Copy)]
pub enum GpuReduction<'r> {
    /// A weighted sum.
    Sum(&'r WeightedSum),
    /// An order statistic.
    Select(&'r Select<'r>),
}

impl GpuReduction<'_> {
    /// The clients that are read.
    pub(super) fn clients(&self) -> &[usize] {
        match self {
            Self::Sum(sum) => &sum.clients,
            Self::Select(select) => &select.clients,
        }
    }

    /// Mixtures of rows that are made first.
    pub(super) fn mixtures(&self) -> usize {
        match self {
            Self::Select(select) => select.mixing.map_or(0, |mixing| mixing.len()),
            Self::Sum(_) => 0,
        }
    }
}

/// Why a reduction runs on the CPU only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuOnly(pub &'static str);

/// Compiles a recipe for some clients of a set, by their numbers in order. Clients without a part are not read if `skips`.
pub fn compile<'a>(
    recipe: &'a Recipe,
    set: &UpdateSet,
    members: &[usize],
    skips: bool,
) -> Box<dyn Reducer + 'a> {
    match &recipe.reduction {
        Reduction::WeightedMean { weights } => {
            let divisor = weights.iter().sum();
            Box::new(WeightedSum { divisor, ..WeightedSum::of(weights, members, skips) })
        }
        Reduction::WeightedSum { coefficients, centre } => {
            // Rows that are weights bring the base along, each by its coefficient.
            let brings_base = set.value_kind == ValueKind::AsSent && set.base.is_some();
            let rest = 1.0 - coefficients.iter().sum::<f64>();
            let base = if brings_base { rest } else { 0.0 };
            Box::new(WeightedSum { base, centre: *centre, ..WeightedSum::of(coefficients, members, skips) })
        }
        Reduction::Select(statistic) => Box::new(Select::of(*statistic, recipe.mixing.as_ref(), members)),
    }
}
