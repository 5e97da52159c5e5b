//! A state directory as it is on disk, read and checked. Readers need no lock.

use crate::io::journal::{self, JournalError, Lines};
use crate::io::model_file::{OpenFault, list};
use crate::io::{cache, secret, text};
use crate::privacy::ledger::budget::VerdictError;
use crate::privacy::ledger::plan::{BudgetPlan, FrozenError, PlanError};
use crate::privacy::ledger::record::Record;
use crate::privacy::ledger::replay::{ReplayError, State};
use crate::record::sha256::Sha256;
use crate::record::{self, ChainError, ChainFault, Head};
use std::io;
use std::path::{Path, PathBuf};

/// What the noise of rounds is called, before their numbers.
const ROW: &str = "noise";

/// The paths of a state directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// A ledger, read and checked.
#[derive(Clone, Debug)]
pub struct Books {
    /// Where it is.
    pub directory: Directory,
    /// Its records, and the head at each.
    pub records: Vec<(Record, Head)>,
    /// What they come to.
    pub state: State,
    /// What a writer that was cut off left behind the last line.
    pub torn: Vec<u8>,
}

/// Why a privacy budget cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum BudgetError {
    #[error("{}: holds no privacy ledger", .path.display())]
    NoLedger { path: PathBuf },
    #[error("{}: holds a privacy ledger already, expected none", .path.display())]
    Exists { path: PathBuf },
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{}: {error}", .path.display())]
    Chain { path: PathBuf, error: ChainError },
    #[error("{}: {error}", .path.display())]
    Replay { path: PathBuf, error: ReplayError },
    #[error("{}: {error}", .path.display())]
    Frozen { path: PathBuf, error: FrozenError },
    #[error("{}: the plan's digest is {found}, that in the ledger is {expected}", .path.display())]
    OtherPlan { path: PathBuf, found: Sha256, expected: Sha256 },
    #[error("{}: is not understood: {why}", .path.display())]
    BadHead { path: PathBuf, why: String },
    #[error("{}: is missing, expected where the ledger ends", .path.display())]
    NoHead { path: PathBuf },
    #[error("{}: ends with record {found}, expected record {expected} that was written before: lines are missing", .path.display())]
    Behind { path: PathBuf, found: u64, expected: u64 },
    #[error("{}: record {seq} is {found}, expected {expected} that was written before: the ledger was rewritten", .path.display())]
    Rewritten { path: PathBuf, seq: u64, found: Sha256, expected: Sha256 },
    #[error("{}: was made by charge {charge}, but the ledger ends with record {found}: it is older than the model", .path.display())]
    OlderThanModel { path: PathBuf, charge: u64, found: u64 },
    #[error("{}: names charge {charge} as {found}, the ledger has {expected}: it was rewritten, or is of another time", .path.display())]
    OtherCharge { path: PathBuf, charge: u64, found: Sha256, expected: Sha256 },
    #[error("{}: metadata `{key}`: {why}", .path.display())]
    Marks { path: PathBuf, key: &'static str, why: String },
    #[error("{}: cannot be used: {}", .path.display(), list(.faults))]
    Model { path: PathBuf, faults: Vec<OpenFault> },
    #[error("updates have {found} coordinates, the plan has {expected}")]
    Dimension { found: u64, expected: u64 },
    #[error("record {seq}: {why}")]
    NotOpen { seq: u64, why: String },
    #[error("a record cannot be written: {0}")]
    Seal(#[from] ChainFault),
    #[error("found no round, expected its number: correlated noise hangs on it")]
    NoRound,
    #[error("{}: {why}", .path.display())]
    RunKey { path: PathBuf, why: String },
    #[error("{}: its digest is {found}, the charge of that round says {expected}", .path.display())]
    Clients { path: PathBuf, found: Sha256, expected: Sha256 },
    #[error("the operating system has no randomness: {0}")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Budget(#[from] VerdictError),
}

impl BudgetError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoLedger { path } => {
                return Some(format!("`fedmill privacy init {}` starts one", path.display()));
            }
            Self::Exists { .. } => "a budget starts once; another one needs a directory of its own",
            Self::Plan(why) => return why.hint().map(str::to_owned),
            Self::Behind { .. }
            | Self::Rewritten { .. }
            | Self::OlderThanModel { .. }
            | Self::OtherCharge { .. } => {
                "bring back the latest copy of the directory; what an older one lacks was spent all the same"
            }
            Self::Chain { .. } | Self::Replay { .. } | Self::NoHead { .. } | Self::BadHead { .. } => {
                "it was changed by another hand than fedmill's; bring back the latest copy of the directory"
            }
            Self::NoRound => "say --round N; rounds of a run are 1, 2, 3, ...",
            Self::RunKey { .. } | Self::Clients { .. } => {
                "bring back the latest copy of the directory; without it the run cannot go on, and another one needs a \
                 ledger of its own"
            }
            Self::Dimension { .. } => "a plan is of one model; another one needs a ledger of its own",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The signal that ended the run, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Journal(JournalError::Interrupted(interrupted)) => Some(interrupted.signal),
            _ => None,
        }
    }

    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl Directory {
    /// A state directory; it need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its records.
    pub fn ledger(&self) -> PathBuf {
        self.path.join("ledger.jsonl")
    }

    /// Its plan.
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.lock")
    }

    /// Where its ledger ends.
    pub fn head(&self) -> PathBuf {
        self.path.join("head")
    }

    /// What its writer holds.
    pub fn lock(&self) -> PathBuf {
        self.path.join("ledger.lock")
    }

    /// The key of a charge, while that may be run again.
    pub fn key(&self, charge: u64) -> PathBuf {
        self.path.join(format!("key-{charge}"))
    }

    /// The key of a run whose noise is correlated.
    pub fn run_key(&self) -> PathBuf {
        self.path.join("run-key")
    }

    /// The key of the hashes in lists of clients.
    pub fn clients_key(&self) -> PathBuf {
        self.path.join("clients-key")
    }

    /// The clients that count in a round of a run, by hashes.
    pub fn clients(&self, round: u64) -> PathBuf {
        self.path.join(format!("clients-{round}"))
    }

    /// The noise of a round, for later ones.
    pub fn row(&self, round: u32) -> PathBuf {
        self.path.join(format!("{ROW}-{round}"))
    }

    /// Wipes the noise of rounds that is not to be kept.
    pub(crate) fn wipe_rows(&self, keep: impl Fn(u64) -> bool) -> Result<(), BudgetError> {
        secret::wipe_numbered(&self.path, ROW, keep).map_err(BudgetError::at(&self.path))
    }

    /// Where the ledger ended when it was last written to; none if it never was.
    ///
    /// # Errors
    ///
    /// When the file is no such thing.
    pub fn read_head(&self) -> Result<Option<Head>, BudgetError> {
        let path = self.head();
        let bytes = cache::read(&path).map_err(BudgetError::at(&path))?;
        let head = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        head.map_err(|why| BudgetError::BadHead { path, why: why.to_string() })
    }

    /// Writes down where the ledger ends.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn write_head(&self, head: &Head) -> Result<(), BudgetError> {
        let text = format!("{{\"seq\":{},\"sha256\":\"{}\"}}\n", head.seq, head.sha256);
        cache::write(&self.head(), text.as_bytes()).map_err(BudgetError::at(&self.head()))
    }
}

impl Books {
    /// Reads a ledger, and checks its chain, its plan and its end.
    ///
    /// # Errors
    ///
    /// At the first thing that is wrong.
    pub fn read(path: &Path) -> Result<Self, BudgetError> {
        let directory = Directory::new(path);
        // The head first: a run that writes meanwhile only makes the ledger longer than it says.
        let head = directory.read_head()?;
        Self::of(directory.clone(), journal::read(&directory.ledger())?, head)
    }

    /// The same of what was read.
    pub(crate) fn of(directory: Directory, lines: Lines, head: Option<Head>) -> Result<Self, BudgetError> {
        let path = directory.ledger();
        let chain = |error| BudgetError::Chain { path: path.clone(), error };
        let records = record::verify(lines.iter()).map_err(chain)?;
        let replay = |error| BudgetError::Replay { path: path.clone(), error };
        let Some(state) = State::replay(&records).map_err(replay)? else {
            return Err(match head {
                None => BudgetError::NoLedger { path: directory.path },
                Some(head) => BudgetError::Behind { path, found: 0, expected: head.seq },
            });
        };
        let books = Self { directory, records, state, torn: lines.torn };
        books.check_head(head)?;
        books.check_plan()?;
        Ok(books)
    }

    /// Holds the ledger against where it ended before.
    fn check_head(&self, head: Option<Head>) -> Result<(), BudgetError> {
        let last = self.state.head.seq;
        let Some(Head { seq, sha256: expected }) = head else {
            // It is written behind the first record, and ever after.
            let missing = BudgetError::NoHead { path: self.directory.head() };
            return if last == 0 { Ok(()) } else { Err(missing) };
        };
        let path = self.directory.ledger();
        match self.state.at(seq) {
            None => Err(BudgetError::Behind { path, found: last, expected: seq }),
            Some(found) if found != expected => Err(BudgetError::Rewritten { path, seq, found, expected }),
            Some(_) => Ok(()),
        }
    }

    fn check_plan(&self) -> Result<(), BudgetError> {
        let path = self.directory.plan();
        let text = text::read(&path).map_err(BudgetError::at(&path))?;
        let frozen = |error| BudgetError::Frozen { path: path.clone(), error };
        let found = BudgetPlan::thaw(&text).map_err(frozen)?.sha256();
        let expected = self.state.init.plan_sha256;
        if found != expected {
            return Err(BudgetError::OtherPlan { path, found, expected });
        }
        Ok(())
    }
}
