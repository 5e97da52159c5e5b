//! Runs one task: its stages, after all that the records of other tasks say.

use super::folder::{RECORD, Record, Shared};
use super::units::{How, Task};
use crate::endpoint::check;
use crate::io::folder;
use crate::plan::run::disk::{self, Disk};
use crate::plan::run::drive::drive;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event, Failure, Made, Outcome};
use crate::plan::run::fill::Folders;
use crate::plan::run::journal::{JOURNAL, Journal};
use crate::plan::run::key::Key;
use crate::plan::run::machine::{Machine, Part, Setup};
use crate::plan::run::state::{Group, State};
use crate::schema::policy::{FailureMode, SideEffects};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What came of a task.
#[derive(Clone, PartialEq, Debug)]
pub struct Came {
    /// How it ended.
    pub ending: Ending,
    /// A line for each of its stages: the name, how it ended, and why.
    pub stages: Vec<String>,
}

/// Runs a task, or goes on with it; a task that is done stays done.
///
/// # Errors
///
/// When a task that it waits for is not done, an earlier failure ends the run, another process works on it, or a file
/// cannot be read or written.
pub fn run(shared: &Shared, name: &str, settled: &[(String, bool)], parallel: u32) -> Result<Came, RunError> {
    let task = shared.units.task(name).ok_or_else(|| {
        let names = shared.units.all.iter().map(|unit| match unit.count {
            Some(count) => format!("{0}.0 to {0}.{1}", unit.name, count - 1),
            None => unit.name.clone(),
        });
        let names: Vec<String> = names.collect();
        RunError::UnknownTask { task: name.to_owned(), known: names.join(", ") }
    })?;
    if let Some((at, why)) = check::faults(&shared.plan).into_iter().next() {
        return Err(RunError::Plan { at, why });
    }
    let root = shared.folder(task);
    let lock = disk::lock(&root)?;
    let root = folder::real(&root).map_err(|source| RunError::Read { path: root, source })?;
    let files = shared.files(task);
    if let Some(record) = done_before(shared, task)? {
        files.check_results(record.events.iter(), &root)?;
        // Written anew, since some programs compare times.
        shared.keep(task, &record)?;
        return Ok(Came { ending: record.ending, stages: vec![format!("{name}: done before")] });
    }
    check_failures(shared, task)?;
    check_inputs(shared)?;
    let mut before = vec![shared.start.clone()];
    before.extend(events_before(shared, task)?);
    let mut journal = Journal::read(&root)?;
    if !goes_on(shared, task, &journal, &before) {
        before.extend(unclear(shared, task, &journal.events(), settled)?);
        let path = root.join(JOURNAL);
        folder::remove(&path).map_err(|source| RunError::Write { path, source })?;
        journal = Journal::read(&root)?;
    }
    let events = journal.events();
    let kill_file = format!("../../{}", shared.plan.safety.kill_file);
    let mut world = Disk::new(&root, shared.plan.id.as_str(), &kill_file, &journal, lock)?
        .within(&shared.plan.limits, &shared.root)?
        .with(files);
    let folders = Folders { inputs: text(&shared.base), run: text(&root) };
    let part = Part { stages: shared.units.all[task.unit].stages.clone(), index: task.index };
    let (digest, part) = (shared.digest.clone(), Some(part));
    let setup = Setup { plan: &shared.plan, digest, folders, parallel, part };
    let mut machine = Machine::new(setup, &events, &mut world)?;
    if events.is_empty() {
        machine.take_over(&before, &mut world)?;
    }
    for (stage, done) in settled {
        machine.attest(stage, *done, &mut world)?;
    }
    let ending = drive(&mut machine, BTreeMap::new(), &mut world)?;
    let record = Record {
        schema: RECORD.to_owned(),
        plan: shared.digest.clone(),
        task: name.to_owned(),
        ending: ending.clone(),
        events: net(shared, task, &machine.state),
    };
    shared.keep(task, &record)?;
    Ok(Came { ending, stages: lines(shared, task, &machine.state) })
}

fn fault(task: &str, why: String) -> RunError {
    RunError::Task { task: task.to_owned(), why }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The record of a task that is done: its work happened, or what it waited for is what it was then.
fn done_before(shared: &Shared, task: Task) -> Result<Option<Record>, RunError> {
    let Some(record) = shared.done(task)? else { return Ok(None) };
    let worked = record.events.iter().any(|event| matches!(event, Event::Made { .. }));
    let mut before = vec![shared.start.clone()];
    match events_before(shared, task) {
        Ok(events) if !worked && shared.units.all[task.unit].handler.is_none() => before.extend(events),
        _ => return Ok(Some(record)),
    }
    let events = Journal::read(&shared.folder(task))?.events();
    Ok(events.starts_with(&before).then_some(record))
}

/// Whether the journal of a task goes on: it began after the same events, and a stage of the end has not ended.
fn goes_on(shared: &Shared, task: Task, journal: &Journal, before: &[Event]) -> bool {
    let events = journal.events();
    let ended = events.iter().any(|event| matches!(event, Event::End { .. }));
    let is_handler = shared.units.all[task.unit].handler.is_some();
    events.starts_with(before) && !(ended && is_handler)
}

/// The beginnings of attempts of `once` stages that may have happened, and that the operator settles now: a new journal
/// has them too.
fn unclear(
    shared: &Shared,
    task: Task,
    events: &[Event],
    settled: &[(String, bool)],
) -> Result<Vec<Event>, RunError> {
    let mut state = State::new(&shared.plan, &shared.units.graph);
    for event in events {
        state.add(event, &shared.units.graph, &shared.plan);
    }
    let mut found = BTreeMap::new();
    for event in events {
        let Event::Begin { key, .. } = event else { continue };
        let is_once = shared.plan.stages[key.stage].side_effects == SideEffects::Once;
        if is_once && state.instance(*key).is_some_and(|instance| instance.may_have_happened) {
            let stage = key.name(&shared.plan);
            if settled.iter().all(|(name, _)| *name != stage) {
                return Err(RunError::Ambiguous { stage, run: shared.folder(task), is_task: true });
            }
            found.insert(*key, event.clone());
        }
    }
    Ok(found.into_values().collect())
}

/// Checks that no failure ends the run before this task.
fn check_failures(shared: &Shared, task: Task) -> Result<(), RunError> {
    if shared.units.all[task.unit].handler.is_some() {
        return Ok(());
    }
    let mut failed = shared.failures()?;
    failed.retain(|other| *other != task);
    let limits = &shared.plan.limits;
    let units: BTreeSet<usize> = failed.iter().map(|task| task.unit).collect();
    let most = limits
        .max_failed
        .map_or(f64::INFINITY, |most| if most < 1.0 { most * shared.plan.stages.len() as f64 } else { most });
    let stops = match limits.on_failure {
        FailureMode::KeepGoing => units.len() as f64 >= most,
        FailureMode::FailFast | FailureMode::FinishRunning => !units.is_empty(),
    };
    match failed.first().filter(|_| stops) {
        Some(first) => {
            let why = format!("does not start, since task `{}` failed", shared.units.name(*first));
            Err(fault(&shared.units.name(task), why))
        }
        None => Ok(()),
    }
}

/// Checks that the inputs have the sizes that they had when their digests were taken.
fn check_inputs(shared: &Shared) -> Result<(), RunError> {
    for (name, file) in shared.inputs() {
        let path = shared.base.join(&file.path);
        let fault = |why: String| RunError::Input { input: name.clone(), why };
        let bytes = folder::bytes(&path).map_err(|why| fault(format!("{}: {why}", path.display())))?;
        if bytes != file.bytes {
            let why = format!("{}: found {bytes} bytes, expected {}", path.display(), file.bytes);
            return Err(fault(format!("{why}, as when the plan was rendered")));
        }
    }
    Ok(())
}

/// What the records of other tasks say of the stages that a task may read.
fn events_before(shared: &Shared, task: Task) -> Result<Vec<Event>, RunError> {
    let mut events = Vec::new();
    let mut ended = BTreeSet::new();
    let before = shared.units.before(task);
    for (other, may_miss) in &before {
        let mut record = shared.done(*other)?;
        if record.is_none() && *may_miss {
            record = shared.failed(*other)?;
        }
        match record {
            Some(record) => {
                // Each task of a fan-out says that its stage was skipped.
                let is_new = |event: &Event| match event {
                    Event::Settled { key, .. } => ended.insert(*key),
                    _ => true,
                };
                events.extend(record.events.into_iter().filter(is_new));
            }
            None if *may_miss => {
                for stage in &shared.units.all[other.unit].stages {
                    let looped = shared.plan.loop_of(*stage);
                    let key = Key {
                        stage: *stage,
                        iteration: u32::from(looped.is_some()),
                        index: None,
                        shadow: None,
                    };
                    if ended.insert(key) {
                        events.push(missing(shared, key));
                    }
                }
            }
            None => {
                let why =
                    format!("task `{}` is not done, and this one waits for it", shared.units.name(*other));
                return Err(fault(&shared.units.name(task), why));
            }
        }
    }
    // Of a fan-out that is read place by place, the others may still run.
    let each = shared.units.all[task.unit].after.iter().any(|after| after.how == How::Each);
    for (other, _) in before.iter().filter(|_| each) {
        let unit = &shared.units.all[other.unit];
        let partly = unit.count.is_some_and(|count| count > 1)
            && before.iter().filter(|(found, _)| found.unit == other.unit).count() == 1;
        for stage in unit.stages.iter().filter(|_| partly) {
            let key = Key { stage: *stage, iteration: 0, index: None, shadow: None };
            if ended.insert(key) {
                events.push(settled(key, Outcome::Ok, String::new(), None));
            }
        }
    }
    Ok(events)
}

fn settled(key: Key, outcome: Outcome, why: String, choice: Option<String>) -> Event {
    Event::Settled { key, outcome, why, choice, read: BTreeMap::new() }
}

/// How a stage counts whose task left no record: its job was never started, or ended by force.
fn missing(shared: &Shared, key: Key) -> Event {
    let unit = shared.units.all.iter().position(|unit| unit.stages.contains(&key.stage)).unwrap_or(0);
    let blocked = shared.units.all[unit].after.iter().any(|after| {
        let mut tasks = shared.units.tasks_of(after.unit);
        after.how != How::Over && tasks.any(|task| shared.done(task).ok().flatten().is_none())
    });
    let outcome = if blocked { Outcome::Blocked } else { Outcome::Failed };
    settled(key, outcome, "its task left no record".to_owned(), None)
}

/// What a task came to, as events: without those that a later one took back.
fn net(shared: &Shared, task: Task, state: &State) -> Vec<Event> {
    let mut events = Vec::new();
    let unit = &shared.units.all[task.unit];
    let Some(first) = unit.stages.first() else { return events };
    let Some(looped) = state.loop_of(*first) else {
        unit.stages.iter().for_each(|stage| {
            let key = Key { stage: *stage, iteration: 0, index: None, shadow: None };
            ends(shared, task, key, state.group(key), &mut events);
        });
        return events;
    };
    let last = state.loops[looped].iteration;
    for iteration in 1..=last {
        for stage in &unit.stages {
            let key = Key { stage: *stage, iteration, index: None, shadow: None };
            ends(shared, task, key, state.group(key), &mut events);
        }
        let again = iteration < last;
        if again || state.loops[looped].is_over {
            let (exhausted, failed) = match again {
                true => (false, String::new()),
                false => (state.loops[looped].exhausted, state.loops[looped].failed.clone()),
            };
            let read = BTreeMap::new();
            events.push(Event::Iterated { looped, iteration, again, exhausted, failed, read });
        }
    }
    // Stages behind the loop read the value that it came to.
    let steps = state.tuned.loops.get(&looped).into_iter().flat_map(|tuning| tuning.history.clone());
    events.extend(steps.map(|(iteration, step)| Event::Tuned { looped, iteration, step }));
    events
}

/// The ends of the instances of a stage, and its own.
fn ends(shared: &Shared, task: Task, key: Key, group: &Group, events: &mut Vec<Event>) {
    let fans_out = shared.plan.stages[key.stage].fans_out();
    let place = format!("../{}", shared.units.name(task));
    for (index, instance) in group.instances.iter().enumerate() {
        let key = Key { index: fans_out.then_some(index as u32), ..key };
        let seconds = instance.seconds;
        for _ in 1..instance.attempts {
            let failure = Failure::Outputs("an earlier attempt".to_owned());
            events.push(Event::Failed { key, failure, seconds: 0.0, again: true, tokens: 0 });
        }
        if let Some(made) = &instance.made {
            let mut made: Made = made.clone();
            for artifact in made.outputs.values_mut() {
                artifact.path = format!("{place}/{}", artifact.path);
            }
            events.push(Event::Made { key, made, seconds, read: BTreeMap::new() });
        } else if let Some(failure) = instance.failure.clone() {
            events.push(Event::Failed { key, failure, seconds, again: false, tokens: 0 });
        }
    }
    // A fan-out in several tasks ends where all of them are known.
    let skipped =
        group.outcome.is_some_and(|outcome| group.instances.is_empty() || outcome == Outcome::Skipped);
    if let Some(outcome) = group.outcome.filter(|_| task.index.is_none() || skipped) {
        events.push(settled(key, outcome, group.why.clone(), group.choice.clone()));
    }
}

fn lines(shared: &Shared, task: Task, state: &State) -> Vec<String> {
    let stages = shared.units.all[task.unit].stages.iter().map(|stage| {
        let key = state.current(*stage);
        let group = state.group(key);
        let name = Key { index: task.index, ..key }.name(&shared.plan);
        let instance = group.instances.get(task.index.unwrap_or(0) as usize);
        match (group.outcome, instance) {
            (Some(outcome), _) if group.why.is_empty() => format!("{name}: {}", outcome.word()),
            (Some(outcome), _) => format!("{name}: {}: {}", outcome.word(), group.why),
            (None, Some(instance)) => match &instance.failure {
                Some(failure) => format!("{name}: failed: {failure}"),
                None => format!("{name}: ok"),
            },
            (None, None) => format!("{name}: not run"),
        }
    });
    stages.collect()
}
