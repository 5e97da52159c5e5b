//! Checks that the files a round starts from are as the journal knows them; mends the link.
//!
//! A merge onto a damaged model would publish the damage. So the model and the state of the strategy are compared with
//! their digests before a round opens, before it merges, and before a rollback makes them current.

use crate::config::Config;
use crate::round::error::RoundError;
use crate::round::journal::{Event, Version};
use crate::round::layout;
use crate::round::publish::{make_current, strategy_name};
use crate::round::state::State;
use crate::round::validate::STATE;
use crate::round::world::{Files, World};
use std::io::ErrorKind;

/// Checks the model of a version by its digest.
///
/// # Errors
///
/// When it is missing or damaged, or cannot be read.
pub fn model(files: &impl Files, state: &State, version: &Version) -> Result<(), RoundError> {
    let path = layout::model(&version.file.blake3);
    let found = match files.fingerprint(&path) {
        Ok(found) if found == version.file => return Ok(()),
        Ok(found) => format!("blake3 {} of {} bytes", found.blake3, found.bytes),
        Err(why) if why.kind() == ErrorKind::NotFound => "no file".to_owned(),
        Err(why) => return Err(RoundError::reading(&path)(why)),
    };
    let expected = format!("blake3 {} of {} bytes", version.file.blake3, version.file.bytes);
    let remedy = format!("restore the file from a backup{}", other_versions(state, version));
    Err(RoundError::Torn { path, found, expected, remedy })
}

/// Checks the state that the strategy left with a version. A version without one is sound.
///
/// # Errors
///
/// When it is missing or damaged.
pub fn strategy_state(world: &mut impl World, state: &State, version: &Version) -> Result<(), RoundError> {
    let path = layout::of_round(version.round, STATE);
    let fault = if version.has_state { world.state_fault(&path) } else { None };
    let Some(found) = fault else { return Ok(()) };
    let Version { number, strategy, .. } = version;
    let remedy = format!(
        "restore the file from a backup; or start {strategy} anew from version {number}, without what it learned: \
         `fedmill round rollback DIR --to {number} --restart-strategy`{}",
        other_versions(state, version)
    );
    let expected = format!("the state that {strategy} left with version {number}");
    Err(RoundError::Torn { path, found, expected, remedy })
}

/// The end of a remedy: the versions that a rollback may go to in place of this one, if it is current.
fn other_versions(state: &State, version: &Version) -> String {
    if version.file != state.carry.current.file {
        return "; rounds go on without it: only a rollback to this version needs it".to_owned();
    }
    // A version with the same bytes is the same file.
    let others = state.carry.kept.iter().filter(|kept| kept.file != version.file);
    let others: Vec<String> = others.map(|kept| kept.number.to_string()).collect();
    match others.last() {
        None => String::new(),
        Some(last) => format!(
            "; or go back to another kept version, {}: `fedmill round rollback DIR --to {last}`",
            others.join(", ")
        ),
    }
}

/// Checks what the open round merges onto, or the next one starts from.
///
/// # Errors
///
/// When the current model or the state that the strategy goes on from is missing or damaged.
pub fn base(world: &mut impl World, config: &Config, state: &State) -> Result<(), RoundError> {
    let current = &state.carry.current;
    model(world, state, current)?;
    match current.strategy == strategy_name(config) {
        true => strategy_state(world, state, current),
        false => Ok(()),
    }
}

/// Checks at little cost that the current model is there, while the round still needs it.
///
/// # Errors
///
/// When it is missing, or has another size.
pub fn present(files: &impl Files, state: &State) -> Result<(), RoundError> {
    let file = &state.carry.current.file;
    let is_over =
        matches!(state.last(), Some(Event::Publish { .. } | Event::Adapt(_) | Event::Report { .. }));
    let is_there = files.bytes(&layout::model(&file.blake3)).is_ok_and(|bytes| bytes == file.bytes);
    if is_over || is_there { Ok(()) } else { model(files, state, &state.carry.current) }
}

/// Whether the link to the current model exists. A file in its place counts too.
pub fn has_link(files: &impl Files) -> bool {
    !matches!(files.target(layout::CURRENT), Ok(None))
}

/// Makes the link to the current model anew, if it is missing.
///
/// # Errors
///
/// When it cannot be written.
pub fn mend_link(files: &mut impl Files, state: &State) -> Result<(), RoundError> {
    if has_link(files) {
        return Ok(());
    }
    let version = state.published();
    make_current(files, &version.file.blake3)?;
    tracing::warn!("{} was missing: it is a link to version {} again", layout::CURRENT, version.number);
    Ok(())
}
