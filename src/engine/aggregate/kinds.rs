//! Finds updates that say nothing of their kind and look like deltas of the base.
//!
//! Taken as weights, such updates would pull the model to about zero.

use crate::engine::aggregate::error::Error;
use crate::engine::intake::claims::Claims;
use crate::engine::intake::fault::Fault;
use crate::engine::passes::error::PassError;
use crate::engine::passes::kind_sample::{likely_deltas, likely_weights};
use crate::engine::passes::machine::Machine;
use crate::telemetry::explain::Explain;
use crate::updates::set::UpdateSet;

/// Why a run stops that would take deltas for weights.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error(
    "{found} of the {all} updates state no `kind` and look like deltas: they are far nearer to zero than to the base"
)]
pub struct LikelyDeltas {
    /// The number of updates that state no kind and look like deltas.
    pub found: usize,
    /// The number of updates in the run.
    pub all: usize,
}

impl Explain for LikelyDeltas {
    fn hint(&self) -> Option<String> {
        Some("pass --kind delta if they are deltas, or --kind weights if they are models".to_owned())
    }
}

/// The faults of the updates that do not state their kind and look like deltas, by index in the set. None without a
/// base, or if the operator states the kind.
///
/// # Errors
///
/// When the base cannot be read.
pub fn faults(machine: &Machine, set: &UpdateSet, claims: &Claims) -> Result<Vec<(usize, Fault)>, Error> {
    if claims.kind.is_some() {
        return Ok(Vec::new());
    }
    match likely_deltas(machine, set) {
        Ok(likely) => Ok(likely.into_iter().map(|client| (client, Fault::LikelyDelta)).collect()),
        Err(PassError::Read { input: Some(client), source, .. }) => Ok(vec![(client, Fault::Read(source))]),
        Err(why) => Err(why.into()),
    }
}

/// Warns if most updates are taken for deltas and look like weights: the base would count twice.
///
/// # Errors
///
/// When the base cannot be read.
pub fn warn_of_weights(machine: &Machine, set: &UpdateSet) -> Result<(), Error> {
    let found = match likely_weights(machine, set) {
        // A file changed since the updates were admitted; the next pass names it.
        Err(PassError::Read { input: Some(_), .. }) => return Ok(()),
        found => found?.len(),
    };
    if 2 * found > set.clients.len() {
        tracing::warn!(
            hint =
                "if they are models, pass --kind weights, or let clients state metadata `kind` = `weights`",
            "{found} of the {} updates count as deltas and look like weights: they are far nearer to the base than to zero",
            set.clients.len()
        );
    }
    Ok(())
}

/// Stops a run in which most updates have such a fault: then the operator has to say what they are.
///
/// # Errors
///
/// When they are more than half.
pub fn check_few(faults: &[(usize, Fault)], all: usize) -> Result<(), LikelyDeltas> {
    let found = faults.iter().filter(|(_, fault)| matches!(fault, Fault::LikelyDelta)).count();
    if 2 * found > all { Err(LikelyDeltas { found, all }) } else { Ok(()) }
}
