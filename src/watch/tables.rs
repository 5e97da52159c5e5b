//! What a terminal shows of runs.

use super::history::{PastEvent, PastRun};
use super::rest::Bottleneck;
use super::status::{StageRow, Status};
use super::tuning::StepRow;
use crate::telemetry::cells::{Listing, number, wrapped};
use crate::telemetry::escape::escaped;

/// The state of a run, its stages, and what they used.
pub fn status(status: &Status) -> String {
    let why = status.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let runner = status.runner.as_ref().map(|runner| format!(" ({runner})")).unwrap_or_default();
    let mut text = wrapped(&format!("{}: {}{runner}{why}", status.plan, status.state), 0);
    let started = started(status);
    let total = status.stages.iter().filter(|stage| stage.is_current).count();
    let reused = if status.reused > 0 { format!(", {} reused", status.reused) } else { String::new() };
    text += &wrapped(
        &format!(
            "{started}; {} of {total} stages are over{reused}, {:.0} % by count",
            status.over,
            // No run is shown as done while something of it runs.
            (100.0 * status.progress + 1e-9).floor()
        ),
        0,
    );
    if status.over < total && !status.is_ended() {
        text += &wrapped(&rest(status), 0);
    }
    if let Some(Bottleneck { stage, seconds, share }) = &status.bottleneck {
        let share = 100.0 * share;
        text += &wrapped(
            &format!("bottleneck: stage {stage}, {seconds:.2} s, {share:.0} % of the critical path"),
            0,
        );
    }
    for used in &status.limits {
        text += &wrapped(
            &format!("limits.{}: {} of {} {}", used.limit, number(used.used), number(used.bound), used.unit),
            0,
        );
    }
    text += &loops(status);
    let mut table = Listing::with_header(["stage", "state", "attempts", "seconds", "about"]);
    for stage in &status.stages {
        table.add([
            stage.name.clone(),
            stage.state.clone(),
            stage.attempts.to_string(),
            format!("{:.2}", stage.seconds),
            about(stage),
        ]);
    }
    text = format!("{text}\n{}\n", table.text(&[0, 4]));
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

/// When the run started, and its seconds. The tasks of a rendered plan start each for themselves.
fn started(status: &Status) -> String {
    match &status.started {
        Some(time) => format!("started {} UTC, {:.1} s", time.get(..19).unwrap_or(time), status.seconds),
        None if status.seconds > 0.0 || status.state == "running" => {
            format!("{:.1} s of work", status.seconds)
        }
        None => "not started".to_owned(),
    }
}

/// The loops that failed, or that ended without their condition.
fn loops(status: &Status) -> String {
    let going_on = status.exhausted.iter().filter(|looped| !status.failed_loops.contains_key(*looped));
    let going_on = going_on.map(|looped| format!("loop {looped} ended without its condition"));
    let failed = status.failed_loops.iter().map(|(looped, what)| format!("loop {looped} {what}"));
    failed.chain(going_on).map(|line| wrapped(&line, 0)).collect()
}

/// The ballots of a vote: its last iteration.
fn votes(stage: &StageRow) -> String {
    let mut table = Listing::with_header(["voter", "weight", "ballot"]);
    for ballot in &stage.ballots {
        let chosen = match (&ballot.option, &ballot.why) {
            (Some(option), _) => option.clone(),
            (None, Some(why)) => format!("abstains: {why}"),
            (None, None) => "has not answered".to_owned(),
        };
        table.add([ballot.agent.clone(), format!("{:.3}", ballot.weight), chosen]);
    }
    format!("\nvotes in {}:\n{}\n", stage.name, table.text(&[0, 2]))
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
    match (stage.reused, stage.instances) {
        (0, _) => {}
        (reused, instances) if instances > 1 => parts.push(format!("{reused} of {instances} reused")),
        _ => parts.push("reused".to_owned()),
    }
    if !stage.waits_for.is_empty() {
        parts.push(format!("waits for {}", stage.waits_for.join(", ")));
    }
    parts.extend(stage.question.as_ref().map(|question| format!("asks: {question}")));
    for gate in &stage.gates {
        parts.push(format!("waits for {}", gate.awaited()));
        parts
            .extend(Some(&gate.question).filter(|text| !text.is_empty()).map(|text| format!("asks: {text}")));
    }
    parts.extend(stage.metrics.iter().map(|(name, values)| measured(name, values)));
    parts.extend(stage.choice.as_ref().map(|choice| format!("chose {choice}")));
    parts.extend(Some(stage.why.clone()).filter(|why| !why.is_empty()));
    parts.join("; ")
}

/// A metric: its value, or the least and the largest of a fan-out.
fn measured(name: &str, values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if least == most { format!("{name} {least}") } else { format!("{name} {least} to {most}") }
}

/// Events of a run.
pub fn events(events: &[PastEvent]) -> String {
    let mut table = Listing::with_header(["time (UTC)", "event", "of", "what"]);
    for event in events {
        let time = event.time.get(..19).unwrap_or(&event.time).replace('T', " ");
        table.add([time, event.event.to_owned(), event.name.clone(), event.what.clone()]);
    }
    table.text(&[2, 3])
}

/// Runs of a folder: with a metric its values, and with a search the places of its text.
pub fn runs(runs: &[PastRun], metric: Option<&str>) -> String {
    let found = if runs.iter().any(|run| !run.found.is_empty()) { "found" } else { "why" };
    let value = metric.unwrap_or("stages");
    let header = ["run", "plan", "state", "started (UTC)", "seconds", value, found];
    let mut table = Listing::with_header(header);
    for run in runs {
        let started = run.started.as_deref().unwrap_or_default();
        table.add([
            run.run.clone(),
            run.plan.clone(),
            run.state.clone(),
            started.get(..16).unwrap_or(started).replace('T', " "),
            format!("{:.1}", run.seconds),
            run.value.map_or_else(|| format!("{}/{}", run.over, run.stages), number),
            if run.found.is_empty() { run.why.clone() } else { run.found.join("; ") },
        ]);
    }
    table.text(&[0, 1, 6])
}
