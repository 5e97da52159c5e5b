//! The files of a state directory: their paths, and the head that says where the ledger ends.

use crate::budget::error::BudgetError;
use crate::budget::kept::KeptOutputs;
use crate::io::journal::LEDGER;
use crate::io::{cache, publish, secret};
use crate::record::Head;
use std::path::{Path, PathBuf};

/// Prefix of the files that hold the key of a charge; the number of the charge follows.
const KEY: &str = "key";

/// Prefix of the files that name the outputs of a charge; the number of the charge follows.
const OUTPUTS: &str = "outputs";

/// Prefix of the files that hold the noise of a round; the number of the round follows.
const NOISE_ROW: &str = "noise";

/// The paths of a state directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    pub(super) path: PathBuf,
}

impl Directory {
    /// A state directory; it need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The file with the records.
    pub fn ledger(&self) -> PathBuf {
        self.path.join(LEDGER)
    }

    /// The file with the frozen plan.
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.lock")
    }

    /// The file with the number and digest of the last record.
    pub fn head(&self) -> PathBuf {
        self.path.join("head")
    }

    /// The lock file that the one writer holds.
    pub fn lock(&self) -> PathBuf {
        self.path.join("ledger.lock")
    }

    /// The file with the key of a charge, kept while the release may be made again.
    pub fn key(&self, charge: u64) -> PathBuf {
        self.path.join(format!("{KEY}-{charge}"))
    }

    /// The file that says where the outputs of a charge wait for their names.
    pub fn outputs(&self, charge: u64) -> PathBuf {
        self.path.join(format!("{OUTPUTS}-{charge}"))
    }

    /// The file with the key of a series.
    pub fn series_key(&self) -> PathBuf {
        self.path.join("run-key")
    }

    /// The file with the key that client ids are hashed with.
    pub fn clients_key(&self) -> PathBuf {
        self.path.join("clients-key")
    }

    /// The file with the hashed ids of the clients that count in a round of a series.
    pub fn clients(&self, round: u64) -> PathBuf {
        self.path.join(format!("clients-{round}"))
    }

    /// The file with the noise of a round, which later rounds subtract in part.
    pub fn row(&self, round: u32) -> PathBuf {
        self.path.join(format!("{NOISE_ROW}-{round}"))
    }

    /// The name of the temporary file with the sum of a round. It never gets this name.
    pub fn sum(&self) -> PathBuf {
        self.path.join("sum")
    }

    /// Wipes the noise of every round that `keep` does not name.
    pub(crate) fn wipe_rows(&self, keep: impl Fn(u64) -> bool) -> Result<(), BudgetError> {
        secret::wipe_numbered(&self.path, NOISE_ROW, keep).map_err(BudgetError::at(&self.path))
    }

    /// Wipes the key of a settled charge, and what is left of its outputs.
    pub(super) fn settle(&self, charge: u64) -> Result<(), BudgetError> {
        let key = self.key(charge);
        secret::wipe(&key).map_err(BudgetError::at(&key))?;
        KeptOutputs::discard(self, charge)
    }

    /// Wipes what killed runs left in the directory: temporaries, and files of charges that are not open.
    pub(super) fn clean(&self, is_open: impl Fn(u64) -> bool) -> Result<(), BudgetError> {
        for left in publish::leftovers_in(&self.path).map_err(BudgetError::at(&self.path))? {
            secret::wipe(&left).map_err(BudgetError::at(&left))?;
            tracing::warn!("{}: wiped; a run that was stopped left it behind", left.display());
        }
        let numbers = secret::numbers(&self.path, KEY).map_err(BudgetError::at(&self.path))?;
        let more = secret::numbers(&self.path, OUTPUTS).map_err(BudgetError::at(&self.path))?;
        let settled = numbers.into_iter().chain(more).filter(|number| !is_open(*number));
        settled.into_iter().try_for_each(|number| self.settle(number))
    }

    /// Reads the end of the ledger as of the last write; `None` if no head was ever written.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or does not hold a head.
    pub fn read_head(&self) -> Result<Option<Head>, BudgetError> {
        let path = self.head();
        let bytes = cache::read(&path).map_err(BudgetError::at(&path))?;
        let head = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        head.map_err(|why| BudgetError::BadHead { path, why: why.to_string() })
    }

    /// Writes the end of the ledger.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn write_head(&self, head: &Head) -> Result<(), BudgetError> {
        let text = format!("{{\"seq\":{},\"sha256\":\"{}\"}}\n", head.seq, head.sha256);
        cache::write(&self.head(), text.as_bytes()).map_err(BudgetError::at(&self.head()))
    }
}
