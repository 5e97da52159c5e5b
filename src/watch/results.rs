//! What a run came to: its stages in numbers, and the files that it made for others than its own stages.

use crate::plan::run::event::Outcome;
use crate::plan::run::machine::Machine;
use crate::schema::Plan;
use std::collections::{BTreeMap, BTreeSet};

/// The outputs that no other stage needs, by their paths in the directory of the run.
pub fn results(plan: &Plan, machine: &Machine<'_>) -> Vec<String> {
    let needed: BTreeSet<&str> =
        plan.stages.iter().flat_map(|stage| &stage.needs).map(|need| need.as_str()).collect();
    let mut found = Vec::new();
    for (place, _) in plan.stages.iter().enumerate().filter(|(_, stage)| !needed.contains(stage.id.as_str()))
    {
        let group = machine.state.group(machine.state.current(place));
        if group.outcome == Some(Outcome::Ok) {
            let made = group.instances.iter().filter_map(|instance| instance.made.as_ref());
            found.extend(made.flat_map(|made| made.outputs.values()).map(|artifact| artifact.path.clone()));
        }
    }
    found
}

/// How the stages ended, and the loops that ended without their condition: a line each.
pub fn summary(plan: &Plan, machine: &Machine<'_>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for stage in 0..plan.stages.len() {
        let outcome = machine.state.group(machine.state.current(stage)).outcome;
        *counts.entry(outcome.map_or("not run", Outcome::word)).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let stages = format!("{} stages: {}", plan.stages.len(), counts.join(", "));
    let loops = plan.loops.iter().zip(&machine.state.loops);
    let exhausted = loops.filter(|(_, state)| state.exhausted);
    let exhausted = exhausted.map(|(looped, _)| format!("loop `{}` ended without its condition", looped.id));
    [stages].into_iter().chain(exhausted).collect()
}
