//! `fedmill privacy verify`: checks a ledger and the models released from it.

use super::super::{Common, Failure, INPUTS, Outcome, print};
use super::failure::failure;
use crate::budget::verify::{self, Finding};
use clap::Args;
use std::path::PathBuf;

/// Check a ledger: its hash chain, its plan, its epsilons, and the models released from it.
///
/// Prints a line for each check. The exit status is 2 if a check fails.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Check this released model too. The command always checks the models that are still at their output paths.
    ///
    /// If the ledger lacks the charge of a model, the ledger is an older backup.
    #[arg(long = "model", value_name = "FILE", num_args = 1..)]
    models: Vec<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
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
