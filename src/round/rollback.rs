//! Goes back to an earlier model that is kept.
//!
//! The rounds since stay in the journal. An open round that made no model current is abandoned, and its updates go to
//! quarantine.

use crate::round::collect::ABANDONED;
use crate::round::error::RoundError;
use crate::round::fates::rejected;
use crate::round::journal::{Carry, Event, Opening, Rejected, Version};
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
    if is_ending(world, state) {
        let round = state.round;
        return Err(RoundError::Refused(format!(
            "round {round} merged its updates and ends: let it end first, by `fedmill round run DIR`"
        )));
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
    // An open round is abandoned: its clients train on the model that the operator leaves.
    let abandoned = state.carry.abandoned + u64::from(state.is_open());
    // The version counts as the latest from now on, so that it outlasts those that the operator leaves.
    let others = kept.iter().filter(|other| other.number != number);
    let kept = others.chain([&version]).cloned().collect();
    let is_same = state.carry.current.file == version.file;
    let losses = if is_same { state.carry.losses.clone() } else { Vec::new() };
    let carry = Carry { current: version.clone(), kept, losses, abandoned, ..state.carry.clone() };
    let opening = state.opening().filter(|_| state.is_open()).cloned();
    state.append(world, state.round, Event::Rollback(Box::new(carry)))?;
    finish(world, state)?;
    tell_spent(world, state, opening.as_ref())?;
    Ok(version)
}

/// Whether the open round made its model current, or goes on to its end without one. Before, the operator may abandon it.
fn is_ending(files: &impl Files, state: &State) -> bool {
    match state.last() {
        _ if !state.is_open() => false,
        Some(Event::Publish { .. }) => {
            let merged = state.merged().map(|merged| &merged.model.blake3);
            let merged = merged.filter(|blake3| **blake3 != state.carry.current.file.blake3);
            let linked = files.target(layout::CURRENT).ok().flatten();
            merged.is_some_and(|blake3| linked == Some(layout::model(blake3)))
        }
        Some(Event::Adapt(_) | Event::Report { .. }) => true,
        _ => false,
    }
}

/// Tells the operator what an abandoned round took from the privacy budget.
fn tell_spent(world: &mut impl World, state: &State, opening: Option<&Opening>) -> Result<(), RoundError> {
    let Some(before) = opening.and_then(|opening| opening.budget.as_ref()) else { return Ok(()) };
    let Some(now) = world.budget()? else { return Ok(()) };
    if now.epsilon_spent != before.epsilon_spent {
        let epsilon = |spent: Option<f64>| spent.unwrap_or(f64::INFINITY);
        tracing::warn!(
            "round {} was abandoned after its charge to the privacy budget, which stays: epsilon {} was spent before, and {} now",
            state.round,
            epsilon(before.epsilon_spent),
            epsilon(now.epsilon_spent)
        );
    }
    Ok(())
}

/// Finishes a rollback that was killed behind its line in the journal.
///
/// # Errors
///
/// When a file cannot be read or written.
pub fn finish(world: &mut impl World, state: &State) -> Result<(), RoundError> {
    let Some(Event::Rollback(carry)) = state.last() else { return Ok(()) };
    make_current(world, &carry.current.file.blake3)?;
    if !state.journal.is_abandoned() {
        return Ok(());
    }
    if let Some(merged) = state.merged().map(|merged| &merged.model)
        && carry.kept.iter().all(|kept| kept.file != *merged)
    {
        // The round may have stored its model, and not made it current.
        let stored = layout::model(&merged.blake3);
        world.remove(&stored).map_err(RoundError::writing(&stored))?;
    }
    quarantine_updates(world, state)
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
