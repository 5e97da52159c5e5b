//! Turns values into integers on the even grid of their block, and back.
//!
//! The caller computes grids in f64 and rounds them once. These kernels do one f32 operation after the other, so every
//! instruction set and every device finds the same code. Values are finite, and none is `-0.0`.
//!
//! Agreement: bits.

use crate::kernels::dispatch;
use crate::kernels::lanes::{FLOATS, Floats};

/// Added to a float of magnitude up to 2^22, it rounds the float to an integer, half to even. The lowest bits of the
/// sum are that integer.
const ROUNDER: f32 = 12_582_912.0;
/// Random bits that a fraction is compared with.
const FRACTION_BITS: u32 = 24;

/// The rounding of values between two codes.
#[derive(Clone, Copy, Debug)]
pub enum Rounding<'a> {
    /// To the nearest code, half to even.
    Nearest,
    /// To the upper code with a probability that grows with the value's distance from the lower one. Each value has a
    /// random word, whose upper 24 bits count, so a fraction below 2^-24 counts as zero.
    Stochastic(&'a [u32]),
}

/// The rounding on a device, which makes the random words itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Draw {
    /// To the nearest code, half to even.
    Nearest,
    /// By random words of this seed and purpose, one per value, from word `first` on, a multiple of four.
    Stochastic {
        /// The key of the stream.
        seed: u64,
        /// The purpose of the words.
        purpose: u32,
        /// Number of the first value's word.
        first: u64,
    },
}

dispatch! {
    /// The smallest and the largest value of each block of `block` values, of which the last may have fewer.
    pub fn block_ends<A: Arch>(values: &[f32], block: usize, ends: &mut [[f32; 2]]) {
        for (values, ends) in values.chunks(block).zip(ends) {
            let (whole, rest) = values.as_chunks::<FLOATS>();
            let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
            if let Some((first, others)) = whole.split_first() {
                (low, high) = ends_of::<A::Floats>(first, others);
            }
            for x in rest {
                (low, high) = (lesser(*x, low), greater(*x, high));
            }
            // Which of two zeros is the end depends on the instruction set; a sum with zero is zero without a sign.
            *ends = [low + 0.0, high + 0.0];
        }
    }
}

#[inline(always)]
fn ends_of<F: Floats>(first: &[f32; FLOATS], others: &[[f32; FLOATS]]) -> (f32, f32) {
    // SAFETY: each array has the length of its load.
    let load = |floats: &[f32; FLOATS]| unsafe { F::load(floats.as_ptr()) };
    let mut ends = (load(first), load(first));
    for floats in others {
        let floats = load(floats);
        ends = (ends.0.lesser(floats), ends.1.greater(floats));
    }
    (ends.0.lowest(), ends.1.highest())
}

dispatch! {
    /// The largest magnitude of each block of `block` values, of which the last may have fewer.
    pub fn block_largest<A: Arch>(values: &[f32], block: usize, largest: &mut [f32]) {
        for (values, largest) in values.chunks(block).zip(largest) {
            let mut bits = 0u32;
            for x in values {
                bits = bits.max(x.to_bits() & 0x7fff_ffff);
            }
            *largest = f32::from_bits(bits);
        }
    }
}

dispatch! {
    /// The codes 0 to `top` of the values of each block of `block` values, of which the last may have fewer. A code is
    /// `(x - low) * inverse`, rounded, by the block's grid (low, inverse). `top` is at most 255. The caller ensures
    /// that no `x - low` overflows.
    pub fn quantize<A: Arch>(
        values: &[f32],
        block: usize,
        grids: &[[f32; 2]],
        top: u8,
        rounding: Rounding,
        codes: &mut [u8],
    ) {
        let top = f32::from(top);
        let blocks = values.chunks(block).zip(codes.chunks_mut(block)).zip(grids);
        for (number, ((values, codes), [low, inverse])) in blocks.enumerate() {
            match rounding {
                Rounding::Nearest => {
                    for (x, code) in values.iter().zip(codes) {
                        *code = nearest(between((*x - low) * inverse, 0.0, top)) as u8;
                    }
                }
                Rounding::Stochastic(words) => {
                    let words = &words[number * block..];
                    for ((x, word), code) in values.iter().zip(words).zip(codes) {
                        *code = drawn(between((*x - low) * inverse, 0.0, top), *word) as u8;
                    }
                }
            }
        }
    }
}

dispatch! {
    /// The codes `-top` to `top` of the values of a block: `x * inverse`, rounded. `top` is at most 127.
    pub fn quantize_symmetric<A: Arch>(
        values: &[f32],
        inverse: f32,
        top: i8,
        rounding: Rounding,
        codes: &mut [i8],
    ) {
        let top = f32::from(top);
        match rounding {
            Rounding::Nearest => {
                for (x, code) in values.iter().zip(codes) {
                    *code = nearest(between(*x * inverse, -top, top)) as i8;
                }
            }
            Rounding::Stochastic(words) => {
                for ((x, word), code) in values.iter().zip(words).zip(codes) {
                    *code = drawn(between(*x * inverse, -top, top), *word) as i8;
                }
            }
        }
    }
}

dispatch! {
    /// The values of the codes of each block of `block` codes, of which the last may have fewer: `low + code * step`,
    /// by the block's grid (low, step).
    pub fn dequantize<A: Arch>(codes: &[u8], block: usize, grids: &[[f32; 2]], out: &mut [f32]) {
        for ((codes, out), [low, step]) in codes.chunks(block).zip(out.chunks_mut(block)).zip(grids) {
            for (code, x) in codes.iter().zip(out) {
                *x = low + f32::from(*code) * step;
            }
        }
    }
}

dispatch! {
    /// The values of the codes of a symmetric block: `code * step`.
    pub fn dequantize_symmetric<A: Arch>(codes: &[i8], step: f32, out: &mut [f32]) {
        for (code, x) in codes.iter().zip(out) {
            *x = f32::from(*code) * step;
        }
    }
}

/// Where the blocks of a run of values lie: all have one length, and the run may start inside the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockRun {
    /// Values of a block.
    pub block: usize,
    /// Values of the first block that lie before the run.
    pub skipped: usize,
}

impl From<usize> for BlockRun {
    fn from(block: usize) -> Self {
        Self { block, skipped: 0 }
    }
}

// Comparisons are one instruction; `f32::min` is several.
#[inline(always)]
fn lesser(x: f32, other: f32) -> f32 {
    if x < other { x } else { other }
}

#[inline(always)]
fn greater(x: f32, other: f32) -> f32 {
    if x > other { x } else { other }
}

/// `t` clamped to the ends; the lower end for NaN.
#[inline(always)]
fn between(t: f32, low: f32, high: f32) -> f32 {
    lesser(greater(t, low), high)
}

/// The nearest integer, half to even. `t` is between -128 and 255.
#[inline(always)]
fn nearest(t: f32) -> i32 {
    // The lowest 23 bits are the mantissa: the integer plus half of the mantissa's range.
    (t + ROUNDER).to_bits() as i32 & 0xff
}

/// The integer below `t` or above it, as the random word decides. `t` is between -128 and 255.
#[inline(always)]
fn drawn(t: f32, word: u32) -> i32 {
    // SAFETY: `between` clamped `t` to its ends, so `t` is a number in range.
    let toward_zero: i32 = unsafe { t.to_int_unchecked() };
    let below = toward_zero - i32::from(toward_zero as f32 > t);
    let fraction = (t - below as f32) * (1u32 << FRACTION_BITS) as f32;
    // SAFETY: a number from 0 to 2^24.
    let fraction: i32 = unsafe { fraction.to_int_unchecked() };
    below + i32::from(((word >> (32 - FRACTION_BITS)) as i32) < fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;
    use crate::kernels::philox::random_words;

    const SIZES: [usize; 12] = [0, 1, 2, 7, 15, 16, 17, 63, 65, 255, 257, 1031];

    fn values(len: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 7_919 % 997) as f32 / 499.0 - 1.0) * [1.0, 1e-3, 40.0, 1e-30][i % 4];
        (0..len).map(value).collect()
    }

    fn words(len: usize) -> Vec<u32> {
        let mut words = vec![0; len];
        random_words(Isa::detect(), 9, 1, 0, &mut words);
        words
    }

    #[test]
    fn ends_and_magnitudes_are_those_of_each_block() {
        for isa in Isa::available() {
            for (len, block) in SIZES.into_iter().flat_map(|len| [1, 8, 16, 33, 128].map(|b| (len, b))) {
                let values: Vec<f32> = values(len).iter().map(|x| x - 2.0).collect();
                let blocks = len.div_ceil(block);
                let (mut ends, mut largest) = (vec![[f32::NAN; 2]; blocks], vec![f32::NAN; blocks]);
                block_ends(isa, &values, block, &mut ends);
                block_largest(isa, &values, block, &mut largest);
                for (i, values) in values.chunks(block).enumerate() {
                    let mut sorted = values.to_vec();
                    sorted.sort_by(f32::total_cmp);
                    assert_eq!(
                        ends[i],
                        [sorted[0], sorted[sorted.len() - 1]],
                        "block {i} of {block} on {isa}"
                    );
                    assert_eq!(largest[i], sorted.iter().fold(0.0, |m: f32, x| m.max(x.abs())));
                }
            }
        }
    }

    /// In f64, from the definition.
    fn expected(t: f32, word: Option<u32>, low: f64, top: f64) -> f64 {
        let t = f64::from(t).clamp(low, top);
        match word {
            None => t.round_ties_even(),
            Some(word) => {
                let fraction = f64::from((t - t.floor()) as f32);
                t.floor() + f64::from(u8::from(f64::from(word >> 8) < (fraction * 2f64.powi(24)).floor()))
            }
        }
    }

    #[test]
    fn codes_are_those_of_the_definition() {
        for isa in Isa::available() {
            for (len, bits) in SIZES.into_iter().flat_map(|len| (1..=8).map(move |bits| (len, bits))) {
                let (values, words) = (values(len), words(len));
                let (top, low) = (((1u32 << bits) - 1) as u8, -31.5f32);
                let inverse = (f64::from(top) / 70.0) as f32;
                let side = (top / 2) as i8;
                for rounding in [Rounding::Nearest, Rounding::Stochastic(&words)] {
                    let (mut codes, mut signed) = (vec![0xaa; len], vec![0x55; len]);
                    quantize(
                        isa,
                        &values,
                        16,
                        &vec![[low, inverse]; len.div_ceil(16)],
                        top,
                        rounding,
                        &mut codes,
                    );
                    quantize_symmetric(isa, &values, inverse, side, rounding, &mut signed);
                    for (i, x) in values.iter().enumerate() {
                        let word = matches!(rounding, Rounding::Stochastic(_)).then(|| words[i]);
                        let want = expected((x - low) * inverse, word, 0.0, top.into());
                        assert_eq!(f64::from(codes[i]), want, "{x} of {len} by {bits} bits on {isa}");
                        let want = expected(x * inverse, word, -f64::from(side), side.into());
                        assert_eq!(f64::from(signed[i]), want, "{x} of {len} by {bits} bits on {isa}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_lies_outside_and_what_is_no_number_is_an_end() {
        let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, -1e38, 2.5, 3.5];
        for isa in Isa::available() {
            for rounding in [Rounding::Nearest, Rounding::Stochastic(&[u32::MAX; 7])] {
                let (mut codes, mut signed) = ([9; 7], [9; 7]);
                quantize(isa, &values, 7, &[[0.0, 1.0]], 15, rounding, &mut codes);
                quantize_symmetric(isa, &values, 1.0, 7, rounding, &mut signed);
                assert_eq!(codes[..5], [0, 15, 0, 15, 0]);
                assert_eq!(signed[..5], [-7, 7, -7, 7, -7]);
                let half = if matches!(rounding, Rounding::Nearest) { [2, 4] } else { [2, 3] };
                assert_eq!((codes[5..] == half, signed[5..] == half.map(|x| x as i8)), (true, true), "{isa}");
            }
        }
    }

    #[test]
    fn stochastic_codes_are_right_on_average() {
        let words = words(100_000);
        for (x, want) in [(0.25f32, 0.25), (-0.25, -0.25), (2.9, 2.9), (-2.9, -2.9)] {
            let mut codes = vec![0; words.len()];
            let values = vec![x; words.len()];
            quantize_symmetric(Isa::detect(), &values, 1.0, 7, Rounding::Stochastic(&words), &mut codes);
            let mean = codes.iter().map(|code| f64::from(*code)).sum::<f64>() / words.len() as f64;
            assert!((mean - want).abs() < 0.006, "{mean}, expected {want}");
        }
    }

    #[test]
    fn codes_stand_for_points_of_the_grid() {
        let codes: Vec<u8> = (0..=255).collect();
        let signed: Vec<i8> = (-128..=127).collect();
        for isa in Isa::available() {
            let mut out = [f32::NAN; 256];
            dequantize(isa, &codes, 32, &[[-3.0, 0.37]; 8], &mut out);
            assert!(out.iter().zip(&codes).all(|(x, code)| *x == -3.0 + f32::from(*code) * 0.37), "{isa}");
            dequantize_symmetric(isa, &signed, 0.37, &mut out);
            assert!(out.iter().zip(&signed).all(|(x, code)| *x == f32::from(*code) * 0.37), "{isa}");
        }
    }

    #[test]
    fn a_value_on_the_grid_stays_whatever_is_drawn() {
        for word in [0, 1, u32::MAX] {
            assert_eq!((drawn(3.0, word), drawn(-3.0, word), drawn(0.0, word)), (3, -3, 0));
        }
        assert_eq!((drawn(2.5, 0), drawn(2.5, u32::MAX), drawn(-2.5, 0)), (3, 2, -2));
    }

    #[test]
    fn an_end_of_zero_has_no_sign() {
        for isa in Isa::available() {
            for (i, j) in [(0, 1), (1, 0), (16, 33), (33, 16), (3, 3)] {
                let mut values = [0.0f32; 40];
                (values[i], values[j]) = (0.0, -0.0);
                let mut ends = [[f32::NAN; 2]];
                block_ends(isa, &values, 40, &mut ends);
                assert_eq!(ends[0].map(f32::to_bits), [0, 0], "{isa}");
                block_ends(isa, &[-0.0; 40], 40, &mut ends);
                assert_eq!(ends[0].map(f32::to_bits), [0, 0], "{isa}");
            }
        }
    }
}
