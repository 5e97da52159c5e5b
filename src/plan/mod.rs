//! Plan files: workflows as data, and a runner that executes them on this machine.
//!
//! A plan is one JSON file. [`schema`] has its types, [`read`] reads one from a file or text, and [`error`] says what is
//! wrong with a file. [`template`] parses the references in its texts. [`condition`] parses and evaluates conditions,
//! with the [`functions`] that they have beside those of CEL; [`expression`] is what one says. [`graph`] says which stage
//! waits for which. [`run`] executes a plan, and [`templates`] make plans for common goals.

pub mod condition;
pub mod error;
pub mod expression;
pub mod functions;
pub mod graph;
pub mod read;
pub mod run;
pub mod schema;
pub mod template;
pub mod templates;
