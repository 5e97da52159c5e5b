//! Stops a run whose updates say nothing of their kind and look like deltas of the base.
//!
//! Taken as weights, such updates would move the model to about zero.

use crate::engine::aggregate::error::Error;
use crate::engine::intake::claims::Claims;
use crate::engine::passes::error::PassError;
use crate::engine::passes::kind_sample::{FAR_BELOW, far_below_base};
use crate::engine::passes::machine::Machine;
use crate::telemetry::explain::Explain;
use crate::updates::set::UpdateSet;

/// Why a run stops that would take deltas for weights.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error(
    "{found} of the {asked} updates without metadata `kind` look like deltas: their norm is below {} % of the base's",
    100.0 * FAR_BELOW
)]
pub struct LikelyDeltas {
    /// The number of updates that look like deltas.
    pub found: usize,
    /// The number of updates that do not state their kind.
    pub asked: usize,
}

impl Explain for LikelyDeltas {
    fn hint(&self) -> Option<String> {
        Some("pass --kind delta if they are deltas, or --kind weights if they are models".to_owned())
    }
}

/// Checks the updates of a set that do not state their kind, if there is a base. Warns if only few of them look like
/// deltas, so that one client cannot end a round.
///
/// # Errors
///
/// When most of them look like deltas of the base, or the base cannot be read.
pub fn check(machine: &Machine, set: &UpdateSet, claims: &Claims) -> Result<(), Error> {
    let is_silent = |i: &usize| !set.clients[*i].metadata.states_kind;
    let silent: Vec<usize> = (0..set.clients.len()).filter(is_silent).collect();
    if set.base.is_none() || claims.kind.is_some() || silent.is_empty() {
        return Ok(());
    }
    let asked = set.among(&silent);
    let likely = match far_below_base(machine, &asked) {
        Ok(likely) => likely,
        // The merge meets the same error of an update, and names the update.
        Err(PassError::Read { input: Some(_), .. } | PassError::Unfit { .. }) => return Ok(()),
        Err(why) => return Err(why.into()),
    };
    let found = likely.iter().filter(|likely| **likely).count();
    if 2 * found > silent.len() {
        let why = LikelyDeltas { found, asked: silent.len() };
        return Err(Error::Mode(Box::new(why)));
    }
    for (client, _) in asked.clients.iter().zip(&likely).filter(|(_, likely)| **likely) {
        let path = client.model.path.display();
        tracing::warn!(
            client = path.to_string(),
            "{path}: states no `kind` and looks like a delta of the base: it counts as weights"
        );
    }
    Ok(())
}
