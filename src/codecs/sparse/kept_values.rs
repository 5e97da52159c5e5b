//! How a sparse codec writes the values that it sends: `values=f32|f16|u8|u4|ternary`.
//!
//! `u8` and `u4` write a sign and an integer on an even grid from the smallest to the largest magnitude of a chunk,
//! which come first. The grid is one of magnitudes, since no sent value lies around zero. `ternary` writes the sign
//! alone, with one magnitude for all chunks.

use crate::codecs::Invalid;
use crate::codecs::packing::bits;
use crate::codecs::packing::floats::{expect_bytes, expect_finite, finite};
use crate::codecs::quantize::half::Half;
use crate::codecs::quantize::sign::{self, Magnitude};
use crate::codecs::wire::Bits;
use crate::kernels::lanes::Isa;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of the values in messages.
const WHAT: &str = "values";

/// The form of the values, as users name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueCode {
    /// Exact.
    F32,
    /// The nearest 16-bit float.
    F16,
    /// A sign and seven bits.
    U8,
    /// A sign and three bits.
    U4,
    /// A sign.
    Ternary,
}

/// The form of the values, and what their decoder needs.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum KeptValues {
    /// Exact.
    F32,
    /// The nearest 16-bit float.
    F16,
    /// A sign and seven bits.
    U8,
    /// A sign and three bits.
    U4,
    /// A sign; all values have this magnitude.
    Ternary(Magnitude),
}

/// Every form with its name.
const NAMES: [(&str, ValueCode); 5] = [
    ("f32", ValueCode::F32),
    ("f16", ValueCode::F16),
    ("u8", ValueCode::U8),
    ("u4", ValueCode::U4),
    ("ternary", ValueCode::Ternary),
];

impl FromStr for ValueCode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        let why = || format!("found `{text}`, expected {}", NAMES.map(|(name, _)| name).join(", "));
        found.map(|(_, code)| *code).ok_or_else(why)
    }
}

impl fmt::Display for ValueCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.iter().find(|(_, code)| code == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

impl ValueCode {
    /// Bits of a value.
    pub(crate) fn bits(self) -> f64 {
        match self {
            Self::F32 => 32.0,
            Self::F16 => 16.0,
            Self::U8 => 8.0,
            Self::U4 => 4.0,
            Self::Ternary => 1.0,
        }
    }

    /// The form with what its decoder needs: the magnitude of ternary values.
    pub(crate) fn with_magnitude(self, magnitude: f32) -> KeptValues {
        match self {
            Self::F32 => KeptValues::F32,
            Self::F16 => KeptValues::F16,
            Self::U8 => KeptValues::U8,
            Self::U4 => KeptValues::U4,
            Self::Ternary => KeptValues::Ternary(Magnitude(Bits(magnitude))),
        }
    }

    /// The number of sent values that are beyond the largest of the form. `factor` is that of the sent values; a value
    /// that is not sent decodes as zero.
    pub(crate) fn cut(self, factor: f64, values: &[f32], decoded: &[f32]) -> u64 {
        match self {
            Self::F16 => Half::F16.cut(factor, values, decoded),
            _ => 0,
        }
    }

    /// Appends values.
    pub(crate) fn encode(self, isa: Isa, values: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::F32 => out.extend_from_slice(bytemuck::cast_slice(values)),
            Self::F16 => out.extend(Half::F16.pack(isa, values)),
            Self::U8 => {
                let grid = Grid::of(values, 7);
                out.extend(grid.ends());
                out.extend(values.iter().map(|x| grid.code(*x)));
            }
            Self::U4 => {
                let grid = Grid::of(values, 3);
                out.extend(grid.ends());
                out.extend(bits::pack(isa, 4, values.iter().map(|x| grid.code(*x)).collect()));
            }
            Self::Ternary => out.extend(sign::pack(isa, values)),
        }
    }
}

impl KeptValues {
    /// Checks the coding.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Ternary(magnitude) => magnitude.check(),
            _ => Ok(()),
        }
    }

    /// Fills `out` from exactly the bytes of its values.
    ///
    /// # Errors
    ///
    /// When the bytes are not what an encoder writes.
    pub(crate) fn decode(&self, isa: Isa, bytes: &[u8], out: &mut [f32]) -> Result<(), Invalid> {
        match self {
            Self::F32 => {
                out.copy_from_slice(&finite(bytes, out.len(), WHAT)?);
                Ok(())
            }
            Self::F16 => {
                expect_bytes(bytes, 2 * out.len(), WHAT)?;
                Half::F16.unpack(isa, bytes, out);
                expect_finite(out, WHAT)
            }
            Self::U8 => {
                let (grid, codes) = Grid::read(bytes, 7)?;
                expect_bytes(codes, out.len(), WHAT)?;
                out.iter_mut().zip(codes).for_each(|(x, code)| *x = grid.value(*code));
                Ok(())
            }
            Self::U4 => {
                let (grid, codes) = Grid::read(bytes, 3)?;
                let codes = bits::unpack(isa, 4, codes, out.len())?;
                out.iter_mut().zip(codes).for_each(|(x, code)| *x = grid.value(code));
                Ok(())
            }
            Self::Ternary(magnitude) => magnitude.signed(isa, bytes, out),
        }
    }
}

/// An even grid of magnitudes. A code has the sign in the bit above.
#[derive(Clone, Copy, Debug)]
struct Grid {
    bits: u32,
    low: f32,
    high: f32,
}

impl Grid {
    fn of(values: &[f32], bits: u32) -> Self {
        let magnitudes = || values.iter().map(|x| x.abs());
        let (low, high) = (magnitudes().fold(f32::INFINITY, f32::min), magnitudes().fold(0.0, f32::max));
        Self { bits, low: low.min(high), high }
    }

    fn read(bytes: &[u8], bits: u32) -> Result<(Self, &[u8]), Invalid> {
        let short = || Invalid(format!("values have {} bytes, expected at least 8", bytes.len()));
        let (ends, codes) = bytes.split_at_checked(8).ok_or_else(short)?;
        let float = |at: usize| f32::from_le_bytes([ends[at], ends[at + 1], ends[at + 2], ends[at + 3]]);
        let (low, high) = (float(0), float(4));
        match 0.0 <= low && low <= high && high.is_finite() {
            true => Ok((Self { bits, low, high }, codes)),
            false => Err(Invalid(format!("magnitudes reach from {low} to {high}"))),
        }
    }

    fn ends(&self) -> [u8; 8] {
        let [a, b, c, d] = self.low.to_le_bytes();
        let [e, f, g, h] = self.high.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }

    fn steps(&self) -> f64 {
        f64::from((1u32 << self.bits) - 1)
    }

    fn code(&self, x: f32) -> u8 {
        let range = f64::from(self.high) - f64::from(self.low);
        let steps = self.steps();
        let t = (f64::from(x.abs()) - f64::from(self.low)) / range * steps;
        let magnitude = if range > 0.0 { t.round_ties_even().clamp(0.0, steps) as u8 } else { 0 };
        magnitude | u8::from(x < 0.0) << self.bits
    }

    fn value(&self, code: u8) -> f32 {
        let magnitude = f64::from(u32::from(code) & ((1 << self.bits) - 1));
        let range = f64::from(self.high) - f64::from(self.low);
        let x = (f64::from(self.low) + magnitude * range / self.steps()) as f32;
        if code >> self.bits == 0 { x } else { -x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_holds_its_ends_and_is_half_a_step_off_at_most() {
        let values = [-3.0f32, 1.0, 2.2, -1.7, 3.0e-3];
        for (code, steps) in [(ValueCode::U8, 127.0f32), (ValueCode::U4, 7.0)] {
            let mut bytes = Vec::new();
            code.encode(Isa::detect(), &values, &mut bytes);
            let mut out = [0.0f32; 5];
            code.with_magnitude(0.0).decode(Isa::detect(), &bytes, &mut out).unwrap();
            assert_eq!((out[0], out[4]), (-3.0, 3.0e-3));
            let half = 0.5 * (3.0 - 3.0e-3) / steps;
            assert!(out.iter().zip(values).all(|(y, x)| (y - x).abs() <= half * 1.001), "{out:?}");
        }
    }

    #[test]
    fn names_come_back() {
        for (name, code) in NAMES {
            assert_eq!((name.parse(), code.to_string()), (Ok(code), name.to_owned()));
        }
        assert!("u5".parse::<ValueCode>().is_err());
    }
}
