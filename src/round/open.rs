//! Opens a round: selects its clients, and writes a task for each.

use crate::config::Config;
use crate::config::sections::Mode;
use crate::config::sections::coordination::count_of;
use crate::io::digest::{Blake3, hex};
use crate::round::bandwidth;
use crate::round::error::RoundError;
use crate::round::journal::{Opening, Settings};
use crate::round::layout;
use crate::round::state::State;
use crate::round::task::{Manifest, ModelSource, Task, TaskSettings};
use crate::round::world::{Files, Fingerprint, SessionOrder, World};
use std::collections::{BTreeMap, BTreeSet};

/// Decides who takes part in the next round.
///
/// # Errors
///
/// When there are too few clients, or a file cannot be read.
pub fn decide(world: &mut impl World, config: &Config, state: &State) -> Result<Opening, RoundError> {
    let round = state.next_round();
    let population = world.population()?;
    let mut settings = settings(config, state.carry.settings.as_ref());
    let tiers = world.tiers(&layout::model(&state.carry.current.file.blake3))?;
    for (tier, task) in &tiers {
        task.local_steps.map(|steps| *settings.local_steps.entry(tier.clone()).or_insert(steps));
    }
    let budget = world.budget()?;
    let now = world.now();
    let selection = world.select(round, &settings, &now)?;
    // Patches are not made yet: a client that needs one counts as if it fetched the model.
    let traffic =
        bandwidth::traffic((&state.carry.current, &selection.choices), &[], &BTreeMap::new(), &tiers);
    settings.tiers = bandwidth::opening(config, state.carry.settings.as_ref(), &tiers, &traffic);
    let selected = selection.choices.len() as u64;
    let wanted = match config.coordination.mode {
        Mode::Sync => count_of(settings.quorum, settings.clients).max(config.coordination.min_clients),
        Mode::Async => config.coordination.buffer,
    };
    let quorum = if config.coordination.mode == Mode::Sync { wanted.min(selected) } else { wanted };
    Ok(Opening {
        base: state.carry.current.clone(),
        population,
        settings,
        selection,
        quorum,
        config: digest_of(config),
        budget,
        is_secure: config.secure.enabled,
    })
}

/// The settings of a round: those that adapt as the last round left them, the others from the configuration.
pub fn settings(config: &Config, adapted: Option<&Settings>) -> Settings {
    let own = Settings {
        clients: config.coordination.clients,
        quorum: config.coordination.quorum,
        timeout_s: config.coordination.round_timeout.as_secs_f64(),
        dropout: config.coordination.dropout,
        server_learning_rate: None,
        compression_target: config.compression.target,
        local_steps: BTreeMap::from([(String::new(), config.strategy.local_steps)]),
        tiers: BTreeMap::new(),
    };
    let Some(adapted) = adapted else { return own };
    let bounds = &config.adaptation;
    Settings {
        clients: bounds.clients.map_or(own.clients, |[least, most]| adapted.clients.clamp(least, most)),
        quorum: bounds.quorum.map_or(own.quorum, |[least, most]| adapted.quorum.clamp(least, most)),
        timeout_s: bounds.round_timeout.map_or(own.timeout_s, |[least, most]| {
            adapted.timeout_s.clamp(least.as_secs_f64(), most.as_secs_f64())
        }),
        dropout: if bounds.clients.is_some() { adapted.dropout } else { own.dropout },
        server_learning_rate: bounds
            .server_learning_rate
            .and_then(|[least, most]| adapted.server_learning_rate.map(|rate| rate.clamp(least, most))),
        compression_target: bounds
            .compression_target
            .map_or(own.compression_target, |[least, most]| adapted.compression_target.clamp(least, most)),
        local_steps: match bounds.local_steps {
            Some([least, most]) => {
                let steps = adapted
                    .local_steps
                    .iter()
                    .map(|(tier, steps)| (tier.clone(), (*steps).clamp(least, most)));
                own.local_steps.into_iter().chain(steps).collect()
            }
            None => own.local_steps,
        },
        tiers: own.tiers,
    }
}

/// BLAKE3 of the configuration with all its defaults.
fn digest_of(config: &Config) -> String {
    hex(&Blake3::of_bytes(&serde_json::to_vec(config).unwrap_or_default()))
}

/// Writes the tasks, the manifest and the folder for updates, behind the session of a secure round. Returns the patches
/// that it offers, and the digest of the session.
///
/// # Errors
///
/// When a file cannot be written.
pub fn act(
    world: &mut impl World,
    config: &Config,
    state: &State,
    opening: &Opening,
) -> Result<(BTreeMap<String, Fingerprint>, Option<String>), RoundError> {
    let round = state.round;
    let inbox = layout::inbox(round);
    world.make_folder(&inbox).map_err(RoundError::writing(&inbox))?;
    let patches = patches(world, config, state, opening)?;
    let deadline = state.opened().map_or(0, |line| line.at.unix_s()) + opening.settings.timeout_s as u64;
    let session = open_session(world, state, opening, deadline)?;
    let common = TaskSettings::of(config, opening, session.clone());
    let mut files = Vec::new();
    for choice in &opening.selection.choices {
        let model = ModelSource::of(&opening.base, choice, &patches);
        let task = Task::new(round, choice, &common, model, deadline);
        files.push((task_name(&choice.id), task.text()));
    }
    let manifest = Manifest::new(round, opening, &common, deadline).text();
    let folder = layout::tasks(round);
    world.write_folder(&folder, &files).map_err(RoundError::writing(&folder))?;
    let there = names(world, &folder)?;
    for (name, text) in files.iter().filter(|(name, _)| !there.contains(name)) {
        let path = format!("{folder}/{name}");
        world.write(&path, text).map_err(RoundError::writing(&path))?;
    }
    let own = format!("{folder}.json");
    world.write(&own, &manifest).map_err(RoundError::writing(&own))?;
    world.write(layout::OPEN_ROUND, &manifest).map_err(RoundError::writing(layout::OPEN_ROUND))?;
    Ok((patches, session))
}

/// Opens the session of a round; `None` for a round in the clear.
///
/// # Errors
///
/// When it cannot be opened, or is not the one that the round opened.
fn open_session(
    world: &mut impl World,
    state: &State,
    opening: &Opening,
    deadline: u64,
) -> Result<Option<String>, RoundError> {
    if !opening.is_secure {
        return Ok(None);
    }
    check_session(world, state)?;
    let base = layout::model(&opening.base.file.blake3);
    let clients = opening.selection.choices.iter().map(|choice| choice.id.clone()).collect();
    let order = SessionOrder { round: state.round, base, clients, deadline };
    world.open_session(&order).map(Some)
}

/// Checks that the session is the one that the round opened, if it did.
///
/// # Errors
///
/// When it is another one or lost: its clients masked for the first one.
pub fn check_session(world: &impl World, state: &State) -> Result<(), RoundError> {
    let Some(expected) = state.session() else { return Ok(()) };
    let found = world.session(state.round)?;
    if found.as_deref() == Some(expected) {
        return Ok(());
    }
    Err(RoundError::Torn {
        path: format!("{}/manifest.json", layout::session(state.round)),
        found: found.map_or("no session".to_owned(), |found| format!("session {found}")),
        expected: format!("session {expected}, which the round opened"),
        remedy: "restore the folder of the session, or abandon the round: `fedmill round rollback DIR --to VERSION`"
            .to_owned(),
    })
}

fn task_name(client: &str) -> String {
    format!("{client}.json")
}

fn names(files: &impl Files, folder: &str) -> Result<BTreeSet<String>, RoundError> {
    let entries = files.list(folder).map_err(RoundError::reading(folder))?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

/// Makes the tasks of an open round and its folder for updates again, if they are lost.
///
/// # Errors
///
/// When a file cannot be read or written.
pub fn restore(
    world: &mut impl World,
    config: &Config,
    state: &State,
    opening: &Opening,
) -> Result<(), RoundError> {
    check_session(world, state)?;
    let inbox = layout::inbox(state.round);
    world.make_folder(&inbox).map_err(RoundError::writing(&inbox))?;
    let tasks = layout::tasks(state.round);
    let there = names(world, &tasks)?;
    let lost = opening.selection.choices.iter().filter(|choice| !there.contains(&task_name(&choice.id)));
    let count = lost.count();
    if count > 0 {
        tracing::warn!("{tasks}: {count} of its tasks were missing: they are written again");
        act(world, config, state, opening)?;
    }
    Ok(())
}

/// The patches from models that selected clients hold to the base, by the digest of that model.
fn patches(
    world: &mut impl World,
    config: &Config,
    state: &State,
    opening: &Opening,
) -> Result<BTreeMap<String, Fingerprint>, RoundError> {
    let mut patches = BTreeMap::new();
    if !config.compression.downlink_deltas {
        return Ok(patches);
    }
    let base = &opening.base.file.blake3;
    let held = opening.selection.choices.iter().filter_map(|choice| choice.known_version.as_ref());
    let held: BTreeSet<&String> = held.filter(|held| *held != base).collect();
    for from in held {
        let Some(version) = state.carry.kept.iter().find(|kept| kept.file.blake3 == *from) else { continue };
        let (model, path) = (layout::model(from), layout::patch(from, base));
        if !world.holds(&model, &version.file) {
            tracing::warn!(
                hint = "restore the file from a backup, if clients should get patches again",
                "{model} is missing or damaged: clients that hold version {} get the whole model, and no patch",
                version.number
            );
            continue;
        }
        if let Some(patch) = world.patch(&model, &layout::model(base), &path)? {
            patches.insert(from.clone(), patch);
        }
    }
    Ok(patches)
}
