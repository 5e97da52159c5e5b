//! Secure rounds: masked updates, the answers of helpers, and the means that the round merges.
//!
//! ```text
//! open: a session --> collect: masked updates --> aggregate: helpers check, the set is frozen, helpers answer, means --> merge
//! ```
//!
//! Each step is done once, and asked for anew by every run until it is. The session's folder and the server's journal hold
//! what was done; the journal of the round names the session. [`crate::modes::secure`] has the protocol.

use crate::config::Config;
use crate::modes::secure::standing::Standing;
use crate::round::collect::check_same;
use crate::round::error::RoundError;
use crate::round::journal::{Arrival, Collected, Opening, Rejected, Validated};
use crate::round::open::check_session;
use crate::round::state::State;
use crate::round::validate::{carry_state, order, quarantine, refusal, unchanged};
use crate::round::world::{Files, GroupMean, MaskedFile, Means, Merged, MergedClient, World};
use std::collections::{BTreeMap, BTreeSet};

/// The clients that a round selected.
fn selected(opening: &Opening) -> BTreeSet<String> {
    opening.selection.choices.iter().map(|choice| choice.id.clone()).collect()
}

/// Sorts masked updates into those that the round closed with, and the others. A masked update that changed since is
/// none of them.
///
/// # Errors
///
/// When a file cannot be read.
pub fn validate(world: &impl World, state: &State, collected: &Collected) -> Result<Validated, RoundError> {
    let (accepted, mut rejected) = unchanged(world, &collected.updates)?;
    let taken: BTreeSet<&str> = collected.updates.iter().map(|update| update.path.as_str()).collect();
    let others = world.masked(state.round)?.into_iter().filter(|file| !taken.contains(file.path.as_str()));
    rejected.extend(others.map(|MaskedFile { id, path, fault }| Rejected {
        why: fault.unwrap_or_else(|| "the masked update came after the round closed".to_owned()),
        id,
        path,
        ..Rejected::default()
    }));
    Ok(Validated { accepted, rejected, ..Validated::default() })
}

/// What a round needs before it merges.
pub enum Ready {
    /// Nothing: its updates are in the clear.
    Clear,
    /// Helpers, for this reason.
    Waits(String),
    /// Nothing more: these are the means.
    Means(Means),
}

/// Brings the session of a round on as far as helpers allow.
///
/// # Errors
///
/// When the policy refuses the round, or a file cannot be read or written.
pub fn ready(
    world: &mut impl World,
    config: &Config,
    state: &State,
    validated: &Validated,
) -> Result<Ready, RoundError> {
    check_same(config, state)?;
    if !config.secure.enabled {
        return Ok(Ready::Clear);
    }
    check_session(world, state)?;
    quarantine(world, state.round, &validated.rejected)?;
    let mut standing = world.standing(state.round, &ids(&validated.accepted))?;
    if !standing.is_summed {
        let closed_by = state.collected().map_or("", |collected| collected.closed_by.as_str());
        if let Some(why) = refusal(config, validated, closed_by) {
            return Err(RoundError::Refused(why));
        }
        if let Some(why) = missing_checks(config, state.round, &standing) {
            return Ok(Ready::Waits(why));
        }
        let (same, _) = unchanged(world, &validated.accepted)?;
        world.freeze(state.round, &ids(&same))?;
        standing = world.standing(state.round, &ids(&same))?;
    }
    if let Some(why) = missing_answers(state.round, &standing) {
        return Ok(Ready::Waits(why));
    }
    match world.unmask(state.round) {
        Ok(means) => Ok(Ready::Means(means)),
        Err(why) => match why.refusal()? {
            // More answers may name the wrong one.
            why if standing.answered.len() < standing.helpers => {
                Ok(Ready::Waits(format!("round {} waits for more helpers: {why}", state.round)))
            }
            why => Err(RoundError::Refused(why)),
        },
    }
}

/// Refuses a round that waits for helpers longer than the settings allow.
///
/// # Errors
///
/// When it does.
pub fn in_time(
    world: &impl World,
    config: &Config,
    state: &State,
    ready: Ready,
) -> Result<Ready, RoundError> {
    let waited = state.closed().map_or(0.0, |line| world.now().since(&line.at));
    match (ready, config.secure.helper_timeout) {
        (Ready::Waits(why), Some(limit)) if waited > limit.as_seconds() => {
            Err(RoundError::Refused(format!("{why}, and secure.helper_timeout, {limit}, passed")))
        }
        (ready, _) => Ok(ready),
    }
}

fn ids(updates: &[Arrival]) -> BTreeSet<String> {
    updates.iter().map(|update| update.id.clone()).collect()
}

/// Why a session cannot be frozen yet: helpers that check late would find a bad client behind the freeze, and answer no
/// more.
fn missing_checks(config: &Config, round: u64, standing: &Standing) -> Option<String> {
    let wanted = config.secure.checks.map_or(standing.threshold, |checks| checks as usize);
    let (found, wanted) = (standing.checked.len(), wanted.min(standing.helpers));
    (standing.frozen.is_none() && found < wanted)
        .then(|| format!("round {round} waits for helpers: {found} of {wanted} checked the masked updates"))
}

fn missing_answers(round: u64, standing: &Standing) -> Option<String> {
    let (found, wanted) = (standing.answered.len(), standing.threshold);
    (found < wanted).then(|| format!("round {round} waits for helpers: {found} of {wanted} answered"))
}

/// How far the session of the open round is; `None` for a round in the clear, and for one that is over.
///
/// # Errors
///
/// When a message cannot be read.
pub fn standing(world: &impl World, state: &State) -> Result<Option<Standing>, RoundError> {
    let opening = state.opening().filter(|opening| opening.is_secure && state.is_open());
    let (Some(opening), Some(_)) = (opening, state.session()) else { return Ok(None) };
    let clients = state.validated().map_or_else(|| selected(opening), |validated| ids(&validated.accepted));
    world.standing(state.round, &clients).map(Some)
}

/// What a secure round waits for before it merges; `None` if it does not.
pub fn waits(config: &Config, round: u64, standing: &Standing) -> Option<String> {
    let checks = missing_checks(config, round, standing).filter(|_| !standing.is_summed);
    checks.or_else(|| missing_answers(round, standing).filter(|_| standing.is_summed))
}

/// Merges means as updates of one client each.
///
/// # Errors
///
/// When a file cannot be read or written.
pub fn merge(
    world: &mut impl World,
    config: &Config,
    state: &State,
    validated: &Validated,
    means: &Means,
) -> Result<Merged, RoundError> {
    let updates: Result<Vec<Arrival>, RoundError> =
        means.updates.iter().map(|mean| arrival(world, state.round, mean)).collect();
    let order = order(config, state, updates?);
    carry_state(world, &order)?;
    let merged = world.merge(&order)?;
    Ok(of_clients(merged, validated, means))
}

fn arrival(files: &impl Files, round: u64, mean: &GroupMean) -> Result<Arrival, RoundError> {
    let GroupMean { id, path, .. } = mean.clone();
    let file = files.fingerprint(&path).map_err(RoundError::reading(&path))?;
    let stamp = files.stamp(&path).map_err(RoundError::reading(&path))?;
    Ok(Arrival { id, round, path, file, stamp, after_s: 0.0 })
}

/// What the merge of means says of clients: what it says of the mean of their group.
fn of_clients(merged: Merged, validated: &Validated, means: &Means) -> Merged {
    let mut clients = Vec::new();
    let mut rejected: BTreeMap<&str, String> = BTreeMap::new();
    for mean in &means.updates {
        let row = merged.clients.iter().find(|row| row.id == mean.id);
        let bad = merged.rejected.iter().find(|bad| bad.id == mean.id);
        for id in &mean.clients {
            if let Some(bad) = bad {
                rejected.insert(id, format!("the mean of its group is left out: {}", bad.why));
            }
            clients.extend(row.map(|row| MergedClient {
                id: id.clone(),
                weight: None,
                norm: None,
                kept: row.kept,
                reason: row.reason.clone(),
            }));
        }
    }
    let in_means: BTreeSet<&str> =
        means.updates.iter().flat_map(|mean| &mean.clients).map(String::as_str).collect();
    for update in validated.accepted.iter().filter(|update| !in_means.contains(update.id.as_str())) {
        let why = means.left_out.get(&update.id).cloned();
        let changed = || "the masked update changed after it was collected, or was lost".to_owned();
        rejected.insert(&update.id, why.unwrap_or_else(changed));
    }
    let bad = |update: &Arrival| {
        let why = rejected.get(update.id.as_str())?.clone();
        Some(Rejected { id: update.id.clone(), path: update.path.clone(), why, ..Rejected::default() })
    };
    // Figures of one mean say nothing of clients.
    let is_one = means.updates.len() == 1;
    let geometry = merged.geometry.iter().filter(|(name, _)| !is_one || *name == "delta_norm");
    Merged {
        clients,
        rejected: validated.accepted.iter().filter_map(bad).collect(),
        geometry: geometry.map(|(name, value)| (name.clone(), *value)).collect(),
        secure: Some(means.figures.clone()),
        ..merged
    }
}
