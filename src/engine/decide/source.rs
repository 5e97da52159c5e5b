//! Where the geometry of updates comes from, and why there may be no judgement.

use crate::rules::{GeometryRequest, GeometryResult, RuleError};
use crate::strategies::StrategyError;

/// Measures the geometry of updates: from their files, from the sums of shards, or from rows in memory.
pub trait GeometrySource {
    /// Why a measurement may fail.
    type Error;

    /// Measures all updates.
    ///
    /// # Errors
    ///
    /// When an update is bad, or the measurement cannot be made.
    fn measure(&mut self, request: &GeometryRequest) -> Result<GeometryResult, Self::Error>;

    /// Leaves the GPU: later measurements are the CPU's. Returns whether there was a GPU to leave.
    fn leave_gpu(&mut self) -> bool;
}

/// Why there is no judgement.
#[derive(Debug)]
pub enum JudgeError<E> {
    /// The rule or a step cannot be used.
    Rule(RuleError),
    /// The strategy cannot be used.
    Strategy(StrategyError),
    /// The squared values of these updates, by their place in the set, do not fit f64.
    TooLarge(Vec<usize>),
    /// The source could not measure.
    Source(E),
}

impl<E> From<RuleError> for JudgeError<E> {
    fn from(why: RuleError) -> Self {
        Self::Rule(why)
    }
}

impl<E> From<StrategyError> for JudgeError<E> {
    fn from(why: StrategyError) -> Self {
        Self::Strategy(why)
    }
}
