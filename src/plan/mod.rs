//! Plan files: workflows as data, and a runner that executes them on this machine.
//!
//! A plan is one JSON file. [`schema`] has its types, [`read`] reads one from a file or text, and [`error`] says what is
//! wrong with a file, in plain words and with its line. [`template`] and [`condition`] are the
//! languages of its texts. [`graph`] says which stage waits for which. [`run`] executes a plan. [`nested`] finds the plans
//! that a plan runs. [`tunable`] says which parameters a loop may tune.

pub mod error;
pub mod graph;
pub mod nested;
pub mod read;
pub mod run;

pub use crate::language::{condition, expression, functions, template, tunable};
pub use crate::schema;
