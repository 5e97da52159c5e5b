//! Goes back to an earlier model that is kept.
//!
//! The rounds since stay in the journal. A round that collects updates is abandoned, and its updates go to quarantine.

use crate::round::collect::ABANDONED;
use crate::round::error::RoundError;
use crate::round::fates::rejected;
use crate::round::journal::{Carry, Event, Rejected, Version};
use crate::round::layout;
use crate::round::publish::make_current;
use crate::round::report::REASONS;
use crate::round::state::State;
use crate::round::state::sound;
use crate::round::validate::{quarantine, quarantined};
use crate::round::world::{Files, World};

/// Makes a kept version the current model. Returns it. `restarts` leaves the state of its strategy behind.
///
/// # Errors
///
/// When a round merges its updates, the version is not kept or is damaged, or a file cannot be written.
pub fn run(
    world: &mut impl World,
    state: &mut State,
    number: u64,
    restarts: bool,
) -> Result<Version, RoundError> {
    if is_merging(world, state) {
        let round = state.round;
        return Err(RoundError::Refused(format!("round {round} merges its updates: let it end first")));
    }
    let kept = &state.carry.kept;
    let Some(mut version) = kept.iter().find(|version| version.number == number).cloned() else {
        let numbers: Vec<String> = kept.iter().map(|version| version.number.to_string()).collect();
        return Err(RoundError::Refused(format!(
            "version {number} is not kept; kept are {}",
            numbers.join(", ")
        )));
    };
    sound::model(world, state, &version)?;
    match restarts {
        true => version.has_state = false,
        false => sound::strategy_state(world, state, &version)?,
    }
    if !state.is_open() && state.carry.current == version {
        make_current(world, &version.file.blake3)?;
        return Ok(version);
    }
    // A round that collects is abandoned: its clients train on the model that the operator leaves.
    let abandoned = state.carry.abandoned + u64::from(state.is_open());
    // The version counts as the latest from now on, so that it outlasts those that the operator leaves.
    let others = kept.iter().filter(|other| other.number != number);
    let kept = others.chain([&version]).cloned().collect();
    let is_same = state.carry.current.file == version.file;
    let losses = if is_same { state.carry.losses.clone() } else { Vec::new() };
    let carry = Carry { current: version.clone(), kept, losses, abandoned, ..state.carry.clone() };
    state.append(world, state.round, Event::Rollback(Box::new(carry)))?;
    finish(world, state)?;
    Ok(version)
}

/// Whether the open round merges, and can end. A round whose base or state is lost cannot.
fn is_merging(world: &mut impl World, state: &State) -> bool {
    let current = &state.carry.current;
    match state.last() {
        _ if !state.is_open() => false,
        Some(Event::Open(_) | Event::Collect { .. }) => false,
        Some(Event::Validate(_) | Event::Aggregate(_) | Event::Evaluate(_)) => {
            sound::model(world, state, current).is_ok()
                && sound::strategy_state(world, state, current).is_ok()
        }
        _ => true,
    }
}

/// Finishes a rollback that was killed behind its line in the journal.
///
/// # Errors
///
/// When a file cannot be read or written.
pub fn finish(world: &mut impl World, state: &State) -> Result<(), RoundError> {
    let Some(Event::Rollback(carry)) = state.last() else { return Ok(()) };
    make_current(world, &carry.current.file.blake3)?;
    if state.journal.is_abandoned() { quarantine_updates(world, state) } else { Ok(()) }
}

/// Moves the updates of an abandoned round to quarantine, with the reason.
fn quarantine_updates(files: &mut impl Files, state: &State) -> Result<(), RoundError> {
    let folder = layout::of_round(state.round, "updates");
    let entries = files.list(&folder).map_err(RoundError::reading(&folder))?;
    let mut bad = rejected(state);
    let mut left = Vec::new();
    for name in entries.into_iter().map(|entry| entry.name) {
        let id = layout::client_of(&name).unwrap_or_else(|| name.clone());
        let path = format!("{folder}/{name}");
        let to = quarantined(state.round, &path);
        left.push(Rejected { id: id.clone(), path, ..Rejected::default() });
        if bad.iter().all(|known| known.path != to) {
            bad.push(Rejected { id, path: to, why: ABANDONED.to_owned(), is_late: true });
        }
    }
    add_reasons(files, state.round, &bad)?;
    quarantine(files, state.round, &left)
}

/// Adds reasons to those that the list of files in quarantine has.
fn add_reasons(files: &mut impl Files, round: u64, bad: &[Rejected]) -> Result<(), RoundError> {
    let path = layout::of_round(round, REASONS);
    let found = files.read(&path).map_err(RoundError::reading(&path))?.unwrap_or_default();
    let mut text = String::from_utf8_lossy(&found).into_owned();
    let lines: Vec<String> = bad.iter().filter_map(|bad| serde_json::to_string(bad).ok()).collect();
    let new: Vec<String> = lines.into_iter().filter(|line| !text.lines().any(|had| had == line)).collect();
    if new.is_empty() {
        return Ok(());
    }
    new.iter().for_each(|line| text.extend([line, "\n"]));
    files.write(&path, text.as_bytes()).map_err(RoundError::writing(&path))
}
