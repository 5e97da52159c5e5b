//! The faults of the tensors of one update.

use crate::model::dtype::Dtype;
use crate::model::shown::Shown;
use crate::model::state::StateTensor;
use std::fmt;

/// A difference between a tensor of an update and the expected layout.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum LayoutFault {
    #[error("tensor `{tensor}` is missing, expected {dtype} {shape:?}")]
    MissingTensor { tensor: String, dtype: Dtype, shape: Vec<usize> },
    #[error("tensor `{tensor}` is not expected: the {reference} has none of that name")]
    ExtraTensor { tensor: String, reference: &'static str },
    #[error("tensor `{tensor}` is missing: the update ties it to `{to}`, which the {reference} does not")]
    TiedMissing { tensor: String, to: String, reference: &'static str },
    #[error("tensor `{tensor}` is not expected: the {reference} ties it to `{to}`")]
    TiedExtra { tensor: String, to: String, reference: &'static str },
    #[error(
        "the name of every tensor starts with `{prefix}`, expected names as in the {reference}, without it"
    )]
    Wrapped { prefix: &'static str, reference: &'static str },
    #[error("no name of a tensor starts with `{prefix}`, expected it as in the {reference}")]
    NotWrapped { prefix: &'static str, reference: &'static str },
    #[error("tensor `{tensor}` has shape {found:?}, expected {expected:?}")]
    OtherShape { tensor: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor `{tensor}` has dtype {found}, which does not convert to {expected}")]
    OtherDtype { tensor: String, found: Dtype, expected: Dtype },
}

/// The first bad value of an update.
#[derive(Clone, PartialEq, Debug)]
pub enum BadValue {
    /// It is NaN or infinite.
    NonFinite(NonFinite),
    /// It is an integer that f64 does not hold.
    Inexact(Inexact),
    /// The merged model cannot hold it.
    Unfit(Unfit),
    /// It is a variance or a counter, and negative.
    Negative(Negative),
}

/// What a run adds an update's value to before it checks the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onto {
    /// Nothing: the value is a weight, or there is no base.
    Nothing,
    /// The base: the value is a delta.
    Base,
    /// The server's control variate, if there is one: the value is the change of a client's.
    Control,
}

impl Onto {
    /// What holds the sum.
    fn holder(self) -> &'static str {
        match self {
            Self::Nothing | Self::Base => "the merged model",
            Self::Control => "the state",
        }
    }
}

impl fmt::Display for Onto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("holds"),
            Self::Base => f.write_str("brings the base to"),
            Self::Control => {
                let slot = StateTensor::Control.prefix();
                write!(f, "brings `{}` of the state to", slot.trim_end_matches('.'))
            }
        }
    }
}

/// The first running variance or counter of an update that is below zero. For a delta that is the base's value plus the
/// update's.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error(
    "tensor `{tensor}` {onto} {} at flat index {index}, expected a variance or counter of at least 0 ({count} such values in the update)",
    Shown(*.value)
)]
pub struct Negative {
    /// The name of the tensor.
    pub tensor: String,
    /// Its index in the flattened tensor.
    pub index: usize,
    /// The value.
    pub value: f64,
    /// What the value was added to.
    pub onto: Onto,
    /// The number of such values in the update.
    pub count: u64,
}

/// The first integer of an update that f64 does not hold. Merging would change it.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error(
    "tensor `{tensor}` holds an integer beyond 2^53 at flat index {index} that no f64 equals, so merging would change it ({count} such values in the update)"
)]
pub struct Inexact {
    /// The name of the tensor.
    pub tensor: String,
    /// Its index in the flattened tensor.
    pub index: usize,
    /// The number of such values in the update.
    pub count: u64,
}

/// The first value of an update that the merged model cannot hold. For a delta that is the base's value plus the
/// update's.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error(
    "tensor `{tensor}` {onto} {} at flat index {index}, which does not fit {dtype} of {} ({count} such values in the update)",
    Shown(*.value), .onto.holder()
)]
pub struct Unfit {
    /// The name of the tensor.
    pub tensor: String,
    /// Its index in the flattened tensor.
    pub index: usize,
    /// The value.
    pub value: f64,
    /// The tensor's dtype in the merged model.
    pub dtype: Dtype,
    /// What the value was added to.
    pub onto: Onto,
    /// The number of such values in the update.
    pub count: u64,
}

/// The first value of an update that the server's step would take past what the state or the model can hold, if the
/// value were the merged one.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error(
    "tensor `{tensor}` holds {} at flat index {index}, which the server's step takes to {} in {holder}, expected at most {} for {dtype} ({count} such values in the update)",
    Shown(*.value), Shown(*.reached), Shown(.dtype.largest())
)]
pub struct Overflow {
    /// The name of the tensor.
    pub tensor: String,
    /// Its index in the flattened tensor.
    pub index: usize,
    /// The value, as the update holds it.
    pub value: f64,
    /// Where the step takes it.
    pub reached: f64,
    /// What holds the result.
    pub holder: Holder,
    /// The dtype of the result.
    pub dtype: Dtype,
    /// The number of such values in the update.
    pub count: u64,
}

/// What holds a result of the server's step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// The merged model.
    Model,
    /// A slot of the state.
    State(StateTensor),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model => f.write_str("the model"),
            Self::State(slot) => write!(f, "`{}` of the state", slot.prefix().trim_end_matches('.')),
        }
    }
}

/// The first value of an update that is NaN or infinite.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error(
    "tensor `{tensor}` holds {value} at flat index {index}, expected a finite number ({count} such values in the update)"
)]
pub struct NonFinite {
    /// The name of the tensor.
    pub tensor: String,
    /// Its index in the flattened tensor.
    pub index: usize,
    /// The value.
    pub value: f64,
    /// The number of such values in the update.
    pub count: u64,
}
