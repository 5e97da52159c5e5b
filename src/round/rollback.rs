//! Goes back to an earlier model that is kept. The rounds since stay in the journal.

use crate::round::error::RoundError;
use crate::round::journal::{Carry, Event, Version};
use crate::round::publish::make_current;
use crate::round::state::State;
use crate::round::world::World;

/// Makes a kept version the current model. Returns it.
///
/// # Errors
///
/// When a round is open, the version is not kept, or a file cannot be written.
pub fn run(world: &mut impl World, state: &mut State, number: u64) -> Result<Version, RoundError> {
    if state.is_open() {
        let round = state.round;
        return Err(RoundError::Refused(format!(
            "round {round} is open, and its clients train on the current model: let it end first"
        )));
    }
    let kept = &state.carry.kept;
    let Some(version) = kept.iter().find(|version| version.number == number).cloned() else {
        let numbers: Vec<String> = kept.iter().map(|version| version.number.to_string()).collect();
        return Err(RoundError::Refused(format!(
            "version {number} is not kept; kept are {}",
            numbers.join(", ")
        )));
    };
    let carry = Carry { current: version.clone(), losses: Vec::new(), ..state.carry.clone() };
    state.append(world, state.round, Event::Rollback(Box::new(carry)))?;
    make_current(world, &version.file.blake3)?;
    Ok(version)
}

/// Finishes a rollback that was killed between its line in the journal and its link.
///
/// # Errors
///
/// When the link cannot be read or written.
pub fn finish(world: &mut impl World, state: &State) -> Result<(), RoundError> {
    match state.last() {
        Some(Event::Rollback(carry)) => make_current(world, &carry.current.file.blake3),
        _ => Ok(()),
    }
}
