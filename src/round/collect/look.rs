//! What a run that changes nothing would find, and what a round waits for.

use crate::config::Config;
use crate::round::collect::masked::Delivery;
use crate::round::collect::{Inbox, closing_count};
use crate::round::error::RoundError;
use crate::round::journal::Opening;
use crate::round::layout;
use crate::round::state::State;
use crate::round::world::{Entry, Files, World};

/// What a run that changes nothing would find in the inbox.
///
/// # Errors
///
/// When a file cannot be read.
pub fn look(
    files: &impl World,
    config: &Config,
    state: &State,
    opening: &Opening,
) -> Result<String, RoundError> {
    let mut inbox = Inbox::open(files, config, state, opening)?;
    inbox.delivery = Delivery::of(files, &inbox, opening)?;
    inbox.moves.extend(inbox.whole(files)?);
    let changed = inbox.changed(files)?;
    inbox.moves.retain(|moved| !changed.iter().any(|one| one.from == moved.to));
    match inbox.closed_by(opening) {
        Some(by) => Ok(format!(
            "round {} has {} {} and closes by its {by}",
            inbox.round,
            inbox.arrived().count().max(inbox.fresh()),
            inbox.delivery.what()
        )),
        None => inbox.waiting(files, opening),
    }
}

impl Inbox<'_> {
    /// What the round waits for.
    pub(super) fn waiting(
        &self,
        files: &(impl Files + ?Sized),
        opening: &Opening,
    ) -> Result<String, RoundError> {
        let left = (self.deadline_s - self.elapsed_s()).max(0.0);
        let here = layout::inbox(self.round);
        let entries = files.list(&here).map_err(RoundError::reading(&here))?;
        let unfinished = |entry: &Entry| {
            Some((&entry.name, files.unfinished(&format!("{here}/{}", entry.name))?))
                .map(|(name, why)| format!("; {name} is not whole: {why}"))
        };
        Ok(format!(
            "round {} has {} of {} {}; it closes in {left:.0} s at the latest{}",
            self.round,
            self.fresh(),
            closing_count(self.config, opening),
            self.delivery.what(),
            entries.iter().find_map(unfinished).unwrap_or_default()
        ))
    }
}
