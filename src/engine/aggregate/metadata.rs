//! The metadata of a merged model.
//!
//! It holds no times, no paths and no thread counts, so that the same run gives the same bytes.

use crate::engine::aggregate::session::Session;
use crate::engine::intake::taken::Taken;
use crate::strategies;
use crate::updates::encoded::{sketch_metadata, sketched};
use crate::updates::metadata::{UPDATE_KEYS, UpdateKind, has_test_noise, mark_test_noise, privacy_ancestor};
use std::collections::BTreeMap;

/// The reference's metadata, without keys of an update or an earlier merge, and with fedmill's version.
pub fn inherited(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut metadata = metadata.clone();
    metadata.retain(|key, _| !UPDATE_KEYS.contains(&key.as_str()) && !key.starts_with("fedmill"));
    metadata.insert("fedmill.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    metadata
}

/// The metadata of the merged model: that of the reference, and how the model was made.
pub fn of(session: &Session, taken: &Taken) -> BTreeMap<String, String> {
    let (method, set) = (&session.request.method, &taken.set);
    let mut metadata = inherited(&set.metadata);
    metadata.extend(set.base.iter().flat_map(|base| privacy_ancestor(&base.model.metadata)));
    carry_test_noise(taken, &mut metadata);
    let mut insert = |key: &str, value: String| metadata.insert(format!("fedmill.{key}"), value);
    insert("rule", method.rule.to_string());
    if !method.pre.is_empty() {
        let steps: Vec<String> = method.pre.iter().map(ToString::to_string).collect();
        insert("pre", steps.join(" "));
        insert("seed", method.seed.to_string());
    }
    if !method.rule.definition().is_paper() {
        insert("definition", method.rule.definition().to_string());
    }
    if let Some(byzantine) = taken.byzantine {
        insert("byzantine", byzantine.to_string());
    }
    let personal = &session.request.policy.tensors.personal;
    if !personal.is_empty() {
        insert("personal", personal.texts().join(" "));
    }
    insert("clients", taken.cohort.clients.len().to_string());
    if method.rule.uses_weights() {
        insert("weights", taken.weights_source.to_owned());
    }
    metadata.extend(of_strategy(session, taken));
    if set.merged_kind == UpdateKind::Delta {
        metadata.insert("kind".to_owned(), UpdateKind::Delta.to_string());
    }
    let sketch = set.clients.first().and_then(|client| sketched(&client.model));
    metadata.extend(sketch.into_iter().flat_map(sketch_metadata));
    metadata
}

/// Marks what is made from a model with noise from a test seed: no private round may start from it.
pub fn carry_test_noise(taken: &Taken, metadata: &mut BTreeMap<String, String>) {
    let others = taken.others.iter().filter_map(|other| other.model.as_ref());
    if taken.set.models().chain(others).any(|model| has_test_noise(&model.metadata)) {
        mark_test_noise(metadata);
    }
}

/// Adds the protection that the model does not have.
pub fn add_unprotected(unprotected: &[String], metadata: &mut BTreeMap<String, String>) {
    if !unprotected.is_empty() {
        metadata.insert("fedmill.unprotected".to_owned(), unprotected.join("; "));
    }
}

/// The strategy's metadata for clients, and keys that distinguish models of two rounds with the same values.
fn of_strategy(session: &Session, taken: &Taken) -> Vec<(String, String)> {
    let strategy = &session.request.method.strategy;
    let mut metadata = Vec::new();
    let text = strategy.to_string();
    if text != strategies::plain().to_string() {
        metadata.push(("fedmill.strategy".to_owned(), text));
    }
    if !strategy.definition().is_paper() {
        metadata.push(("fedmill.definition".to_owned(), strategy.definition().to_string()));
    }
    if session.state_spec().is_some() && session.request.outputs.state.is_some() {
        metadata.push(("fedmill.steps".to_owned(), (taken.set.carried.steps + 1).to_string()));
    }
    metadata.extend(strategy.tells().into_iter().map(|(key, value)| (key.to_owned(), value)));
    metadata
}
