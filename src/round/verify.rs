//! Checks a state directory: the chain of all journals, and the digests of the store.

use crate::record::Head;
use crate::round::error::RoundError;
use crate::round::evaluate::MODEL;
use crate::round::fates;
use crate::round::journal::{Event, RoundJournal};
use crate::round::layout;
use crate::round::state::charges;
use crate::round::state::sound;
use crate::round::state::{State, round_folders};
use crate::round::world::World;
use serde::Serialize;
use std::path::Path;

/// What was checked.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Checked {
    /// Rounds whose journal is whole.
    pub rounds: u64,
    /// Lines of all journals.
    pub lines: usize,
    /// Models whose digest is that of their name, each with the state that its strategy left.
    pub models: usize,
    /// The number and the digest of the last line: a backup with another one is older, or was changed.
    pub head: Option<Head>,
    /// The first and the last round that are over and that the registry does not know; `None` if it knows all.
    pub unrecorded: Option<[u64; 2]>,
}

/// Checks a state directory.
///
/// # Errors
///
/// The first fault.
pub fn run(world: &mut impl World, directory: &Path) -> Result<Checked, RoundError> {
    let state = State::read(world, directory)?;
    state.check_whole(world)?;
    let (mut head, mut lines) = (None, 0);
    let rounds = round_folders(world, layout::ROUNDS)?;
    for (place, round) in rounds.iter().enumerate() {
        if *round != place as u64 {
            let path = layout::of_round(place as u64, "");
            let expected = format!("the folder of round {place}");
            return Err(RoundError::Unexpected { path, found: "none".to_owned(), expected });
        }
        let journal = RoundJournal::read(world, *round, head)?;
        head = journal.head;
        lines += journal.lines.len();
    }
    charges::check_ledger(world, u64::MAX)?;
    let models = models(world, &state)?;
    if !sound::has_link(world) {
        return Err(RoundError::Torn {
            path: layout::CURRENT.to_owned(),
            found: "no link".to_owned(),
            expected: format!("a link to {}", layout::model(&state.published().file.blake3)),
            remedy:
                "the next `fedmill round run` makes it; a copy of the directory must keep links (`rsync -l`)"
                    .to_owned(),
        });
    }
    let unrecorded = fates::unrecorded(world, &state)?;
    Ok(Checked { rounds: rounds.len().saturating_sub(1) as u64, lines, models, head, unrecorded })
}

fn models(world: &mut impl World, state: &State) -> Result<usize, RoundError> {
    let mut count = 0;
    // A run that was killed at the end of a round removed some of the old versions; the next run removes the others.
    let is_removing = matches!(state.last(), Some(Event::Report { .. }));
    for version in &state.carry.kept {
        let path = layout::model(&version.file.blake3);
        if is_removing && *version != state.carry.current && world.bytes(&path).is_err() {
            continue;
        }
        sound::model(world, state, version)?;
        sound::strategy_state(world, state, version)?;
        count += 1;
    }
    let merged = state.merged().filter(|_| matches!(state.last(), Some(Event::Evaluate(_))));
    if let Some(merged) = merged {
        let path = layout::of_round(state.round, MODEL);
        let found = world.fingerprint(&path).map_err(RoundError::reading(&path))?;
        if found != merged.model {
            let expected = format!("blake3 {}", merged.model.blake3);
            return Err(RoundError::Unexpected { path, found: format!("blake3 {}", found.blake3), expected });
        }
    }
    Ok(count)
}
