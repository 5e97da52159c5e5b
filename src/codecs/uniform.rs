//! `u1` to `u8`: integers on an even grid from the lowest to the highest value of each block.
//!
//! `s = (hi - lo) / (2^b - 1)`, `q = round((x - lo) / s)`, decoded as `lo + q s`.

use super::{Codec, Coding, Encoder, Extent, Invalid, Scheme, Seeds, Stream, Vector};
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::rules::spec::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// How codes of a vector are made.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Uniform {
    /// Bits of a code, 1 to 8.
    pub bits: u8,
    /// Values of a block, a power of two from 8 to [`CHUNK`](super::CHUNK).
    pub block: u32,
}

pub(super) fn parse<const BITS: u8>(_settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    Ok(Box::new(Uniform { bits: BITS, block: 128 }))
}

impl fmt::Display for Uniform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}:block={}", self.bits, self.block)
    }
}

impl Codec for Uniform {
    fn encoder(&self, _isa: Isa, _vector: &Vector, _seeds: Seeds) -> Box<dyn Encoder> {
        Box::new(UniformEncoder(self.clone()))
    }
}

#[derive(Debug)]
struct UniformEncoder(Uniform);

impl Encoder for UniformEncoder {
    fn coding(&self) -> Coding {
        Coding::Uniform(self.0.clone())
    }

    fn encode(&self, _start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let (mut codes, mut ends) = (Vec::new(), Vec::new());
        let top = f64::from((1u32 << self.0.bits) - 1);
        for block in values.chunks(self.0.block as usize) {
            let low = block.iter().copied().fold(f32::INFINITY, f32::min);
            let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let step = ((f64::from(high) - f64::from(low)) / top) as f32;
            let code = |x: &f32| {
                let t = (f64::from(*x) - f64::from(low)) / f64::from(step);
                if step > 0.0 { t.round_ties_even().clamp(0.0, top) as u8 } else { 0 }
            };
            codes.extend(block.iter().map(code));
            ends.extend([low, step]);
        }
        vec![bytemuck::cast_slice(&ends).to_vec(), codes]
    }
}

impl Scheme for Uniform {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        let blocks = vector.len.div_ceil(self.block as usize);
        let ends = Stream { suffix: "_scale", dtype: Dtype::F32, extent: Extent::Known(vec![blocks, 2]) };
        let codes =
            Stream { suffix: "_codes", dtype: Dtype::U8, extent: Extent::Known(vector.shape.clone()) };
        Ok(vec![ends, codes])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        self.block as usize
    }

    fn bytes(&self, _vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize> {
        match stream {
            0 => 8 * (values.start / self.block as usize)..8 * values.end.div_ceil(self.block as usize),
            _ => values,
        }
    }

    fn decode(
        &self,
        _isa: Isa,
        _vector: &Vector,
        _start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let ends: Vec<f32> = bytemuck::pod_collect_to_vec(streams[0]);
        for ((block, codes), ends) in out
            .chunks_mut(self.block as usize)
            .zip(streams[1].chunks(self.block as usize))
            .zip(ends.chunks(2))
        {
            for (x, code) in block.iter_mut().zip(codes) {
                *x = ends[0] + f32::from(*code) * ends[1];
            }
        }
        Ok(())
    }
}
