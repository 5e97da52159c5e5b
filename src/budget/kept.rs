//! Outputs of a charge on their way to their names.
//!
//! The record of a charge is on disk before the charge. It names the temporary files, so that nothing of a charge is
//! lost sight of. Once the outputs are complete, the record also says how to give them their names. If a later step
//! fails, the next run of the same request does that, without a second charge.

use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::io::publish::{self, StagedNames};
use crate::io::source::identity_of;
use crate::io::{cache, secret};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The record of the outputs of a charge.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct KeptOutputs {
    /// The names of the files.
    pub files: Vec<StagedNames>,
    /// What the run needs to give complete outputs their names; `None` before they are complete.
    pub outputs: Option<serde_json::Value>,
    /// The final name of a file that an earlier run gave it. An attacker may have seen it, wherever it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<PathBuf>,
}

impl KeptOutputs {
    /// Records that the outputs of a charge are complete, and what the run needs to give them their names.
    ///
    /// # Errors
    ///
    /// When the record cannot be read or written.
    pub fn complete(
        directory: &Directory,
        charge: u64,
        files: Vec<StagedNames>,
        outputs: serde_json::Value,
    ) -> Result<(), BudgetError> {
        let seen = Self::read(directory, charge)?.and_then(|earlier| earlier.seen);
        Self { files, outputs: Some(outputs), seen }.write(directory, charge)
    }

    /// Writes the record of a charge, and waits until it is on disk.
    fn write(&self, directory: &Directory, charge: u64) -> Result<(), BudgetError> {
        let path = directory.outputs(charge);
        let json = serde_json::to_vec(self).unwrap_or_default();
        secret::write(&path, &json).map_err(BudgetError::at(&path))
    }

    /// Reads the record of a charge; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is not understood.
    pub fn read(directory: &Directory, charge: u64) -> Result<Option<Self>, BudgetError> {
        let path = directory.outputs(charge);
        let Some(bytes) = cache::read(&path).map_err(BudgetError::at(&path))? else { return Ok(None) };
        let read = serde_json::from_slice(&bytes).map(Some);
        read.map_err(|why| BudgetError::BadHead { path, why: why.to_string() })
    }

    /// Writes the record of files that wait to be filled. Removes what an earlier run of the charge left.
    ///
    /// # Errors
    ///
    /// When a file cannot be written or removed.
    pub(super) fn restage(
        directory: &Directory,
        charge: u64,
        staged: &[StagedNames],
    ) -> Result<(), BudgetError> {
        let earlier = Self::read(directory, charge)?;
        let seen = earlier.as_ref().and_then(|earlier| earlier.seen_beside(staged)).map(Path::to_owned);
        let left = earlier.map(|kept| kept.files).unwrap_or_default();
        let moved = left.iter().flat_map(|left| staged.iter().map(|new| left.moved_to(&new.target)));
        let stale: Vec<StagedNames> =
            moved.chain(left.clone()).filter(|stale| !staged.contains(stale)).collect();
        let files = staged.iter().chain(&stale).cloned().collect();
        Self { files, outputs: None, seen }.write(directory, charge)?;
        remove_all(&stale)
    }

    /// Whether every output is complete, and waits for its name or has it.
    pub(super) fn is_complete(&self) -> bool {
        self.outputs.is_some() && self.files.iter().all(StagedNames::is_kept)
    }

    /// The final name of a file that has it or had it: an attacker may have seen the file. A complete file has one of its
    /// temporary names until it gets its final one, and nothing else takes that name from it.
    pub(super) fn seen(&self) -> Option<&Path> {
        self.seen_beside(&[])
    }

    /// As [`seen`](Self::seen). The directory of the files may have been renamed to that of these new ones.
    fn seen_beside(&self, staged: &[StagedNames]) -> Option<&Path> {
        let is_waiting = |file: &StagedNames| {
            file.is_waiting() || staged.iter().any(|new| file.moved_to(&new.target).is_waiting())
        };
        let mut complete = self.files.iter().filter(|_| self.outputs.is_some());
        let found = complete.find(|file| !is_waiting(file)).map(|file| file.target.as_path());
        self.seen.as_deref().or(found)
    }

    /// A directory of the files that does not exist any more.
    pub(super) fn lost_directory(&self) -> Option<&Path> {
        let mut directories = self.files.iter().map(|file| publish::directory_of(&file.kept));
        directories.find(|directory| identity_of(directory).is_none())
    }

    /// Removes the record of a charge that is settled, and the files that have no name.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed.
    pub(super) fn discard(directory: &Directory, charge: u64) -> Result<(), BudgetError> {
        let Some(kept) = Self::read(directory, charge)? else { return Ok(()) };
        remove_all(&kept.files)?;
        remove(&directory.outputs(charge))
    }
}

/// Removes the files that have no name.
fn remove_all(files: &[StagedNames]) -> Result<(), BudgetError> {
    files.iter().filter_map(StagedNames::waiting).try_for_each(remove)
}

/// Removes a file, and waits until its name is gone from the disk.
fn remove(file: &Path) -> Result<(), BudgetError> {
    let removed = publish::discard(file).and_then(|()| publish::sync_directory_of(file));
    removed.map_err(BudgetError::at(file))
}
