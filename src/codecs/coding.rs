//! What travels with an encoded vector: which codec, and every number that its decoder needs.
//!
//! Written as JSON where people may read it and as postcard where bytes count, so no field is ever skipped or untagged.

use crate::codecs::quantize::{eden, fp8, half, mxfp8, sign, symmetric, uniform};
use crate::codecs::sparse::{randk, topk};
use crate::codecs::{Scheme, constant, ecsq, integers, lowrank, sketch};
use crate::model::dtype::{Dtype, Kind};
use serde::{Deserialize, Serialize};

/// How a vector was encoded.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// The bytes as they were, whatever they are. Tensors that were not encoded.
    Raw,
    /// One value for all.
    Constant(constant::Constant),
    /// 16-bit floats.
    Half(half::Half),
    /// The values of largest magnitude.
    TopK(topk::TopKScheme),
    /// Values at random places that all clients share.
    RandK(randk::RandKScheme),
    /// A sign a value.
    Sign(sign::Magnitude),
    /// The product of two thin matrices.
    LowRank(lowrank::LowRank),
    /// A count sketch.
    Sketch(sketch::Tables),
    /// Integers on an even grid between the ends of a block.
    Uniform(uniform::Uniform),
    /// Integers on an even grid about zero.
    Symmetric(symmetric::Symmetric),
    /// Floats of eight bits, scaled.
    E4m3(fp8::E4m3),
    /// Floats of eight bits that share a power of two.
    Mxfp8(mxfp8::Mxfp8),
    /// Rotated, then the best code of a Gaussian.
    Eden(eden::Eden),
    /// Integers of few digits, as they are.
    Integers(integers::Integers),
    /// Integers of one step, entropy-coded.
    Ecsq(ecsq::EcsqScheme),
}

impl Coding {
    /// How its values stand in streams; none for [`Coding::Raw`], which has one stream of stored values.
    pub fn scheme(&self) -> Option<&dyn Scheme> {
        match self {
            Self::Raw => None,
            Self::Constant(scheme) => Some(scheme),
            Self::Half(scheme) => Some(scheme),
            Self::TopK(scheme) => Some(scheme),
            Self::RandK(scheme) => Some(scheme),
            Self::Sign(scheme) => Some(scheme),
            Self::LowRank(scheme) => Some(scheme),
            Self::Sketch(scheme) => Some(scheme),
            Self::Uniform(scheme) => Some(scheme),
            Self::Ecsq(scheme) => Some(scheme),
            Self::Symmetric(scheme) => Some(scheme),
            Self::E4m3(scheme) => Some(scheme),
            Self::Mxfp8(scheme) => Some(scheme),
            Self::Eden(scheme) => Some(scheme),
            Self::Integers(scheme) => Some(scheme),
        }
    }

    /// Whether tensors of a dtype may be encoded so: integers only without a loss.
    pub fn takes(&self, dtype: Dtype) -> bool {
        match self {
            Self::Raw | Self::Constant(_) => true,
            Self::Integers(_) => dtype.kind() == Kind::Integer,
            _ => dtype.kind() == Kind::Float,
        }
    }
}
