//! Publishes a merged model: into the store, then as the current one. Removes old models.

use crate::config::Config;
use crate::config::sections::Publish;
use crate::round::error::RoundError;
use crate::round::evaluate::MODEL;
use crate::round::journal::Version;
use crate::round::layout;
use crate::round::state::{State, round_folders};
use crate::round::validate::STATE;
use crate::round::world::{Files, Fingerprint, Merged};
use std::collections::{BTreeMap, BTreeSet};

/// Publishes the model of a round.
///
/// # Errors
///
/// When a file cannot be moved.
pub fn act(
    files: &mut impl Files,
    config: &Config,
    state: &State,
    merged: &Merged,
    metrics: &BTreeMap<String, f64>,
) -> Result<Version, RoundError> {
    let made = layout::of_round(state.round, MODEL);
    let is_stored = files.holds(&layout::model(&merged.model.blake3), &merged.model);
    if !is_stored && files.fingerprint(&made).map_err(RoundError::reading(&made))? != merged.model {
        return Err(RoundError::Refused("the merged model changed after the merge".to_owned()));
    }
    store(files, &made, &merged.model)?;
    make_current(files, &merged.model.blake3)?;
    Ok(Version {
        number: state.carry.newest + 1,
        round: state.round,
        file: merged.model.clone(),
        strategy: strategy_name(config),
        has_state: merged.has_state,
        metrics: metrics.clone(),
    })
}

/// Moves a model into the store, under its digest. A damaged file of that name is replaced.
///
/// # Errors
///
/// When a file cannot be moved.
pub fn store(files: &mut impl Files, made: &str, model: &Fingerprint) -> Result<(), RoundError> {
    let stored = layout::model(&model.blake3);
    if !files.holds(&stored, model) {
        files.remove(&stored).map_err(RoundError::writing(&stored))?;
        files.rename(made, &stored).map_err(RoundError::writing(&stored))?;
    }
    files.remove(made).map_err(RoundError::writing(made))
}

/// The name of the strategy, without its settings.
pub fn strategy_name(config: &Config) -> String {
    config.strategy.name.split(':').next().unwrap_or_default().to_owned()
}

/// Makes a model of the store the current one.
///
/// # Errors
///
/// When the link cannot be written.
pub fn make_current(files: &mut impl Files, blake3: &str) -> Result<(), RoundError> {
    let link = layout::CURRENT;
    files.point(link, &layout::model(blake3)).map_err(RoundError::writing(link))
}

/// The versions to keep when a version joins those that are kept: the last few, and every n-th of earlier ones.
pub fn kept(publish: &Publish, kept: &[Version], joining: Option<&Version>, current: u64) -> Vec<Version> {
    let all: Vec<&Version> = kept.iter().chain(joining).collect();
    let first_of_last = all.len().saturating_sub(publish.keep_last.max(1) as usize);
    let every = publish.keep_every;
    let stays = |(place, version): &(usize, &&Version)| {
        let is_nth = every > 0 && version.number % every == 0;
        *place >= first_of_last || is_nth || version.number == current
    };
    all.iter().enumerate().filter(stays).map(|(_, version)| (*version).clone()).collect()
}

/// Removes models, patches and states of versions that are kept no longer, and updates of earlier rounds.
///
/// # Errors
///
/// When a file cannot be removed.
pub fn remove_old(
    files: &mut impl Files,
    config: &Config,
    round: u64,
    before: &[Version],
    kept: &[Version],
) -> Result<(), RoundError> {
    let stays: BTreeSet<&str> = kept.iter().map(|version| version.file.blake3.as_str()).collect();
    let gone = before.iter().filter(|version| !kept.iter().any(|stays| stays.number == version.number));
    let mut remove = |path: &str| files.remove(path).map_err(RoundError::writing(path));
    for version in gone {
        if !stays.contains(version.file.blake3.as_str()) {
            remove(&layout::model(&version.file.blake3))?;
        }
        if version.has_state {
            remove(&layout::of_round(version.round, STATE))?;
        }
    }
    remove_old_updates(files, config, round, kept)?;
    remove_old_tasks(files, config, round)?;
    let entries = files.list(layout::MODELS).map_err(RoundError::reading(layout::MODELS))?;
    for entry in entries {
        let patch =
            entry.name.strip_suffix(layout::MODEL_ENDING).and_then(|name| name.strip_suffix(".patch"));
        let is_old = patch.is_some_and(|ends| ends.split('-').any(|end| !stays.contains(end)));
        if is_old {
            let path = format!("{}/{}", layout::MODELS, entry.name);
            files.remove(&path).map_err(RoundError::writing(&path))?;
        }
    }
    Ok(())
}

/// Rounds in a row without updates, before which no older round has any: a rollback abandons rounds, which remove
/// nothing.
const LOOK_BACK: usize = 16;

/// Removes the updates of rounds that are older than `keep_updates`, and what else such a round needs no more.
fn remove_old_updates(
    files: &mut impl Files,
    config: &Config,
    round: u64,
    kept: &[Version],
) -> Result<(), RoundError> {
    let mut without = 0;
    for old in (1..=round.saturating_sub(config.publish.keep_updates)).rev() {
        let updates = layout::of_round(old, "updates");
        let is_empty = files.list(&updates).map_err(RoundError::reading(&updates))?.is_empty();
        without = if is_empty { without + 1 } else { 0 };
        let state = layout::of_round(old, STATE);
        let has_state = kept.iter().any(|version| version.round == old);
        let gone = [updates, layout::session(old), layout::of_round(old, MODEL), format!("{state}.previous")];
        for path in gone.into_iter().chain((!has_state).then_some(state)) {
            files.remove(&path).map_err(RoundError::writing(&path))?;
        }
        if without == LOOK_BACK {
            break;
        }
    }
    Ok(())
}

/// Removes the tasks of rounds whose updates would come too late for any round, and empty folders of such rounds.
fn remove_old_tasks(files: &mut impl Files, config: &Config, round: u64) -> Result<(), RoundError> {
    let most = config.coordination.max_staleness;
    for above in [layout::TASKS, layout::INBOX, layout::STALE] {
        let old = round_folders(files, above)?.into_iter().take_while(|old| old + most < round);
        for old in old {
            let path = layout::folder(above, old);
            let is_empty = || -> std::io::Result<bool> {
                Ok(files.list(&path)?.is_empty() && files.hidden(&path)?.is_empty())
            };
            let is_left = above == layout::TASKS || is_empty().map_err(RoundError::reading(&path))?;
            if above == layout::TASKS {
                let manifest = format!("{path}.json");
                files.remove(&manifest).map_err(RoundError::writing(&manifest))?;
            }
            if is_left {
                files.remove(&path).map_err(RoundError::writing(&path))?;
            }
        }
    }
    Ok(())
}
