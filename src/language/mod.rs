//! The two small languages in the texts of a plan.
//!
//! [`template`] parses references in braces. [`condition`] parses and evaluates conditions, with the [`functions`] that
//! they have beside those of CEL; [`expression`] is what one says, and [`cost`] the steps that it may take.

pub mod condition;
pub mod cost;
pub mod expression;
pub mod functions;
pub mod template;
