//! Why a privacy budget cannot be used.

use crate::io::journal::JournalError;
use crate::io::model_file::OpenFault;
use crate::model::faults::Faults;
use crate::privacy::ledger::budget::VerdictError;
use crate::privacy::ledger::plan::{FrozenError, PlanError};
use crate::privacy::ledger::replay::ReplayError;
use crate::record::sha256::Sha256;
use crate::record::{ChainError, ChainFault};
use std::io;
use std::path::{Path, PathBuf};

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
    #[error("{}: the plan's digest is {found}, the ledger has {expected}", .path.display())]
    OtherPlan { path: PathBuf, found: Sha256, expected: Sha256 },
    #[error("{}: is not understood: {why}", .path.display())]
    BadHead { path: PathBuf, why: String },
    #[error("{}: is missing, expected the number and digest of the last record", .path.display())]
    NoHead { path: PathBuf },
    #[error("{}: ends with record {found}, expected record {expected} that was written before: lines are missing", .path.display())]
    Behind { path: PathBuf, found: u64, expected: u64 },
    #[error("{}: record {seq} is {found}, expected {expected} that was written before: the ledger was rewritten", .path.display())]
    Rewritten { path: PathBuf, seq: u64, found: Sha256, expected: Sha256 },
    #[error("{}: was made with charge {charge}, but the ledger ends with record {found}: the ledger is older than the model", .path.display())]
    OlderThanModel { path: PathBuf, charge: u64, found: u64 },
    #[error("{}: names charge {charge} as {found}, the ledger has {expected}: it was rewritten or is another copy", .path.display())]
    OtherCharge { path: PathBuf, charge: u64, found: Sha256, expected: Sha256 },
    #[error("{}: was made with charge {charge}, which was voided: `{attest}`", .path.display())]
    Voided { path: PathBuf, charge: u64, attest: String },
    #[error("{}: was made with charge {charge}, which was voided: `{attest}`; this run would replace it", .path.display())]
    ReplacesVoided { path: PathBuf, charge: u64, attest: String },
    #[error("{}: is the output of charge {charge}, whose release is not recorded: this run would replace it", .path.display())]
    Unrecorded { path: PathBuf, charge: u64, directory: PathBuf },
    #[error("{}: metadata `{key}`: {why}", .path.display())]
    Stamp { path: PathBuf, key: &'static str, why: String },
    #[error("{}: cannot be used: {}", .path.display(), .faults)]
    Model { path: PathBuf, faults: Faults<OpenFault> },
    #[error("updates have {found} coordinates, the plan has {expected}")]
    Dimension { found: u64, expected: u64 },
    #[error("{}: the round clips other tensors: their names have digest {found}, the plan has {expected}", .path.display())]
    Tensors { path: PathBuf, found: Sha256, expected: Sha256 },
    #[error("record {seq}: {why}")]
    NotOpen { seq: u64, why: String },
    #[error("the charge is not allowed: with it, the ledgers of the plan's run {why}")]
    Allowance { why: String },
    #[error("a record cannot be written: {0}")]
    Seal(#[from] ChainFault),
    #[error("--round is missing: correlated noise needs the number of the round")]
    NoRound,
    #[error("{}: was copied before its run completed it, expected the released model", .path.display())]
    Incomplete { path: PathBuf },
    #[error("--test-seed: {why}")]
    TestSeed { why: String },
    #[error("{}: {why}", .path.display())]
    SeriesKey { path: PathBuf, why: String },
    #[error("{}: an older fedmill started this series, with noise that does not depend on the inputs of a round", .path.display())]
    OldSeries { path: PathBuf },
    #[error("{}: its digest is {found}, the charge of that round names {expected}", .path.display())]
    Clients { path: PathBuf, found: Sha256, expected: Sha256 },
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Budget(#[from] VerdictError),
}

impl BudgetError {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoLedger { path } => {
                return Some(format!("`fedmill privacy init {}` starts one", path.display()));
            }
            Self::Unrecorded { charge, directory, .. } => {
                let directory = directory.display();
                return Some(format!(
                    "run the command of charge {charge} again, which costs nothing, or record its release with `fedmill \
                     privacy recover {directory} --adopt {charge}`; or pass another path for this run"
                ));
            }
            Self::Exists { .. } => "choose a new directory for another budget",
            Self::Plan(why) => return why.hint().map(str::to_owned),
            Self::Behind { .. }
            | Self::Rewritten { .. }
            | Self::OlderThanModel { .. }
            | Self::OtherCharge { .. } => {
                "restore the latest copy of the directory; an older copy lacks charges that count all the same"
            }
            Self::Chain { .. } | Self::Replay { .. } | Self::NoHead { .. } | Self::BadHead { .. } => {
                "another program changed the file; restore the latest copy of the directory"
            }
            Self::Allowance { .. } => {
                "`limits.eps` and `limits.delta` of the plan bound what its commands charge"
            }
            Self::NoRound => "pass --round N; the rounds of a series are 1, 2, 3, ...",
            Self::SeriesKey { .. } | Self::Clients { .. } => {
                "restore the latest copy of the directory; without it the series cannot go on, and a new series needs \
                 a new ledger"
            }
            Self::Voided { .. } => {
                "the model exists, so its cost is spent: start from another base, and charge the release again with \
                 `fedmill privacy spend`"
            }
            Self::TestSeed { .. } => {
                "all rounds of a series share one key: do as in its earlier rounds, or start a new ledger"
            }
            Self::ReplacesVoided { .. } => {
                "the model exists, so the statement is wrong and its cost is spent: pass another -o, and charge the \
                 release again with `fedmill privacy spend`"
            }
            Self::OldSeries { .. } => {
                "its releases stay valid, but a restored backup could repeat its noise; start a new ledger"
            }
            Self::Dimension { .. } | Self::Tensors { .. } => {
                "a plan is for one model and one choice of its tensors: give --personal, --statistics, --opaque and \
                 --dp-statistics to `privacy init` as to each round, or start a new ledger"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The signal that stopped the process, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Journal(JournalError::Interrupted(interrupted)) => Some(interrupted.signal),
            _ => None,
        }
    }

    /// Turns a failure of the file system into an error that names the file.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
