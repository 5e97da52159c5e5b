//! Reports a round: into the registry, and into the files that monitoring reads.

use crate::config::Config;
use crate::fleet::history::{Outcome as Fate, Participation};
use crate::round::error::RoundError;
use crate::round::fates;
use crate::round::fates::{participation, rejected};
use crate::round::journal::{Carry, Change, Ending, Settings, Version};
use crate::round::layout;
use crate::round::publish;
use crate::round::state::State;
use crate::round::world::{Files, MergedClient, World};
use crate::telemetry::derived::Derived;
use crate::telemetry::metrics::{
    Adapted, Bytes, ClientCounts, ClientFigures, Geometry, Outcome, PrivacyState, Quantiles, RoundRecord,
    RoundSettings,
};
use crate::telemetry::{html, prometheus, tensorboard};
use std::collections::BTreeMap;

/// Reports a round, and returns what the next one starts from.
///
/// # Errors
///
/// When a file or the registry cannot be written.
pub fn act(
    world: &mut impl World,
    config: &Config,
    state: &State,
    settings: &Settings,
    changes: &[Change],
) -> Result<Carry, RoundError> {
    let clients = participation(state);
    let now = world.now();
    fates::record_missing(world, state)?;
    world.record(state.round, &clients, &now)?;
    write_reasons(world, state)?;
    let mut carry = carry(config, state, settings, &clients);
    let record = record(world, config, state, &carry, changes, &clients)?;
    if record.outcome == Outcome::Published {
        carry.published_at = record.closed_at;
    }
    if let Some(loss) = record.metric("loss") {
        carry.losses.push((state.round, loss));
        let window = config.monitoring.window.max(2) as usize;
        carry.losses.drain(..carry.losses.len().saturating_sub(window));
    }
    export(world, config, &mut carry, &record)?;
    publish::remove_old(world, config, state.round, &all_versions(state), &carry.kept)?;
    Ok(carry)
}

/// The list of files in quarantine, in the folder of a round.
pub const REASONS: &str = "quarantine/reasons.jsonl";

/// Writes why each file is in quarantine.
fn write_reasons(files: &mut impl Files, state: &State) -> Result<(), RoundError> {
    let path = layout::of_round(state.round, REASONS);
    let lines: Vec<String> =
        rejected(state).iter().filter_map(|bad| serde_json::to_string(bad).ok()).collect();
    match lines.is_empty() {
        true => Ok(()),
        false => files
            .write(&path, format!("{}\n", lines.join("\n")).as_bytes())
            .map_err(RoundError::writing(&path)),
    }
}

/// The versions that were kept before, and the one that the round made.
fn all_versions(state: &State) -> Vec<Version> {
    let made = match state.ending() {
        Some(Ending::Published(version)) => Some(version.clone()),
        _ => None,
    };
    state.carry.kept.iter().cloned().chain(made).collect()
}

fn carry(config: &Config, state: &State, settings: &Settings, clients: &[Participation]) -> Carry {
    let before = &state.carry;
    let made = match state.ending() {
        Some(Ending::Published(version)) => Some(version),
        _ => None,
    };
    let current = made.unwrap_or(&before.current).clone();
    let up: u64 = clients.iter().map(|client| client.bytes_up).sum();
    let down: u64 = clients.iter().map(|client| client.bytes_down).sum();
    Carry {
        newest: before.newest.max(current.number),
        kept: publish::kept(&config.publish, &before.kept, made, current.number),
        current,
        settings: Some(settings.clone()),
        published: before.published + u64::from(made.is_some()),
        refused: before.refused + u64::from(made.is_none()),
        abandoned: before.abandoned,
        bytes: [before.bytes[0] + up, before.bytes[1] + down],
        losses: before.losses.clone(),
        published_at: before.published_at,
        exported: before.exported,
    }
}

/// The figures of the round.
fn record(
    world: &mut impl World,
    config: &Config,
    state: &State,
    carry: &Carry,
    changes: &[Change],
    clients: &[Participation],
) -> Result<RoundRecord, RoundError> {
    let opened = state.opened().map_or(0, |line| line.at.unix_ms) as f64 / 1000.0;
    let mut seconds = state.seconds();
    let now = world.now();
    if let Some(line) = state.journal.last() {
        seconds.insert(line.event.name().to_owned(), now.since(&line.at));
    }
    let shows_clients = !config.privacy.enabled || config.monitoring.clients_under_privacy;
    let sum = |of: fn(&Participation) -> u64| clients.iter().map(of).sum();
    Ok(RoundRecord {
        outcome: match state.ending() {
            Some(Ending::Refused { why, .. }) => Outcome::Refused(why.clone()),
            _ => Outcome::Published,
        },
        phase_s: seconds,
        base: state.opening().map(|opening| opening.base.file.blake3.clone()),
        model: state.merged().map(|merged| merged.model.blake3.clone()),
        clients: counts(state, clients, shows_clients),
        metrics: state.measured().cloned().unwrap_or_default(),
        geometry: geometry(state),
        bytes: Bytes {
            up: sum(|one| one.bytes_up),
            down: sum(|one| one.bytes_down),
            total: carry.bytes.iter().sum(),
        },
        privacy: world.budget()?.map(|budget| PrivacyState {
            epsilon_spent: budget.epsilon_spent.unwrap_or(f64::INFINITY),
            epsilon_budget: budget.epsilon_budget,
            delta: budget.delta,
            rounds_left: Some(budget.rounds_left),
        }),
        secure: state.merged().and_then(|merged| merged.secure.clone()),
        settings: round_settings(state),
        adapted: changes.iter().map(adapted).collect(),
        rows: shows_clients.then(|| rows(state, clients)),
        fairness: world.fairness()?,
        ..RoundRecord::new(state.round, opened, now.unix_ms as f64 / 1000.0)
    })
}

fn adapted(change: &Change) -> Adapted {
    Adapted {
        setting: change.setting.clone(),
        from: change.from.to_string(),
        to: change.to.to_string(),
        why: change.why.clone(),
    }
}

fn counts(state: &State, clients: &[Participation], shows_clients: bool) -> ClientCounts {
    let count =
        |fates: &[Fate]| clients.iter().filter(|client| fates.contains(&client.outcome)).count() as u64;
    let collected = state.collected();
    let mut times: Vec<f64> = clients.iter().filter_map(|client| client.duration_s).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((share * times.len().saturating_sub(1) as f64) as usize).copied();
    let arrival_s = at(0.0).zip(at(0.5)).zip(at(0.9).zip(at(1.0)));
    ClientCounts {
        population: state.opening().map_or(0, |opening| opening.population),
        selected: state.opening().map_or(0, |opening| opening.selection.choices.len() as u64),
        delivered: collected.map_or(0, |collected| collected.updates.len() as u64),
        late: collected.map_or(0, |collected| collected.late.len() as u64),
        missing: count(&[Fate::Missing]),
        rejected: rejected(state).iter().filter(|bad| !bad.is_late).count() as u64,
        merged: count(&[Fate::Merged]),
        waiting: collected.map_or(0, |collected| collected.late.len() as u64),
        arrival_s: arrival_s.filter(|_| shows_clients).map(|((min, median), (p90, max))| Quantiles {
            min,
            median,
            p90,
            max,
        }),
    }
}

fn geometry(state: &State) -> Geometry {
    let Some(merged) = state.merged() else { return Geometry::default() };
    let of = |name: &str| merged.geometry.get(name).copied();
    let mut norms: Vec<f64> = merged.clients.iter().filter_map(|client| client.norm).collect();
    norms.sort_by(f64::total_cmp);
    Geometry {
        coherence: of("coherence"),
        noise_scale: of("noise_scale"),
        signal_fraction: of("signal_fraction"),
        alignment: of("alignment"),
        norm_median: norms.get(norms.len() / 2).copied(),
        norm_min: norms.first().copied(),
        norm_max: norms.last().copied(),
    }
}

fn round_settings(state: &State) -> RoundSettings {
    let Some(opening) = state.opening() else { return RoundSettings::default() };
    let settings = &opening.settings;
    RoundSettings {
        server_learning_rate: settings.server_learning_rate,
        clip: opening.budget.as_ref().map(|budget| budget.clip),
        quorum: Some(opening.quorum),
        deadline_s: Some(settings.timeout_s),
        selected: Some(opening.selection.choices.len() as u64),
        compression_target: Some(settings.compression_target),
        local_steps: settings.local_steps.clone(),
    }
}

fn rows(state: &State, clients: &[Participation]) -> Vec<ClientFigures> {
    let merged: BTreeMap<&str, &MergedClient> =
        state.merged().iter().flat_map(|merged| &merged.clients).map(|row| (row.id.as_str(), row)).collect();
    let row = |client: &Participation| {
        let found = merged.get(client.client.as_str());
        ClientFigures {
            id: client.client.clone(),
            outcome: client.outcome.name().to_owned(),
            norm: found.and_then(|row| row.norm),
            kept: found.is_some_and(|row| row.kept),
            reason: client.reason.clone().or_else(|| found.map(|row| row.reason.clone())),
        }
    };
    clients.iter().map(row).collect()
}

/// Writes the figures for each kind of reader.
fn export(
    world: &mut impl World,
    config: &Config,
    carry: &mut Carry,
    record: &RoundRecord,
) -> Result<(), RoundError> {
    let monitoring = &config.monitoring;
    let derived = derived(config, carry, record);
    if monitoring.json_lines {
        let line = format!("{}\n", serde_json::to_string(record).unwrap_or_default());
        carry.exported[0] = append(world, layout::METRICS_LINES, carry.exported[0], line.as_bytes())?;
    }
    if monitoring.tensorboard {
        let is_new = carry.exported[1].min(world.bytes(layout::METRICS_TENSORBOARD).unwrap_or(0)) == 0;
        let events = tensorboard::events(is_new, record, &derived);
        carry.exported[1] = append(world, layout::METRICS_TENSORBOARD, carry.exported[1], &events)?;
    }
    if monitoring.html {
        let page = page(world, config)?;
        world
            .write(layout::REPORT_PAGE, page.as_bytes())
            .map_err(RoundError::writing(layout::REPORT_PAGE))?;
    }
    if monitoring.prometheus {
        let (path, text) = (layout::METRICS_PROMETHEUS, prometheus::text(record, &derived, &world.name()));
        world.write(path, text.as_bytes()).map_err(RoundError::writing(path))?;
    }
    Ok(())
}

/// The page about all rounds, from `metrics/rounds.jsonl`.
///
/// # Errors
///
/// When the file cannot be read, or a plot cannot be drawn.
pub fn page(files: &impl Files, config: &Config) -> Result<String, RoundError> {
    let path = layout::METRICS_LINES;
    let lines = files.read(path).map_err(RoundError::reading(path))?.unwrap_or_default();
    let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = lines[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records: Result<Vec<RoundRecord>, _> = lines.map(serde_json::from_slice).collect();
    let records = records.map_err(|why| {
        let remedy = "restore the file from a backup, or delete it: the figures of the rounds so far are then lost, and \
                      nothing else";
        RoundError::torn(path, &why, "the lines that fedmill wrote", remedy.to_owned())
    })?;
    let about = html::About { title: &files.name(), status: None, window: config.monitoring.window };
    html::page(&records, &about).map_err(|why| RoundError::Refused(why.to_string()))
}

fn append(world: &mut impl World, path: &str, at: u64, bytes: &[u8]) -> Result<u64, RoundError> {
    // A file that the operator cut or removed starts anew where it ends.
    let at = at.min(world.bytes(path).unwrap_or(0));
    world.append(path, at, bytes).map_err(RoundError::writing(path))?;
    Ok(at + bytes.len() as u64)
}

/// The figures that follow from the losses of the last rounds.
fn derived(config: &Config, carry: &Carry, record: &RoundRecord) -> Derived {
    let last_published =
        (carry.published_at > 0.0).then(|| RoundRecord::new(0, carry.published_at, carry.published_at));
    let earlier = carry.losses.iter().filter(|(round, _)| *round != record.round).map(|(round, loss)| {
        let mut earlier = RoundRecord::new(*round, 0.0, 0.0);
        // Only its loss is known here.
        earlier.outcome = Outcome::Refused(String::new());
        earlier.metrics.insert("loss".to_owned(), *loss);
        earlier
    });
    let records: Vec<RoundRecord> =
        last_published.into_iter().chain(earlier).chain([record.clone()]).collect();
    Derived::of(&records, config.monitoring.window).unwrap_or_default()
}
