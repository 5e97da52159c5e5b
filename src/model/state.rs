//! The tensors that a run keeps for the next round: their kinds, names, and stored dtypes.

use crate::model::class::TensorClass;
use crate::model::dtype::{Dtype, Kind};

/// A kind of tensor that a round keeps for the next one, with one tensor for each parameter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StateTensor {
    /// The centre of centred clipping.
    Centre,
    /// The mean of the merged deltas of past rounds, or their discounted sum.
    Momentum,
    /// The mean or sum of their squares.
    SecondMoment,
    /// The server's control variate.
    Control,
}

impl StateTensor {
    /// Whether the server's step reads and updates it, coordinate by coordinate.
    pub fn is_moment(self) -> bool {
        matches!(self, Self::Momentum | Self::SecondMoment)
    }

    /// The prefix of its tensors' names in a state file.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Centre => "centre.",
            Self::Momentum => "m.",
            Self::SecondMoment => "v.",
            Self::Control => "c.",
        }
    }
}

/// A tensor that a strategy keeps between rounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KeptTensor {
    /// The kind.
    pub slot: StateTensor,
    /// Its values before the first round.
    pub initial: f64,
}

/// Whether a run keeps this kind for tensors of a class. Strategies step parameters alone.
pub fn is_kept(slot: StateTensor, class: TensorClass) -> bool {
    slot == StateTensor::Centre || class == TensorClass::Parameter
}

/// The dtype in which a state file stores values of a dtype.
pub fn stored_dtype(dtype: Dtype) -> Dtype {
    match dtype.kind() {
        Kind::Float if dtype != Dtype::F64 => Dtype::F32,
        _ => Dtype::F64,
    }
}
