//! Why a run was not released.

use crate::budget::error::BudgetError;
use crate::engine::aggregate::error::Error;
use crate::modes::dp::sum_file::SumFileError;
use crate::privacy::clipping::NoGrid;
use crate::telemetry::explain::Explain;
use std::path::PathBuf;

/// Why a run was not released.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum DpError {
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Grid(#[from] NoGrid),
    #[error(transparent)]
    SumFile(#[from] SumFileError),
    #[error("{found} updates, expected at most {most}: the sum of more may not fit 64 bits")]
    TooMany { found: u64, most: u64 },
    #[error("{}: its integers exceed its clip bound: the file changed while the run read it", .path.display())]
    Longer { path: PathBuf },
}

impl Explain for DpError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Budget(why) => why.hint(),
            Self::Longer { .. } => Some(
                "the round was charged; run it again, and do not change the updates meanwhile".to_owned(),
            ),
            Self::Grid(_) | Self::SumFile(_) | Self::TooMany { .. } => None,
        }
    }
}

impl DpError {
    /// The error of the aggregate run.
    pub(super) fn of(why: impl Into<Self>) -> Error {
        Error::Mode(Box::new(why.into()))
    }
}
