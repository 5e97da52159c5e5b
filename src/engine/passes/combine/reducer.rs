//! Reducers: each combines the rows of one tile into merged values.
//!
//! A recipe [compiles](crate::engine::passes::combine::compile) to one. Modes bring other reducers.

use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::select::Select;
use crate::engine::passes::combine::weighted_sum::WeightedSum;
use crate::engine::passes::error::PassError;
use crate::updates::source::Placement;
use std::sync::atomic::AtomicU64;

/// Combines rows, tile by tile. The pass calls it once per tile, so the call through a pointer costs nothing.
pub trait Reducer: Sync {
    /// The clients to read, by index in the set, in order.
    fn clients(&self) -> &[usize];

    /// The number of rows that one thread holds at once, at least one.
    fn rows_at_once(&self) -> usize;

    /// Whether the reduction uses the base's row, if rows are not deltas.
    fn uses_base(&self) -> bool;

    /// How many times larger than the largest delta the merged delta can be.
    fn stretch(&self) -> f64 {
        1.0
    }

    /// Where tiles are cut.
    fn cut(&self) -> Cut {
        Cut::ForCaches
    }

    /// The places of rows that it reads beside the clients' rows. The working float of a tile holds their values too.
    fn other_rows(&self) -> Vec<&Placement> {
        Vec::new()
    }

    /// Merges one tile and finishes its values.
    ///
    /// # Errors
    ///
    /// When a row cannot be read or is not finite, or a merged value does not fit.
    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError>;

    /// The count of values that the pass cuts to the range of their dtype; `None` if such a value ends the pass.
    fn cuts(&self) -> Option<&AtomicU64> {
        None
    }

    /// The reduction for the GPU.
    ///
    /// # Errors
    ///
    /// Why the reduction has no shader.
    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly>;
}

/// Where tiles are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// For the caches, within sections.
    ForCaches,
    /// Only at multiples of this many coordinates, and between tensors of different floats.
    AtMultiples(usize),
}

/// A reduction with a shader.
#[derive(Clone, Copy)]
pub enum GpuReduction<'r> {
    /// A weighted sum.
    Sum(&'r WeightedSum),
    /// An order statistic.
    Select(&'r Select<'r>),
}

impl GpuReduction<'_> {
    /// The clients to read, by index in the set.
    pub(super) fn clients(&self) -> &[usize] {
        match self {
            Self::Sum(sum) => &sum.clients,
            Self::Select(select) => &select.clients,
        }
    }

    /// The number of mixtures to make before the reduction; 0 without mixing.
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
