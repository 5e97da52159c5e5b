//! Validates updates by their headers, metadata and layouts. Bad ones go to quarantine.

use crate::config::Config;
use crate::config::sections::OnBad;
use crate::round::error::RoundError;
use crate::round::journal::{Arrival, Collected, Rejected, Validated};
use crate::round::layout;
use crate::round::publish::strategy_name;
use crate::round::state::State;
use crate::round::world::{Examined, Files, MergeOrder, World};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

/// Sorts updates into those that fit the round and those that do not. Moves nothing: the next phase does.
///
/// # Errors
///
/// When a file cannot be read.
pub fn act(
    world: &mut impl World,
    config: &Config,
    state: &State,
    collected: &Collected,
) -> Result<Validated, RoundError> {
    let (updates, demanding) = without_demanding(world, collected)?;
    if config.privacy.enabled || updates.is_empty() {
        // A bad update counts as zero there, and whether one is bad must not change the round.
        return Ok(Validated { accepted: updates, rejected: demanding, ..Validated::default() });
    }
    let (same, mut changed) = unchanged(world, &updates)?;
    changed.extend(demanding);
    let Examined { rejected: faults, losses } = match same.is_empty() {
        true => Examined::default(),
        false => world.examine(&order(config, state, same))?,
    };
    let why: BTreeMap<&str, &Rejected> =
        faults.iter().chain(&changed).map(|fault| (fault.path.as_str(), fault)).collect();
    let (rejected, accepted): (Vec<_>, Vec<_>) =
        collected.updates.iter().cloned().partition(|update| why.contains_key(update.path.as_str()));
    let rejected: Vec<Rejected> = rejected
        .into_iter()
        .map(|update| Rejected {
            why: why[update.path.as_str()].why.clone(),
            id: update.id,
            path: update.path,
            ..Rejected::default()
        })
        .collect();
    Ok(Validated { accepted, rejected, losses })
}

/// Why the update of a client that demands secure aggregation is not merged in the clear.
pub const DEMANDS: &str =
    "the client takes part under secure aggregation only, and this round merges in the clear";

/// Sorts updates into those that may be merged in the clear, and those of clients that demand secure aggregation. A
/// client may demand it after the round selected it.
fn without_demanding(
    world: &impl World,
    collected: &Collected,
) -> Result<(Vec<Arrival>, Vec<Rejected>), RoundError> {
    let demanding = match collected.updates.is_empty() {
        true => BTreeSet::new(),
        false => world.demand_secure()?,
    };
    let (bad, fine): (Vec<_>, Vec<_>) =
        collected.updates.iter().cloned().partition(|update| demanding.contains(&update.id));
    let rejected = |Arrival { id, path, .. }| Rejected { id, path, why: DEMANDS.to_owned(), is_late: false };
    Ok((fine, bad.into_iter().map(rejected).collect()))
}

/// Sorts updates into those that are as they were collected, and the others: a client may hold its file open, and take
/// away the right to read it.
///
/// # Errors
///
/// When the disk fails.
pub fn unchanged(
    files: &impl Files,
    updates: &[Arrival],
) -> Result<(Vec<Arrival>, Vec<Rejected>), RoundError> {
    let (mut same, mut changed) = (Vec::new(), Vec::new());
    for update in updates {
        match why_changed(files, update)? {
            None => same.push(update.clone()),
            Some(why) => {
                let (id, path) = (update.id.clone(), update.path.clone());
                changed.push(Rejected { id, path, why, ..Rejected::default() });
            }
        }
    }
    Ok((same, changed))
}

/// Why an update is not as it was collected; `None` if it is.
fn why_changed(files: &impl Files, update: &Arrival) -> Result<Option<String>, RoundError> {
    let path = &update.path;
    if files.stamp(path).is_ok_and(|stamp| stamp == update.stamp) {
        return Ok(None);
    }
    let is_same = match files.bytes(path) {
        Ok(bytes) if bytes == update.file.bytes => files.fingerprint(path).map(|found| found == update.file),
        Ok(_) => Ok(false),
        Err(why) => Err(why),
    };
    match is_same {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some("the file changed after it was collected".to_owned())),
        Err(why) if is_of_file(&why) => Ok(Some(format!("the file was collected, and then lost: {why}"))),
        Err(why) => Err(RoundError::reading(path)(why)),
    }
}

/// Whether a file cannot be read because of what it is, and not because of the disk.
fn is_of_file(why: &io::Error) -> bool {
    use ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, UnexpectedEof};
    let kinds = [NotFound, PermissionDenied, InvalidInput, IsADirectory, NotADirectory, UnexpectedEof];
    kinds.contains(&why.kind())
}

/// Why the policy refuses to merge what is valid; `None` if it does not.
pub fn refusal(config: &Config, validated: &Validated, closed_by: &str) -> Option<String> {
    let Validated { accepted, rejected, .. } = validated;
    if let (OnBad::Fail, Some(first)) = (config.robustness.on_bad_update, rejected.first()) {
        let (count, Rejected { id, why, .. }) = (rejected.len(), first);
        return Some(format!("{count} bad updates, the first of client `{id}`: {why}"));
    }
    let (found, bad) = (accepted.len(), rejected.len());
    let least = config.coordination.min_clients as usize;
    let is_few = found < least && !config.privacy.enabled;
    is_few.then(|| format!("the round closed by its {closed_by} with {found} valid updates and {bad} bad ones, expected {least} valid"))
}

/// The order to merge these updates.
pub fn order(config: &Config, state: &State, updates: Vec<Arrival>) -> MergeOrder {
    let base = &state.carry.current;
    let opening = state.opening();
    MergeOrder {
        round: state.round,
        base: layout::model(&base.file.blake3),
        updates,
        // A state belongs to the strategy that left it.
        state: (base.has_state && base.strategy == strategy_name(config))
            .then(|| layout::of_round(base.round, STATE)),
        population: opening.map_or(0, |opening| opening.population),
        rate: opening.and_then(|opening| opening.selection.rate),
        settings: opening
            .map_or_else(|| super::open::settings(config, None), |opening| opening.settings.clone()),
    }
}

/// The file of the strategy's state in the folder of a round.
pub const STATE: &str = "state.safetensors";

/// Copies the state that the strategy left with the base into the round, whose merge replaces it. An earlier run may have
/// done so: its state stays.
///
/// # Errors
///
/// When it cannot be copied.
pub fn carry_state(files: &mut impl Files, order: &MergeOrder) -> Result<(), RoundError> {
    let Some(before) = &order.state else { return Ok(()) };
    let own = layout::of_round(order.round, STATE);
    files.copy(before, &own).map_err(RoundError::writing(&own))
}

/// Moves bad updates of a round to quarantine. An earlier run may have moved some, and some may be lost.
///
/// # Errors
///
/// When a file cannot be moved.
pub fn quarantine(files: &mut impl Files, round: u64, rejected: &[Rejected]) -> Result<(), RoundError> {
    for rejected in rejected {
        let to = quarantined(round, &rejected.path);
        match files.rename(&rejected.path, &to) {
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            moved => moved.map_err(RoundError::writing(&to))?,
        }
    }
    Ok(())
}

/// The path of an update in quarantine.
pub fn quarantined(round: u64, path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    layout::of_round(round, &format!("quarantine/{name}"))
}
