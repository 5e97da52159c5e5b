//! Outputs of a charge on their way to their names.
//!
//! The record of a charge is on disk before the charge. It names the temporary files, so that nothing of a charge is
//! lost sight of. Once the outputs are complete, the record also holds their digests, and says how to give them their
//! names. If a later step fails, the next run of the same request does that, without a second charge.

use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::io::digest::sha256_of;
use crate::io::publish::{self, StagedNames};
use crate::io::source::{OpenFiles, SourceFile, identity_of};
use crate::io::{cache, secret};
use crate::record::sha256::{DigestError, Sha256};
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
    /// The digest of each file, in their order; empty before they are complete.
    #[serde(default)]
    pub digests: Vec<Sha256>,
    /// The final name of a file that an earlier run gave it. An attacker may have seen it, wherever it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<PathBuf>,
    /// Whether an earlier record was damaged. A file that it named may have had its final name.
    #[serde(default)]
    pub was_damaged: bool,
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
        let earlier = Self::read(directory, charge)?;
        let was_damaged = earlier.as_ref().is_some_and(|earlier| earlier.was_damaged);
        let seen = earlier.and_then(|earlier| earlier.seen);
        let digests = files.iter().map(|file| digest_of(&file.kept)).collect::<Result<_, _>>()?;
        Self { files, outputs: Some(outputs), digests, seen, was_damaged }.write(directory, charge)
    }

    /// Writes the record of a charge, and waits until it is on disk.
    fn write(&self, directory: &Directory, charge: u64) -> Result<(), BudgetError> {
        let path = directory.outputs(charge);
        let json = serde_json::to_vec(self).unwrap_or_default();
        secret::write(&path, &json).map_err(BudgetError::at(&path))
    }

    /// Reads the record of a charge; `None` if there is none. A record that is not understood names no files.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(directory: &Directory, charge: u64) -> Result<Option<Self>, BudgetError> {
        let path = directory.outputs(charge);
        let Some(bytes) = cache::read(&path).map_err(BudgetError::at(&path))? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| Self::damaged())))
    }

    /// What a damaged record says.
    fn damaged() -> Self {
        Self { files: Vec::new(), outputs: None, digests: Vec::new(), seen: None, was_damaged: true }
    }

    /// Whether the record of a charge was damaged, or was removed while the key exists: it is older than the key, and
    /// goes after it. Its outputs may have had their names.
    ///
    /// # Errors
    ///
    /// When the key cannot be read.
    pub(super) fn is_lost(
        directory: &Directory,
        charge: u64,
        kept: Option<&Self>,
    ) -> Result<bool, BudgetError> {
        let key = directory.key(charge);
        kept.map_or_else(|| secret::is_kept(&key).map_err(BudgetError::at(&key)), |kept| Ok(kept.was_damaged))
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
        let was_damaged = Self::is_lost(directory, charge, earlier.as_ref())?;
        let left = earlier.map(|kept| kept.files).unwrap_or_default();
        let moved = left.iter().flat_map(|left| staged.iter().map(|new| left.moved_to(&new.target)));
        let stale: Vec<StagedNames> =
            moved.chain(left.clone()).filter(|stale| !staged.contains(stale)).collect();
        let files = staged.iter().chain(&stale).cloned().collect();
        Self { files, outputs: None, digests: Vec::new(), seen, was_damaged }.write(directory, charge)?;
        remove_all(&stale)
    }

    /// Whether every output is complete, and waits for its name or has it.
    pub(super) fn is_complete(&self) -> bool {
        self.outputs.is_some() && self.files.iter().all(StagedNames::is_kept)
    }

    /// The first file that is not as the run completed it, by whichever name it has.
    pub(super) fn changed(&self) -> Option<&Path> {
        let mut files = self.files.iter().map(StagedNames::complete).enumerate();
        let is_as_completed = |i: usize, path: &Path| {
            self.digests.get(i).is_some_and(|expected| digest_of(path).is_ok_and(|found| found == *expected))
        };
        files.find(|(i, path)| !is_as_completed(*i, path)).map(|(_, path)| path)
    }

    /// The first of a model's files that is none of the complete ones, with its digest; `None` if no record of them
    /// exists.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub(super) fn stranger<'f>(
        &self,
        mut files: impl Iterator<Item = &'f Path>,
    ) -> Result<Option<(&'f Path, Sha256)>, BudgetError> {
        if self.digests.is_empty() {
            return Ok(None);
        }
        let stranger = |path: &'f Path| match digest_of(path) {
            Ok(found) => (!self.digests.contains(&found)).then_some(Ok((path, found))),
            Err(why) => Some(Err(why)),
        };
        files.find_map(stranger).transpose()
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

    /// The files that have their final names.
    pub(super) fn published(&self) -> impl Iterator<Item = &Path> {
        let complete = self.files.iter().filter(|file| self.outputs.is_some() && !file.is_waiting());
        complete.filter(|file| file.is_kept()).map(|file| file.target.as_path())
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
        if kept.files.iter().any(StagedNames::is_waiting) {
            // Complete files that do not wait any more would count as seen, if this process is stopped.
            Self { outputs: None, digests: Vec::new(), ..kept.clone() }.write(directory, charge)?;
        }
        remove_all(&kept.files)?;
        remove(&directory.outputs(charge))
    }
}

/// The digest of a file.
fn digest_of(path: &Path) -> Result<Sha256, BudgetError> {
    let digest = SourceFile::open(path, &OpenFiles::raise_limit()).and_then(|file| sha256_of(&[file]));
    let digest = digest.map_err(BudgetError::at(path))?;
    digest
        .parse()
        .map_err(|why: DigestError| BudgetError::BadHead { path: path.to_owned(), why: why.to_string() })
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
