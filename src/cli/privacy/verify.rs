//! `fedmill privacy verify`: everything that is known of a budget, held against everything else.

use super::super::{Failure, Outcome, print};
use super::failure;
use crate::budget::verify::{self, Finding};
use clap::Args;
use std::path::PathBuf;

/// Check a ledger: its chain, its plan, its numbers, and the models that were released from it.
///
/// Prints a line for everything that was checked. Ends with 2 if anything is wrong.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// A model that was released from it, besides those that stand where they were published: a ledger from an older
    /// backup does not know it.
    #[arg(long = "model", value_name = "FILE", num_args = 1..)]
    models: Vec<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let found = verify::verify(&self.directory, &self.models).map_err(failure)?;
        print(&found.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
        let faults = found.iter().filter(|finding| finding.is_fault()).map(Finding::to_string);
        let faults: Vec<String> = faults.collect();
        if faults.is_empty() {
            return Ok(Outcome::Done);
        }
        let (path, count) = (self.directory.display(), faults.len());
        Err(anyhow::anyhow!("{path}: found {count} faults, expected none: {}", faults.join("; ")).into())
    }
}
