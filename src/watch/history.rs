//! What happened: the runs in a folder, and the events of a run.

use super::ends::Ends;
use super::search::Filter;
use super::status::Watched;
use crate::io::folder::{self, EntryKind};
use crate::io::interrupt;
use crate::plan::run::claim::{self, Holds};
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event, Line};
use crate::plan::run::key::Key;
use crate::schema::Plan;
use rayon::prelude::*;
use serde::Serialize;
use std::path::Path;

/// A run in a folder of runs.
#[derive(Serialize, Debug)]
pub struct PastRun {
    /// The name of its directory.
    pub run: String,
    /// The name of the plan; empty if the run cannot be read.
    pub plan: String,
    /// Its state, as `fedmill plan status` has it, or `unreadable`.
    pub state: String,
    /// When it started, in RFC 3339.
    pub started: Option<String>,
    /// Seconds from its start to now, or to its last event if no runner works on it.
    pub seconds: f64,
    /// Stages that are over.
    pub over: usize,
    /// The stages of the plan. A task of a rendered plan counts as one.
    pub stages: usize,
    /// Why it ended so, or why it cannot be read.
    pub why: String,
    /// Where a search found its text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// The value of the metric that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

/// An event of a run.
#[derive(Serialize, Debug)]
pub struct PastEvent {
    /// The number of its line, from 0 on.
    pub seq: u64,
    /// When, in RFC 3339.
    pub time: String,
    /// Its name in the journal, such as `begin` or `settled`.
    pub event: &'static str,
    /// The stage, instance or loop.
    pub name: String,
    /// What happened, in words.
    pub what: String,
    /// The event as the journal has it.
    pub data: Event,
}

/// The runs in a folder that a filter takes, the last first. All threads of the current pool share the work.
///
/// # Errors
///
/// When the folder cannot be listed or holds no run, or a signal ends the command.
pub fn runs(at: &Path, filter: &Filter) -> Result<Vec<PastRun>, RunError> {
    let listed = folder::entries(at).map_err(|source| RunError::Read { path: at.to_owned(), source })?;
    let read = |(name, kind): (String, EntryKind)| {
        interrupt::check()?;
        let root = at.join(&name);
        let is_run = kind == EntryKind::Folder && claim::is_run(&root);
        Ok(is_run.then(|| past(&root, name, filter)))
    };
    let found: Result<Vec<Option<Option<PastRun>>>, RunError> = listed.into_par_iter().map(read).collect();
    let found: Vec<Option<PastRun>> = found?.into_iter().flatten().collect();
    if found.is_empty() {
        return Err(RunError::NoRuns { path: at.to_owned() });
    }
    let mut found: Vec<PastRun> = found.into_iter().flatten().collect();
    found.sort_by(|a, b| b.started.cmp(&a.started).then(a.run.cmp(&b.run)));
    Ok(found)
}

/// A run of a folder, if the filter takes it.
fn past(root: &Path, run: String, filter: &Filter) -> Option<PastRun> {
    if filter.reads_ends()
        && let Some(ends) = Ends::read(root)
    {
        return filter.take(ends.summary(run), None);
    }
    match Watched::read(root) {
        Ok(watched) => filter.take(summary(&watched, run), Some(&watched)),
        Err(why) => {
            let unreadable = PastRun {
                run,
                plan: String::new(),
                state: "unreadable".to_owned(),
                started: None,
                seconds: 0.0,
                over: 0,
                stages: 0,
                why: why.to_string(),
                found: Vec::new(),
                value: None,
            };
            filter.take(unreadable, None)
        }
    }
}

fn summary(watched: &Watched, run: String) -> PastRun {
    let failed = || {
        let keys = (0..watched.plan.stages.len()).map(|stage| watched.state.current(stage));
        let first = keys
            .map(|key| (key, watched.state.group(key)))
            .find(|(_, group)| group.outcome.is_some_and(crate::plan::run::event::Outcome::is_failure));
        first.map(|(key, group)| format!("stage `{}`: {}", key.name(&watched.plan), group.why))
    };
    let why = match watched.state.ending {
        Some(Ending::Failed) => failed().or_else(|| watched.why()),
        _ => watched.why(),
    };
    let why = why.unwrap_or_default();
    // A task of a rendered plan does one stage, one instance or one loop, and takes the rest from other tasks.
    let (over, stages) = match claim::of(&watched.root) {
        Holds::Task(_) => (usize::from(watched.state.ending.is_some()), 1),
        _ => (watched.over(), watched.plan.stages.len()),
    };
    PastRun {
        run,
        plan: watched.plan.id.to_string(),
        state: watched.word().to_owned(),
        started: watched.started().map(str::to_owned),
        seconds: watched.seconds(),
        over,
        stages,
        why,
        found: Vec::new(),
        value: None,
    }
}

/// The events of a run that a filter takes by their texts and times, the first first.
///
/// # Errors
///
/// When the directory holds no run, or it cannot be read.
pub fn events(root: &Path, filter: &Filter) -> Result<Vec<PastEvent>, RunError> {
    let watched = Watched::read(root)?;
    let event = |(seq, line): (usize, &Line)| {
        let (name, what) = told(&watched.plan, &line.data);
        let (time, data) = (line.time.clone(), line.data.clone());
        PastEvent { seq: seq as u64, time, event: data.name(), name, what, data }
    };
    let all = watched.journal.lines.iter().map(|line| &line.entry).enumerate().map(event);
    let is_taken = |event: &PastEvent| {
        filter.takes_time(Some(&event.time)) && filter.takes_text(&[event.event, &event.name, &event.what])
    };
    Ok(all.filter(is_taken).collect())
}

/// A text as the end of a line.
fn behind_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// What follows an iteration of a loop; `failed` says why the loop failed.
fn behind_iteration(again: bool, exhausted: bool, failed: &str) -> String {
    match (again, exhausted, failed) {
        (true, ..) => "another one follows".to_owned(),
        (false, true, "") => "the loop ended without its condition".to_owned(),
        (false, false, "") => "the loop is over".to_owned(),
        _ => format!("the loop {failed}"),
    }
}

/// The name of a loop, by its place in the plan.
fn name_of_loop(plan: &Plan, looped: usize) -> String {
    plan.loops.get(looped).map(|looped| looped.id.to_string()).unwrap_or_default()
}

/// The stage or loop of an event, and what happened, in words.
pub(super) fn told(plan: &Plan, event: &Event) -> (String, String) {
    let of = |key: &Key| key.name(plan);
    match event {
        Event::Start { plan, inputs, .. } => {
            let files: usize = inputs.values().map(Vec::len).sum();
            (String::new(), format!("plan {}, {files} input files", &plan[..plan.len().min(12)]))
        }
        Event::Resume => (String::new(), "a runner took the run up".to_owned()),
        Event::Begin { key, attempt, .. } => (of(key), format!("attempt {attempt}")),
        Event::Attested { key, done: true } => (of(key), "the operator attests that it is done".to_owned()),
        Event::Attested { key, done: false } => {
            (of(key), "the operator attests that it is not done".to_owned())
        }
        Event::Made { key, made, seconds, .. } => {
            let reused = match (made.from.as_str(), made.cached) {
                ("", true) => ", an equal result used again".to_owned(),
                ("", false) => String::new(),
                (from, _) => format!(", the result of {from}"),
            };
            (of(key), format!("{seconds:.3} s, {} outputs{reused}", made.outputs.len()))
        }
        Event::Failed { key, failure, seconds, again, .. } => {
            let next = if *again { "; another attempt may follow" } else { "" };
            (of(key), format!("{seconds:.3} s: {failure}{next}"))
        }
        Event::Ledger { directory, epsilon, delta } => {
            let epsilon = epsilon.map_or("infinite".to_owned(), |epsilon| epsilon.to_string());
            (String::new(), format!("{directory}: epsilon {epsilon} at delta {delta:e} is spent"))
        }
        Event::Settled { key, outcome, why, choice, .. } => {
            let choice = choice.as_ref().map(|choice| format!(", chose {choice}")).unwrap_or_default();
            (of(key), format!("{}{choice}{}", outcome.word(), behind_colon(why)))
        }
        Event::Gate { key, question, .. } => {
            (of(key), format!("waits for a person{}", behind_colon(question)))
        }
        Event::Answered { key, answer, by_default } => {
            let by = if *by_default { " by default, since no answer came in time" } else { "" };
            (of(key), format!("{answer:?}{by}").to_lowercase())
        }
        Event::Iterated { looped, iteration, again, exhausted, failed, .. } => {
            let next = behind_iteration(*again, *exhausted, failed);
            (name_of_loop(plan, *looped), format!("iteration {iteration} is over; {next}"))
        }
        Event::Tuned { looped, step, .. } => (name_of_loop(plan, *looped), step.to_string()),
        Event::Stop { why, .. } => (String::new(), why.clone()),
        Event::End { ending } => {
            let word = match ending {
                Ending::Succeeded => "succeeded".to_owned(),
                Ending::Failed => "failed".to_owned(),
                Ending::Refused(why) => format!("refused: {why}"),
            };
            (String::new(), word)
        }
    }
}
