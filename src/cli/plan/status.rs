//! `fedmill plan status`: where a run is.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::cli::cells::{fit, number, row, wrapped};
use crate::telemetry::escape::escaped;
use crate::watch::status::{StageRow, Status, StepRow, Watched};
use clap::Args;
use std::path::PathBuf;

/// Show where a run is: its stages, what runs, what waits for what, and what it used of its limits.
///
/// `interrupted` is a run that is not over and that no runner works on: `fedmill plan resume` goes on with it. The
/// estimate of the rest is the longest chain of stages that are not over, without further iterations of loops. It takes
/// the seconds that stages took before in this run, or in the run of --times. Exit status: 0 whatever the state of the
/// run, 2 if it cannot be read.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of the run.
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
        let watched = Watched::read(&self.dir).map_err(Failure::of)?;
        let past = watched.past(self.times.as_deref()).map_err(Failure::of)?;
        let status = watched.status(&past);
        let text = if self.json { serde_json::to_string(&status)? + "\n" } else { shown(&status) };
        print(&text)?;
        Ok(Outcome::Done)
    }
}

fn shown(status: &Status) -> String {
    let why = status.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let runner = status.runner.as_ref().map(|runner| format!(" ({runner})")).unwrap_or_default();
    let mut text = wrapped(&format!("{}: {}{runner}{why}", status.plan, status.state), 0);
    let started = status.started.as_deref().map_or("not started", |time| time.get(..19).unwrap_or(time));
    let total = status.stages.iter().filter(|stage| stage.is_current).count();
    text += &wrapped(
        &format!(
            "started {started} UTC, {:.1} s; {} of {total} stages are over",
            status.seconds, status.over
        ),
        0,
    );
    if status.over < total {
        text += &wrapped(&rest(status), 0);
    }
    for used in &status.limits {
        text += &wrapped(
            &format!("limits.{}: {} of {} {}", used.limit, number(used.used), number(used.bound), used.unit),
            0,
        );
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(row(["stage", "state", "attempts", "seconds", "about"].map(str::to_owned)));
    for stage in &status.stages {
        table.add_row(row([
            stage.name.clone(),
            stage.state.clone(),
            stage.attempts.to_string(),
            format!("{:.2}", stage.seconds),
            about(stage),
        ]));
    }
    text = format!("{text}\n{}\n", fit(&mut table, &[0, 4]));
    for stage in status.stages.iter().filter(|stage| stage.is_current && !stage.ballots.is_empty()) {
        text += &votes(stage);
    }
    for tuning in &status.tuning {
        text += &format!("loop {}: {} is {}\n", tuning.r#loop, tuning.param, tuning.value);
        let line =
            |step: &StepRow| format!("  iteration {}: {}\n", step.iteration, escaped(&step.step.to_string()));
        text.extend(tuning.steps.iter().map(line));
    }
    text
}

/// The ballots of a vote: its last iteration.
fn votes(stage: &StageRow) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(row(["voter", "weight", "ballot"].map(str::to_owned)));
    for ballot in &stage.ballots {
        let chosen = match (&ballot.option, &ballot.why) {
            (Some(option), _) => option.clone(),
            (None, Some(why)) => format!("abstains: {why}"),
            (None, None) => "has not answered".to_owned(),
        };
        table.add_row(row([ballot.agent.clone(), format!("{:.3}", ballot.weight), chosen]));
    }
    format!("\nvotes in {}:\n{}\n", stage.name, fit(&mut table, &[0, 2]))
}

fn rest(status: &Status) -> String {
    let unknown = match status.rest.unknown {
        0 => String::new(),
        1 => "; 1 stage without a past time counts as 0 s".to_owned(),
        count => format!("; {count} stages without a past time count as 0 s"),
    };
    match status.rest.seconds {
        Some(seconds) => format!("rest: about {seconds:.1} s along the longest chain{unknown}"),
        None => "rest: not known, since no stage that is not over has a past time".to_owned(),
    }
}

/// What is to say about a stage, in words.
fn about(stage: &StageRow) -> String {
    let mut parts = Vec::new();
    if stage.instances > 1 && stage.state != "ok" {
        parts.push(format!("{} of {} over", stage.instances_over, stage.instances));
    }
    if stage.instances > 1 && !stage.running.is_empty() {
        let word = if stage.state == "running" { "now" } else { "began" };
        parts.push(format!("{word} {}", stage.running.join(" ")));
    }
    if !stage.waits_for.is_empty() {
        parts.push(format!("waits for {}", stage.waits_for.join(", ")));
    }
    parts.extend(stage.choice.as_ref().map(|choice| format!("chose {choice}")));
    parts.extend(Some(stage.why.clone()).filter(|why| !why.is_empty()));
    parts.join("; ")
}
