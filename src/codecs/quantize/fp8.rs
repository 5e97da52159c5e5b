//! `e4m3`: 8-bit floats, scaled for each block (Micikevicius et al., 2022).
//!
//! The scale makes the largest magnitude of a block 448, the largest number of the format. Rounding is to nearest, ties
//! to even.

use crate::codecs::quantize::blocks::{Blocks, EndsOfBlocks, inverse, limit, scales};
use crate::codecs::{
    Codec, Coding, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Tally, Vector, check_lengths,
};
use crate::kernels::convert::{decode, encode};
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "8-bit floats, one scale per block",
    settings: &[("block", &["0", "32"]), ("per", &["channel"]), ("as", &["u8", "f8"])],
    tried: &[],
    codecs: &[("e4m3", parse)],
};

/// The largest number of the format.
pub(crate) const LARGEST: f32 = 448.0;

/// The coding: how the codes of a vector were made.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct E4m3 {
    /// Which values share a scale.
    pub blocks: Blocks,
    /// The dtype of the codes.
    pub container: Container,
}

/// The dtype of the codes in a file.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// U8, which every reader of safetensors takes.
    #[default]
    Bytes,
    /// F8_E4M3 under the tensor's own name, as compressed-tensors has it.
    Native,
}

impl FromStr for Container {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "u8" => Ok(Self::Bytes),
            "f8" => Ok(Self::Native),
            _ => Err(format!("found `{text}`, expected u8 or f8")),
        }
    }
}

fn parse(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let blocks = Blocks::parse(settings, "e4m3", Blocks::Whole)?;
    Ok(Box::new(E4m3 { blocks, container: settings.take("as")?.unwrap_or_default() }))
}

impl fmt::Display for E4m3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let container = if self.container == Container::Native { ",as=f8" } else { "" };
        write!(f, "e4m3:{}{container}", self.blocks)
    }
}

impl Codec for E4m3 {
    fn encoder(&self, isa: Isa, vector: &Vector, _seeds: Seeds) -> Box<dyn Encoder> {
        Box::new(E4m3Encoder { scheme: *self, ends: EndsOfBlocks::new(isa, self.blocks, vector) })
    }
}

#[derive(Debug)]
struct E4m3Encoder {
    scheme: E4m3,
    ends: EndsOfBlocks,
}

impl Encoder for E4m3Encoder {
    fn wants_look(&self) -> bool {
        self.ends.wants_look()
    }

    fn look(&self, start: usize, values: &[f32]) -> Tally {
        self.ends.look(start, values)
    }

    fn learn(&mut self, tally: Tally) {
        self.ends.learn(tally);
    }

    fn coding(&self) -> Coding {
        Coding::E4m3(self.scheme)
    }

    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let scales = self.ends.scales(start, values, f64::from(LARGEST));
        let mut codes = vec![0; values.len()];
        let mut scaled = values.to_vec();
        let pieces = self.scheme.blocks.pieces(&self.ends.vector, start, values.len());
        for (piece, scale) in pieces.zip(&scales) {
            to_codes(self.ends.isa, inverse(*scale), &mut scaled[piece.clone()], &mut codes[piece]);
        }
        vec![codes, bytemuck::cast_slice(&scales).to_vec()]
    }
}

/// Multiplies values and rounds them to codes. A value that is too large becomes the largest number.
pub(crate) fn to_codes(isa: Isa, factor: f32, values: &mut [f32], codes: &mut [u8]) {
    values.iter_mut().for_each(|x| *x = (*x * factor).clamp(-LARGEST, LARGEST));
    encode(isa, Dtype::F8E4M3, values, codes);
}

/// The values of codes.
///
/// # Errors
///
/// When a code is not a number.
pub(crate) fn of_codes(isa: Isa, codes: &[u8], out: &mut [f32]) -> Result<(), Invalid> {
    if let Some(code) = codes.iter().find(|code| **code & 0x7f == 0x7f) {
        return Err(Invalid(format!("found the code {code:#04x}, expected one of a number")));
    }
    decode(isa, Dtype::F8E4M3, codes, out);
    Ok(())
}

impl Scheme for E4m3 {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        self.blocks.check()?;
        let (suffix, dtype) = match self.container {
            Container::Bytes => ("_codes", Dtype::U8),
            Container::Native => ("", Dtype::F8E4M3),
        };
        let count = self.blocks.count(vector);
        let scales = match (self.blocks, vector.shape.len()) {
            (Blocks::Rows, 2..) => vec![count, 1],
            _ => vec![count],
        };
        Ok(vec![
            Stream { suffix, dtype, extent: Extent::Known(vector.shape.clone()) },
            Stream { suffix: "_scale", dtype: Dtype::F32, extent: Extent::Known(scales) },
        ])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        self.blocks.unit()
    }

    fn bytes(&self, vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize> {
        match stream {
            0 => values,
            _ => {
                let blocks = self.blocks.touched(vector, values);
                4 * blocks.start..4 * blocks.end
            }
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
        of_codes(isa, streams[0], out)?;
        let scales = scales(streams[1])?;
        for (piece, scale) in self.blocks.pieces(vector, start, out.len()).zip(scales) {
            out[piece].iter_mut().for_each(|x| *x *= scale);
        }
        limit(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::trial::{assert_refuses_damage, back, shapes, trial_values};

    #[test]
    fn values_come_back_within_four_bits() {
        for text in ["e4m3", "e4m3:per=channel", "e4m3:block=32,as=f8"] {
            for (what, values) in trial_values() {
                for vector in shapes(values.len()) {
                    let (coding, decoded) = back(text, &vector, &values);
                    let Coding::E4m3(scheme) = coding else { panic!("{coding:?}") };
                    let block = scheme.blocks.len(&vector);
                    for (sent, got) in values.chunks(block).zip(decoded.chunks(block)) {
                        let largest = f64::from(sent.iter().fold(0.0f32, |m, x| m.max(x.abs())));
                        for (x, y) in sent.iter().zip(got) {
                            let (x, y) = (f64::from(*x), f64::from(*y));
                            // Half of the last of four bits, or of the least step of the format.
                            let least = largest / 448.0 / 1024.0 + f64::from(f32::MIN_POSITIVE) * 448.0;
                            let bar = (x.abs() / 16.0).max(least) * 1.0001;
                            assert!((x - y).abs() <= bar, "{text}, {what}: {x} became {y}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn damage_is_refused() {
        assert_refuses_damage("e4m3");
        assert_refuses_damage("e4m3:per=channel");
        let scheme = E4m3 { blocks: Blocks::Whole, container: Container::Bytes };
        let vector = &shapes(4)[0];
        let decode = |codes: [u8; 4], scale: f32| {
            scheme.decode(Isa::detect(), vector, 0, &[&codes, &scale.to_le_bytes()], &mut [0.0; 4])
        };
        decode([0x7e, 0xfe, 0, 0x80], 1.0).unwrap();
        assert!(decode([0, 0, 0xff, 0], 1.0).unwrap_err().0.contains("0xff"));
        assert!(decode([0; 4], f32::INFINITY).unwrap_err().0.contains("as a scale"));
    }
}
