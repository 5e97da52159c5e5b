//! Makes a state directory: the first model in the store, and the first line of the journal.

use crate::round::error::RoundError;
use crate::round::journal::{Carry, Event, RoundJournal, Version};
use crate::round::layout;
use crate::round::publish::make_current;
use crate::round::state::last_folder;
use crate::round::world::World;
use std::path::Path;

/// Starts a federation from a model that `take` puts into the store under its digest. Does nothing that was done.
///
/// # Errors
///
/// When the directory holds a federation, or a file cannot be written.
pub fn run(world: &mut impl World, directory: &Path, imported: &str) -> Result<(), RoundError> {
    if last_folder(world, layout::ROUNDS)?.is_some() && !RoundJournal::read_alone(world, 0)?.lines.is_empty()
    {
        return Err(RoundError::Exists { directory: directory.to_owned() });
    }
    let file = world.fingerprint(imported).map_err(RoundError::reading(imported))?;
    let stored = layout::model(&file.blake3);
    world.rename(imported, &stored).map_err(RoundError::writing(&stored))?;
    world.remove(imported).map_err(RoundError::writing(imported))?;
    make_current(world, &file.blake3)?;
    for folder in [layout::INBOX, layout::METRICS] {
        world.make_folder(folder).map_err(RoundError::writing(folder))?;
    }
    let current = Version { file, ..Version::default() };
    let carry = Carry { kept: vec![current.clone()], current, ..Carry::default() };
    RoundJournal::default().append(world, 0, Event::Init(Box::new(carry)))
}
