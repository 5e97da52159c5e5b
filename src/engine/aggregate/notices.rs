//! Warnings about the clients of a run, before it reads any values.

use crate::engine::intake::policy::Policy;
use crate::engine::intake::taken::Taken;
use crate::updates::set::Client;

/// Warns of clients that state more examples than may count.
pub(super) fn capped_examples(policy: &Policy, taken: &Taken) {
    let most = policy.claims.max_examples.filter(|_| taken.weights_source == "examples");
    let Some(most) = most else { return };
    let is_above = |client: &&Client| client.metadata.num_examples.is_some_and(|found| found > most);
    let ids: Vec<&str> = taken.set.clients.iter().filter(is_above).map(|client| client.id.as_str()).collect();
    if !ids.is_empty() {
        tracing::warn!(
            clients = ids.len(),
            "--max-examples: {most} examples count of {}, which state more",
            ids.join(", ")
        );
    }
}
