//! The loop of a runner: does what can be done, and waits for what comes.

use super::error::RunError;
use super::event::{Artifact, Ending};
use super::machine::Machine;
use super::world::World;
use std::collections::BTreeMap;

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
