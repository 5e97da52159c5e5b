//! What an operator asks of a federation: its state now, and its rounds so far.

use crate::config::Config;
use crate::fleet::history::Outcome;
use crate::fleet::select::Selection;
use crate::fleet::select::pool::{NO_KEY, RETIRED};
use crate::modes::secure::standing::Standing;
use crate::round::collect::{self, foreign};
use crate::round::error::RoundError;
use crate::round::journal::{Ending, Event, Settings, Version};
use crate::round::layout;
use crate::round::state::charges;
use crate::round::state::sound;
use crate::round::state::{State, round_folders};
use crate::round::world::{BudgetFacts, World};
use crate::round::{fates, secure, task};
use serde::Serialize;
use std::collections::BTreeMap;

/// The state of a federation.
#[derive(Clone, Serialize, Debug)]
pub struct Status {
    /// The round that is open, or the last that is over.
    pub round: u64,
    /// Its phase, or `closed`.
    pub phase: String,
    /// What it waits for; `None` if it does not wait.
    pub waits: Option<String>,
    /// The time at which the round opened.
    pub opened: Option<String>,
    /// The number of selected clients.
    pub selected: Option<usize>,
    /// The clients that the open round wanted, and those that it could not select.
    pub shortfall: Option<Shortfall>,
    /// The number of updates that closes the open round before its deadline.
    pub quorum: Option<u64>,
    /// The current model.
    pub current: Version,
    /// The path of the current model.
    pub model: String,
    /// Whether `current.safetensors` exists.
    pub has_link: bool,
    /// Versions that a rollback may go to, the one that is removed next first.
    pub kept: Vec<u64>,
    /// Rounds that published a model.
    pub published: u64,
    /// Rounds that ended and published nothing.
    pub refused: u64,
    /// Rounds that a rollback ended before they merged.
    pub abandoned: u64,
    /// Paths in the inbox that no round takes.
    pub foreign: Vec<String>,
    /// How the last round ended.
    pub last: Option<String>,
    /// The warnings of its merge.
    pub warnings: Vec<String>,
    /// Bytes that clients sent in all rounds.
    pub bytes_up: u64,
    /// Bytes that clients fetched in all rounds.
    pub bytes_down: u64,
    /// The first and the last round that are over and that the registry does not know: it is from a backup. `None` if
    /// it knows all.
    pub unrecorded: Option<[u64; 2]>,
    /// The settings of the open round, or of the next.
    pub settings: Option<Settings>,
    /// The privacy budget.
    pub budget: Option<BudgetFacts>,
    /// How far the session of the open round is; `None` for a round in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<Standing>,
    /// Why no further round opens; `None` if one may, or one is open.
    pub over: Option<String>,
}

impl Status {
    /// The state of a federation.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn of(world: &mut impl World, config: &Config, state: &State) -> Result<Self, RoundError> {
        let secure = secure::standing(world, state)?;
        let waits = match (state.last(), state.opening()) {
            (Some(Event::Collect { .. }), Some(opening)) => {
                Some(collect::look(world, config, state, opening)?)
            }
            (Some(Event::Aggregate(_)), _) => {
                secure.as_ref().and_then(|standing| secure::waits(config, state.round, standing))
            }
            _ => None,
        };
        let opening = state.opening().filter(|_| state.is_open());
        let carry = &state.carry;
        let budget = world.budget()?;
        let over = charges::over(config, state.next_round(), budget.as_ref()).filter(|_| !state.is_open());
        Ok(Self {
            round: state.round,
            phase: if state.is_open() { state.last().map_or("closed", Event::name) } else { "closed" }
                .to_owned(),
            waits,
            opened: state.opened().map(|line| task::time(line.at.unix_s())),
            selected: opening.map(|opening| opening.selection.choices.len()),
            shortfall: opening.map(|opening| Shortfall::of(&opening.selection)),
            quorum: opening.map(|opening| collect::closing_count(config, opening)),
            model: layout::model(&carry.current.file.blake3),
            current: carry.current.clone(),
            has_link: sound::has_link(world),
            kept: carry.kept.iter().map(|version| version.number).collect(),
            published: carry.published,
            refused: carry.refused,
            abandoned: carry.abandoned,
            foreign: foreign::left(world, state.round)?,
            last: state.ending().map(ending),
            warnings: warnings(state),
            bytes_up: carry.bytes[0],
            bytes_down: carry.bytes[1],
            unrecorded: fates::unrecorded(world, state)?,
            settings: opening.map(|opening| opening.settings.clone()).or_else(|| carry.settings.clone()),
            budget,
            secure,
            over,
        })
    }
}

/// The clients that a round wanted, and those that it could not select.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Shortfall {
    /// The number of clients that the selection wanted; the number expected under Poisson sampling.
    pub asked: usize,
    /// The number of clients that could be selected.
    pub eligible: usize,
    /// The numbers of clients that could not, by the reason: `epsilon`, `secure aggregation` or `tier`.
    pub excluded: BTreeMap<String, usize>,
}

impl Shortfall {
    fn of(selection: &Selection) -> Self {
        let excluded = selection.excluded.iter().filter(|(why, _)| *why != RETIRED);
        let excluded = excluded.map(|(why, count)| (why.clone(), *count)).collect();
        Self { asked: selection.asked, eligible: selection.eligible, excluded }
    }

    /// Who was excluded and why; `None` if no client was.
    pub fn text(&self) -> Option<String> {
        let reason = |(why, count): (&String, &usize)| match why.as_str() {
            "epsilon" => format!("{count} by the epsilon cap of the client"),
            "secure aggregation" => format!("{count} because the client demands secure aggregation"),
            NO_KEY => format!(
                "{count} without a key for secure aggregation, or with an id that names no party of it"
            ),
            "tier" => format!("{count} by coordination.tiers"),
            other => format!("{count} by {other}"),
        };
        let reasons: Vec<String> = self.excluded.iter().map(reason).collect();
        let Self { asked, eligible, .. } = self;
        let excluded: usize = self.excluded.values().sum();
        (excluded > 0).then(|| {
            format!(
                "{excluded} excluded: {}; {eligible} could be selected, {asked} wanted",
                reasons.join(", ")
            )
        })
    }
}

/// The warnings of the merge of a round.
fn warnings(state: &State) -> Vec<String> {
    state.merged().map(|merged| merged.warnings.clone()).unwrap_or_default()
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Published(version) => format!("published version {}", version.number),
        Ending::Refused { why, .. } => format!("published nothing: {why}"),
    }
}

/// A round that is over, or how far it came.
#[derive(Clone, Serialize, Debug)]
pub struct Past {
    /// The round.
    pub round: u64,
    /// The time at which it opened.
    pub opened: Option<String>,
    /// Its last phase, or `closed`.
    pub phase: String,
    /// The number of selected clients.
    pub selected: usize,
    /// The clients that it wanted, and those that it could not select.
    pub shortfall: Option<Shortfall>,
    /// Clients whose updates it merged.
    pub merged: usize,
    /// Clients without an update.
    pub missing: usize,
    /// Clients whose updates came too late.
    pub late: usize,
    /// Clients whose updates it left out.
    pub rejected: usize,
    /// Clients whose updates were sound in a round that published nothing.
    pub refused: usize,
    /// Files that it left out and that decide no client's outcome.
    pub other_files: usize,
    /// How it ended.
    pub ending: String,
    /// The warnings of its merge.
    pub warnings: Vec<String>,
    /// The version that it published.
    pub version: Option<u64>,
    /// What its evaluation measured.
    pub metrics: BTreeMap<String, f64>,
    /// The operator's rollbacks behind it, as versions.
    pub rollbacks: Vec<u64>,
}

/// The last rounds, the last first.
///
/// # Errors
///
/// When a journal cannot be read.
pub fn history(world: &mut impl World, most: usize) -> Result<Vec<Past>, RoundError> {
    let rounds = round_folders(world, layout::ROUNDS)?;
    let last = rounds.into_iter().filter(|round| *round > 0).rev().take(most);
    last.map(|round| Ok(past(&State::alone(world, round)?))).collect()
}

/// A round as its journal tells it.
pub fn past(state: &State) -> Past {
    let rollback = |event: &Event| match event {
        Event::Rollback(carry) => Some(carry.current.number),
        _ => None,
    };
    let rollbacks = state.journal.lines.iter().filter_map(|line| rollback(&line.event)).collect();
    let version = match state.ending() {
        Some(Ending::Published(version)) => Some(version.number),
        _ => None,
    };
    // Before its end, nothing says what a round means for its clients.
    let clients = if state.ending().is_some() { fates::participation(state) } else { Vec::new() };
    let count = |outcome| clients.iter().filter(|client| client.outcome == outcome).count();
    Past {
        round: state.round,
        opened: state.opened().map(|line| task::time(line.at.unix_s())),
        phase: state.last().map_or("open", Event::name).to_owned(),
        selected: state.opening().map_or(0, |opening| opening.selection.choices.len()),
        shortfall: state.opening().map(|opening| Shortfall::of(&opening.selection)),
        merged: count(Outcome::Merged),
        missing: count(Outcome::Missing),
        late: count(Outcome::Late),
        rejected: count(Outcome::Rejected),
        refused: count(Outcome::Refused),
        other_files: fates::other_files(state, &clients).len(),
        ending: match (state.ending(), state.last()) {
            (Some(found), _) => ending(found),
            (None, Some(Event::Rollback(_))) => "abandoned".to_owned(),
            _ => String::new(),
        },
        warnings: warnings(state),
        version,
        metrics: state.measured().cloned().unwrap_or_default(),
        rollbacks,
    }
}
