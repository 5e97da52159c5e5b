//! Opens the inputs of a run, and names their clients.

use crate::engine::intake::claims::ClientIdFrom;
use crate::engine::intake::copies;
use crate::engine::intake::identity::identify;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::room::Room;
use crate::engine::intake::update::{InputRole, Update};
use crate::io::digest::seal;
use crate::io::model_file::TablePool;
use crate::io::source::OpenFiles;
use crate::updates::metadata::unknown_key;
use crate::updates::set::Base;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The most faults that all updates of a run keep. Each bad update keeps one more.
pub(super) const MOST_FAULTS: usize = 2000;

/// Updates that are opened between two counts of their faults.
const AT_ONCE: usize = 1024;

/// Reads the headers of all updates, in parallel, and names their clients. An encoded update without tensor names takes
/// those of the base. Updates are in order of path.
pub fn open(
    paths: &[PathBuf],
    files: &OpenFiles,
    tables: &TablePool,
    base: Option<&Base>,
    policy: &Policy,
) -> Vec<Update> {
    let mut room = Room::new(paths.len(), tables, base.map(|base| &*base.model));
    let read_one = |path: &PathBuf| Update::read(path, InputRole::Update, files, tables, base);
    let mut left = MOST_FAULTS;
    let read = |some: &[PathBuf]| {
        let mut updates = room.read(some, read_one);
        bound_faults(&mut updates, &mut left);
        updates
    };
    let mut updates = identify(paths.chunks(AT_ONCE).flat_map(read).collect(), policy.claims.client_id_from);
    updates.iter_mut().for_each(|update| update.take_kind(policy.claims.kind));
    copies::find(&mut updates, policy.claims.on_duplicate_content);
    warn_of_rounds(&updates, policy);
    warn_of_keys(&updates);
    updates
}

/// Keeps the faults of updates while there are some `left`, and then only the first of each update.
pub(super) fn bound_faults(updates: &mut [Update], left: &mut usize) {
    for update in updates {
        match left.checked_sub(update.faults.iter().len()) {
            Some(rest) => *left = rest,
            None => update.faults.keep_at_most(1),
        }
    }
}

/// Reads the headers of partials, in parallel, and compares the files with their digests.
pub fn open_partials(paths: &[PathBuf], files: &OpenFiles, tables: &TablePool) -> Vec<Update> {
    let read = |path: &PathBuf| Update::read(path, InputRole::Partial, files, tables, None);
    let partials = Room::new(paths.len(), tables, None).read(paths, read);
    let mut partials = identify(partials, ClientIdFrom::Auto);
    check_digests(&mut partials);
    partials
}

/// Compares partials with their digests. All threads share the work on each. Warns of those without a digest.
fn check_digests(partials: &mut [Update]) {
    let mut unsealed = Vec::new();
    for partial in partials {
        match partial.model.as_deref().map_or(Ok(true), seal::check) {
            Ok(true) => {}
            Ok(false) => unsealed.push(partial.path.as_path()),
            Err(fault) => partial.faults.push(fault.into()),
        }
    }
    seal::warn_of_unsealed(&unsealed);
}

/// Warns of updates with metadata keys of ours that mean nothing here.
fn warn_of_keys(updates: &[Update]) {
    let sound = updates.iter().filter(|update| update.faults.is_empty());
    let keys: Vec<&str> = sound
        .filter_map(|update| update.model.as_ref().and_then(|model| unknown_key(&model.metadata)))
        .collect();
    if let Some(first) = keys.first() {
        let clients = keys.len();
        tracing::warn!(
            clients,
            "metadata `{first}`: fedmill knows no such key, and it changes nothing; {clients} updates have such keys"
        );
    }
}

/// Warns if the round checks nothing, or if updates of several rounds meet.
fn warn_of_rounds(updates: &[Update], policy: &Policy) {
    let rounds: BTreeSet<u64> = updates.iter().filter_map(|update| update.metadata.round).collect();
    let stating = updates.iter().filter(|update| update.metadata.round.is_some()).count();
    match (policy.round, rounds.first().zip(rounds.last())) {
        (Some(round), None) if !updates.is_empty() => {
            tracing::warn!("no update states `round`: --round {round} leaves out none of them");
        }
        (Some(round), Some(_)) if 2 * stating < updates.len() && !policy.takes_stale => {
            tracing::warn!(
                "{stating} of {} updates state `round`: --round {round} leaves out none of the others",
                updates.len()
            );
        }
        (None, Some((first, last))) if first != last && !policy.takes_stale => {
            tracing::warn!("updates state rounds from {first} to {last}: --round N leaves out all others");
        }
        _ => {}
    }
}
