//! Why error feedback is not possible, with advice for the user.

use crate::io::model_file::OpenFault;
use crate::io::model_writer::WriteError;
use crate::io::publish;
use crate::model::faults::Faults;
use std::io;
use std::path::PathBuf;

/// Why error feedback is not possible.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ResidualError {
    #[error("{}: the residual cannot be used: {}", .path.display(), .faults)]
    Unreadable { path: PathBuf, faults: Faults<OpenFault> },
    #[error("{}: is no residual: metadata `{key}` is {found}, expected {expected}", .path.display())]
    Metadata { path: PathBuf, key: &'static str, found: String, expected: &'static str },
    #[error("{}: is the residual of client `{found}`, expected that of `{expected}`", .path.display())]
    OtherClient { path: PathBuf, found: String, expected: String },
    #[error(
        "{}: already includes this update, and {}, the residual before it, is missing or a different file",
        .path.display(), publish::previous(.path).display()
    )]
    NoPrevious { path: PathBuf },
    #[error("{}: is also the update, its base or the output, expected another path for the residual", .path.display())]
    NotItsOwn { path: PathBuf },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl ResidualError {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherClient { .. } => Some("each client needs its own residual file".to_owned()),
            Self::NoPrevious { path } => {
                Some(format!("to start over without a residual, move {} away", path.display()))
            }
            _ => None,
        }
    }
}
