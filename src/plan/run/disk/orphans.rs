//! Ends the processes that a killed runner left behind, before the next runner starts any.

use crate::io::{child, folder, interrupt};
use crate::plan::run::error::RunError;
use crate::plan::run::process;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at processes that were asked to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time for which the commands may end by themselves.
const OF_COMMANDS: Duration = Duration::from_secs(2);

/// Time for which runners of inner plans may end their own commands and themselves.
const OF_RUNNERS: Duration = Duration::from_secs(12);

/// Says which process works on the run in a directory, if one does.
type Holder = fn(&Path) -> Result<Option<String>, RunError>;

/// Ends the processes that a killed runner of the run in this directory left behind. The runners of inner plans come first:
/// they end their commands, and their journals say that these were cut short. `holder` says who works on a run.
///
/// # Errors
///
/// When another runner works on an inner run, or a signal ends the wait.
pub fn end(root: &Path, holder: Holder) -> Result<(), RunError> {
    check_inner(root, &process::runners_inside(root), holder)?;
    let topmost = || {
        let runners = process::runners_inside(root);
        let is_first = |id: &i32| child::parent(*id).is_none_or(|parent| !runners.contains(&parent));
        runners.iter().copied().filter(is_first).collect()
    };
    end_all(topmost, OF_RUNNERS)?;
    end_all(|| process::commands_of(root), OF_COMMANDS)
}

/// Checks that each runner of a run inside of this one is among those that the killed runner started.
fn check_inner(root: &Path, left: &[i32], holder: Holder) -> Result<(), RunError> {
    let plans = root.join("plans");
    let fault = |source| RunError::Read { path: plans.clone(), source };
    for (name, _) in folder::entries(&plans).map_err(fault)? {
        let inner = plans.join(name);
        if let Some(holder) = holder(&inner)?
            && left.iter().all(|id| holder != format!("process {id}"))
        {
            return Err(RunError::Locked { path: inner, holder });
        }
        check_inner(&inner, left, holder)?;
    }
    Ok(())
}

/// Sends a signal to processes.
pub fn signal(ids: &[i32], signal: Signal) {
    for id in ids.iter().copied().filter_map(Pid::from_raw) {
        // A process that ended needs no signal.
        let _ = kill_process(id, signal);
    }
}

/// Asks processes to end, and ends by force those that are left after `grace`.
fn end_all(left: impl Fn() -> Vec<i32>, grace: Duration) -> Result<(), RunError> {
    let mut asked = None;
    loop {
        let ids = left();
        if ids.is_empty() {
            return Ok(());
        }
        match asked {
            None => {
                asked = Some(Instant::now());
                signal(&ids, Signal::TERM);
            }
            Some(asked) if asked.elapsed() > grace => signal(&ids, Signal::KILL),
            Some(_) => {}
        }
        interrupt::check()?;
        thread::sleep(LOOK_EVERY);
    }
}
