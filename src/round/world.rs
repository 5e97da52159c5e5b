//! What a round touches: the files of its state directory, the clock, and the work of other rooms.
//!
//! The phases see the world through these traits alone. [`crate::round::server`] is the real
//! world; the tests have one that crashes, tears writes, fills disks and moves clocks.

use crate::fleet::history::Participation;
use crate::fleet::select::Selection;
use crate::lint::tier_codecs::TierTask;
use crate::modes::secure::standing::Standing;
use crate::round::error::RoundError;
use crate::round::journal::{Arrival, Rejected, Settings};
use crate::round::moment::Moment;
use crate::telemetry::metrics::SecureFigures;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// An entry of a folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// The size and the digest of a file.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// BLAKE3, in lower-case hex.
    pub blake3: String,
    /// Bytes.
    pub bytes: u64,
}

/// The files of a state directory, by paths relative to it. What a method changed is on disk when it returns, whole or
/// not at all.
pub trait Files {
    /// The content of a file; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;

    /// Writes a whole file, and replaces a file of that name. Creates its folder.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    fn write(&mut self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Writes a folder with these files, which appears whole. Does nothing if the folder exists.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    fn write_folder(&mut self, folder: &str, files: &[(String, Vec<u8>)]) -> io::Result<()>;

    /// Creates a folder, if it does not exist.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    fn make_folder(&mut self, folder: &str) -> io::Result<()>;

    /// The entries of a folder in order of name, without hidden ones; none if it does not exist.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>>;

    /// The hidden entries of a folder in order of name; none if it does not exist.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    fn hidden(&self, folder: &str) -> io::Result<Vec<Entry>>;

    /// Renames entries of a folder whose name is not UTF-8, so that `list` has them: each byte that does not fit becomes
    /// `%` and two hex digits.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed, or an entry cannot be renamed.
    fn name_plainly(&mut self, folder: &str) -> io::Result<()>;

    /// Moves a file or a folder, and creates the folder of the target. Does nothing if the target exists: an earlier run
    /// moved it.
    ///
    /// # Errors
    ///
    /// When it cannot be moved.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Moves files and folders, each as `rename`, and returns how each move went. They are on disk together when it
    /// returns; a crash before may leave some of them moved.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    fn rename_all(&mut self, moves: &[(&str, &str)]) -> io::Result<Vec<io::Result<()>>> {
        Ok(moves.iter().map(|(from, to)| self.rename(from, to)).collect())
    }

    /// Copies a file, or gives it a second name. Does nothing if the target exists.
    ///
    /// # Errors
    ///
    /// When it cannot be copied.
    fn copy(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file or a folder with its files, if it exists.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    fn remove(&mut self, path: &str) -> io::Result<()>;

    /// Cuts a file to `at` bytes and appends some. Creates it if needed.
    ///
    /// # Errors
    ///
    /// When they cannot be written. A part of them may then stand in the file.
    fn append(&mut self, path: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes a symbolic link, and replaces one of that name.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    fn point(&mut self, link: &str, target: &str) -> io::Result<()>;

    /// The target of a symbolic link; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// When it cannot be read. When it is no link, the kind of the error is `InvalidInput`.
    fn target(&self, link: &str) -> io::Result<Option<String>>;

    /// The size and the digest of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn fingerprint(&self, path: &str) -> io::Result<Fingerprint>;

    /// Whether there is a file with this size and this digest.
    fn holds(&self, path: &str, file: &Fingerprint) -> bool {
        self.bytes(path).is_ok_and(|bytes| bytes == file.bytes)
            && self.fingerprint(path).is_ok_and(|found| found == *file)
    }

    /// Device, inode, size and times of a file. A change of its content changes one of them.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    fn stamp(&self, path: &str) -> io::Result<String>;

    /// The moment at which a file got its content, its name or its owner, whichever was last, in milliseconds since
    /// 1970 on the wall clock. No client can set it.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    fn changed_ms(&self, path: &str) -> io::Result<u64>;

    /// Bytes of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    fn bytes(&self, path: &str) -> io::Result<u64>;

    /// Why a file is no whole update; `None` if it is whole. A client may still write it.
    fn unfinished(&self, path: &str) -> Option<String>;

    /// The name of the federation, for those who read its metrics.
    fn name(&self) -> String;

    /// The moment.
    fn now(&self) -> Moment;
}

/// The updates and the settings of one merge.
#[derive(Clone, PartialEq, Debug)]
pub struct MergeOrder {
    /// The round.
    pub round: u64,
    /// The path of the model that the updates started from.
    pub base: String,
    /// The updates.
    pub updates: Vec<Arrival>,
    /// The path of the state that the strategy left with the base; `None` if it left none.
    pub state: Option<String>,
    /// The number of all clients.
    pub population: u64,
    /// The probability with which each client took part, independent of all others; `None` without such a promise.
    pub rate: Option<f64>,
    /// Settings that adapt.
    pub settings: Settings,
}

/// What the headers and the metadata of updates say.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Examined {
    /// The updates that do not fit the round.
    pub rejected: Vec<Rejected>,
    /// The loss that clients state, by client.
    pub losses: BTreeMap<String, f64>,
}

/// A client in a merged model.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct MergedClient {
    /// Its id.
    pub id: String,
    /// Its share of the model, if the rule assigns shares.
    pub weight: Option<f64>,
    /// The L2 norm of its delta.
    pub norm: Option<f64>,
    /// Whether the model contains it.
    pub kept: bool,
    /// The reason of the rule.
    pub reason: String,
}

/// What a merge made.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Merged {
    /// Why the merge was refused; `None` if there is a model.
    pub refused: Option<String>,
    /// The merged model.
    pub model: Fingerprint,
    /// Whether the strategy left a state.
    pub has_state: bool,
    /// The clients that took part; none under privacy.
    pub clients: Vec<MergedClient>,
    /// The updates that the merge left out; none under privacy.
    pub rejected: Vec<Rejected>,
    /// Numbers of the round as a whole, by name.
    pub geometry: BTreeMap<String, f64>,
    /// The warnings of the merge; none under privacy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The session whose means were merged; `None` for a round in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<SecureFigures>,
}

/// The state of the privacy budget.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct BudgetFacts {
    /// The epsilon spent; `None` for infinity.
    pub epsilon_spent: Option<f64>,
    /// The epsilon of the budget.
    pub epsilon_budget: f64,
    /// Its delta.
    pub delta: f64,
    /// The rounds that it still holds.
    pub rounds_left: u64,
    /// The clip bound of the next round.
    pub clip: f64,
}

/// The work that other rooms do for a round.
pub trait Work {
    /// Selects the clients of a round.
    ///
    /// # Errors
    ///
    /// When there are too few clients, or the registry cannot be read.
    fn select(&mut self, round: u64, settings: &Settings, now: &Moment) -> Result<Selection, RoundError>;

    /// What the file of tiers asks of the clients of each tier; nothing without such a file. Forecasts are for updates of
    /// the model at this path.
    ///
    /// # Errors
    ///
    /// When the file or the model cannot be used.
    fn tiers(&mut self, model: &str) -> Result<BTreeMap<String, TierTask>, RoundError>;

    /// The number of clients that are not retired.
    ///
    /// # Errors
    ///
    /// When the registry cannot be read.
    fn population(&mut self) -> Result<u64, RoundError>;

    /// The last round that the registry knows; `None` for none.
    ///
    /// # Errors
    ///
    /// When the registry cannot be read.
    fn recorded_round(&mut self) -> Result<Option<u64>, RoundError>;

    /// Records what each client did in a round. A second call for the same round changes nothing.
    ///
    /// # Errors
    ///
    /// When the registry cannot be written.
    fn record(&mut self, round: u64, clients: &[Participation], now: &Moment) -> Result<(), RoundError>;

    /// The Jain index of participation over all clients; `None` without clients.
    ///
    /// # Errors
    ///
    /// When the registry cannot be read.
    fn fairness(&mut self) -> Result<Option<f64>, RoundError>;

    /// Looks at the headers, the metadata and the layouts of updates.
    ///
    /// # Errors
    ///
    /// When the base cannot be read.
    fn examine(&mut self, order: &MergeOrder) -> Result<Examined, RoundError>;

    /// Merges updates into `rounds/N/model.safetensors`, with a report and the state of the strategy beside it.
    ///
    /// # Errors
    ///
    /// When the policy refuses the merge, or a file cannot be read or written.
    fn merge(&mut self, order: &MergeOrder) -> Result<Merged, RoundError>;

    /// Why a file is no whole state of a strategy; `None` if it is one.
    fn state_fault(&mut self, path: &str) -> Option<String>;

    /// Measures a model by the operator's command.
    ///
    /// # Errors
    ///
    /// When the command fails, or prints no object of numbers.
    fn evaluate(&mut self, round: u64, model: &str) -> Result<BTreeMap<String, f64>, RoundError>;

    /// Writes a patch that turns one model into another, if it is smaller than the model. Returns its fingerprint.
    ///
    /// # Errors
    ///
    /// When a model cannot be read, or the patch cannot be written.
    fn patch(&mut self, from: &str, to: &str, patch: &str) -> Result<Option<Fingerprint>, RoundError>;

    /// Checks before a round opens that its settings fit together, and makes the privacy budget if there is none.
    ///
    /// # Errors
    ///
    /// When they do not, or a file cannot be read or written.
    fn prepare(&mut self, population: u64) -> Result<(), RoundError>;

    /// The number of releases that the ledger of the privacy budget charged; `None` without a ledger.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn releases(&mut self) -> Result<Option<u64>, RoundError>;

    /// The state of the privacy budget; `None` without privacy.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn budget(&mut self) -> Result<Option<BudgetFacts>, RoundError>;
}

/// What a session is opened for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionOrder {
    /// The round.
    pub round: u64,
    /// The path of the model that clients start from.
    pub base: String,
    /// The clients that may take part.
    pub clients: BTreeSet<String>,
    /// Seconds since 1970 after which clients mask no more.
    pub deadline: u64,
}

/// A file in the folder of masked updates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaskedFile {
    /// The client that its name states, or its name.
    pub id: String,
    /// Its path in the state directory.
    pub path: String,
    /// Why it is no masked update that the client signed; `None` if it is.
    pub fault: Option<String>,
}

/// The means of a session.
#[derive(Clone, PartialEq, Debug)]
pub struct Means {
    /// The mean of each group that has clients.
    pub updates: Vec<GroupMean>,
    /// The clients of the round that are in no mean, each with the reason.
    pub left_out: BTreeMap<String, String>,
    /// What the report of the round says.
    pub figures: SecureFigures,
}

/// The mean of a group of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMean {
    /// The id that it has as an update.
    pub id: String,
    /// Its path in the state directory.
    pub path: String,
    /// Its clients.
    pub clients: Vec<String>,
}

/// Sessions of secure aggregation, as rounds see them.
pub trait Sessions {
    /// The clients that take part under secure aggregation only.
    ///
    /// # Errors
    ///
    /// When the registry cannot be read.
    fn demand_secure(&self) -> Result<BTreeSet<String>, RoundError>;

    /// Opens the session of a round, or finds the one that an earlier run opened. Returns its digest.
    ///
    /// # Errors
    ///
    /// When a key is missing, the terms cannot be, or another session is there.
    fn open_session(&mut self, order: &SessionOrder) -> Result<String, RoundError>;

    /// The digest of the session of a round; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When its manifest cannot be read.
    fn session(&self, round: u64) -> Result<Option<String>, RoundError>;

    /// The files in the folder of masked updates.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed.
    fn masked(&self, round: u64) -> Result<Vec<MaskedFile>, RoundError>;

    /// How far a session is, with the masked updates of these clients.
    ///
    /// # Errors
    ///
    /// When a message cannot be read.
    fn standing(&self, round: u64, clients: &BTreeSet<String>) -> Result<Standing, RoundError>;

    /// Freezes the set of these clients, once, and publishes the sum of their masked updates.
    ///
    /// # Errors
    ///
    /// When too few clients are sound, or a file cannot be read or written.
    fn freeze(&mut self, round: u64, clients: &BTreeSet<String>) -> Result<(), RoundError>;

    /// Unmasks the sums, and writes the means. The same answers give the same bytes.
    ///
    /// # Errors
    ///
    /// When answers contradict each other, or a file cannot be read or written.
    fn unmask(&mut self, round: u64) -> Result<Means, RoundError>;
}

/// The whole world of a round.
pub trait World: Files + Work + Sessions {}

impl<T: Files + Work + Sessions> World for T {}
