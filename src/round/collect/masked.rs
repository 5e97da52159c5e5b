//! How clients deliver: in the clear through the inbox, or masked into a session.

use crate::round::collect::{Collecting, Inbox};
use crate::round::error::RoundError;
use crate::round::journal::{Arrival, Opening};
use crate::round::validate::DEMANDS;
use crate::round::world::World;
use std::collections::{BTreeMap, BTreeSet};

/// Why a secure round takes no update of its inbox.
const IN_CLEAR: &str =
    "the round is secure, and the update came in the clear: its client masks it by `fedmill secagg mask`";

/// How clients deliver in a round.
#[derive(Default)]
pub(super) struct Delivery {
    /// The masked updates that are on time, by client: the path, and seconds from the opening; `None` in the clear.
    masked: Option<BTreeMap<String, (String, f64)>>,
    /// The clients that may not deliver in the clear.
    demanding: BTreeSet<String>,
}

impl Delivery {
    /// How clients deliver in the round of an inbox.
    pub(super) fn of(world: &impl World, inbox: &Inbox<'_>, opening: &Opening) -> Result<Self, RoundError> {
        if !opening.is_secure {
            return Ok(Self { masked: None, demanding: world.demand_secure()? });
        }
        let mut masked = BTreeMap::new();
        for file in world.masked(inbox.round)? {
            if file.fault.is_some() || !inbox.selected.contains(file.id.as_str()) {
                continue;
            }
            let after_s = inbox.arrival_s(world, &file.path)?;
            if let Some(after_s) = after_s.filter(|after_s| *after_s <= inbox.deadline_s) {
                masked.insert(file.id, (file.path, after_s));
            }
        }
        Ok(Self { masked: Some(masked), demanding: BTreeSet::new() })
    }

    /// The number of masked updates; `None` in the clear.
    pub(super) fn masked(&self) -> Option<usize> {
        self.masked.as_ref().map(BTreeMap::len)
    }

    /// What the round counts.
    pub(super) fn what(&self) -> &'static str {
        if self.masked.is_some() { "masked updates" } else { "updates" }
    }

    /// Why a client may not deliver through the inbox; `None` if it may.
    pub(super) fn why_barred(&self, id: &str) -> Option<&'static str> {
        match &self.masked {
            Some(_) => Some(IN_CLEAR),
            None => self.demanding.contains(id).then_some(DEMANDS),
        }
    }
}

/// Puts the masked updates of a secure round in place of those of its inbox.
///
/// # Errors
///
/// When a file cannot be read.
pub(super) fn close(
    world: &impl World,
    inbox: &Inbox<'_>,
    collecting: Collecting,
) -> Result<Collecting, RoundError> {
    let Some(masked) = &inbox.delivery.masked else { return Ok(collecting) };
    let Collecting::Closed(mut collected) = collecting else { return Ok(collecting) };
    collected.updates.clear();
    for (id, (path, after_s)) in masked {
        let file = world.fingerprint(path).map_err(RoundError::reading(path))?;
        let stamp = world.stamp(path).map_err(RoundError::reading(path))?;
        let (id, path, round) = (id.clone(), path.clone(), inbox.round);
        collected.updates.push(Arrival { id, round, path, file, stamp, after_s: *after_s });
    }
    let is_missing = |id: &&&str| !masked.contains_key(**id);
    collected.missing = inbox.selected.iter().filter(is_missing).map(|id| (*id).to_owned()).collect();
    Ok(Collecting::Closed(collected))
}
