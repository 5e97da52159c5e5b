//! Why a command of secure aggregation ended without its output.

use crate::engine::aggregate::error::Error as AggregateError;
use crate::engine::passes::error::PassError;
use crate::io::interrupt::Interrupted;
use crate::io::journal::JournalError;
use crate::io::model_writer::WriteError;
use crate::parties::fault::MessageFault;
use crate::record::ChainError;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command ended without its output.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SecureError {
    #[error("{}: {fault}", .path.display())]
    File { path: PathBuf, fault: MessageFault },
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{what}: {why}")]
    Terms { what: String, why: String, hint: Option<String> },
    #[error("{why}")]
    Refused { why: String, hint: Option<String> },
    #[error(transparent)]
    Aggregate(#[from] Box<AggregateError>),
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{}: {source}", .path.display())]
    Chain { path: PathBuf, source: ChainError },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

impl From<AggregateError> for SecureError {
    fn from(why: AggregateError) -> Self {
        Self::Aggregate(Box::new(why))
    }
}

impl SecureError {
    /// The error of a file.
    pub fn file(path: &Path) -> impl Fn(MessageFault) -> Self + '_ {
        |fault| Self::File { path: path.to_owned(), fault }
    }

    /// The error of an operation on a path.
    pub fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }

    /// A refusal of valid input by a rule of the protocol: exit status 1.
    pub fn refused(why: impl Into<String>, hint: Option<&str>) -> Self {
        Self::Refused { why: why.into(), hint: hint.map(str::to_owned) }
    }

    /// A term that cannot be.
    pub fn terms(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Terms { what: what.into(), why: why.into(), hint: None }
    }
}

impl Explain for SecureError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Terms { hint, .. } | Self::Refused { hint, .. } => hint.clone(),
            Self::Aggregate(why) => why.hint(),
            Self::Pass(why) => why.hint(),
            _ => None,
        }
    }

    fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Aggregate(why) => why.is_refusal(),
            _ => false,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Aggregate(why) => why.signal(),
            Self::Interrupted(why) => Some(why.signal),
            _ => None,
        }
    }
}
