//! The state of a federation: its last round, as the journals tell it.

pub mod charges;
pub mod sound;

use crate::round::error::RoundError;
use crate::round::journal::{
    Carry, Collected, Ending, Event, Line, Opening, RoundJournal, Validated, Version,
};
use crate::round::layout;
use crate::round::world::{Files, Fingerprint, Merged, World};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

/// The state of a federation.
#[derive(Clone, Debug)]
pub struct State {
    /// The last round with an event; 0 after `round init`.
    pub round: u64,
    /// Its journal.
    pub journal: RoundJournal,
    /// What the round started from, or left if it is over.
    pub carry: Carry,
}

impl State {
    /// Reads the state of a federation.
    ///
    /// # Errors
    ///
    /// When the directory holds none, or a journal is damaged.
    pub fn read(files: &(impl Files + ?Sized), directory: &Path) -> Result<Self, RoundError> {
        let missing = || RoundError::NoState { directory: directory.to_owned() };
        let last = last_folder(files, layout::ROUNDS)?.ok_or_else(missing)?;
        let own = RoundJournal::read_alone(files, last)?;
        if let Some(carry) = own.lines.iter().rev().find_map(|line| line.event.carry()).cloned() {
            return Ok(Self { round: last, journal: own, carry });
        }
        let before = last.checked_sub(1).ok_or_else(missing)?;
        let earlier = RoundJournal::read_alone(files, before)?;
        let carry = earlier.last().and_then(|line| line.event.carry()).cloned();
        let carry = carry.ok_or_else(|| RoundError::Torn {
            path: layout::journal(before),
            found: format!("a round that does not end, before round {last}"),
            expected: "the event close".to_owned(),
            remedy: "restore the state directory from a backup; docs/rounds.md says how to go on without"
                .to_owned(),
        })?;
        if own.lines.is_empty() {
            return Ok(Self { round: before, journal: earlier, carry });
        }
        if own.after != earlier.head {
            return Err(RoundError::Unexpected {
                path: layout::journal(last),
                found: "a first line that follows another line".to_owned(),
                expected: format!("one behind the last line of {}", layout::journal(before)),
            });
        }
        Ok(Self { round: last, journal: own, carry })
    }

    /// The event that the round ended with so far.
    pub fn last(&self) -> Option<&Event> {
        self.journal.last().map(|line| &line.event)
    }

    /// The state as the journal of one round alone tells it. Without an end of the round, its carry is empty.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn alone(files: &impl Files, round: u64) -> Result<Self, RoundError> {
        let journal = RoundJournal::read_alone(files, round)?;
        let carry = journal.lines.iter().find_map(|line| line.event.carry()).cloned();
        Ok(Self { round, carry: carry.unwrap_or_default(), journal })
    }

    /// Whether a round is open.
    pub fn is_open(&self) -> bool {
        self.last().is_some_and(|event| event.carry().is_none())
    }

    /// The round that is open, or that opens next.
    pub fn next_round(&self) -> u64 {
        if self.is_open() { self.round } else { self.round + 1 }
    }

    /// Appends an event of a round, and makes it the last.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn append(&mut self, files: &mut impl Files, round: u64, event: Event) -> Result<(), RoundError> {
        if round != self.round {
            let head = self.journal.head;
            self.journal = RoundJournal { head, ..RoundJournal::default() };
            self.round = round;
        }
        if let Some(carry) = event.carry() {
            self.carry = carry.clone();
        }
        self.journal.append(files, round, event)
    }

    /// The last line that `find` accepts.
    fn find<'s, T>(&'s self, find: impl Fn(&'s Event) -> Option<T>) -> Option<T> {
        self.journal.lines.iter().rev().find_map(|line| find(&line.event))
    }

    /// The opening of the round.
    pub fn opening(&self) -> Option<&Opening> {
        self.find(|event| if let Event::Open(opening) = event { Some(&**opening) } else { None })
    }

    /// The line of the opening of the round.
    pub fn opened(&self) -> Option<&Line> {
        self.journal.lines.iter().rev().find(|line| matches!(line.event, Event::Open(_)))
    }

    /// The line of the closing of the round.
    pub fn closed(&self) -> Option<&Line> {
        self.journal.lines.iter().rev().find(|line| matches!(line.event, Event::Validate(_)))
    }

    /// The patches that the round offers, by the digest of the model that they apply to.
    pub fn patches(&self) -> BTreeMap<String, Fingerprint> {
        let found =
            self.find(|event| if let Event::Collect { patches, .. } = event { Some(patches) } else { None });
        found.cloned().unwrap_or_default()
    }

    /// Whether the clients of the round mask their updates.
    pub fn is_secure(&self) -> bool {
        self.opening().is_some_and(|opening| opening.is_secure)
    }

    /// The session that the round opened; `None` before, and for a round in the clear.
    pub fn session(&self) -> Option<&str> {
        self.find(|event| if let Event::Collect { session, .. } = event { session.as_deref() } else { None })
    }

    /// What the round collected; `None` while it collects.
    pub fn collected(&self) -> Option<&Collected> {
        self.find(|event| if let Event::Validate(collected) = event { Some(&**collected) } else { None })
    }

    /// The updates that the round merges; `None` before.
    pub fn validated(&self) -> Option<&Validated> {
        self.find(|event| if let Event::Aggregate(validated) = event { Some(&**validated) } else { None })
    }

    /// What the merge made; `None` before.
    pub fn merged(&self) -> Option<&Merged> {
        self.find(|event| if let Event::Evaluate(merged) = event { Some(&**merged) } else { None })
    }

    /// What the evaluation measured; `None` before.
    pub fn measured(&self) -> Option<&BTreeMap<String, f64>> {
        self.find(|event| match event {
            Event::Publish { metrics } => Some(metrics),
            Event::Adapt(ending) => match &**ending {
                Ending::Refused { metrics, .. } => Some(metrics),
                Ending::Published(_) => None,
            },
            _ => None,
        })
    }

    /// How the round ends; `None` before.
    pub fn ending(&self) -> Option<&Ending> {
        self.find(|event| if let Event::Adapt(ending) = event { Some(&**ending) } else { None })
    }

    /// Seconds of each phase so far, without the time until a round opens.
    pub fn seconds(&self) -> BTreeMap<String, f64> {
        let lines = &self.journal.lines;
        let mut seconds = BTreeMap::new();
        for pair in lines.windows(2).filter(|pair| pair[0].event.carry().is_none()) {
            *seconds.entry(pair[0].event.name().to_owned()).or_insert(0.0) += pair[1].at.since(&pair[0].at);
        }
        seconds
    }

    /// The version that the link to the current model names.
    pub fn published(&self) -> &Version {
        match self.ending() {
            Some(Ending::Published(version)) if self.is_open() => version,
            _ => &self.carry.current,
        }
    }

    /// Notices a part of the directory that is older or newer than the journal.
    ///
    /// # Errors
    ///
    /// When there is such a part, or a file cannot be read.
    pub fn check_whole(&self, world: &mut impl World) -> Result<(), RoundError> {
        let beyond = |found: String| Err(RoundError::Restored { journal: self.round, found });
        let recorded = world.recorded_round()?;
        if let Some(later) = recorded.filter(|later| *later > self.round) {
            return beyond(format!("{} knows round {later}", layout::REGISTRY));
        }
        // Clients may make any folder in the inbox; the tasks are the server's.
        if let Some(later) = last_folder(world, layout::TASKS)?.filter(|later| *later > self.round) {
            return beyond(format!("there is {}", layout::tasks(later)));
        }
        let found = world.target(layout::CURRENT).map_err(|why| match why.kind() {
            ErrorKind::InvalidInput => RoundError::no_link(&self.carry.current.file.blake3),
            _ => RoundError::reading(layout::CURRENT)(why),
        })?;
        let merged = self.merged().map(|merged| layout::model(&merged.model.blake3));
        let current = Some(layout::model(&self.carry.current.file.blake3));
        // A rollback that was killed leaves the link at a model that is kept.
        let is_back = matches!(self.last(), Some(Event::Rollback(_)));
        let kept =
            self.carry.kept.iter().filter(|_| is_back).map(|version| layout::model(&version.file.blake3));
        let known: Vec<String> = kept.chain(current).chain(merged).collect();
        match found {
            Some(found) if !known.contains(&found) => {
                beyond(format!("{} is {found}, which the journal does not know as current", layout::CURRENT))
            }
            _ => Ok(()),
        }
    }
}

/// The largest number of a round among the folders of a folder.
///
/// # Errors
///
/// When it cannot be listed.
pub fn last_folder(files: &(impl Files + ?Sized), folder: &str) -> Result<Option<u64>, RoundError> {
    Ok(round_folders(files, folder)?.last().copied())
}

/// The numbers of the rounds that have a folder in a folder, in order.
///
/// # Errors
///
/// When it cannot be listed.
pub fn round_folders(files: &(impl Files + ?Sized), folder: &str) -> Result<Vec<u64>, RoundError> {
    let entries = files.list(folder).map_err(RoundError::reading(folder))?;
    let folders = entries.iter().filter(|entry| entry.is_folder);
    let mut rounds: Vec<u64> = folders.filter_map(|entry| layout::round_of(&entry.name)).collect();
    // As texts, 1000000 comes before 999999.
    rounds.sort_unstable();
    Ok(rounds)
}
