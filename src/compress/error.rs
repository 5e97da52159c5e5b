//! Why an update was not compressed, with advice for the user.

use crate::compress::encode::EncodeError;
use crate::compress::residual::error::ResidualError;
use crate::compress::sink::LayoutError;
use crate::compress::values::{ValueError, Values};
use crate::gpu::job::GpuError;
use crate::io::collision::Collision;
use crate::io::interrupt::Interrupted;
use crate::io::model_file::OpenFault;
use crate::io::model_writer::WriteError;
use crate::model::faults::Faults;
use crate::telemetry::explain::Explain;
use crate::updates::metadata::{MetadataFault, OtherPurpose};
use std::io;
use std::path::PathBuf;

/// Why an update was not compressed.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum CompressError {
    #[error("{}: {}", .path.display(), .faults)]
    Open { path: PathBuf, faults: Faults<OpenFault> },
    #[error("{}: {}", .path.display(), .faults)]
    Metadata { path: PathBuf, faults: Faults<MetadataFault> },
    #[error("{}: is encoded already, expected a plain update", .path.display())]
    Encoded { path: PathBuf },
    #[error("{}: {fault}", .path.display())]
    OtherPurpose { path: PathBuf, fault: OtherPurpose },
    #[error("{}: holds a delta, expected weights, because --base is given", .path.display())]
    IsDelta { path: PathBuf },
    #[error("{}: holds weights, expected a delta: {codec} leaves values out or pulls them towards zero", .path.display())]
    PlainWeights { path: PathBuf, codec: String },
    #[error("{}: tensor `{tensor}` is {found}, expected {expected} as in the base", .path.display())]
    OtherTensor { path: PathBuf, tensor: String, found: String, expected: String },
    #[error("{}: {source}", .path.display())]
    Encode { path: PathBuf, source: EncodeError },
    #[error("{}: {source}", .path.display())]
    Layout { path: PathBuf, source: LayoutError },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Collision(#[from] Collision),
    #[error("{}: has no matrix that compressed-tensors decodes, expected one for {}", .path.display(), .config.display())]
    NoConfig { path: PathBuf, config: PathBuf },
    #[error("{}: has {bytes} bytes, expected at least {ratio} for a file that is {ratio} times smaller", .path.display())]
    NothingLeft { path: PathBuf, bytes: u64, ratio: f64 },
    #[error(transparent)]
    Device(#[from] GpuError),
    #[error(transparent)]
    Residual(#[from] ResidualError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl CompressError {
    /// The error of encoding the values of an update.
    pub(crate) fn encode(values: &Values, source: EncodeError) -> Self {
        match source {
            // The file of the residual is to blame, not the update.
            EncodeError::Value(ValueError::Residual(why)) => Self::Residual(why),
            source => Self::Encode { path: values.update.path.clone(), source },
        }
    }
}

impl Explain for CompressError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Encoded { .. } => Some("run `fedmill decompress` on it first".to_owned()),
            Self::Residual(why) => why.hint(),
            Self::Device(why) => why.hint().map(str::to_owned),
            Self::NoConfig { .. } => Some(
                "compressed-tensors decodes i2 to i8 by channel, or by blocks that divide rows, in the plain layout"
                    .to_owned(),
            ),
            Self::PlainWeights { .. } => Some(
                "--base BASE sends the difference; metadata `kind` = `delta` marks a delta; --as-is sends the weights \
                 so"
                .to_owned(),
            ),
            Self::NothingLeft { .. } => Some("ask for a lower --target, or add --best-effort".to_owned()),
            Self::OtherPurpose { fault, .. } => fault.hint().map(str::to_owned),
            Self::IsDelta { .. } => Some("leave --base out to compress a delta".to_owned()),
            Self::Encode { source: EncodeError::Value(ValueError::NonFinite { .. }), .. } => {
                Some("--nonfinite zero sends zeros in their place".to_owned())
            }
            Self::Encode { source: EncodeError::Value(ValueError::Inexact { .. }), .. } => {
                Some("leave --base out: without it integers are sent as they are".to_owned())
            }
            _ => None,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Encode { source: EncodeError::Interrupted(Interrupted { signal }), .. } => Some(*signal),
            _ => None,
        }
    }
}
