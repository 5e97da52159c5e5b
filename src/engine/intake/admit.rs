//! Sorts the opened updates of a run into those that take part and those that do not.
//!
//! Every update must fit the reference layout: the base's layout, or without a base the one that most updates share. So
//! one odd client cannot make the others look wrong.

use crate::engine::intake::bases;
use crate::engine::intake::claims::Claims;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::opening::{MOST_FAULTS, bound_faults};
use crate::engine::intake::policy::Policy;
use crate::engine::intake::reference::ExpectedLayout;
use crate::engine::intake::update::Update;
use crate::model::client_id::IdSource;
use crate::model::dtype::Kind;
use crate::updates::encoded::sketched;
use crate::updates::metadata::UpdateKind;
use crate::updates::set::{Base, Client, UpdateSet};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

/// Sorts updates into the set of those that take part, and the rejected ones with their faults. `opened` is in order of
/// path.
///
/// # Errors
///
/// When the base cannot be read.
pub fn admit(
    mut opened: Vec<Update>,
    base: Option<Arc<Base>>,
    policy: &Policy,
) -> io::Result<(UpdateSet, Vec<Update>)> {
    mark_other_rounds(&mut opened, policy);
    if let Some(base) = &base {
        mark_other_bases(&mut opened, base, policy)?;
    }
    opened.sort_by(|a, b| a.id.cmp(&b.id).then_with(|| a.path.cmp(&b.path)));
    if base.is_none() {
        mark_other_kinds(&mut opened);
        if !policy.claims.judges_alone {
            bases::mark_others(&mut opened);
        }
    }
    mark_other_sketches(&mut opened, base.is_some());
    let reference = match &base {
        Some(base) => ExpectedLayout::of_base(&base.model, &opened, policy),
        None => ExpectedLayout::most_shared(&opened, policy),
    };
    let (mut clients, mut rejected) = reference.place(opened);
    reject_duplicates(&mut clients, &mut rejected);
    let ExpectedLayout { mut layout, opaque, merged, metadata, base_placement, .. } = reference;
    if let Some(dtype) = policy.tensors.dtype {
        layout.convert(|spec| if spec.dtype.kind() == Kind::Float { dtype } else { spec.dtype });
    }
    let merged = merged.with_dtypes_of(&layout);
    let base = base.map(|base| Arc::new(base.placed(base_placement)));
    bound_faults(&mut rejected, &mut MOST_FAULTS.clone());
    let set = UpdateSet { metadata, opaque, ..UpdateSet::new(layout, merged, clients, base) };
    Ok((set, rejected))
}

/// Rejects all sound updates with one client id: the server cannot tell which is genuine. Clients are in order of id
/// and path.
fn reject_duplicates(clients: &mut Vec<Client>, rejected: &mut Vec<Update>) {
    for group in std::mem::take(clients).chunk_by(|a, b| a.id == b.id) {
        if let [client] = group {
            clients.push(client.clone());
            continue;
        }
        // What the operator chooses tells them apart if one of them says who it is.
        let claims = group.iter().any(|client| client.named_by == IdSource::Metadata);
        for (place, client) in group.iter().enumerate() {
            let by = if claims { IdSource::Metadata } else { client.named_by };
            let other = group[usize::from(place == 0)].model.path.clone();
            let fault = Fault::DuplicateClient { id: client.id.clone(), other, by };
            rejected.push(Update::of_client(client.clone(), vec![fault]));
        }
    }
}

/// Marks the updates of other rounds, and those that state no round if at least half of the updates state one, be it
/// another: a few that state one must not make the others look wrong.
fn mark_other_rounds(opened: &mut [Update], policy: &Policy) {
    let mut files_of: HashMap<&str, usize> = HashMap::new();
    opened.iter().for_each(|update| *files_of.entry(&update.id).or_default() += 1);
    // An update that is left out has no vote.
    let votes = |update: &&Update| update.faults.is_empty() && files_of[update.id.as_str()] == 1;
    let states_one = |update: &&Update| update.metadata.round.is_some();
    let voters = opened.iter().filter(votes);
    let is_usual = 2 * voters.clone().filter(states_one).count() >= voters.count();
    let Claims { judges_alone, round_by_place, .. } = policy.claims;
    // A strategy that takes stale updates asks each of them for its round.
    let is_asked = is_usual && !policy.takes_stale && !judges_alone && !round_by_place;
    let lacks = policy.round.filter(|_| is_asked);
    for update in opened {
        update.faults.extend(policy.round_fault(&update.metadata));
        let is_silent = update.model.as_ref().is_some_and(|model| !model.metadata.contains_key("round"));
        update.faults.extend(lacks.filter(|_| is_silent).map(|expected| Fault::NoRound { expected }));
    }
}

fn mark_other_bases(opened: &mut [Update], base: &Base, policy: &Policy) -> io::Result<()> {
    let starts_here = |update: &&mut Update| policy.starts_here(&update.metadata);
    for update in opened.iter_mut().filter(starts_here) {
        let Some(found) = update.metadata.base.clone() else { continue };
        let digest = base.digest()?;
        if !digest.is_named(&found) {
            let expected = format!("blake3:{} or sha256:{}", digest.blake3, digest.sha256);
            update.faults.push(Fault::OtherBase { found, expected });
        }
    }
    Ok(())
}

/// Without a base, weights and deltas cannot be merged: rejects the kind that fewer updates have.
fn mark_other_kinds(opened: &mut [Update]) {
    let sound = || opened.iter().filter(|update| update.faults.is_empty());
    let deltas = sound().filter(|update| update.metadata.kind == UpdateKind::Delta).count();
    let expected = if 2 * deltas > sound().count() { UpdateKind::Delta } else { UpdateKind::Weights };
    for update in opened.iter_mut().filter(|update| update.model.is_some()) {
        let found = update.metadata.kind;
        if found != expected {
            update.faults.push(Fault::OtherKind { found, expected });
        }
    }
}

/// A sketch adds up only with sketches of the same seed and settings: rejects updates that differ from most. Rejects
/// all sketches if there is a base, since a sketch cannot be added to it.
fn mark_other_sketches(opened: &mut [Update], has_base: bool) {
    let by = |update: &Update| update.model.as_ref().map(|model| sketched(model).map(str::to_owned));
    let found: Vec<Option<Option<String>>> = opened.iter().map(by).collect();
    if found.iter().flatten().all(Option::is_none) {
        return;
    }
    let sound = opened.iter().zip(&found).filter(|(update, _)| update.faults.is_empty());
    let most = most_common(sound.filter_map(|(_, by)| by.as_ref())).cloned().flatten();
    for (update, found) in opened.iter_mut().zip(found).filter_map(|(update, found)| Some((update, found?))) {
        let faults = &mut update.faults;
        match (found, &most) {
            (Some(_), _) if has_base => faults.push(Fault::SketchOntoBase),
            (Some(found), Some(most)) if found != *most => {
                let (found, expected) =
                    ("another sketch", "one of the seed, settings and tensors of most others");
                faults.push(Fault::OtherSketch { found, expected });
            }
            (Some(_), None) => {
                faults.push(Fault::OtherSketch { found: "a sketch", expected: "none, as most others" });
            }
            (None, Some(_)) if !has_base => {
                faults.push(Fault::OtherSketch { found: "no sketch", expected: "one, as most others" });
            }
            _ => {}
        }
    }
}

/// The most frequent item; of equally frequent items, the first.
pub(crate) fn most_common<T: Ord>(found: impl Iterator<Item = T>) -> Option<T> {
    let mut votes: BTreeMap<T, (usize, Reverse<usize>)> = BTreeMap::new();
    for (i, found) in found.enumerate() {
        votes.entry(found).or_insert((0, Reverse(i))).0 += 1;
    }
    votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(found, _)| found)
}
