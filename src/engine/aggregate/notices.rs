//! Warnings about the clients of a run, before it reads any values.

use crate::engine::aggregate::state::key;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::taken::Taken;
use crate::engine::intake::weights::Weighting;
use crate::io::model_file::ModelFile;
use crate::io::source::identity_of;
use crate::updates::metadata::{PRIVACY_PREFIX, has_test_noise};
use crate::updates::set::{Client, UpdateSet};
use std::path::Path;

/// Warns of what the clients of a run leave open, or make doubtful.
pub(super) fn of_clients(policy: &Policy, uses_weights: bool, taken: &Taken) {
    if taken.weights_source == "uniform" && policy.weighting == Weighting::Default {
        uniform_weights(&taken.set);
    }
    capped_examples(policy, uses_weights, taken);
    models_among_updates(&taken.set);
    test_noise(taken);
}

/// Warns of clients that state more examples than may count, or that no examples count.
fn capped_examples(policy: &Policy, uses_weights: bool, taken: &Taken) {
    let Some(most) = policy.claims.max_examples else { return };
    if !uses_weights || taken.weights_source != "examples" {
        tracing::warn!("--max-examples changes nothing: no client weighs by its examples");
        return;
    }
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

/// Warns of updates that are models of the server: each counts as one client.
fn models_among_updates(set: &UpdateSet) {
    let base = set.base.as_ref().and_then(|base| identity_of(&base.model.path));
    let is_base = |client: &&Client| base.is_some() && identity_of(&client.model.path) == base;
    if let Some(client) = set.clients.iter().find(is_base) {
        tracing::warn!(
            "{}: is the base, and counts as an update without a change",
            client.model.path.display()
        );
    }
    let is_merged = |client: &&Client| client.model.metadata.contains_key("fedmill.clients");
    let merged: Vec<&Client> = set.clients.iter().filter(is_merged).collect();
    if let Some(first) = merged.first() {
        tracing::warn!(
            hint = "keep merged models out of the folder of updates",
            "{}: its metadata says that fedmill merged it; each of the {} such updates counts as one client",
            first.model.path.display(),
            merged.len()
        );
    }
}

/// Warns of a base from a private round, if this run adds no noise.
pub(super) fn private_base(base: &ModelFile) {
    if base.metadata.keys().any(|key| key.starts_with(PRIVACY_PREFIX)) {
        tracing::warn!(
            hint = "pass --dp DIR for a private round",
            "{}: comes from a private round; this run adds no noise, so it protects none of its clients",
            base.path.display()
        );
    }
}

/// Warns that no example counts, since few updates or none state their number.
fn uniform_weights(set: &UpdateSet) {
    let stating = set.clients.iter().filter(|client| client.metadata.num_examples.is_some()).count();
    let found = match stating {
        0 => "no update states".to_owned(),
        few => format!("{few} of {} updates state", set.clients.len()),
    };
    tracing::warn!("{found} `num_examples`: every client weighs the same");
}

/// Warns that `--state-init` changes nothing, since the state at `path` is that of the base.
pub(super) fn state_init_unused(path: &Path) {
    tracing::warn!(
        hint = "move the file away to start a new state",
        "{}: belongs to the base and is used; --state-init changes nothing",
        path.display()
    );
}

/// Warns of a base that a strategy with a state made, if this run keeps none: the next round of that strategy misses
/// it.
pub(super) fn state_left_behind(base: &ModelFile) {
    let Some(steps) = base.metadata.get(key::STEPS).filter(|steps| *steps != "0") else { return };
    let made_by = base.metadata.get(key::STRATEGY).map_or("a strategy", String::as_str);
    tracing::warn!(
        hint = "pass the --strategy and --state of the rounds before, if this is one of them",
        "{}: was made by {steps} steps of {made_by}; this run leaves their state behind",
        base.path.display()
    );
}

/// Warns of updates and other inputs with noise from a test seed: the merged model carries their mark.
fn test_noise(taken: &Taken) {
    let clients = taken.set.clients.iter().map(|client| &*client.model);
    let others = taken.others.iter().filter_map(|other| other.model.as_deref());
    for model in clients.chain(others).filter(|model| has_test_noise(&model.metadata)) {
        tracing::warn!(
            hint = "the mark is in the metadata of the file, which any client may write; leave the file out to merge without it",
            "{}: its noise came from a test seed: no private round may start from the merged model",
            model.path.display()
        );
    }
}
