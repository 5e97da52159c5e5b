//! Opens the inputs of a run, and names their clients.

use crate::engine::intake::claims::ClientIdFrom;
use crate::engine::intake::copies;
use crate::engine::intake::identity::identify;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::update::{InputRole, Update};
use crate::io::digest::seal;
use crate::io::model_file::TablePool;
use crate::io::source::OpenFiles;
use crate::updates::set::Base;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Reads the headers of all updates, in parallel, and names their clients. An encoded update without tensor names takes
/// those of the base. Updates are in order of path.
pub fn open(
    paths: &[PathBuf],
    files: &OpenFiles,
    tables: &TablePool,
    base: Option<&Base>,
    policy: &Policy,
) -> Vec<Update> {
    let read = |path: &PathBuf| Update::read(path, InputRole::Update, files, tables, base);
    let mut updates = identify(paths.par_iter().map(read).collect(), policy.claims.client_id_from);
    updates.iter_mut().for_each(|update| update.take_kind(policy.claims.kind));
    copies::find(&mut updates, policy.claims.on_duplicate_content);
    warn_of_rounds(&updates, policy);
    updates
}

/// Reads the headers of partials, in parallel, and compares the files with their digests.
pub fn open_partials(paths: &[PathBuf], files: &OpenFiles, tables: &TablePool) -> Vec<Update> {
    let read = |path: &PathBuf| Update::read(path, InputRole::Partial, files, tables, None);
    let mut partials = identify(paths.par_iter().map(read).collect(), ClientIdFrom::Auto);
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

/// Warns if the round checks nothing, or if updates of several rounds meet.
fn warn_of_rounds(updates: &[Update], policy: &Policy) {
    let rounds: BTreeSet<u64> = updates.iter().filter_map(|update| update.metadata.round).collect();
    match (policy.round, rounds.first().zip(rounds.last())) {
        (Some(round), None) if !updates.is_empty() => {
            tracing::warn!("no update states `round`: --round {round} leaves out none of them");
        }
        (None, Some((first, last))) if first != last && !policy.takes_stale => {
            tracing::warn!("updates state rounds from {first} to {last}: --round N leaves out all others");
        }
        _ => {}
    }
}
