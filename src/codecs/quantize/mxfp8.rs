//! `mxfp8`: 8-bit floats in blocks of 32 that share a power of two (OCP MX 1.0, section 6.3).
//!
//! The exponent of the standard is `floor(log2 max |v|) - 8`. It cuts off values above 1.75 times a power of two. The
//! default adds one in that case, and cuts off none.

use crate::codecs::quantize::blocks::{Blocks, limit};
use crate::codecs::quantize::fp8::{LARGEST, of_codes, to_codes};
use crate::codecs::{
    Codec, Coding, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Vector, check_lengths,
};
use crate::kernels::block_quantize::block_largest;
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "8-bit floats in blocks of 32 that share a power of two",
    settings: &[("scale", &["up", "floor"])],
    tried: &[],
    codecs: &[("mxfp8", parse)],
};

/// Values that share an exponent.
const BLOCK: usize = 32;

/// A stored scale is the exponent plus this; the code after the last is not a number.
const BIAS: i32 = 127;
const NOT_A_NUMBER: u8 = 255;

/// The exponent of the largest number of the format, and its mantissa.
const LARGEST_EXPONENT: i32 = 8;
const LARGEST_MANTISSA: f64 = 1.75;

/// The coding: empty, since blocks have 32 values.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Mxfp8 {}

/// The choice of exponents.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Scale {
    Floor,
    #[default]
    Up,
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "floor" => Ok(Self::Floor),
            "up" => Ok(Self::Up),
            _ => Err(format!("found `{text}`, expected floor or up")),
        }
    }
}

impl Scale {
    /// The exponent of a block with this largest magnitude.
    fn exponent(self, largest: f32) -> i32 {
        // No f32 is subnormal as f64.
        let bits = f64::from(largest).to_bits();
        let exponent = (bits >> 52) as i32 - 1023;
        let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
        let is_cut = self == Self::Up && mantissa > LARGEST_MANTISSA;
        (exponent - LARGEST_EXPONENT + i32::from(is_cut)).max(-BIAS)
    }
}

#[derive(Clone, Copy, Debug)]
struct Mxfp8Codec(Scale);

fn parse(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    Ok(Box::new(Mxfp8Codec(settings.take("scale")?.unwrap_or_default())))
}

impl fmt::Display for Mxfp8Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Scale::Up => "mxfp8",
            Scale::Floor => "mxfp8:scale=floor",
        })
    }
}

impl Codec for Mxfp8Codec {
    fn encoder(&self, isa: Isa, _vector: &Vector, _seeds: Seeds) -> Box<dyn Encoder> {
        Box::new(Mxfp8Encoder { isa, scale: self.0 })
    }
}

#[derive(Debug)]
struct Mxfp8Encoder {
    isa: Isa,
    scale: Scale,
}

/// `2^exponent` for exponents from -127 on; subnormal at -127.
fn power_of_two(exponent: i32) -> f32 {
    match u32::try_from(exponent + BIAS) {
        Ok(biased @ 1..) => f32::from_bits(biased << 23),
        _ => f32::from_bits(1 << 22),
    }
}

impl Encoder for Mxfp8Encoder {
    fn coding(&self) -> Coding {
        Coding::Mxfp8(Mxfp8 {})
    }

    fn cut(&self, values: &[f32], _decoded: &[f32]) -> u64 {
        if self.scale == Scale::Up {
            return 0;
        }
        let cut = |values: &[f32]| {
            let largest = values.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            let end = LARGEST * power_of_two(self.scale.exponent(largest));
            values.iter().filter(|x| x.abs() > end).count() as u64
        };
        values.chunks(BLOCK).map(cut).sum()
    }

    fn encode(&self, _start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let mut largest = vec![0.0; values.len().div_ceil(BLOCK)];
        block_largest(self.isa, values, BLOCK, &mut largest);
        let exponents: Vec<i32> = largest.iter().map(|largest| self.scale.exponent(*largest)).collect();
        let (mut scaled, mut codes) = (values.to_vec(), vec![0; values.len()]);
        let blocks = scaled.chunks_mut(BLOCK).zip(codes.chunks_mut(BLOCK));
        for ((values, codes), exponent) in blocks.zip(&exponents) {
            to_codes(self.isa, power_of_two(-exponent), values, codes);
        }
        vec![codes, exponents.iter().map(|exponent| (exponent + BIAS) as u8).collect()]
    }
}

impl Scheme for Mxfp8 {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        let scales = Extent::Known(vec![vector.len.div_ceil(BLOCK)]);
        Ok(vec![
            Stream { suffix: "_codes", dtype: Dtype::U8, extent: Extent::Known(vector.shape.clone()) },
            Stream { suffix: "_scale", dtype: Dtype::U8, extent: scales },
        ])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        BLOCK
    }

    fn bytes(&self, vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize> {
        match stream {
            0 => values,
            _ => Blocks::Runs(BLOCK as u32).touched(vector, values),
        }
    }

    fn decode(
        &self,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        check_lengths(self, vector, start..start + out.len(), streams)?;
        if streams[1].contains(&NOT_A_NUMBER) {
            return Err(Invalid(format!("found {NOT_A_NUMBER} as a scale, expected one of a number")));
        }
        of_codes(isa, streams[0], out)?;
        for (block, scale) in out.chunks_mut(BLOCK).zip(streams[1]) {
            let scale = power_of_two(i32::from(*scale) - BIAS);
            block.iter_mut().for_each(|x| *x *= scale);
        }
        limit(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::trial::{assert_refuses_damage, back, encode, shapes, trial_values};

    #[test]
    fn values_come_back_within_four_bits() {
        for (what, values) in trial_values() {
            let (_, decoded) = back("mxfp8", &shapes(values.len())[0], &values);
            for (sent, got) in values.chunks(BLOCK).zip(decoded.chunks(BLOCK)) {
                let largest = f64::from(sent.iter().fold(0.0f32, |m, x| m.max(x.abs())));
                for (x, y) in sent.iter().zip(got) {
                    let (x, y) = (f64::from(*x), f64::from(*y));
                    let least = (largest / 224.0 / 1024.0).max(2f64.powi(-127 - 10));
                    let bar = (x.abs() / 16.0).max(least);
                    assert!((x - y).abs() <= bar, "{what}: {x} became {y}");
                }
            }
        }
    }

    #[test]
    fn exponents_are_the_standards_or_one_more() {
        for (largest, floor, up) in [
            (0.0, -127, -127),
            (1.0, -8, -8),
            (1.75, -8, -8),
            (1.76, -8, -7),
            (448.0, 0, 0),
            (449.0, 0, 1),
            (f32::MAX, 119, 120),
            (1e-45, -127, -127),
        ] {
            assert_eq!(
                (Scale::Floor.exponent(largest), Scale::Up.exponent(largest)),
                (floor, up),
                "{largest}"
            );
        }
        let vector = &shapes(33)[0];
        let mut values = vec![0.0; 33];
        values[32] = 448.0;
        let codec = crate::codecs::parse("mxfp8").unwrap();
        let streams = encode(codec.as_ref(), &vector.shape, &values).streams();
        assert_eq!((&streams[1][..], streams[0][0], streams[0][32]), (&[0, 127][..], 0, 0x7e));
    }

    #[test]
    fn damage_is_refused() {
        assert_refuses_damage("mxfp8");
        let decode = |code: u8, scale: u8| {
            Mxfp8 {}.decode(Isa::detect(), &shapes(1)[0], 0, &[&[code], &[scale]], &mut [0.0])
        };
        decode(0x7e, 254).unwrap();
        assert!(decode(0x7f, 127).unwrap_err().0.contains("0x7f"));
        assert!(decode(0, 255).unwrap_err().0.contains("255"));
    }
}
