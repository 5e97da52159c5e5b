//! Why a run was not released.

use crate::budget::error::BudgetError;
use crate::budget::request::PaidBefore;
use crate::engine::aggregate::error::Error;
use crate::model::dtype::Dtype;
use crate::model::shown::Shown;
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
    PaidBefore(#[from] PaidBefore),
    #[error(transparent)]
    Grid(#[from] NoGrid),
    #[error(transparent)]
    SumFile(#[from] SumFileError),
    #[error("{found} updates, expected at most {most}: the sum of more may not fit 64 bits")]
    TooMany { found: u64, most: u64 },
    #[error(
        "tensor `{tensor}`: the base holds {}, and the round may add {}: more than {dtype} can hold",
        Shown(*value), Shown(*reach)
    )]
    Range { tensor: String, value: f64, reach: f64, dtype: Dtype },
    #[error("{}: its noise came from a test seed, so no release from it is private", .path.display())]
    TestBase { path: PathBuf },
    #[error("these updates were already released as {}, in shards", .path.display())]
    Elsewhere { path: PathBuf },
    #[error("{}: its integers exceed its clip bound", .path.display())]
    Longer { path: PathBuf },
}

impl Explain for DpError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Budget(why) => why.hint(),
            Self::PaidBefore(paid) => Some(paid.hint()),
            Self::Range { .. } => {
                Some("nothing was charged; use a base of a wider dtype, or a smaller clip bound".to_owned())
            }
            Self::TestBase { .. } => Some(
                "start from another base; or pass --test-seed, which marks this release as not private too"
                    .to_owned(),
            ),
            Self::Elsewhere { path } => {
                Some(format!("copy the shards and the index from {}", path.display()))
            }
            Self::SumFile(why) => why.hint().map(str::to_owned),
            Self::Longer { .. } | Self::Grid(_) | Self::TooMany { .. } => None,
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::PaidBefore(_))
    }
}

impl DpError {
    /// The error of the aggregate run.
    pub(super) fn of(why: impl Into<Self>) -> Error {
        Error::Mode(Box::new(why.into()))
    }
}
