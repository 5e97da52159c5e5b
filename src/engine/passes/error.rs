//! Why a pass over the tiles stopped.

use crate::engine::passes::reach::Reach;
use crate::gpu::job::GpuError;
use crate::io::interrupt::Interrupted;
use crate::io::model_writer::WriteError;
use crate::model::dtype::Dtype;
use crate::model::shown::Shown;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::PathBuf;

/// Why a pass stopped.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PassError {
    #[error("{}: {source}", .path.display())]
    Read { path: PathBuf, input: Option<usize>, source: io::Error },
    #[error("{}: tensor `{tensor}` of the base holds {} at flat index {index}, expected a finite number", .path.display(), Shown(*.value))]
    BaseNotFinite { path: PathBuf, tensor: String, index: usize, value: f64 },
    #[error("{}: tensor `{tensor}` of the base holds an integer beyond 2^53 at flat index {index} that no f64 equals, so deltas cannot be added to it", .path.display())]
    BaseInexact { path: PathBuf, tensor: String, index: usize },
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("an update holds a value that is not finite")]
    NonFinite,
    #[error("tensor `{tensor}`: the values at flat index {index} add up to more than a partial can hold")]
    SumTooLarge { tensor: String, index: usize },
    /// A fault of an input that only a mode reads, by index among those.
    #[error("{fault}")]
    BadInput { input: usize, fault: Box<dyn std::error::Error + Send + Sync> },
    #[error("tensor `{tensor}`: {holder} {} at flat index {index} does not fit {dtype}", Shown(*.value))]
    DoesNotFit {
        tensor: String,
        index: usize,
        value: f64,
        dtype: Dtype,
        holder: &'static str,
        reach: Box<Reach>,
    },
    #[error("{}: tensor `{tensor}` of the state holds {} at flat index {index}, expected {expected}", .path.display(), Shown(*.value))]
    BadState { path: PathBuf, tensor: String, index: usize, value: f64, expected: &'static str },
    #[error("{}: holds a value that the merged model cannot hold", .path.display())]
    Unfit { path: PathBuf },
    /// The error of a mode's reducer.
    #[error("{0}")]
    Reducer(Box<dyn Explain>),
}

impl PassError {
    /// Whether the values of an update may be the cause.
    pub fn may_be_of_values(&self) -> bool {
        matches!(
            self,
            Self::NonFinite | Self::SumTooLarge { .. } | Self::DoesNotFit { .. } | Self::Unfit { .. }
        )
    }

    /// Advice for the operator, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DoesNotFit { value, .. } if value.is_finite() => Some(
                "no update alone is that large: base and merged delta add up past the model's dtype"
                    .to_owned(),
            ),
            Self::BadState { .. } => Some(
                "restore the state of an earlier round, or pass --state-init to start a new one".to_owned(),
            ),
            Self::Gpu(why) => why.hint().map(str::to_owned),
            Self::Reducer(why) => why.hint(),
            _ => None,
        }
    }

    /// The signal that ended the run; `None` for other errors.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Interrupted(Interrupted { signal })
            | Self::Write(WriteError::Interrupted(Interrupted { signal })) => Some(*signal),
            _ => None,
        }
    }
}
