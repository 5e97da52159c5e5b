//! The two small languages in the texts of a plan, and where tuned values may stand in them.
//!
//! [`template`] parses references in braces. [`condition`] parses and evaluates conditions, with the [`functions`] that
//! they have beside those of CEL; [`expression`] is what one says, [`cost`] the steps that it may take, and `mistakes`
//! has what is written by the rules of other languages. [`graph`] says which stage of a plan waits for which.
//! [`tunable`] says which parameters a loop may tune, and [`protected`] which names protect clients. [`reply_schema`]
//! checks replies against the JSON Schema of a plan.

pub mod condition;
pub mod cost;
pub mod expression;
pub mod functions;
pub mod graph;
mod mistakes;
pub mod protected;
pub mod reply_schema;
pub mod template;
pub mod tunable;
