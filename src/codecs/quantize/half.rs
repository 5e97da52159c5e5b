//! `f16` and `bf16`: the nearest 16-bit float, ties to even.
//!
//! Values beyond the largest number of f16 become that number.

use crate::codecs::{Codec, Coding, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Vector};
use crate::kernels::convert::{decode, encode};
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "the nearest 16-bit float",
    settings: &[],
    tried: &[],
    codecs: &[("f16", f16), ("bf16", bf16)],
};

/// A 16-bit float.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// Eleven significant bits, up to 65,504.
    F16,
    /// Eight significant bits, with the range of f32.
    Bf16,
}

fn f16(_: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    Ok(Box::new(Half::F16))
}

fn bf16(_: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    Ok(Box::new(Half::Bf16))
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl Half {
    fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// The nearest 16-bit floats; none is infinite.
    pub(crate) fn pack(self, isa: Isa, values: &[f32]) -> Vec<u8> {
        let largest = self.largest();
        let clamped: Vec<f32> = values.iter().map(|x| x.clamp(-largest, largest)).collect();
        let mut codes = vec![0u16; values.len()];
        encode(isa, self.dtype(), &clamped, bytemuck::cast_slice_mut(&mut codes));
        bytemuck::cast_slice(&codes).to_vec()
    }

    /// Fills `out` with the values of packed floats.
    pub(crate) fn unpack(self, isa: Isa, bytes: &[u8], out: &mut [f32]) {
        let codes: Vec<u16> = bytemuck::pod_collect_to_vec(bytes);
        decode(isa, self.dtype(), bytemuck::cast_slice(&codes), out);
    }

    /// The number of values that, times a factor, are beyond the largest number. A value that is not sent decodes as
    /// zero.
    pub(crate) fn cut(self, factor: f64, values: &[f32], decoded: &[f32]) -> u64 {
        let largest = f64::from(self.largest());
        let is_cut =
            |(x, decoded): &(&f32, &f32)| **decoded != 0.0 && (f64::from(**x) * factor).abs() > largest;
        values.iter().zip(decoded).filter(is_cut).count() as u64
    }

    fn largest(self) -> f32 {
        match self {
            Self::F16 => half::f16::MAX.to_f32(),
            Self::Bf16 => half::bf16::MAX.to_f32(),
        }
    }
}

impl Codec for Half {
    fn encoder(&self, isa: Isa, _vector: &Vector, _seeds: Seeds) -> Box<dyn Encoder> {
        Box::new(HalfEncoder { isa, half: *self })
    }
}

#[derive(Debug)]
struct HalfEncoder {
    isa: Isa,
    half: Half,
}

impl Encoder for HalfEncoder {
    fn coding(&self) -> Coding {
        Coding::Half(self.half)
    }

    fn cut(&self, values: &[f32], decoded: &[f32]) -> u64 {
        self.half.cut(1.0, values, decoded)
    }

    fn encode(&self, _start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        vec![self.half.pack(self.isa, values)]
    }
}

impl Scheme for Half {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        Ok(vec![Stream { suffix: "", dtype: self.dtype(), extent: Extent::Known(vector.shape.clone()) }])
    }

    fn bytes(&self, _vector: &Vector, _stream: usize, values: Range<usize>) -> Range<usize> {
        2 * values.start..2 * values.end
    }

    fn decode(
        &self,
        isa: Isa,
        _vector: &Vector,
        _start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        self.unpack(isa, streams[0], out);
        Ok(())
    }
}
