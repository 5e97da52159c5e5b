//! Why error feedback is not possible, with advice for the user.

use crate::io::model_file::OpenFault;
use crate::io::model_writer::WriteError;
use crate::io::publish;
use crate::model::faults::Faults;
use std::io;
use std::path::{Path, PathBuf};

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
    #[error(
        "{}: the residual holds {value} in tensor `{tensor}` at flat index {index}, expected a finite number",
        .path.display()
    )]
    NonFinite { path: PathBuf, tensor: String, index: usize, value: f64 },
    #[error(transparent)]
    Expands(#[from] Box<Expansion>),
    #[error(
        "{}: the norm of the residual would grow from {before:.3e} to {after:.3e} over three rounds, expected at most \
         tenfold",
        .path.display()
    )]
    Grows { path: PathBuf, before: f64, after: f64 },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A codec whose error exceeds the update, so that the residual would grow.
#[derive(thiserror::Error, Debug)]
#[error(
    "{}: tensor `{tensor}`: the error of {codec} exceeds the update: NMSE {nmse:.3}, expected at most 1 with --residual; \
     times {scale:.3e} the sent values would have NMSE {scaled_nmse:.3}",
    .path.display()
)]
#[expect(missing_docs, reason = "the message says what its fields are")]
pub struct Expansion {
    pub path: PathBuf,
    pub tensor: String,
    pub codec: String,
    pub nmse: f64,
    pub scale: f64,
    pub scaled_nmse: f64,
    /// The codec at the scale that contracts, if there is one.
    pub contracting: Option<String>,
}

impl Expansion {
    fn hint(&self) -> String {
        match &self.contracting {
            Some(codec) => format!("--codec {codec} sends the values at the scale that contracts"),
            None => {
                "take a codec whose error is below the update, such as topk, ecsq or eden2:scale=min-error"
                    .to_owned()
            }
        }
    }
}

/// How to go on after damage to the residual at `path`.
fn way_back(path: &Path) -> String {
    if path.extension().is_some_and(|ending| ending == "previous") {
        return format!(
            "to start over without a residual, move {} and it away",
            path.with_extension("").display()
        );
    }
    format!(
        "copy {} over it and compress the update of the round before again; or, to start over without a residual, move \
         {} away",
        publish::previous(path).display(),
        path.display()
    )
}

impl ResidualError {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherClient { .. } => Some("each client needs its own residual file".to_owned()),
            Self::NoPrevious { path } => {
                Some(format!("to start over without a residual, move {} away", path.display()))
            }
            Self::NonFinite { path, .. } => {
                Some(format!("to start over without a residual, move {} away", path.display()))
            }
            Self::Unreadable { path, faults } => {
                let other = OpenFault::hint_beside_damage(faults);
                Some(other.map_or_else(|| way_back(path), str::to_owned))
            }
            Self::Expands(why) => Some(why.hint()),
            Self::Grows { path, .. } => Some(format!(
                "take a codec that sends more of the update, or --decay below 1; to start over, move {} away",
                path.display()
            )),
            _ => None,
        }
    }
}
