//! The account of a privacy budget: text in, verdicts out; no files.
//!
//! [`plan`] is what is fixed before the first round; [`record`] what is written down, [`chain`] how lines hold together,
//! [`replay`] what they come to; [`budget`] says whether one more charge fits; [`status`] and [`export`]
//! tell it. [`sha256`] names
//! things by their content.
//!
//! A ledger holds events, and every charge is in it before its noise is drawn: whatever happens then, what was spent is
//! never more than what is written. Nothing is given back by itself.

pub mod budget;
pub mod export;
#[cfg(test)]
mod line_tests;
pub mod plan;
pub mod record;
pub mod replay;
mod run;
pub mod status;
#[cfg(test)]
mod trial;

pub use crate::record::Head;
pub use crate::record::sha256::Sha256;
pub use plan::BudgetPlan;
pub use replay::State;
