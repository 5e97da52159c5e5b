//! Collects the updates of a round from its inbox, until the quorum or the deadline.
//!
//! Every run takes what is whole. A list on disk says where each file goes before it moves, so that a killed run is
//! finished by the next. What came too late for its round waits for a round that can merge it, and is never lost.
//!
//! - [`list`](mod@list): where each file goes, on disk. [`unlisted`]: updates that lie in the round, and that a lost list
//!   does not have. [`foreign`]: what lies in the inbox and is no update. `past`: the rounds before.
//! - `masked`: how clients deliver, in the clear or masked. `look`: what a run would find.

pub mod foreign;
pub mod list;
mod look;
mod masked;
mod past;
pub mod unlisted;

pub use look::look;

use crate::config::Config;
use crate::config::sections::Mode;
use crate::round::collect::list::{Fate, Move};
use crate::round::collect::masked::Delivery;
use crate::round::collect::past::PastRounds;
use crate::round::error::RoundError;
use crate::round::journal::{Arrival, Collected, Opening, Rejected};
use crate::round::layout;
use crate::round::moment::Moment;
use crate::round::state::{State, round_folders};
use crate::round::world::{Files, Fingerprint, World};
use crate::settings::Definition;
use crate::strategies;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

/// What became of the inbox.
pub enum Collecting {
    /// The round waits, for this reason.
    Waiting(String),
    /// The round is closed.
    Closed(Box<Collected>),
}

/// Takes what is whole from the inbox, and closes the round if it may.
///
/// # Errors
///
/// When a file cannot be read or moved.
pub fn act(
    world: &mut impl World,
    config: &Config,
    state: &State,
    opening: &Opening,
) -> Result<Collecting, RoundError> {
    check_same(config, state)?;
    let mut inbox = Inbox::open(world, config, state, opening)?;
    inbox.delivery = Delivery::of(world, &inbox, opening)?;
    inbox.take_whole(world)?;
    let Some(closed_by) = inbox.closed_by(opening) else {
        return Ok(Collecting::Waiting(inbox.waiting(world, opening)?));
    };
    inbox.take_rest(world, closed_by == "deadline")?;
    // Late updates that waited may have changed too.
    inbox.leave_out_changed(world)?;
    let closed = inbox.finish(world, closed_by)?;
    masked::close(world, &inbox, closed)
}

/// Checks that the settings are secure or not as when the round opened.
///
/// # Errors
///
/// When they changed.
pub fn check_same(config: &Config, state: &State) -> Result<(), RoundError> {
    let opened = state.is_secure();
    if opened == config.secure.enabled {
        return Ok(());
    }
    let why = format!(
        "is {}, and round {} opened with {opened}: set it back until the round is over, or abandon the round by `fedmill round \
         rollback`",
        config.secure.enabled, state.round
    );
    Err(RoundError::Setting { key: "secure.enabled", why })
}

/// The number of updates that closes a round: the buffer, or the quorum with the least number of clients, but no more
/// than the round selected.
pub fn closing_count(config: &Config, opening: &Opening) -> u64 {
    let wanted = opening.quorum.max(config.coordination.min_clients);
    match config.coordination.mode {
        Mode::Async => wanted,
        Mode::Sync => wanted.min(opening.selection.choices.len() as u64),
    }
}

/// The inbox of a round, and where its files go.
struct Inbox<'r> {
    config: &'r Config,
    round: u64,
    /// The moment of this look.
    now: Moment,
    /// The moment at which the round opened.
    opened: Moment,
    /// Seconds from the opening to the deadline.
    deadline_s: f64,
    takes_stale: bool,
    /// Bytes of the model that clients start from.
    base_bytes: u64,
    selected: BTreeSet<&'r str>,
    moves: Vec<Move>,
    past: PastRounds,
    delivery: Delivery,
}

impl<'r> Inbox<'r> {
    fn open(
        files: &(impl Files + ?Sized),
        config: &'r Config,
        state: &'r State,
        opening: &'r Opening,
    ) -> Result<Self, RoundError> {
        let round = state.round;
        let now = files.now();
        Ok(Self {
            config,
            round,
            opened: state.opened().map_or_else(|| now.clone(), |line| line.at.clone()),
            now,
            deadline_s: opening.settings.timeout_s,
            takes_stale: takes_stale(config),
            base_bytes: opening.base.file.bytes,
            selected: opening.selection.choices.iter().map(|choice| choice.id.as_str()).collect(),
            moves: list::read(files, round)?,
            past: PastRounds::default(),
            delivery: Delivery::default(),
        })
    }

    /// What closes the round now: `buffer`, `quorum` or `deadline`; `None` if it stays open.
    fn closed_by(&self, opening: &Opening) -> Option<&'static str> {
        let fresh = self.fresh();
        let wanted = closing_count(self.config, opening) as usize;
        match self.config.coordination.mode {
            Mode::Async if fresh >= wanted => Some("buffer"),
            Mode::Sync if fresh >= wanted => Some("quorum"),
            _ if self.elapsed_s() >= self.deadline_s => Some("deadline"),
            _ => None,
        }
    }

    /// Seconds since the round opened.
    fn elapsed_s(&self) -> f64 {
        self.now.since(&self.opened)
    }

    /// Seconds from the opening to the moment at which a file came to the server.
    /// `None` if the client took the file back.
    fn arrival_s(&self, files: &(impl Files + ?Sized), path: &str) -> Result<Option<f64>, RoundError> {
        match files.changed_ms(path) {
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(RoundError::reading(path)(why)),
            Ok(changed_ms) => Ok(Some(self.now.arrival_s(&self.opened, changed_ms, self.deadline_s))),
        }
    }

    /// The number of updates that count for the quorum.
    fn fresh(&self) -> usize {
        if let Some(masked) = self.delivery.masked() {
            return masked;
        }
        let any_round = self.config.coordination.mode == Mode::Async;
        self.arrived().filter(|moved| any_round || moved.round == self.round).count()
    }

    fn arrived(&self) -> impl Iterator<Item = &Move> {
        self.moves.iter().filter(|moved| moved.has_arrived())
    }

    fn has_arrived(&self, id: &str) -> bool {
        self.arrived().any(|moved| moved.id == id)
    }

    /// Moves the files that earlier runs listed, and then those that are whole.
    fn take_whole(&mut self, files: &mut impl Files) -> Result<(), RoundError> {
        list::replay(files, &mut self.moves)?;
        foreign::name_plainly(files, self.round)?;
        let moves = self.whole(files)?;
        self.take(files, moves)?;
        self.leave_out_changed(files)
    }

    /// Moves of updates that lie in the round and are whole no longer: a client may hold its file open.
    fn changed(&self, files: &(impl Files + ?Sized)) -> Result<Vec<Move>, RoundError> {
        let mut moves = Vec::new();
        // An update that a look has not moved yet was whole just now.
        for moved in self.arrived().filter(|moved| files.stamp(&moved.to).is_ok()) {
            let why = match files.unfinished(&moved.to) {
                Some(why) => Some(why),
                None => self.too_large(files, &moved.to)?,
            };
            if let Some(why) = why {
                let fate = Fate::Rejected { why: format!("{CHANGED}: {why}") };
                moves.push(self.moved(files, moved.to.clone(), (&moved.id, moved.round), fate, moves.len()));
            }
        }
        Ok(moves)
    }

    /// Sends updates that are whole no longer to quarantine. Their clients may deliver again.
    fn leave_out_changed(&mut self, files: &mut impl Files) -> Result<(), RoundError> {
        let changed = self.changed(files)?;
        self.moves.retain(|moved| !(moved.has_arrived() && changed.iter().any(|one| one.from == moved.to)));
        self.take(files, changed)
    }

    /// Lists moves, and then carries them out.
    fn take(&mut self, files: &mut impl Files, moves: Vec<Move>) -> Result<(), RoundError> {
        if moves.is_empty() {
            return Ok(());
        }
        self.moves.extend(moves.iter().cloned());
        list::write(files, self.round, &self.moves)?;
        list::carry_out(files, &moves)
    }

    /// Moves of the files in the inbox that are whole.
    fn whole(&self, files: &(impl Files + ?Sized)) -> Result<Vec<Move>, RoundError> {
        let mut moves = unlisted::moves(self, files)?;
        let taken = self.moves.iter().chain(&moves).filter(|moved| moved.has_arrived());
        let mut arrived: BTreeSet<String> = taken.map(|moved| moved.id.clone()).collect();
        for (round, name) in self.files_in(files, layout::INBOX)? {
            let Some(id) = layout::client_of(&name) else { continue };
            let id = id.as_str();
            let from = format!("{}/{name}", layout::folder(layout::INBOX, round));
            let Some(after_s) = self.arrival_s(files, &from)? else { continue };
            // The next asynchronous round takes what this one does not.
            let (again, is_overdue) = (arrived.contains(id), after_s > self.deadline_s);
            let may_wait = self.config.coordination.mode == Mode::Async && (again || is_overdue);
            if may_wait || files.unfinished(&from).is_some() {
                continue;
            }
            let fate = match self.too_large(files, &from)? {
                Some(why) => Fate::Rejected { why },
                None => self.fate(files, (id, round), after_s, again)?,
            };
            if matches!(fate, Fate::Arrived { .. }) {
                arrived.insert(id.to_owned());
            }
            moves.push(self.moved(files, from, (id, round), fate, moves.len()));
        }
        Ok(moves)
    }

    /// What a whole update of a client in the inbox of a round is.
    fn fate(
        &self,
        files: &(impl Files + ?Sized),
        (id, round): (&str, u64),
        after_s: f64,
        again: bool,
    ) -> Result<Fate, RoundError> {
        let rejected = |why: &str| Ok(Fate::Rejected { why: why.to_owned() });
        if let Some(why) = self.delivery.why_barred(id) {
            return rejected(why);
        }
        let delivered = "the client delivered before";
        let task = layout::of_client(&layout::tasks(round), id, ".json");
        let is_asked = match round == self.round {
            true => self.selected.contains(id),
            false => files.read(&task).map_err(RoundError::reading(&task))?.is_some(),
        };
        let stale = self.round - round;
        let is_late = match self.config.coordination.mode {
            Mode::Sync => stale > 0 || after_s > self.deadline_s,
            Mode::Async => self.why_never(files, round)?.is_some(),
        };
        match is_late {
            _ if !is_asked => Ok(Fate::Rejected { why: self.why_not_asked(files, id, round)? }),
            _ if again && stale == 0 => rejected(delivered),
            true if self.is_stale(files, id, round) => rejected(delivered),
            true => Ok(Fate::Late),
            false => Ok(Fate::Arrived { after_s }),
        }
    }

    /// Why a client without a task in a round has none.
    fn why_not_asked(
        &self,
        files: &(impl Files + ?Sized),
        id: &str,
        round: u64,
    ) -> Result<String, RoundError> {
        const STRANGER: &str = "the client was not selected for the round";
        if round == self.round {
            return Ok(STRANGER.to_owned());
        }
        let past = self.past.get(files, round)?;
        let is_young = self.round - round <= self.config.coordination.max_staleness;
        Ok(match past.selected.contains(id) {
            false => STRANGER.to_owned(),
            // A task goes as its update is merged, or with its round.
            true if is_young || past.delivered.contains(id) => {
                format!("round {round} is closed, and an update of this client for it was delivered before")
            }
            true => format!("round {round} is closed: {TOO_OLD}"),
        })
    }

    /// Why no round merges an update for an earlier round; `None` if one may.
    fn why_never(
        &self,
        files: &(impl Files + ?Sized),
        round: u64,
    ) -> Result<Option<&'static str>, RoundError> {
        Ok(match self.round.saturating_sub(round) {
            0 => None,
            _ if self.past.get(files, round)?.is_abandoned => Some(ABANDONED),
            _ if !self.takes_stale => Some(LATE),
            stale if stale > self.config.coordination.max_staleness => Some(TOO_OLD),
            _ => None,
        })
    }

    /// Why an update is larger than the operator allows; `None` if it is not.
    fn too_large(&self, files: &(impl Files + ?Sized), path: &str) -> Result<Option<String>, RoundError> {
        let usual = MOST_TIMES.saturating_mul(self.base_bytes).saturating_add(HEADER_ROOM);
        let most = self.config.compression.bytes_per_update.unwrap_or(usual);
        let found = files.bytes(path).map_err(RoundError::reading(path))?;
        Ok((found > most).then(|| format!("the update has {found} bytes, expected at most {most}")))
    }

    /// Whether a late update of a client waits already.
    fn is_stale(&self, files: &(impl Files + ?Sized), id: &str, round: u64) -> bool {
        files.bytes(&layout::of_client(&layout::stale(round), id, layout::MODEL_ENDING)).is_ok()
    }

    /// Takes what is left as the round closes: late updates that it may merge, and those that no round will. At the
    /// deadline also the files that never became an update.
    fn take_rest(&mut self, files: &mut impl Files, at_deadline: bool) -> Result<(), RoundError> {
        let mut moves = Vec::new();
        for (round, name) in self.files_in(files, layout::STALE)? {
            let Some(id) = layout::client_of(&name) else { continue };
            let id = id.as_str();
            let from = format!("{}/{name}", layout::folder(layout::STALE, round));
            let Some(after_s) = self.arrival_s(files, &from)? else { continue };
            let fate = match self.why_never(files, round)? {
                _ if round == self.round => continue,
                Some(why) => Fate::Stale { why: why.to_owned() },
                None if self.has_arrived(id) => continue,
                None => Fate::Arrived { after_s: after_s.min(self.deadline_s) },
            };
            let is_double = moves.iter().any(|moved: &Move| moved.id == id && fate == moved.fate);
            if !is_double {
                moves.push(self.moved(files, from, (id, round), fate, moves.len()));
            }
        }
        for (round, entry) in foreign::entries(files, self.round)? {
            let from = format!("{}/{}", layout::inbox(round), entry.name);
            let own = layout::client_of(&entry.name);
            let (id, fate) = match foreign::why_no_update(&entry, round == self.round) {
                // A folder that cannot be moved is reported as its round closes, and as the next one does.
                Some(why) if entry.is_folder && round + 1 >= self.round => {
                    (&*entry.name, Fate::Foreign { why })
                }
                _ if entry.is_folder => continue,
                Some(why) => (&*entry.name, Fate::Rejected { why }),
                None if round == self.round && !at_deadline => continue,
                None => match (own.as_deref(), files.unfinished(&from)) {
                    (Some(id), Some(why)) => (id, Fate::Rejected { why }),
                    _ => continue,
                },
            };
            moves.push(self.moved(files, from, (id, round), fate, moves.len()));
        }
        self.take(files, moves)
    }

    /// Files of the folders of this round and the rounds before, as round and name.
    fn files_in(&self, files: &(impl Files + ?Sized), above: &str) -> Result<Vec<(u64, String)>, RoundError> {
        let mut found = Vec::new();
        for round in round_folders(files, above)?.into_iter().filter(|round| *round <= self.round) {
            let path = layout::folder(above, round);
            let entries = files.list(&path).map_err(RoundError::reading(&path))?;
            found.extend(
                entries.into_iter().filter(|entry| !entry.is_folder).map(|entry| (round, entry.name)),
            );
        }
        Ok(found)
    }

    fn moved(
        &self,
        files: &(impl Files + ?Sized),
        from: String,
        (id, round): (&str, u64),
        fate: Fate,
        before: usize,
    ) -> Move {
        let to = match &fate {
            Fate::Arrived { .. } => {
                layout::of_client(&layout::of_round(self.round, "updates"), id, layout::MODEL_ENDING)
            }
            Fate::Late => layout::of_client(&layout::stale(round), id, layout::MODEL_ENDING),
            Fate::Rejected { .. } | Fate::Stale { .. } | Fate::Foreign { .. } => {
                list::quarantine_path(files, self.round, &from, self.moves.len() + before)
            }
        };
        // The files in a folder may change before it moves.
        let stamp = match fate {
            Fate::Foreign { .. } => None,
            _ => files.stamp(&from).ok(),
        };
        Move { from, to, id: id.to_owned(), round, fate, stamp }
    }

    /// What the round collected.
    fn finish(&self, files: &impl Files, closed_by: &str) -> Result<Collecting, RoundError> {
        let (mut updates, mut bad) = (BTreeMap::new(), Vec::new());
        for moved in self.arrived() {
            let Fate::Arrived { after_s } = moved.fate else { continue };
            let (id, path, round) = (moved.id.clone(), moved.to.clone(), moved.round);
            // A client may have taken its file back before the move.
            let file: Fingerprint = match files.fingerprint(&path) {
                Err(why) if why.kind() == ErrorKind::NotFound => {
                    bad.push(Rejected { id, path, why: "is no file".to_owned(), is_late: false });
                    continue;
                }
                read => read.map_err(RoundError::reading(&path))?,
            };
            let stamp = files.stamp(&path).map_err(RoundError::reading(&path))?;
            updates.insert(id.clone(), Arrival { id, round, path, file, stamp, after_s });
        }
        let rejected = self.moves.iter().filter_map(|moved| match &moved.fate {
            Fate::Rejected { why } | Fate::Stale { why } => Some(Rejected {
                id: moved.id.clone(),
                path: moved.to.clone(),
                why: why.clone(),
                is_late: matches!(moved.fate, Fate::Stale { .. }),
            }),
            Fate::Foreign { why } => {
                let is_left = files.bytes(&moved.to).is_err();
                let (path, why) = match is_left {
                    true => (&moved.from, format!("{why}; it could not be moved")),
                    false => (&moved.to, why.clone()),
                };
                Some(Rejected { id: moved.id.clone(), path: path.clone(), why, is_late: false })
            }
            Fate::Arrived { .. } | Fate::Late => None,
        });
        let late = self.moves.iter().filter(|moved| moved.fate == Fate::Late).map(|moved| moved.to.clone());
        let is_missing = |id: &&&str| !updates.contains_key(**id);
        Ok(Collecting::Closed(Box::new(Collected {
            rejected: rejected.chain(bad).collect(),
            late: late.collect(),
            missing: self.selected.iter().filter(is_missing).map(|id| (*id).to_owned()).collect(),
            closed_by: closed_by.to_owned(),
            updates: updates.into_values().collect(),
        })))
    }
}

/// Why an update is left out that was whole as the round took it.
const CHANGED: &str = "the file changed after it was collected";

/// Why an update is not merged that started from a model of too long ago.
const TOO_OLD: &str = "the update is older than max_staleness rounds";

/// Why no round merges an update of a round that a rollback ended.
pub const ABANDONED: &str = "late: its round was abandoned by a rollback";

/// Why a strategy does not merge an update that came too late.
pub const LATE: &str =
    "the update came too late for its round, and the strategy merges no updates of earlier rounds";

/// An update has at most this multiple of the base's bytes, and [`HEADER_ROOM`] more: a narrow model in f64, and room.
const MOST_TIMES: u64 = 8;

/// Bytes that the header of an update may take.
const HEADER_ROOM: u64 = 32 << 20;

/// Whether the strategy merges updates of earlier rounds.
pub fn takes_stale(config: &Config) -> bool {
    strategies::parse(&config.strategy.spec(), Definition::Paper).is_ok_and(|strategy| strategy.takes_stale())
}
