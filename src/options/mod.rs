//! The options that subcommands share, and how a subcommand ends.
//!
//! [`common`] holds the options of every subcommand, [`inputs`] the updates to read, [`classes`] which tensors are what,
//! [`aggregation`] what a merge and the parts of a sharded merge share, [`reporting`] what a report holds, and
//! [`failure`] the message and the exit status.

pub(crate) mod aggregation;
pub(crate) mod classes;
pub(crate) mod common;
pub(crate) mod failure;
pub(crate) mod inputs;
pub(crate) mod reporting;

use crate::io::collision::{arguments, target};
use crate::telemetry::console;
use failure::Failure;
use std::path::Path;

/// The groups of options in the help.
pub(crate) const INPUTS: &str = "Inputs";
pub(crate) const RULE: &str = "Rule";
pub(crate) const SERVER_STEP: &str = "Server step";
pub(crate) const PRIVACY: &str = "Privacy";
pub(crate) const CODEC: &str = "Codec";
pub(crate) const OUTPUT: &str = arguments::HEADING;
pub(crate) const COMMON: &str = "Common";

/// How a subcommand ended without an error.
pub(crate) enum Outcome {
    /// It succeeded: exit status 0.
    Done,
    /// A limit or check of the user refused the input, with the reason: exit status 1.
    Refused(String),
    /// It has to wait for others, with the reason: exit status 1.
    Waiting(String),
}

/// Whether an output that the operator names is standard output.
pub(crate) fn is_stdout(path: &Path) -> bool {
    target::is_standard_output(path)
}

/// Prints the text that the command was asked for. A closed pipe is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    Ok(console::print(text)?)
}
