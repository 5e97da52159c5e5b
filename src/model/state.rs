//! The tensors that a run keeps for the next round: which there are, their names, and the dtype they are stored in.

use crate::model::dtype::{Dtype, Kind};

/// A tensor for every float tensor of the model, which a round leaves to the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StateTensor {
    /// The centre of centred clipping.
    Centre,
    /// Mean of the merged deltas of past rounds, or their discounted sum.
    Momentum,
    /// Mean or sum of their squares.
    SecondMoment,
    /// The server's control variate.
    Control,
}

impl StateTensor {
    /// Whether the server's step goes by it and moves it, coordinate by coordinate.
    pub fn is_moment(self) -> bool {
        matches!(self, Self::Momentum | Self::SecondMoment)
    }

    /// What the names of its tensors start with in a state file.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Centre => "centre.",
            Self::Momentum => "m.",
            Self::SecondMoment => "v.",
            Self::Control => "c.",
        }
    }
}

/// What a strategy keeps between rounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KeptTensor {
    /// Which.
    pub slot: StateTensor,
    /// What every value of it is before the first round.
    pub initial: f64,
}

/// Whether a slot keeps tensors of a dtype: strategies step floats.
pub fn is_kept(slot: StateTensor, dtype: Dtype) -> bool {
    slot == StateTensor::Centre || dtype.kind() == Kind::Float
}

/// What values of a dtype are kept in.
pub fn stored_dtype(dtype: Dtype) -> Dtype {
    match dtype.kind() {
        Kind::Float if dtype != Dtype::F64 => Dtype::F32,
        _ => Dtype::F64,
    }
}
