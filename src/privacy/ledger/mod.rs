//! The records of a privacy budget: text in, verdicts out; no files.
//!
//! - [`plan`]: the settings that are fixed before the first round.
//! - [`record`]: the entries of a ledger, one per line.
//! - [`replay`]: the state that the records lead to.
//! - [`budget`]: whether one more charge fits.
//! - [`status`], [`export`]: the budget for its operator, and for others.
//!
//! A ledger holds events. Every charge is in the ledger before its noise is drawn, so the ledger never holds less than
//! was spent. A charge counts until the operator voids it.

pub mod budget;
pub mod export;
#[cfg(test)]
mod line_tests;
pub mod plan;
pub mod record;
pub mod replay;
pub mod status;
#[cfg(test)]
mod trial;
