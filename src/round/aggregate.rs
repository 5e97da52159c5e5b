//! Merges the valid updates of a round into a model in the folder of the round.

use crate::round::config::Config;
use crate::round::error::RoundError;
use crate::round::journal::Validated;
use crate::round::layout;
use crate::round::state::State;
use crate::round::validate::{STATE, order, quarantine, refusal};
use crate::round::world::{Merged, World};

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
    if let Some(why) = refusal(config, validated) {
        return Err(RoundError::Refused(why));
    }
    let order = order(config, state, validated.accepted.clone());
    if let Some(before) = &order.state {
        // The merge replaces its state. An earlier run may have done so: its state stays.
        let own = layout::of_round(state.round, STATE);
        world.copy(before, &own).map_err(RoundError::writing(&own))?;
    }
    world.merge(&order)
}
