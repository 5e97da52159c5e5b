//! Why a patch was not made or applied, with advice for the user.

use crate::codecs::Invalid;
use crate::io::collision::Collision;
use crate::io::interrupt::Interrupted;
use crate::io::model_file::OpenFault;
use crate::io::model_writer::WriteError;
use crate::model::faults::Faults;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::{Path, PathBuf};

/// Why a patch was not made or applied.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PatchError {
    #[error("{}: {}", .path.display(), .faults)]
    Open { path: PathBuf, faults: Faults<OpenFault> },
    #[error("{}: is an index of shards, expected one .safetensors file", .path.display())]
    Shards { path: PathBuf },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: is no patch, expected a file from `fedmill compress --exact`", .path.display())]
    NotAPatch { path: PathBuf },
    #[error("{}: has format {found}, expected {expected}", .path.display())]
    OtherFormat { path: PathBuf, found: String, expected: &'static str },
    #[error("{}: patch is not valid: {why}", .path.display())]
    Invalid { path: PathBuf, why: Invalid },
    #[error("{}: has digest {found}, expected {expected} as {} names it", .path.display(), .patch.display())]
    OtherBase { path: PathBuf, patch: PathBuf, found: String, expected: String },
    #[error("{}: turns its base into a model with digest {found}, expected {expected}", .path.display())]
    OtherModel { path: PathBuf, found: String, expected: String },
    #[error("{}: makes a model of {found} bytes, expected at most {most}", .path.display())]
    TooLarge { path: PathBuf, found: u64, most: u64 },
    #[error(transparent)]
    Collision(#[from] Collision),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl PatchError {
    /// The error of a read of `path`.
    pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Read { path, source }
    }

    /// The error of a patch at `path` that no encoder writes.
    pub(super) fn invalid(path: &Path) -> impl FnOnce(Invalid) -> Self {
        let path = path.to_owned();
        |why| Self::Invalid { path, why }
    }
}

impl From<Interrupted> for PatchError {
    fn from(interrupted: Interrupted) -> Self {
        Self::Write(interrupted.into())
    }
}

impl Explain for PatchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Open { faults, .. } => faults.iter().find_map(OpenFault::hint).map(str::to_owned),
            Self::Shards { .. } => Some("make a patch for each shard".to_owned()),
            Self::OtherBase { .. } => Some(
                "--base takes the model that the patch was made from; or download the whole model".to_owned(),
            ),
            Self::OtherModel { .. } | Self::Invalid { .. } => {
                Some("take a sound copy of the patch, or download the whole model".to_owned())
            }
            Self::TooLarge { .. } => Some("--max-size allows more".to_owned()),
            _ => None,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Write(WriteError::Interrupted(interrupted)) => Some(interrupted.signal),
            _ => None,
        }
    }
}
