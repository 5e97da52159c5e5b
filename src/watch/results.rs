//! The files that a run made for others than its own stages.

use crate::plan::run::event::Outcome;
use crate::plan::run::machine::Machine;
use crate::schema::Plan;
use std::collections::BTreeSet;

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
