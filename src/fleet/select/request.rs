//! What a selection is asked for.

use crate::fleet::select::constraints::Constraints;
use crate::fleet::select::error::SelectError;
use crate::fleet::select::strategy::Strategy;
use jiff::Timestamp;

/// A selection to make.
#[derive(Debug)]
pub struct Request {
    /// How to select.
    pub strategy: Box<dyn Strategy>,
    /// The number of clients whose updates the round wants.
    pub count: usize,
    /// The share of selected clients that is expected to drop out: as many more are selected. At least 0, below 1.
    pub dropout: f64,
    /// The most clients to select.
    pub most: usize,
    /// The number of the round.
    pub round: u64,
    /// The seed of what is random.
    pub seed: u64,
    /// Clients that waited more than this number of rounds come first.
    pub max_wait: Option<u64>,
    /// Which clients may be selected.
    pub constraints: Constraints,
    /// The time at which freshness is measured.
    pub now: Timestamp,
    /// The least number of clients that may be selected: with fewer there is no selection.
    pub least: usize,
}

/// A tolerance for the rounding of `count / (1 - dropout)`.
const ROUNDING: f64 = 1e-9;

impl Request {
    /// The number of clients to select: `ceil(count / (1 - dropout))`, and at most `most`.
    pub fn asked(&self) -> usize {
        let wanted = self.count as f64 / (1.0 - self.dropout);
        ((wanted * (1.0 - ROUNDING)).ceil() as usize).clamp(self.count.min(self.most), self.most)
    }

    /// Checks what makes no sense with any registry.
    pub(super) fn check(&self) -> Result<(), SelectError> {
        let bad = |option, found: String, expected: &str| {
            Err(SelectError::Value { option, found, expected: expected.to_owned() })
        };
        if self.count == 0 {
            return bad("the number of clients", "0".to_owned(), "at least 1");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad("the dropout", self.dropout.to_string(), "at least 0 and below 1");
        }
        if self.most == 0 {
            return bad("the most clients", "0".to_owned(), "at least 1");
        }
        if self.constraints.epsilon.is_some_and(|epsilon| epsilon.is_nan() || epsilon < 0.0) {
            return bad("epsilon", "not a budget".to_owned(), "a number that is not negative");
        }
        if self.strategy.rate(self.count, self.count).is_some() {
            let uneven = |option| Err(SelectError::Uneven { option, strategy: self.strategy.to_string() });
            match () {
                () if self.dropout > 0.0 => return uneven("over-selection for dropouts"),
                () if self.max_wait.is_some() => return uneven("a floor for clients that waited"),
                () => {}
            }
        }
        Ok(())
    }
}
