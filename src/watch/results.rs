//! What a run came to: its stages in numbers, and the files that are its results.

use crate::plan::run::event::Outcome;
use crate::plan::run::machine::Machine;
use crate::schema::Plan;
use crate::schema::stage::Stage;
use std::collections::{BTreeMap, BTreeSet};

/// The results, by their paths in the directory of the run: the outputs of stages whose work no other stage goes on with.
///
/// A stage that measures, decides or tells makes no file but metrics, so it goes on with nothing. Metrics are results
/// where there is nothing else.
pub fn results(plan: &Plan, machine: &Machine<'_>) -> Vec<String> {
    let makes = |stage: &&Stage| stage.out.iter().any(|out| !out.metrics);
    let used: BTreeSet<&str> =
        plan.stages.iter().filter(makes).flat_map(|stage| &stage.needs).map(|need| need.as_str()).collect();
    let (mut made, mut measured) = (Vec::new(), Vec::new());
    for (place, stage) in
        plan.stages.iter().enumerate().filter(|(_, stage)| !used.contains(stage.id.as_str()))
    {
        let group = machine.state.group(machine.state.current(place));
        if group.outcome != Some(Outcome::Ok) {
            continue;
        }
        let is_metrics = |name: &str| stage.out.iter().any(|out| out.metrics && out.name.as_str() == name);
        let outputs = group.instances.iter().filter_map(|instance| instance.made.as_ref());
        for (name, artifact) in outputs.flat_map(|outputs| &outputs.outputs) {
            let found = if is_metrics(name) { &mut measured } else { &mut made };
            found.push(artifact.path.clone());
        }
    }
    if made.is_empty() { measured } else { made }
}

/// How the stages ended, and the loops that ended without their condition: a line each.
pub fn summary(plan: &Plan, machine: &Machine<'_>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for stage in 0..plan.stages.len() {
        let outcome = machine.state.group(machine.state.current(stage)).outcome;
        *counts.entry(outcome.map_or("not run", Outcome::word)).or_default() += 1;
    }
    let groups = (0..plan.stages.len()).map(|stage| machine.state.group(machine.state.current(stage)));
    let reused = groups.filter(|group| group.reused() > 0).count();
    let mut counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    counts.extend((reused > 0).then(|| format!("{reused} of them reused")));
    let stages = format!("{} stages: {}", plan.stages.len(), counts.join(", "));
    let loops = plan.loops.iter().zip(&machine.state.loops);
    let exhausted = loops.filter(|(_, state)| state.exhausted);
    let exhausted = exhausted.map(|(looped, _)| format!("loop `{}` ended without its condition", looped.id));
    [stages].into_iter().chain(exhausted).collect()
}
