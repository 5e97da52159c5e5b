//! Merges the valid updates of a round into a model in the folder of the round.

use crate::config::Config;
use crate::round::error::RoundError;
use crate::round::journal::{Arrival, Rejected, Validated};
use crate::round::layout;
use crate::round::state::State;
use crate::round::validate::{STATE, order, quarantine, refusal};
use crate::round::world::{Files, Merged, World};

/// Moves bad updates to quarantine, and merges the others.
///
/// # Errors
///
/// When the policy refuses the merge, or a file cannot be read or written.
pub fn act(
    world: &mut impl World,
    config: &Config,
    state: &State,
    validated: &Validated,
) -> Result<Merged, RoundError> {
    quarantine(world, state.round, &validated.rejected)?;
    for update in &validated.accepted {
        // A task is done once: another update for it is not asked for.
        let task = layout::of_client(&layout::tasks(update.round), &update.id, ".json");
        world.remove(&task).map_err(RoundError::writing(&task))?;
    }
    let was_private = state.opening().is_some_and(|opening| opening.budget.is_some());
    if was_private != config.privacy.enabled {
        return Err(RoundError::Refused("privacy.enabled changed after the round opened".to_owned()));
    }
    let closed_by = state.collected().map_or("", |collected| collected.closed_by.as_str());
    if let Some(why) = refusal(config, validated, closed_by) {
        return Err(RoundError::Refused(why));
    }
    let (unchanged, changed) = unchanged(world, &validated.accepted)?;
    let order = order(config, state, unchanged);
    if let Some(before) = &order.state {
        // The merge replaces its state. An earlier run may have done so: its state stays.
        let own = layout::of_round(state.round, STATE);
        world.copy(before, &own).map_err(RoundError::writing(&own))?;
    }
    let merged = world.merge(&order)?;
    Ok(Merged { rejected: merged.rejected.iter().cloned().chain(changed).collect(), ..merged })
}

/// Sorts updates into those that are as they were collected, and those that changed: a client may hold its file open.
fn unchanged(files: &impl Files, updates: &[Arrival]) -> Result<(Vec<Arrival>, Vec<Rejected>), RoundError> {
    let (mut same, mut changed) = (Vec::new(), Vec::new());
    for update in updates {
        let path = &update.path;
        let is_same = files.stamp(path).is_ok_and(|stamp| stamp == update.stamp)
            || files.bytes(path).map_err(RoundError::reading(path))? == update.file.bytes
                && files.fingerprint(path).map_err(RoundError::reading(path))? == update.file;
        match is_same {
            true => same.push(update.clone()),
            false => changed.push(Rejected {
                id: update.id.clone(),
                path: path.clone(),
                why: "the file changed after it was collected".to_owned(),
                ..Rejected::default()
            }),
        }
    }
    Ok((same, changed))
}
