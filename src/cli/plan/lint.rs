//! `fedmill plan lint`: findings about a plan.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::review::lint::report::Report;
use clap::Args;
use std::path::PathBuf;

/// Check a plan, and the plans that its stages run, without running them.
///
/// Prints each finding with its place in the file, what was found and what was expected. Faults of a file
/// that is no plan are findings of the rule `schema`. Exit status: 0 if no finding is
/// an error, else 2.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The plan; `-` is standard input.
    #[arg(value_name = "PLAN", help_heading = INPUTS)]
    plan: PathBuf,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let report = Report::of_file(&self.plan).map_err(Failure::of)?;
        print(&if self.json { format!("{}\n", report.json()) } else { report.text() })?;
        match report.count() {
            None => Ok(Outcome::Done),
            Some(errors) => Err(anyhow::anyhow!("{}: {errors}", self.plan.display()).into()),
        }
    }
}
