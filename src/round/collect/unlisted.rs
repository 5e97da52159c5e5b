//! Updates in the folder of a round that its list does not have: it was lost or is from a backup.

use crate::round::collect::list::{Fate, Move};
use crate::round::collect::{Inbox, foreign};
use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::world::{Entry, Files};
use std::collections::BTreeSet;

/// Takes such updates up again, and sends what is none to quarantine. Only updates that were on time came there, so they
/// count as on time again.
///
/// # Errors
///
/// When a file cannot be read.
pub(super) fn moves(inbox: &Inbox<'_>, files: &(impl Files + ?Sized)) -> Result<Vec<Move>, RoundError> {
    let folder = layout::of_round(inbox.round, "updates");
    let entries = files.list(&folder).map_err(RoundError::reading(&folder))?;
    let listed: BTreeSet<&str> = inbox.moves.iter().map(|moved| moved.to.as_str()).collect();
    let mut moves = Vec::new();
    for entry in entries {
        let path = format!("{folder}/{}", entry.name);
        if listed.contains(path.as_str()) {
            continue;
        }
        let id = layout::client_of(&entry.name).unwrap_or_else(|| entry.name.clone());
        let (round, fate) = fate(inbox, files, &entry, &path)?;
        moves.push(match fate {
            Fate::Arrived { .. } => {
                tracing::warn!("{path} is in no list of the round: it is taken up again");
                Move { from: path.clone(), to: path, id, round, fate, stamp: None }
            }
            fate => inbox.moved(files, path, (&id, round), fate, moves.len()),
        });
    }
    Ok(moves)
}

/// The round of an entry, and what it is.
fn fate(
    inbox: &Inbox<'_>,
    files: &(impl Files + ?Sized),
    entry: &Entry,
    path: &str,
) -> Result<(u64, Fate), RoundError> {
    let rejected = |why: String| Ok((inbox.round, Fate::Rejected { why: format!("{UNLISTED}: {why}") }));
    if let Some(why) = foreign::why_no_update(entry, false) {
        return match entry.is_folder {
            true => Ok((inbox.round, Fate::Foreign { why })),
            false => rejected(why),
        };
    }
    if let Some(why) = files.unfinished(path) {
        return rejected(why);
    }
    if let Some(why) = inbox.too_large(files, path)? {
        return rejected(why);
    }
    let id = layout::client_of(&entry.name).unwrap_or_else(|| entry.name.clone());
    let Some(round) = asked_in(inbox, files, &id)? else {
        return rejected("the client was not selected for the round".to_owned());
    };
    let Some(after_s) = inbox.arrival_s(files, path)? else { return rejected("is no file".to_owned()) };
    Ok((round, Fate::Arrived { after_s: after_s.min(inbox.deadline_s) }))
}

/// The round whose task the client has: the open one, or else the last one whose updates the round may merge.
fn asked_in(inbox: &Inbox<'_>, files: &(impl Files + ?Sized), id: &str) -> Result<Option<u64>, RoundError> {
    if inbox.selected.contains(id) {
        return Ok(Some(inbox.round));
    }
    let oldest = inbox.round.saturating_sub(inbox.config.coordination.max_staleness).max(1);
    for round in (oldest..inbox.round).rev() {
        let task = layout::of_client(&layout::tasks(round), id, ".json");
        let is_asked = files.read(&task).map_err(RoundError::reading(&task))?.is_some();
        if is_asked && inbox.why_never(files, round)?.is_none() {
            return Ok(Some(round));
        }
    }
    Ok(None)
}

const UNLISTED: &str = "the list of the round does not have the file";
