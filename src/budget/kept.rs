//! Outputs of a charge that are complete on disk, and wait for their names.
//!
//! A run writes this record once its outputs are complete, before it gives them their names. If a later step fails, the
//! next run of the same request gives them their names, without a second charge.

use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::io::source::identity_of;
use crate::io::{cache, publish, secret};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The record of outputs that wait for their names.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct KeptOutputs {
    /// The temporary files, to remove if the charge is voided.
    pub files: Vec<PathBuf>,
    /// What the run needs to give them their names.
    pub outputs: serde_json::Value,
}

impl KeptOutputs {
    /// Writes the record of a charge, and waits until it is on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, directory: &Directory, charge: u64) -> Result<(), BudgetError> {
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

    /// Removes the record of a charge that is settled, and the files that have no name.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed.
    pub(super) fn discard(directory: &Directory, charge: u64) -> Result<(), BudgetError> {
        let Some(kept) = Self::read(directory, charge)? else { return Ok(()) };
        for file in kept.files.iter().filter(|file| identity_of(file).is_some()) {
            remove(file)?;
        }
        remove(&directory.outputs(charge))
    }
}

/// Removes a file, and waits until its name is gone from the disk.
fn remove(file: &Path) -> Result<(), BudgetError> {
    let removed = publish::discard(file).and_then(|()| publish::sync_directory_of(file));
    removed.map_err(BudgetError::at(file))
}
