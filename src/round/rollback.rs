//! Goes back to an earlier model that is kept.
//!
//! The rounds since stay in the journal. A round that collects updates is abandoned.

use crate::round::error::RoundError;
use crate::round::journal::{Carry, Event, Version};
use crate::round::publish::make_current;
use crate::round::state::State;
use crate::round::world::World;

/// Makes a kept version the current model. Returns it.
///
/// # Errors
///
/// When a round merges its updates, the version is not kept, or a file cannot be written.
pub fn run(world: &mut impl World, state: &mut State, number: u64) -> Result<Version, RoundError> {
    let is_merging = state.is_open() && !matches!(state.last(), Some(Event::Open(_) | Event::Collect { .. }));
    if is_merging {
        let round = state.round;
        return Err(RoundError::Refused(format!("round {round} merges its updates: let it end first")));
    }
    let kept = &state.carry.kept;
    let Some(version) = kept.iter().find(|version| version.number == number).cloned() else {
        let numbers: Vec<String> = kept.iter().map(|version| version.number.to_string()).collect();
        return Err(RoundError::Refused(format!(
            "version {number} is not kept; kept are {}",
            numbers.join(", ")
        )));
    };
    if !state.is_open() && state.carry.current.number == number {
        make_current(world, &version.file.blake3)?;
        return Ok(version);
    }
    // A round that collects is abandoned: its clients train on the model that the operator leaves.
    let abandoned = state.carry.abandoned + u64::from(state.is_open());
    // The version counts as the latest from now on, so that it outlasts those that the operator leaves.
    let others = kept.iter().filter(|other| other.number != number);
    let kept = others.chain([&version]).cloned().collect();
    let carry =
        Carry { current: version.clone(), kept, losses: Vec::new(), abandoned, ..state.carry.clone() };
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
