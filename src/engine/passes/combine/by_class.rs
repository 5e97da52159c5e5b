//! Merges parameters by one reducer, and statistics by another.

use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::reducer::{CpuOnly, GpuReduction, Reducer};
use crate::engine::passes::error::PassError;
use crate::model::class::TensorClass;

/// A reducer for parameters, and one for statistics. A tile holds tensors of one class.
pub struct ByClass<'a> {
    parameters: Box<dyn Reducer + 'a>,
    statistics: Box<dyn Reducer + 'a>,
}

impl<'a> ByClass<'a> {
    /// The reducers of both classes.
    pub fn new(parameters: Box<dyn Reducer + 'a>, statistics: Box<dyn Reducer + 'a>) -> Self {
        Self { parameters, statistics }
    }
}

impl Reducer for ByClass<'_> {
    fn clients(&self) -> &[usize] {
        self.parameters.clients()
    }

    fn rows_at_once(&self) -> usize {
        self.parameters.rows_at_once().max(self.statistics.rows_at_once())
    }

    fn uses_base(&self) -> bool {
        self.parameters.uses_base() || self.statistics.uses_base()
    }

    fn stretch(&self) -> f64 {
        self.parameters.stretch()
    }

    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError> {
        match work.tile.class {
            TensorClass::Parameter => self.parameters.reduce(work),
            TensorClass::Statistic | TensorClass::Opaque => {
                self.statistics.reduce(work)?;
                // Norms are one for each of `clients`.
                if self.statistics.clients() != self.parameters.clients() {
                    work.forget_norms();
                }
                Ok(())
            }
        }
    }

    /// The GPU merges parameters alone.
    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly> {
        self.parameters.on_gpu()
    }
}
