//! Plan files: workflows as data, and a runner that executes them on this machine.
//!
//! A plan is one JSON file. [`schema`](crate::schema) has its types, and [`language`](crate::language) the languages of
//! its texts. [`read`] reads a plan from a file or text, and [`error`] says what is wrong with a file, in plain words and
//! with its line. [`run`] executes a plan. [`nested`] finds the plans that a plan runs.

pub mod error;
pub mod nested;
pub mod read;
pub mod run;
