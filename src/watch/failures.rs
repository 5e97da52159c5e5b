//! Why a run failed: its failed stages and loops, and what their commands printed last.

use crate::io::text;
use crate::plan::run::event::{Failure, Outcome};
use crate::plan::run::key::Key;
use crate::plan::run::state::State;
use crate::schema::Plan;
use std::path::Path;

/// The stages and loops that failed, each with a line; and before them the ends of what their commands printed to
/// standard error.
pub fn failures(plan: &Plan, state: &State, root: &Path) -> Vec<String> {
    let stages = (0..plan.stages.len()).map(|stage| state.current(stage));
    let failed = stages.filter(|key| state.group(*key).outcome.is_some_and(Outcome::is_failure));
    let (mut lines, mut printed) = (Vec::new(), Vec::new());
    for key in failed {
        let group = state.group(key);
        let is_worst = |failure: &Failure| Some(failure.outcome()) == group.outcome;
        let worst = group.instances.iter().position(|one| one.failure.as_ref().is_some_and(is_worst));
        let index =
            worst.filter(|_| plan.stages[key.stage].fans_out()).and_then(|place| place.try_into().ok());
        let name = Key { index, ..key }.name(plan);
        let log = root.join("attempts").join(&name).join("stderr");
        let quoted = if worst.is_some() { last_words(&log) } else { Vec::new() };
        let is_quoted = lines.len() < MOST_QUOTED;
        let at =
            if is_quoted || quoted.is_empty() { String::new() } else { format!("; see {}", log.display()) };
        lines.push(format!("stage `{}`: {}{at}", key.name(plan), group.why));
        printed.extend(quoted.into_iter().filter(|_| is_quoted));
    }
    let loops = plan.loops.iter().zip(&state.loops).filter(|(_, state)| !state.failed.is_empty());
    lines.extend(loops.map(|(looped, state)| format!("loop `{}` {}", looped.id, state.failed)));
    match (&state.stop, lines.is_empty()) {
        (Some((why, _)), true) => printed.push(why.clone()),
        _ => printed.extend(lines),
    }
    printed
}

/// The most failed stages whose standard error is quoted.
const MOST_QUOTED: usize = 3;

/// The last lines of a log, if it has any.
fn last_words(log: &Path) -> Vec<String> {
    let found = text::last_lines(log, 5, 4096).unwrap_or_default();
    let head = (!found.is_empty()).then(|| format!("{} ends with:", log.display()));
    head.into_iter().chain(found.iter().map(|line| format!("  {line}"))).collect()
}
