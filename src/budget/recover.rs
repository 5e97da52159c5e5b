//! Explains charges whose release was not recorded: what happened, and what the operator can do.
//!
//! A process was stopped between its charge and its release. Its noise may have been drawn, and its output seen, so the
//! charge stands. The explanation depends on how far the process came.

use crate::budget::account::Account;
use crate::budget::books::Books;
use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::budget::kept::KeptOutputs;
use crate::io::journal::Lock;
use crate::io::secret;
use crate::privacy::ledger::replay::ChargeRecord;
use std::path::{Path, PathBuf};

/// A charge whose release was not recorded.
#[derive(Clone, PartialEq, Debug)]
pub struct Orphan {
    /// The charge.
    pub charge: ChargeRecord,
    /// How far its process came.
    pub stage: OrphanStage,
}

/// How far a process came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OrphanStage {
    /// The ledger is locked, so the process may be at work.
    AtWork,
    /// The output was published, and exists at this path.
    Published(PathBuf),
    /// The outputs are complete, and wait for their names.
    Complete,
    /// An output had this name, and is not there any more.
    Moved(PathBuf),
    /// The record of its outputs was damaged, so an output may have had its name.
    Damaged,
    /// The key is kept: the same bytes can be made again.
    KeyKept,
    /// The charge is a round of a series, whose key is kept.
    InSeries,
    /// Neither the output nor the key exists.
    Nothing,
}

/// The ledger to explain. Wipes what a killed run left, unless another process is at work.
///
/// # Errors
///
/// When there is no ledger, or it has a fault.
pub fn books(path: &Path) -> Result<Books, BudgetError> {
    match Lock::is_taken(&Directory::new(path).lock())? {
        true => Books::read(path),
        false => Ok(Account::open(path)?.books),
    }
}

/// Every charge whose release was not recorded.
///
/// # Errors
///
/// When the file at an output's path cannot be read.
pub fn orphans(books: &Books) -> Result<Vec<Orphan>, BudgetError> {
    let at_work = Lock::is_taken(&books.directory.lock())?;
    let explain = |charge: &ChargeRecord| {
        let key = books.directory.key(charge.head.seq);
        let kept = KeptOutputs::read(&books.directory, charge.head.seq)?;
        let seen = kept.as_ref().and_then(KeptOutputs::seen);
        let keeps_key = secret::is_kept(&key).map_err(BudgetError::at(&key))?;
        let is_lost = KeptOutputs::is_lost(&books.directory, charge.head.seq, kept.as_ref())?;
        // What cannot be read as a model is no output of the charge.
        let stage = match books.output_of(charge).ok().flatten() {
            _ if at_work => OrphanStage::AtWork,
            Some(output) => OrphanStage::Published(output.path),
            None if kept.as_ref().is_some_and(KeptOutputs::is_complete) => OrphanStage::Complete,
            None if books.state.is_of_series(&charge.charge) => OrphanStage::InSeries,
            None if let Some(seen) = seen => OrphanStage::Moved(seen.to_owned()),
            None if is_lost => OrphanStage::Damaged,
            None if keeps_key => OrphanStage::KeyKept,
            None => OrphanStage::Nothing,
        };
        Ok(Orphan { charge: charge.clone(), stage })
    };
    books.state.orphans().map(explain).collect()
}

impl Orphan {
    /// What happened and what to do. `directory` is the state directory as the operator typed it.
    pub fn explanation(&self, directory: &str) -> String {
        let seq = self.charge.head.seq;
        match &self.stage {
            OrphanStage::AtWork => {
                "another process holds the ledger and may be at work on it; wait until it ends".to_owned()
            }
            OrphanStage::Published(path) => format!(
                "its output was published as {}, but the release was not recorded; it counts as released.\n  \
                 `fedmill privacy recover {directory} --adopt {seq}` records it; so does the same command again",
                path.display()
            ),
            OrphanStage::Complete => format!(
                "its outputs are complete, but could not get their names; the same command with the same inputs gives \
                 them their names and costs nothing.\n  If that is not possible and its output was never seen: \
                 `fedmill privacy void {directory} --seq {seq} --attest TEXT`"
            ),
            OrphanStage::Moved(path) => format!(
                "its output was published as {}, and is not there any more; it counts as released.\n  If the file was \
                 moved, `fedmill privacy recover {directory} --adopt {seq} --output FILE` records it; the same command \
                 with the same inputs makes the same bytes and costs nothing",
                path.display()
            ),
            OrphanStage::Damaged => format!(
                "the record of its outputs was damaged or lost, so an output may have been published; it counts as \
                 released.\n  The same command with the same inputs makes the same bytes and costs nothing. If its \
                 output was moved, `fedmill privacy recover {directory} --adopt {seq} --output FILE` records it"
            ),
            OrphanStage::KeyKept => format!(
                "nothing was published, and its key is kept; the same command with the same inputs makes the same \
                 bytes and costs nothing.\n  If that is not possible and its output was never seen: `fedmill privacy \
                 void {directory} --seq {seq} --attest TEXT`"
            ),
            OrphanStage::InSeries => format!(
                "found no output at its path; the same command with the same inputs makes the same bytes and costs \
                 nothing.\n  With other inputs this round is refused, because its noise is used: go on with the next \
                 round. If its output was moved, `fedmill privacy recover {directory} --adopt {seq} --output FILE` \
                 records it"
            ),
            OrphanStage::Nothing => format!(
                "found no output at its path, and its key is gone; its noise may have been drawn and seen, so it stays \
                 charged.\n  The same command now draws new noise and pays again. If neither the output nor a \
                 temporary file of it was ever seen, `fedmill privacy void {directory} --seq {seq} --attest TEXT` \
                 voids the charge; if it was moved, `fedmill privacy recover {directory} --adopt {seq} --output FILE` \
                 records it"
            ),
        }
    }
}
