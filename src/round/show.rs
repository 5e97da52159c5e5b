//! One round as a whole: its clients, other files, settings and changes.

use crate::config::Config;
use crate::fleet::history::Participation;
use crate::round::error::RoundError;
use crate::round::fates::{OtherFile, other_files, participation};
use crate::round::journal::{Change, Event, Settings};
use crate::round::layout;
use crate::round::state::{State, round_folders};
use crate::round::status::{Past, past};
use crate::round::world::World;
use crate::telemetry::metrics::SecureFigures;
use serde::Serialize;

/// A round as a whole.
#[derive(Serialize, Debug)]
pub struct Shown {
    /// Its line in the history.
    #[serde(flatten)]
    pub past: Past,
    /// The settings that it opened with.
    pub settings: Option<Settings>,
    /// The session whose means it merged; `None` for a round in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<SecureFigures>,
    /// What it changed for the next round.
    pub changes: Vec<Change>,
    /// What became of each client; `None` where a private round names no client.
    pub clients: Option<Vec<ShownClient>>,
    /// Files that it left out and that decide no client's outcome; `None` where a private round names no client.
    pub files: Option<Vec<OtherFile>>,
}

/// A client in a round.
#[derive(Serialize, Debug)]
pub struct ShownClient {
    /// The client.
    pub id: String,
    /// `merged`, `rejected`, `late`, `missing` or `refused`; `open` or `abandoned` for a round that did not end.
    pub outcome: String,
    /// Why; `None` if the update was merged.
    pub reason: Option<String>,
    /// Bytes of the update.
    pub bytes_up: u64,
}

/// A round, the last without a number.
///
/// # Errors
///
/// When there is no such round, or its journal cannot be read.
pub fn show(world: &mut impl World, config: &Config, round: Option<u64>) -> Result<Shown, RoundError> {
    let rounds = round_folders(world, layout::ROUNDS)?;
    let last = rounds.last().copied().unwrap_or_default();
    let round = round.unwrap_or(last);
    if round == 0 || !rounds.contains(&round) {
        let found = match last {
            0 => "no round opened yet".to_owned(),
            last => format!("there is no round {round}, expected 1 to {last}"),
        };
        return Err(RoundError::Refused(found));
    }
    let state = State::alone(world, round)?;
    let shows_clients = !config.privacy.enabled || config.monitoring.clients_under_privacy;
    let changes = state.journal.lines.iter().find_map(|line| match &line.event {
        Event::Report { changes, .. } => Some(changes.clone()),
        _ => None,
    });
    Ok(Shown {
        settings: state.opening().map(|opening| opening.settings.clone()),
        secure: state.merged().and_then(|merged| merged.secure.clone()),
        changes: changes.unwrap_or_default(),
        clients: shows_clients.then(|| clients(&state)),
        files: shows_clients.then(|| other_files(&state, &participation(&state))),
        past: past(&state),
    })
}

fn clients(state: &State) -> Vec<ShownClient> {
    let unended = match state.ending() {
        Some(_) => None,
        None if state.journal.is_abandoned() => Some("abandoned"),
        None => Some("open"),
    };
    let client = |part: Participation| ShownClient {
        id: part.client,
        outcome: unended.unwrap_or(part.outcome.name()).to_owned(),
        reason: part.reason.filter(|_| unended.is_none()),
        bytes_up: part.bytes_up,
    };
    participation(state).into_iter().map(client).collect()
}
