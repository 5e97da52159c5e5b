//! Makes a state directory: the first model in the store, and the first line of the journal.

use crate::round::error::RoundError;
use crate::round::journal::{Carry, Event, RoundJournal, Version};
use crate::round::layout;
use crate::round::publish::{make_current, store};
use crate::round::state::last_folder;
use crate::round::world::{Files, World};
use std::path::Path;

/// Checks that a directory holds no federation.
///
/// # Errors
///
/// When it does, or cannot be read.
pub fn check_new(files: &impl Files, directory: &Path) -> Result<(), RoundError> {
    let has_rounds = last_folder(files, layout::ROUNDS)?.is_some();
    if has_rounds && !RoundJournal::read_alone(files, 0)?.lines.is_empty() {
        return Err(RoundError::Exists { directory: directory.to_owned() });
    }
    Ok(())
}

/// Starts a federation from a model that `take` puts into the store under its digest. Does nothing that was done.
///
/// # Errors
///
/// When the directory holds a federation, or a file cannot be written.
pub fn run(world: &mut impl World, directory: &Path, imported: &str) -> Result<(), RoundError> {
    check_new(world, directory)?;
    let file = world.fingerprint(imported).map_err(RoundError::reading(imported))?;
    store(world, imported, &file)?;
    make_current(world, &file.blake3)?;
    world.make_folder(layout::ROUNDS).map_err(RoundError::writing(layout::ROUNDS))?;
    for folder in [layout::INBOX, layout::METRICS] {
        world.make_folder(folder).map_err(RoundError::writing(folder))?;
    }
    let current = Version { file, ..Version::default() };
    let carry = Carry { kept: vec![current.clone()], current, ..Carry::default() };
    RoundJournal::default().append(world, 0, Event::Init(Box::new(carry)))
}
