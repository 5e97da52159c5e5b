//! Where a rendered plan is, from the records of its tasks, and how to end it.

use super::cancel::{Cancelled, LOOK_EVERY};
use super::rest::Rest;
use super::status::{FailedInstance, StageRow, Status};
use crate::io::{folder, interrupt};
use crate::plan::run::disk;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event, Outcome};
use crate::plan::run::key::some_failed;
use crate::tasks::folder::{Record, Shared, load};
use crate::tasks::units::{Handler, Task};
use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What is known of a task.
struct Known {
    name: String,
    done: Option<Record>,
    failed: Option<Record>,
    runner: Option<String>,
}

/// A rendered plan and its tasks, by unit.
struct Look {
    shared: Shared,
    units: Vec<Vec<Known>>,
}

/// The status of a rendered plan: a row for each stage, or for the stages of a loop.
///
/// # Errors
///
/// When the directory holds no rendered plan, or it cannot be read.
pub fn status(root: &Path) -> Result<Status, RunError> {
    Ok(Look::at(root)?.status())
}

impl Look {
    fn at(root: &Path) -> Result<Self, RunError> {
        let shared = load(root)?;
        let known = |task: Task| {
            let (done, failed) = (shared.done(task)?, shared.failed(task)?);
            let runner = if done.is_none() { disk::holder(&shared.folder(task))? } else { None };
            Ok(Known { name: shared.units.name(task), done, failed, runner })
        };
        let of_unit = |unit| shared.units.tasks_of(unit).map(known).collect::<Result<Vec<_>, RunError>>();
        let units = (0..shared.units.all.len()).map(of_unit).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { shared, units })
    }

    fn status(&self) -> Status {
        let rows: Vec<StageRow> = (0..self.units.len()).map(|unit| self.row(unit)).collect();
        let is_over = |row: &&StageRow| !matches!(row.state.as_str(), "waiting" | "running");
        let has = |state: &str| rows.iter().any(|row| row.state == state);
        // A stage of `on.failure` waits for a failure that never comes.
        let open = rows
            .iter()
            .zip(&self.shared.units.all)
            .filter(|(row, unit)| !is_over(row) && (unit.handler != Some(Handler::Failure) || has("failed")));
        let open = open.count();
        let kill_file = &self.shared.plan.safety.kill_file;
        let is_stopped = folder::exists(&self.shared.root.join(kill_file));
        let (state, why) = match (has("running"), has("failed"), open) {
            (true, ..) => ("running", None),
            (_, true, _) => ("failed", None),
            (_, _, 0) => ("succeeded", None),
            _ => ("waiting", Some("no task runs here; submit.sh or run.sh starts the others".to_owned())),
        };
        let stopped =
            (is_stopped && open > 0).then(|| format!("the file {kill_file} exists: no task starts"));
        let tasks: usize = self.units.iter().map(Vec::len).sum();
        let done = self.units.iter().flatten().filter(|task| task.done.is_some()).count();
        Status {
            plan: self.shared.plan.id.to_string(),
            state: state.to_owned(),
            why: stopped.or(why),
            runner: None,
            started: None,
            seconds: rows.iter().map(|row| row.seconds).fold(0.0, |sum, seconds| sum + seconds),
            over: rows.iter().filter(is_over).count(),
            reused: 0,
            rest: Rest { seconds: None, unknown: open },
            progress: done as f64 / tasks.max(1) as f64,
            bottleneck: None,
            limits: Vec::new(),
            exhausted: self
                .loops(|event| matches!(event, Event::Iterated { exhausted: true, .. }))
                .into_keys()
                .collect(),
            failed_loops: self
                .loops(|event| matches!(event, Event::Iterated { failed, .. } if !failed.is_empty())),
            stages: rows,
            tuning: Vec::new(),
        }
    }

    /// The loops with an iteration of this kind, and what they did if they failed.
    fn loops(&self, is_meant: impl Fn(&Event) -> bool) -> BTreeMap<String, String> {
        let tasks = self.units.iter().flatten();
        let records = tasks.filter_map(|task| task.done.as_ref().or(task.failed.as_ref()));
        let found = records.flat_map(|record| &record.events).filter(|event| is_meant(event));
        let named = found.filter_map(|event| match event {
            Event::Iterated { looped, failed, .. } => {
                Some((self.shared.plan.loops.get(*looped)?.id.to_string(), failed.clone()))
            }
            _ => None,
        });
        named.collect()
    }

    fn row(&self, unit: usize) -> StageRow {
        let (tasks, units) = (&self.units[unit], &self.shared.units.all);
        let done = || tasks.iter().filter_map(|task| task.done.as_ref());
        let running = tasks.iter().filter(|task| task.runner.is_some()).map(|task| task.name.clone());
        let running: Vec<String> = running.collect();
        let over = tasks.iter().filter(|task| task.done.is_none() && task.runner.is_none());
        let over: Vec<(&str, &Record)> =
            over.filter_map(|task| Some((task.name.as_str(), task.failed.as_ref()?))).collect();
        let failed: Vec<&Record> = over.iter().map(|(_, record)| *record).collect();
        let events = || done().chain(failed.iter().copied()).flat_map(|record| &record.events);
        let mut ended = events().filter_map(|event| match event {
            Event::Settled { outcome, why, choice, .. } => Some((*outcome, why.clone(), choice.clone())),
            _ => None,
        });
        let last: Option<(Outcome, String, Option<String>)> = ended.next_back();
        let is_whole = done().count() == tasks.len();
        let state = match (&last, is_whole) {
            _ if !running.is_empty() => "running",
            _ if !failed.is_empty() => "failed",
            (Some((outcome, ..)), true) => outcome.word(),
            (None, true) => "ok",
            (_, false) => "waiting",
        };
        let why = failed.iter().filter_map(|record| reason(record));
        let why = why.chain(last.iter().map(|(_, why, _)| why.clone())).find(|why| !why.is_empty());
        let fans_out = units[unit].count.is_some();
        let names: Vec<String> =
            over.iter().filter(|_| fans_out).map(|(name, _)| (*name).to_owned()).collect();
        let why = why.map(|why| if names.is_empty() { why } else { some_failed(&names, tasks.len(), &why) });
        let attempts = events().filter(|event| matches!(event, Event::Made { .. } | Event::Failed { .. }));
        let seconds = events().map(|event| match event {
            Event::Made { seconds, .. } | Event::Failed { seconds, .. } => *seconds,
            _ => 0.0,
        });
        let is_open = |other: &usize| self.units[*other].iter().any(|task| task.done.is_none());
        let waits =
            units[unit].after.iter().map(|after| after.unit).filter(|other| !is_whole && is_open(other));
        StageRow {
            name: units[unit].name.clone(),
            state: state.to_owned(),
            is_current: true,
            attempts: attempts.count() as u32,
            seconds: seconds.fold(0.0, |sum, seconds| sum + seconds),
            why: why.unwrap_or_default(),
            choice: last.and_then(|(_, _, choice)| choice),
            question: None,
            gates: Vec::new(),
            instances: tasks.len(),
            instances_over: (done().count() + failed.len()) as u32,
            waits_for: waits.map(|other| units[other].name.clone()).collect(),
            reused: 0,
            failed: over.into_iter().filter(|_| fans_out).map(failed_instance).collect(),
            running,
            outputs: events().flat_map(outputs).collect(),
            ballots: Vec::new(),
            metrics: BTreeMap::new(),
        }
    }
}

/// The paths of outputs, in the directory of the rendered plan.
fn outputs(event: &Event) -> Vec<String> {
    let Event::Made { made, .. } = event else { return Vec::new() };
    made.outputs.values().map(|artifact| artifact.path.replacen("..", "tasks", 1)).collect()
}

/// The instance of a task that failed.
fn failed_instance((name, record): (&str, &Record)) -> FailedInstance {
    FailedInstance { instance: name.to_owned(), why: reason(record).unwrap_or_default() }
}

/// Why a task failed.
fn reason(record: &Record) -> Option<String> {
    let failed = record.events.iter().rev().find_map(|event| match event {
        Event::Failed { failure, .. } => Some(failure.to_string()),
        _ => None,
    });
    match &record.ending {
        Ending::Refused(why) => Some(why.clone()),
        _ => failed,
    }
}

/// Ends a rendered plan: its kill file ends the tasks that run, and no other starts until someone removes the file.
/// `wait` is the time that the tasks on this machine have to end.
///
/// # Errors
///
/// When the directory holds no rendered plan, or a file cannot be read or written, or a signal ends the wait.
pub fn cancel(root: &Path, wait: Option<Duration>) -> Result<Cancelled, RunError> {
    let look = Look::at(root)?;
    let was = look.status().state;
    if was == "succeeded" {
        return Ok(Cancelled { was: was.clone(), state: was, why: String::new(), is_over: true });
    }
    let path = look.shared.root.join(&look.shared.plan.safety.kill_file);
    folder::write_file_on_disk(&path, b"")
        .map_err(|source| RunError::Write { path: path.clone(), source })?;
    let began = Instant::now();
    loop {
        let look = Look::at(root)?;
        let running = look.units.iter().flatten().filter(|task| task.runner.is_some());
        let running: Vec<&str> = running.map(|task| task.name.as_str()).collect();
        if running.is_empty() {
            let why = format!("no task starts while {} exists; remove it to go on", path.display());
            return Ok(Cancelled { was, state: "refused".to_owned(), why, is_over: true });
        }
        if wait.is_some_and(|wait| began.elapsed() > wait) {
            let why = format!("task {} still runs", running.join(", "));
            return Ok(Cancelled { was, state: "running".to_owned(), why, is_over: false });
        }
        interrupt::check()?;
        thread::sleep(LOOK_EVERY);
    }
}
