//! `fedmill plan status`: where a run is.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::plan::run::claim::{self, Holds};
use crate::watch::rendered;
use crate::watch::status::Watched;
use crate::watch::tables;
use clap::Args;
use std::path::PathBuf;

/// Show where a run is: its stages, what runs, what waits for what, and what it used of its limits.
///
/// `interrupted` is a run that is not over and that no runner works on: `fedmill plan resume` goes on with it. The
/// bottleneck is the stage on the critical path that takes longest. The estimate of the rest is the longest chain of
/// stages that are not over, without further iterations of loops. It takes the seconds that stages took before in this
/// run, or in the run of --times. Of a rendered plan it shows what the records of its tasks say. Exit status: 0 whatever the state of the run, 2 if it cannot be read.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of the run, or of a rendered plan.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    /// Take the seconds of stages from the run in this directory, where this run has none.
    #[arg(long, value_name = "DIR", help_heading = INPUTS)]
    times: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let status = if claim::of(&self.dir) == Holds::Rendered {
            rendered::status(&self.dir).map_err(Failure::of)?
        } else {
            let watched = Watched::read(&self.dir).map_err(Failure::of)?;
            let past = watched.past(self.times.as_deref()).map_err(Failure::of)?;
            watched.status(&past)
        };
        let text = if self.json { serde_json::to_string(&status)? + "\n" } else { tables::status(&status) };
        print(&text)?;
        Ok(Outcome::Done)
    }
}
