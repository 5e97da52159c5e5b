//! The coding that travels with a vector: the codec, and every number that its decoder needs.
//!
//! A plain file has it as JSON, which people can read; a bundle as postcard, which is shorter. Postcard allows no
//! skipped field and no untagged enum, and identifies a variant by its number: append variants, never move one.

use crate::codecs::quantize::{eden, fp8, half, mxfp8, sign, symmetric, uniform};
use crate::codecs::sparse::{randk, topk};
use crate::codecs::{Scheme, constant, ecsq, integers, lowrank, sketch};
use crate::model::dtype::{Dtype, Kind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The encoding of a vector.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// The stored bytes, unchanged.
    Raw,
    /// One value for all places.
    Constant(constant::Constant),
    /// 16-bit floats.
    Half(half::Half),
    /// The values of largest magnitude.
    TopK(topk::TopKScheme),
    /// Values at places that a seed chooses for all clients.
    RandK(randk::RandKScheme),
    /// One sign a value.
    Sign(sign::Magnitude),
    /// The product of two thin matrices.
    LowRank(lowrank::LowRank),
    /// A count sketch.
    Sketch(sketch::Tables),
    /// Integers on an even grid between the ends of a block.
    Uniform(uniform::Uniform),
    /// Integers on an even grid about zero.
    Symmetric(symmetric::Symmetric),
    /// Scaled 8-bit floats.
    E4m3(fp8::E4m3),
    /// 8-bit floats that share a power of two.
    Mxfp8(mxfp8::Mxfp8),
    /// Rotated blocks, as codes of the best quantizer of a Gaussian.
    Eden(eden::Eden),
    /// Small integers, without loss.
    Integers(integers::Integers),
    /// Integers with one step, entropy-coded.
    Ecsq(ecsq::EcsqScheme),
}

impl Coding {
    /// The decoder of the values; `None` for [`Coding::Raw`], whose stream has the stored bytes.
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

    /// Whether a device decodes part of the values, or no codec was named for them.
    pub fn decodes_on_device(&self) -> bool {
        match self {
            Self::Raw | Self::Constant(_) | Self::Integers(_) => true,
            _ => self.scheme().is_some_and(Scheme::has_shaders),
        }
    }

    /// Whether a tensor of a dtype may have this encoding. Integers need one without loss.
    pub fn takes(&self, dtype: Dtype) -> bool {
        match self {
            Self::Raw | Self::Constant(_) => true,
            Self::Integers(_) => dtype.kind() == Kind::Integer,
            _ => dtype.kind() == Kind::Float,
        }
    }
}

/// The codec as its user names it, with the block of `eden`, which says whether a device decodes it.
impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform(scheme) => return write!(f, "u{}", scheme.bits),
            Self::Symmetric(scheme) => return write!(f, "i{}", scheme.bits),
            Self::Eden(scheme) => return write!(f, "eden{}:block={}", scheme.bits, scheme.block),
            Self::Raw => "raw",
            Self::Constant(_) => "constant",
            Self::Half(half::Half::F16) => "f16",
            Self::Half(half::Half::Bf16) => "bf16",
            Self::TopK(_) => "topk",
            Self::RandK(_) => "randk",
            Self::Sign(_) => "sign",
            Self::LowRank(_) => "lowrank",
            Self::Sketch(_) => "sketch",
            Self::E4m3(_) => "e4m3",
            Self::Mxfp8(_) => "mxfp8",
            Self::Integers(_) => "integers",
            Self::Ecsq(_) => "ecsq",
        })
    }
}
