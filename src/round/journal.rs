//! The journal of a round: one sealed line before each phase acts.
//!
//! An event names the phase that begins, and holds what the phase before found. So the last line says what to do next,
//! and doing it twice does it once. The lines of all rounds are one chain: the first line of a round names the digest of
//! the last line of the round before.

use crate::fleet::select::Selection;
use crate::record::sha256::Sha256;
use crate::record::{ChainFault, Entry, Head, Record, read, seal};
use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::moment::Moment;
use crate::round::world::{BudgetFacts, Files, Fingerprint, Merged};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The settings that change from round to round.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The number of clients whose updates a round wants.
    pub clients: u64,
    /// The share of them that closes the round.
    pub quorum: f64,
    /// Seconds until the round closes with what came.
    pub timeout_s: f64,
    /// The share of selected clients that is expected to drop out.
    pub dropout: f64,
    /// The server's learning rate; `None` for that of the strategy.
    pub server_learning_rate: Option<f64>,
    /// The size of an update relative to the model that clients aim at.
    pub compression_target: f64,
    /// Local steps of the clients of a tier; the empty name stands for clients without a tier.
    pub local_steps: BTreeMap<String, u64>,
    /// The other settings of a tier; empty without tiers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, TierSettings>,
}

/// The settings of a tier that change from round to round.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct TierSettings {
    /// The codec of its clients; `None` for any of the configuration.
    pub codec: Option<String>,
    /// The size of an update relative to the model that its clients aim at.
    pub compression_target: f64,
    /// The bytes that one of its clients may send in a round; `None` without a budget.
    pub upload_bytes: Option<u64>,
}

/// An update that a client delivered.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// The client.
    pub id: String,
    /// The round that it was asked for.
    pub round: u64,
    /// Its path in the state directory.
    pub path: String,
    /// Its size and digest.
    #[serde(flatten)]
    pub file: Fingerprint,
    /// What the system knows of the file as it was read: another value shows that it may have changed.
    pub stamp: String,
    /// Seconds from the opening of the round to the moment at which the file came to the server.
    pub after_s: f64,
}

/// An update that a round left out.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// The client that the name of the file states.
    pub id: String,
    /// Its path in the state directory.
    pub path: String,
    /// The reason.
    pub why: String,
    /// Whether it came too late for an earlier round, and this round does not merge it either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_late: bool,
}

/// A published model.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Its number: 0 for the first model, and one more for each that a round published.
    pub number: u64,
    /// The round that made it.
    pub round: u64,
    /// Its size and digest.
    #[serde(flatten)]
    pub file: Fingerprint,
    /// The name of the strategy that made it; empty for the first model.
    pub strategy: String,
    /// Whether `rounds/N/state.safetensors` holds the state that the strategy left with it.
    pub has_state: bool,
    /// What its evaluation measured.
    pub metrics: BTreeMap<String, f64>,
}

/// The opening of a round.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The model that clients start from.
    pub base: Version,
    /// The number of all clients.
    pub population: u64,
    /// The settings of the round.
    pub settings: Settings,
    /// The clients, and why each was selected.
    pub selection: Selection,
    /// The number of updates that close the round.
    pub quorum: u64,
    /// BLAKE3 of the configuration.
    pub config: String,
    /// The budget before the round; `None` without privacy.
    pub budget: Option<BudgetFacts>,
    /// Whether clients mask their updates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_secure: bool,
}

/// What a round collected.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Collected {
    /// The updates, in order of client id.
    pub updates: Vec<Arrival>,
    /// The files that were no update of a selected client.
    pub rejected: Vec<Rejected>,
    /// The updates that came too late for their round, and wait for this one or a later one.
    pub late: Vec<String>,
    /// The selected clients without an update.
    pub missing: Vec<String>,
    /// What closed the round: `quorum`, `deadline` or `buffer`.
    pub closed_by: String,
}

/// The updates that a round merges.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Validated {
    /// The updates that fit the round.
    pub accepted: Vec<Arrival>,
    /// Those that do not.
    pub rejected: Vec<Rejected>,
    /// The loss that clients state, by client.
    pub losses: BTreeMap<String, f64>,
}

/// How a round ends.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It published this model.
    Published(Version),
    /// It published nothing.
    Refused {
        /// The reason.
        why: String,
        /// What the evaluation measured, if it came so far.
        metrics: BTreeMap<String, f64>,
    },
}

/// The value of a setting.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A name, such as that of a codec.
    Name(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:.4}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A setting that changes for the next round, or that cannot change as a budget asks: then both values are equal.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The setting.
    pub setting: String,
    /// Its value in this round.
    pub from: Value,
    /// Its value in the next.
    pub to: Value,
    /// The reason.
    pub why: String,
}

/// What the next round starts from.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Carry {
    /// The current model.
    pub current: Version,
    /// The number of the newest version, which a rollback does not lower.
    pub newest: u64,
    /// Published models that are kept, in the order in which they became current.
    pub kept: Vec<Version>,
    /// The settings of the next round; `None` before the first.
    pub settings: Option<Settings>,
    /// Rounds that published a model.
    pub published: u64,
    /// Rounds that ended and did not.
    pub refused: u64,
    /// Rounds that a rollback ended before they merged.
    #[serde(default)]
    pub abandoned: u64,
    /// Bytes that clients sent and fetched in all rounds.
    pub bytes: [u64; 2],
    /// The loss of the last rounds that measured one, from the oldest on.
    pub losses: Vec<(u64, f64)>,
    /// The time at which a round last published a model, in seconds since 1970; 0 before the first.
    pub published_at: f64,
    /// Bytes of `metrics/rounds.jsonl` and of the event file of TensorBoard.
    pub exported: [u64; 2],
}

/// What happened.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The state directory was made.
    Init(Box<Carry>),
    /// A round opens: tasks are written.
    Open(Box<Opening>),
    /// It collects updates.
    Collect {
        /// Patches to the base, by the digest of the model that they apply to.
        patches: BTreeMap<String, Fingerprint>,
        /// The digest of the session of a secure round.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// It validates what came.
    Validate(Box<Collected>),
    /// It merges what is valid.
    Aggregate(Box<Validated>),
    /// It evaluates the merged model.
    Evaluate(Box<Merged>),
    /// It publishes the model, whose metrics passed the guard.
    Publish {
        /// What the evaluation measured.
        metrics: BTreeMap<String, f64>,
    },
    /// It adapts the settings.
    Adapt(Box<Ending>),
    /// It reports.
    Report {
        /// The settings of the next round.
        settings: Box<Settings>,
        /// What changed, and why.
        changes: Vec<Change>,
    },
    /// It is over.
    Close(Box<Carry>),
    /// The operator went back to an earlier model.
    Rollback(Box<Carry>),
}

impl Event {
    /// The name of the event, which is that of its phase.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Open(_) => "open",
            Self::Collect { .. } => "collect",
            Self::Validate(_) => "validate",
            Self::Aggregate(_) => "aggregate",
            Self::Evaluate(_) => "evaluate",
            Self::Publish { .. } => "publish",
            Self::Adapt(_) => "adapt",
            Self::Report { .. } => "report",
            Self::Close(_) => "close",
            Self::Rollback(_) => "rollback",
        }
    }

    /// What the next round starts from, if the event ends a round.
    pub fn carry(&self) -> Option<&Carry> {
        match self {
            Self::Init(carry) | Self::Close(carry) | Self::Rollback(carry) => Some(carry),
            _ => None,
        }
    }
}

/// A line of the journal.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Line {
    /// The version of the format.
    pub format: u32,
    /// The round.
    pub round: u64,
    /// When it was written.
    pub at: Moment,
    /// What happened.
    pub event: Event,
}

/// The version of the format of lines.
pub const FORMAT: u32 = 1;

impl Entry for Line {
    fn check(&self) -> Result<(), String> {
        match self.format {
            FORMAT => Ok(()),
            found => Err(format!("found format {found}, expected {FORMAT}")),
        }
    }
}

/// The journal of one round.
#[derive(Clone, Default, Debug)]
pub struct RoundJournal {
    /// Its lines.
    pub lines: Vec<Line>,
    /// Bytes of whole lines.
    pub bytes: u64,
    /// The last line of the chain, that of the round before if this one has none.
    pub head: Option<Head>,
    /// The last line of the round before, as the first line of this one states it.
    pub after: Option<Head>,
}

impl RoundJournal {
    /// Reads the journal of a round without the round before: the first line is believed in what it says of that.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_alone(files: &(impl Files + ?Sized), round: u64) -> Result<Self, RoundError> {
        let path = layout::journal(round);
        let bytes = files.read(&path).map_err(RoundError::reading(&path))?.unwrap_or_default();
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let stated: Option<Stated> = serde_json::from_slice(first).ok();
        let after = stated
            .and_then(|stated| Some(Head { seq: stated.seq.checked_sub(1)?, sha256: stated.prev_sha256 }));
        Self::read(files, round, after)
    }

    /// Reads the journal of a round behind the chain of the round before.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or a line is damaged or was changed.
    pub fn read(files: &(impl Files + ?Sized), round: u64, after: Option<Head>) -> Result<Self, RoundError> {
        let path = layout::journal(round);
        let bytes = files.read(&path).map_err(RoundError::reading(&path))?.unwrap_or_default();
        // A killed writer may leave a part of a line, which it never reported as written.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut journal = Self { lines: Vec::new(), bytes: whole as u64, head: after, after };
        let text = std::str::from_utf8(&bytes[..whole]).map_err(|why| RoundError::Damaged {
            path: path.clone(),
            line: 0,
            fault: why.to_string(),
        })?;
        for (number, line) in text.lines().enumerate() {
            let at = |fault| damaged(&path, number + 1, line, &fault);
            let (record, head): (Record<Line>, Head) = read(line, journal.head.as_ref()).map_err(at)?;
            if record.entry.round != round {
                let found = format!("a line of round {}", record.entry.round);
                return Err(RoundError::Unexpected {
                    path,
                    found,
                    expected: format!("lines of round {round}"),
                });
            }
            journal.lines.push(record.entry);
            journal.head = Some(head);
        }
        Ok(journal)
    }

    /// The last event.
    pub fn last(&self) -> Option<&Line> {
        self.lines.last()
    }

    /// Whether a rollback ended the round before it merged.
    pub fn is_abandoned(&self) -> bool {
        let ended = self.lines.iter().find(|line| line.event.carry().is_some());
        ended.is_some_and(|line| matches!(line.event, Event::Rollback(_)))
    }

    /// Appends an event, and waits until it is on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn append(&mut self, files: &mut impl Files, round: u64, event: Event) -> Result<(), RoundError> {
        let at = files.now();
        let path = layout::journal(round);
        let ts = at.unix_s();
        let line = Line { format: FORMAT, round, at, event };
        let sealed = seal(self.head.as_ref(), ts, &line);
        let (text, head) = sealed.map_err(|fault| damaged(&path, self.lines.len() + 1, "", &fault))?;
        let bytes = format!("{text}\n");
        files.append(&path, self.bytes, bytes.as_bytes()).map_err(RoundError::writing(&path))?;
        self.bytes += bytes.len() as u64;
        self.head = Some(head);
        self.lines.push(line);
        Ok(())
    }
}

/// What a line says of the line before it.
#[derive(Deserialize)]
struct Stated {
    seq: u64,
    prev_sha256: Sha256,
}

/// The format of a line as JSON, however the rest of it looks.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn damaged(path: &str, line: usize, text: &str, fault: &ChainFault) -> RoundError {
    let (path, found) = (path.to_owned(), serde_json::from_str::<Format>(text).map(|line| line.format));
    match found {
        Ok(found) if found > FORMAT => RoundError::Newer { path, found, known: FORMAT },
        _ => RoundError::Damaged { path, line, fault: fault.to_string() },
    }
}
