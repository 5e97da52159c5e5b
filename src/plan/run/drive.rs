//! The loop of a runner: does what can be done, and waits for what comes.

use super::error::RunError;
use super::event::{Artifact, Ending, Outcome};
use super::machine::Machine;
use super::world::World;
use crate::schema::Plan;
use std::collections::{BTreeMap, BTreeSet};

/// Starts a run, or takes it up again, and goes on to its end.
///
/// `inputs` are the files of the plan's inputs, by name; a run that started before has them in its journal.
///
/// # Errors
///
/// When the journal, a receipt or an answer cannot be read or written, or a signal ends the runner.
pub fn drive(
    machine: &mut Machine<'_>,
    inputs: BTreeMap<String, Vec<Artifact>>,
    world: &mut impl World,
) -> Result<Ending, RunError> {
    machine.open(inputs, world)?;
    loop {
        machine.advance(world)?;
        machine.flush(world)?;
        if let Some(ending) = &machine.state.ending {
            return Ok(ending.clone());
        }
        let until = machine.wakes(world.now());
        let woken = world.wait(until)?;
        machine.take(woken, world)?;
    }
}

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
