//! What travels with an encoded vector: which codec, and every number that its decoder needs.
//!
//! Written as JSON where people may read it and as postcard where bytes count, so no field is ever skipped or untagged.

use super::{
    Scheme, constant, ecsq, eden, fp8, half, integers, lowrank, mxfp8, randk, sign, sketch, symmetric, topk,
    uniform,
};
use crate::model::dtype::{Dtype, Kind};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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
    TopK(topk::Chosen),
    /// Values at random places that all clients share.
    RandK(randk::Drawn),
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
    Ecsq(ecsq::Quantized),
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

/// A float that is written by its bits: as hex in JSON, so that no decimal is ever rounded, else as four bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bits(pub f32);

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&format!("{:08x}", self.0.to_bits())),
            false => self.0.to_le_bytes().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let float = match deserializer.is_human_readable() {
            true => {
                let hex = String::deserialize(deserializer)?;
                let bits = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == 8);
                f32::from_bits(bits.ok_or_else(|| de::Error::custom("expected eight hex digits"))?)
            }
            false => f32::from_le_bytes(<[u8; 4]>::deserialize(deserializer)?),
        };
        match float.is_finite() {
            true => Ok(Self(float)),
            false => Err(de::Error::custom(format!("found {float}, expected a finite number"))),
        }
    }
}

/// Bytes: as hex in JSON, else as they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packed(pub Vec<u8>);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => {
                let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                serializer.serialize_str(&hex)
            }
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Vec::deserialize(deserializer).map(Self);
        }
        let hex = String::deserialize(deserializer)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Self).ok_or_else(|| de::Error::custom("expected pairs of hex digits"))
    }
}
