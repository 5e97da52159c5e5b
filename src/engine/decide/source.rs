//! The trait of everything that measures the geometry of updates, and the errors of a judgement.

use crate::rules::{GeometryRequest, GeometryResult, RuleError};
use crate::strategies::StrategyError;

/// Measures the geometry of updates: from their files, from the sums of shards, or from rows in memory.
pub trait GeometrySource {
    /// The error of a measurement.
    type Error;

    /// Measures all updates.
    ///
    /// # Errors
    ///
    /// When an update is bad, or the measurement cannot be made.
    fn measure(&mut self, request: &GeometryRequest) -> Result<GeometryResult, Self::Error>;

    /// Makes the CPU do later measurements. Returns whether a GPU did the earlier ones.
    fn leave_gpu(&mut self) -> bool;
}

/// The error of a judgement.
#[derive(Debug)]
pub enum JudgeError<E> {
    /// The rule or a step cannot be used.
    Rule(RuleError),
    /// The strategy cannot be used.
    Strategy(StrategyError),
    /// Updates whose squared values do not fit f64, by index in the set.
    TooLarge(Vec<usize>),
    /// The error of the source.
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
