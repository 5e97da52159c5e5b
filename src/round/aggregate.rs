//! Merges the valid updates of a round into a model in the folder of the round.

use crate::config::Config;
use crate::round::error::RoundError;
use crate::round::evaluate::MODEL;
use crate::round::journal::{Arrival, Rejected, Validated};
use crate::round::layout;
use crate::round::secure::{self, Ready};
use crate::round::state::{State, sound};
use crate::round::validate::{carry_state, order, quarantine, refusal, unchanged};
use crate::round::world::{Merged, World};

/// Moves bad updates to quarantine, and merges the others; of a secure round the means.
///
/// # Errors
///
/// When the policy refuses the merge, or a file cannot be read or written.
pub fn act(
    world: &mut impl World,
    config: &Config,
    state: &State,
    validated: &Validated,
    ready: &Ready,
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
    if let Ready::Means(means) = ready {
        return secure::merge(world, config, state, validated, means);
    }
    let closed_by = state.collected().map_or("", |collected| collected.closed_by.as_str());
    if let Some(why) = refusal(config, validated, closed_by) {
        return Err(RoundError::Refused(why));
    }
    let (same, changed) = unchanged(world, &validated.accepted)?;
    let left = Validated { accepted: same, rejected: changed, ..Validated::default() };
    if let Some(why) = refusal(config, &left, closed_by) {
        return Ok(Merged { refused: Some(why), rejected: left.rejected, ..Merged::default() });
    }
    let order = order(config, state, left.accepted);
    carry_state(world, &order)?;
    let merged = world.merge(&order)?;
    Ok(Merged { rejected: merged.rejected.iter().cloned().chain(left.rejected).collect(), ..merged })
}

/// Makes the merged model of the round anew, if it was lost since. The same updates give the same bytes.
///
/// # Errors
///
/// When the second merge makes another model, or none. When a file cannot be read or written.
pub fn restore(
    world: &mut impl World,
    config: &Config,
    state: &State,
    merged: &Merged,
) -> Result<(), RoundError> {
    let made = layout::of_round(state.round, MODEL);
    if world.bytes(&made).is_ok() {
        return Ok(());
    }
    let lost = |what: &str| RoundError::Refused(format!("{made} was lost after the merge, and {what}"));
    let Some(validated) = state.validated().filter(|_| !config.privacy.enabled) else {
        return Err(lost(
            "a second release of the same updates would spend the budget twice; what the first one spent stays spent",
        ));
    };
    tracing::warn!("{made} was lost after the merge: the round merges again");
    sound::base(world, config, state)?;
    let same_model = |again: Merged| match again.model == merged.model {
        true => Ok(()),
        false => Err(lost("a second merge made another model, as it does after a change of the settings")),
    };
    if state.is_secure() {
        let means = world.unmask(state.round)?;
        return same_model(secure::merge(world, config, state, validated, &means)?);
    }
    let left_out = |update: &&Arrival| merged.rejected.iter().any(|bad| bad.path == update.path);
    let updates: Vec<Arrival> = validated.accepted.iter().filter(|one| !left_out(one)).cloned().collect();
    let (same, changed) = unchanged(world, &updates)?;
    if let Some(Rejected { id, why, .. }) = changed.first() {
        return Err(lost(&format!("so is an update that it needs, of client `{id}`: {why}")));
    }
    same_model(world.merge(&order(config, state, same))?)
}
