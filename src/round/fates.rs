//! What a round meant for each of its clients, and why: what the registry records of it.

use crate::fleet::history::{Outcome, Participation};
use crate::round::error::RoundError;
use crate::round::journal::{Arrival, Ending, Event, Rejected, RoundJournal};
use crate::round::layout;
use crate::round::state::State;
use crate::round::task::ModelSource;
use crate::round::validate::quarantined;
use crate::round::world::{Files, MergedClient, World};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The most characters of a reason in the registry. The list of files in quarantine has the whole text.
const LONGEST_REASON: usize = 400;

/// Why an update that came too late is not merged yet. The file moves later, so the reason has no path.
const WAITS: &str =
    "the update came too late for its round; it waits for a round whose strategy takes late updates";

/// What each client did in a round.
pub fn participation(state: &State) -> Vec<Participation> {
    let Some(opening) = state.opening() else { return Vec::new() };
    let (fates, collected) = (Fates::of(state), state.collected());
    let (base, patches) = (&opening.base, state.patches());
    let losses = state.validated().map(|validated| &validated.losses);
    let part = |id: &str, arrival: Option<&Arrival>, bytes_down: u64| {
        let (outcome, reason) = fates.of_client(id, arrival);
        Participation {
            client: id.to_owned(),
            outcome,
            bytes_up: arrival.map_or(0, |arrival| arrival.file.bytes),
            bytes_down,
            // The time of a client's work counts from its own task.
            duration_s: arrival.filter(|one| one.round == state.round).map(|arrival| arrival.after_s),
            loss: losses.and_then(|losses| losses.get(id).copied()),
            holds: arrival.filter(|one| one.round == state.round).map(|_| base.file.blake3.clone()),
            reason: reason.map(|why| short(&why)),
        }
    };
    let updates = || collected.iter().flat_map(|found| &found.updates);
    let arrivals: BTreeMap<&str, &Arrival> = updates().map(|update| (update.id.as_str(), update)).collect();
    let choices = opening.selection.choices.iter().map(|choice| {
        let arrival = arrivals.get(choice.id.as_str()).copied();
        part(&choice.id, arrival, ModelSource::of(base, choice, &patches).fetched())
    });
    let selected: BTreeSet<&str> =
        opening.selection.choices.iter().map(|choice| choice.id.as_str()).collect();
    // Late updates of clients that this round did not select.
    let others = updates().filter(|update| !selected.contains(update.id.as_str()));
    let choices = choices.chain(others.map(|update| part(&update.id, Some(update), 0)));
    choices.collect()
}

/// The events of a round that decide what it meant for a client.
struct Fates<'s> {
    round: u64,
    rejected: Vec<Rejected>,
    /// The clients that the merge looked at. Under privacy nothing says who is in the sum.
    merged: BTreeMap<&'s str, &'s MergedClient>,
    /// Clients whose updates came too late for their round.
    late: BTreeSet<String>,
    /// What closed the round.
    closed_by: &'s str,
    ending: Option<&'s Ending>,
}

impl<'s> Fates<'s> {
    fn of(state: &'s State) -> Self {
        let collected = state.collected();
        let late = collected.iter().flat_map(|found| &found.late);
        let merged = state.merged().into_iter().flat_map(|merged| &merged.clients);
        Self {
            round: state.round,
            rejected: rejected(state),
            merged: merged.map(|row| (row.id.as_str(), row)).collect(),
            late: late.filter_map(|path| late_client(path)).collect(),
            closed_by: collected.map_or("end", |found| found.closed_by.as_str()),
            ending: state.ending(),
        }
    }

    /// What the round meant for a client, and why. A merged update has no reason.
    fn of_client(&self, id: &str, arrival: Option<&Arrival>) -> (Outcome, Option<String>) {
        let Some(arrival) = arrival else { return self.without_update(id) };
        let path = quarantined(self.round, &arrival.path);
        if let Some(bad) = self.rejected.iter().find(|bad| bad.path == path) {
            return (Outcome::Rejected, Some(bad.why.clone()));
        }
        match (self.ending, self.merged.get(id)) {
            (Some(Ending::Published(_)), Some(row)) if !row.kept => {
                (Outcome::Rejected, Some(row.reason.clone()))
            }
            (Some(Ending::Published(_)), _) => (Outcome::Merged, None),
            (Some(Ending::Refused { why, .. }), _) => {
                (Outcome::Refused, Some(format!("the round published nothing: {why}")))
            }
            (None, _) => (Outcome::Refused, Some("the round published nothing".to_owned())),
        }
    }

    fn without_update(&self, id: &str) -> (Outcome, Option<String>) {
        let bad = || self.rejected.iter().filter(|bad| bad.id == id);
        if let Some(bad) = bad().find(|bad| !bad.is_late) {
            return (Outcome::Rejected, Some(bad.why.clone()));
        }
        let late = bad().find(|bad| bad.is_late);
        match self.late.contains(id) {
            true => (Outcome::Late, Some(late.map_or(WAITS, |late| &late.why).to_owned())),
            // An update that an earlier round found too late says nothing of this one.
            false => {
                let why = format!("no update came before the round closed by its {}", self.closed_by);
                (Outcome::Missing, Some(why))
            }
        }
    }
}

/// A reason that fits the registry.
fn short(why: &str) -> String {
    match why.char_indices().nth(LONGEST_REASON) {
        None => why.to_owned(),
        Some((end, _)) => format!("{}...", &why[..end]),
    }
}

/// The client of a late update.
fn late_client(path: &str) -> Option<String> {
    layout::client_of(path.rsplit('/').next()?)
}

/// All updates that a round left out, with their paths in quarantine.
pub fn rejected(state: &State) -> Vec<Rejected> {
    let collected = state.collected().map_or_else(Vec::new, |collected| collected.rejected.clone());
    let validated = state.validated().map_or_else(Vec::new, |validated| validated.rejected.clone());
    let merged = state.merged().map_or_else(Vec::new, |merged| merged.rejected.clone());
    let moved = |bad: Rejected| Rejected { path: quarantined(state.round, &bad.path), ..bad };
    collected.into_iter().chain(validated.into_iter().chain(merged).map(moved)).collect()
}

/// A file that a round left out, and that decides the outcome of no client.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct OtherFile {
    /// The client that its name states.
    pub id: String,
    /// Where it lies.
    pub path: String,
    /// Why it was left out.
    pub why: String,
}

/// The files that a round left out and that decide the outcome of no client: of clients that it did not select, second
/// updates, late updates for earlier rounds, and what is no update.
pub fn other_files(state: &State, clients: &[Participation]) -> Vec<OtherFile> {
    let left_out = |client: &&Participation| matches!(client.outcome, Outcome::Rejected | Outcome::Late);
    let mut decided: BTreeSet<(String, String)> = clients
        .iter()
        .filter(left_out)
        .map(|client| (client.client.clone(), client.reason.clone().unwrap_or_default()))
        .collect();
    let mut files = Vec::new();
    for Rejected { id, path, why, .. } in rejected(state) {
        // The reason of a client is that of its first file.
        if !decided.remove(&(id.clone(), short(&why))) {
            files.push(OtherFile { id, path, why });
        }
    }
    files.extend(waiting(state, clients));
    files
}

/// Late updates that wait for a later round, beside those of clients that count as late. The list of a round also has
/// late updates that it then merged, or that it put into quarantine.
fn waiting(state: &State, clients: &[Participation]) -> Vec<OtherFile> {
    let Some(collected) = state.collected() else { return Vec::new() };
    let is_late = |id: &str| clients.iter().any(|one| one.client == id && one.outcome == Outcome::Late);
    let is_taken = |id: &str| {
        collected.updates.iter().any(|update| update.id == id && update.round < state.round)
            || collected.rejected.iter().any(|bad| bad.id == id && bad.is_late)
    };
    let other = |path: &String| {
        let id = late_client(path).filter(|id| !is_late(id) && !is_taken(id))?;
        Some(OtherFile { id, path: path.clone(), why: WAITS.to_owned() })
    };
    collected.late.iter().filter_map(other).collect()
}

/// The first and the last round that are over, and that the registry does not know: it is older than the journals.
/// `None` if it knows all of them.
///
/// # Errors
///
/// When the registry or a journal cannot be read.
pub fn unrecorded(world: &mut impl World, state: &State) -> Result<Option<[u64; 2]>, RoundError> {
    let first = world.recorded_round()?.unwrap_or(0) + 1;
    let mut found = None;
    // A round that a rollback abandoned is in no registry.
    for round in (first..=state.round).rev() {
        if is_over(world, state, round)? {
            found = Some(round);
            break;
        }
    }
    let Some(last) = found else { return Ok(None) };
    for round in first..=last {
        if is_over(world, state, round)? {
            return Ok(Some([round, last]));
        }
    }
    Ok(None)
}

fn is_over(files: &impl Files, state: &State, round: u64) -> Result<bool, RoundError> {
    let is_close =
        |journal: &RoundJournal| journal.lines.iter().any(|line| matches!(line.event, Event::Close(_)));
    if round == state.round {
        return Ok(is_close(&state.journal));
    }
    Ok(is_close(&RoundJournal::read_alone(files, round)?))
}

/// Records the rounds that the registry does not know, from their journals: it is from a backup.
///
/// # Errors
///
/// When a journal cannot be read, or the registry cannot be written.
pub fn record_missing(world: &mut impl World, state: &State) -> Result<(), RoundError> {
    let Some([first, last]) = unrecorded(world, state)? else { return Ok(()) };
    for round in first..=last {
        let earlier = State { round, journal: RoundJournal::read_alone(world, round)?, ..state.clone() };
        let close = earlier.journal.lines.iter().find(|line| matches!(line.event, Event::Close(_)));
        if let Some(close) = close {
            let at = close.at.clone();
            world.record(round, &participation(&earlier), &at)?;
        }
    }
    let (registry, rounds) = (layout::REGISTRY, rounds_text([first, last]));
    tracing::error!(
        hint = "register clients again that registered or retired since: `fedmill clients list DIR` shows who is there",
        "{registry} did not know {rounds}: it is from a backup. What its clients did then is recorded again"
    );
    Ok(())
}

/// Rounds in a message.
pub fn rounds_text([first, last]: [u64; 2]) -> String {
    if first == last { format!("round {first}") } else { format!("rounds {first} to {last}") }
}
