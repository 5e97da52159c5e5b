//! `fedmill plan task`: runs one task of a rendered plan.

use super::super::{Common, Failure, INPUTS, Outcome, print_account};
use super::resume::settled;
use super::run::Jobs;
use crate::plan::run::event::Ending;
use crate::tasks::folder::load;
use crate::tasks::work;
use crate::telemetry::escape::escaped;
use clap::Args;
use std::path::PathBuf;

/// Run one task of a rendered plan, or go on with it.
///
/// Slurm and Snakemake call this command. It looks up in done/ what other tasks made, runs the stage, and writes
/// done/TASK.json, or failed/TASK.json if the stage failed. A task that is done stays done. Exit status: 0 if the stage
/// succeeded or was skipped, 1 if the task may not run now, 2 if the stage failed.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of the rendered plan.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    /// The task: STAGE, STAGE.INDEX of a fan-out, or loop-NAME.
    #[arg(value_name = "TASK", help_heading = INPUTS)]
    task: String,
    /// Say what came of a `once` stage whose attempt a crash interrupted: done, or again. May be repeated.
    #[arg(long, value_name = "STAGE=done|again", value_parser = settled, help_heading = INPUTS)]
    settle: Vec<(String, bool)>,
    #[command(flatten)]
    jobs: Jobs,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let shared = load(&self.dir).map_err(Failure::of)?;
        let came = work::run(&shared, &self.task, &self.settle, self.jobs.number()).map_err(Failure::of)?;
        match came.ending {
            Ending::Succeeded => {
                let lines = came.stages.iter().filter(|_| !common.quiet);
                print_account(&lines.map(|line| escaped(line).into_owned() + "\n").collect::<String>());
                Ok(Outcome::Done)
            }
            Ending::Refused(why) => Ok(Outcome::Refused(why)),
            Ending::Failed => Err(anyhow::anyhow!("{}", came.stages.join("; ")).into()),
        }
    }
}
