//! `fedmill plan status`: the stages of a run.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::cli::cells::row;
use crate::plan::run::disk::Journal;
use crate::plan::run::prepare::kept;
use crate::plan::run::status::{Status, StepRow};
use crate::telemetry::escape::escaped;
use clap::Args;
use std::path::PathBuf;

/// Show the stages of a run.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of the run.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let (plan, _) = kept(&self.dir).map_err(Failure::of)?;
        let journal = Journal::read(&self.dir).map_err(Failure::of)?;
        let status = Status::of(&plan, &journal.events()).map_err(Failure::of)?;
        let text = if self.json { serde_json::to_string(&status)? } else { table(&status) };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}

fn table(status: &Status) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(row(["stage", "state", "attempts", "seconds", "why"].map(str::to_owned)));
    for stage in &status.stages {
        table.add_row(row([
            stage.name.clone(),
            stage.state.clone(),
            stage.attempts.to_string(),
            format!("{:.2}", stage.seconds),
            stage.choice.as_ref().map_or_else(|| stage.why.clone(), |choice| format!("chose {choice}")),
        ]));
    }
    let mut lines = vec![format!("{}: {}\n{}", status.plan, status.state, table.trim_fmt())];
    for tuning in &status.tuning {
        lines.push(format!("loop {}: {} is {}", tuning.r#loop, tuning.param, tuning.value));
        let line =
            |step: &StepRow| format!("  iteration {}: {}", step.iteration, escaped(&step.step.to_string()));
        lines.extend(tuning.steps.iter().map(line));
    }
    lines.join("\n")
}
