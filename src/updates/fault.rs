//! What can be wrong with the tensors of one update.

use crate::model::dtype::Dtype;

/// How a tensor of an update differs from the layout that it is held against.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum LayoutFault {
    #[error("tensor `{tensor}` is missing, expected {dtype} {shape:?}")]
    MissingTensor { tensor: String, dtype: Dtype, shape: Vec<usize> },
    #[error("tensor `{tensor}` is not expected: the {reference} has none of that name")]
    ExtraTensor { tensor: String, reference: &'static str },
    #[error("tensor `{tensor}` has shape {found:?}, expected {expected:?}")]
    OtherShape { tensor: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor `{tensor}` has dtype {found}, which does not convert to {expected}")]
    OtherDtype { tensor: String, found: Dtype, expected: Dtype },
}

/// The first value of an update that is NaN or infinite.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error(
    "tensor `{tensor}` holds {value} at flat index {index}, expected a finite number ({count} such values in the update)"
)]
pub struct NonFinite {
    /// The tensor that holds it.
    pub tensor: String,
    /// Its index in the flattened tensor.
    pub index: usize,
    /// The value.
    pub value: f64,
    /// How many such values the update holds.
    pub count: u64,
}
