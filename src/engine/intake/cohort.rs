//! What the clients of a set report, and their weights, from metadata alone.

use crate::engine::intake::fault::Fault;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::sparse::{self, Comparer};
use crate::engine::intake::weights::WeightsError;
use crate::strategies::{ClientMetadata, Cohort, Strategy};
use crate::updates::set::{Client, UpdateSet};

/// A client's metadata as strategies use it.
pub fn reported(client: &Client) -> ClientMetadata {
    let about = &client.metadata;
    ClientMetadata {
        id: client.id.clone(),
        local_steps: about.local_steps,
        momentum: about.momentum,
        proximal_mu: about.proximal_mu,
        local_lr: about.local_lr,
        loss: about.loss,
        round: about.round,
    }
}

/// A cohort and the source of its weights, or the faults of clients by index in the set.
type Counted = Result<(Cohort, &'static str), Vec<(usize, Fault)>>;

/// The cohort of a set and the source of its weights, or the faults of clients whose metadata lacks a field.
///
/// # Errors
///
/// When the weights cannot be used.
pub fn cohort(
    set: &UpdateSet,
    policy: &Policy,
    strategy: &dyn Strategy,
    comparer: &Comparer,
) -> Result<Counted, WeightsError> {
    let clients: Vec<ClientMetadata> = set.clients.iter().map(reported).collect();
    let lacking = clients.iter().enumerate().filter_map(|(i, client)| {
        let fault = strategy.check(client, policy.round).err()?;
        Some((i, Fault::from(fault)))
    });
    let odd = strategy.odd(&clients).into_iter().map(|(i, fault)| (i, Fault::from(fault)));
    let faults: Vec<(usize, Fault)> =
        lacking.chain(odd).chain(sparse::misleading(set, policy.allows_sparse, comparer)).collect();
    if !faults.is_empty() {
        return Ok(Err(faults));
    }
    Ok(policy.weighting.weigh(&set.clients, policy.claims.max_examples)?.map(|weights| {
        let (round, population) = (policy.round, policy.population);
        (Cohort { clients, weights: weights.values, round, population }, weights.source)
    }))
}
