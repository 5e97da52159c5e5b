//! Ends a run: asks its runner to end, or ends what a killed runner left behind.

use super::status::Watched;
use crate::io::{folder, interrupt};
use crate::plan::run::claim::{self, Holds};
use crate::plan::run::disk::{self, Disk};
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event};
use crate::plan::run::journal::Journal;
use crate::plan::run::world::World;
use crate::schema::Plan;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks at the lock of the run.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Time between two signals to a runner: it takes those that come sooner as one.
const SIGNAL_EVERY: Duration = Duration::from_millis(300);

/// Why a run ends that the operator cancels.
const WHY: &str = "the operator cancelled the run";

/// What came of a request to end a run.
#[derive(Serialize, Debug)]
pub struct Cancelled {
    /// What the run was before: `running`, `interrupted`, `succeeded`, `failed` or `refused`.
    pub was: String,
    /// What it is now.
    pub state: String,
    /// Why.
    pub why: String,
    /// Whether it is over now.
    pub is_over: bool,
}

/// Ends a run. A live runner gets the kill file, or with `now` two SIGTERMs, and `wait` to end.
///
/// # Errors
///
/// When the directory holds no run, it cannot be read or written, or a signal ends the wait.
pub fn cancel(root: &Path, now: bool, wait: Option<Duration>) -> Result<Cancelled, RunError> {
    let root = folder::real(root).map_err(|source| RunError::Read { path: root.to_owned(), source })?;
    if let Holds::Task(above) = claim::of(&root) {
        return Err(RunError::OfRendered { path: root, above });
    }
    let watched = Watched::read(&root)?;
    let was = watched.word().to_owned();
    if let Some(runner) = &watched.runner {
        let has_ended = if now { signal(&root, runner, wait)? } else { ask(&root, &watched.plan, wait)? };
        if !has_ended {
            let why = format!("{runner} still works on it");
            return Ok(Cancelled { was, state: "running".to_owned(), why, is_over: false });
        }
    }
    let after = Watched::read(&root)?;
    if after.state.ending.is_none() {
        mark(&root, &after.plan)?;
    }
    let after = Watched::read(&root)?;
    let (state, why) = (after.word().to_owned(), after.why().unwrap_or_default());
    Ok(Cancelled { was, state, why, is_over: after.state.ending.is_some() })
}

/// Waits until no runner works on a run. Returns whether that came in time.
fn wait_for(root: &Path, wait: Option<Duration>, mut look: impl FnMut()) -> Result<bool, RunError> {
    let began = Instant::now();
    while disk::holder(root)?.is_some() {
        interrupt::check()?;
        if wait.is_some_and(|wait| began.elapsed() > wait) {
            return Ok(false);
        }
        look();
        thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}

/// Asks a runner to end the run, by the kill file.
fn ask(root: &Path, plan: &Plan, wait: Option<Duration>) -> Result<bool, RunError> {
    let path = root.join(&plan.safety.kill_file);
    let is_there = folder::exists(&path);
    let fault = |source| RunError::Write { path: path.clone(), source };
    if !is_there {
        folder::write_file_on_disk(&path, b"").map_err(fault)?;
    }
    let has_ended = wait_for(root, wait, || {})?;
    if has_ended && !is_there {
        // So that `resume` may go on with the run later.
        folder::remove(&path).map_err(fault)?;
    }
    Ok(has_ended)
}

/// Ends a runner and its commands at once, by signals.
fn signal(root: &Path, runner: &str, wait: Option<Duration>) -> Result<bool, RunError> {
    let pid = runner.rsplit(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    let mut last: Option<Instant> = None;
    wait_for(root, wait, || {
        if last.is_none_or(|last| last.elapsed() > SIGNAL_EVERY) {
            // A runner that ended needs no signal.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            last = Some(Instant::now());
        }
    })
}

/// Marks a run without a runner as over, once the processes that its runner left behind are ended.
fn mark(root: &Path, plan: &Plan) -> Result<(), RunError> {
    let lock = disk::lock(root)?;
    let journal = Journal::read(root)?;
    let mut world = Disk::new(root, plan.id.as_str(), &plan.safety.kill_file, &journal, lock)?;
    let why = WHY.to_owned();
    world.append(&[
        Event::Stop { why: why.clone(), refused: true },
        Event::End { ending: Ending::Refused(why) },
    ])
}
