//! Converts stored values to working floats and back, with one correct rounding each way.
//!
//! Decoding to the working float of [`Dtype::working`] is exact. A 64-bit integer that f64 does not hold becomes NaN.
//! Encoding rounds half to even, directly from the f64. Formats narrower than f32 go through an f32 rounded to odd,
//! which keeps the information for a second rounding (Boldo and Melquiond, Emulation of a fused multiply-add and
//! correctly rounded sums, 2008; see [`Merged`]). Agreement: bits.
//!
//! F8 formats: Micikevicius et al., FP8 formats for deep learning, 2022.

use crate::kernels::dispatch;
use crate::kernels::element::{Element, Merged, widen_bf16, widen_f16};
use crate::model::dtype::Dtype;
use half::{bf16, f16};
use std::ops::RangeInclusive;

dispatch! {
    /// Decodes stored values of `dtype`, aligned to their size. Writes one value each to `out`.
    pub fn decode<A: Arch, F: Element>(dtype: Dtype, bytes: &[u8], out: &mut [F]) {
        match dtype {
            Dtype::F64 => decode_with(bytes, out, |x: f64| F::from_exact(x)),
            Dtype::F32 => decode_with(bytes, out, |x: f32| F::from_exact(f64::from(x))),
            Dtype::F16 => decode_with(bytes, out, |x: f16| F::from_exact(widen_f16(x))),
            Dtype::BF16 => decode_with(bytes, out, |x: bf16| F::from_exact(widen_bf16(x))),
            Dtype::F8E4M3 => decode_with(bytes, out, |x: u8| F::from_exact(E4M3[usize::from(x)])),
            Dtype::F8E5M2 => decode_with(bytes, out, |x: u8| F::from_exact(widen_e5m2(x))),
            // The casts back clamp, so that the ends of both ranges count as held: encoding clamps too.
            Dtype::I64 => decode_with(bytes, out, |x: i64| exact_integer(x as f64, (x as f64) as i64 == x)),
            Dtype::U64 => decode_with(bytes, out, |x: u64| exact_integer(x as f64, (x as f64) as u64 == x)),
            Dtype::I32 => decode_with(bytes, out, |x: i32| F::from_exact(f64::from(x))),
            Dtype::U32 => decode_with(bytes, out, |x: u32| F::from_exact(f64::from(x))),
            Dtype::I16 => decode_with(bytes, out, |x: i16| F::from_exact(f64::from(x))),
            Dtype::U16 => decode_with(bytes, out, |x: u16| F::from_exact(f64::from(x))),
            Dtype::I8 => decode_with(bytes, out, |x: i8| F::from_exact(f64::from(x))),
            Dtype::U8 => decode_with(bytes, out, |x: u8| F::from_exact(f64::from(x))),
            Dtype::Bool => decode_with(bytes, out, |x: u8| F::from_exact(f64::from(u8::from(x != 0)))),
        }
    }
}

#[inline(always)]
fn exact_integer<F: Element>(x: f64, is_exact: bool) -> F {
    F::from_exact(if is_exact { x } else { f64::NAN })
}

#[inline(always)]
fn decode_with<T: bytemuck::Pod, F>(bytes: &[u8], out: &mut [F], to_float: impl Fn(T) -> F) {
    for (out, stored) in out.iter_mut().zip(bytemuck::cast_slice::<u8, T>(bytes)) {
        *out = to_float(*stored);
    }
}

dispatch! {
    /// Encodes each value as `dtype` into `out`, aligned to its size. Values are within [`Dtype::limits`].
    pub fn encode<A: Arch, F: Merged>(dtype: Dtype, values: &[F], out: &mut [u8]) {
        match dtype {
            Dtype::F64 => encode_with(values, out, F::widen),
            Dtype::F32 => encode_with(values, out, |x| x.widen() as f32),
            Dtype::F16 => encode_with(values, out, |x| narrow::<5, 10>(x) as u16 | sign(x) << 8),
            Dtype::BF16 => encode_with(values, out, narrow_bf16),
            Dtype::F8E4M3 => encode_with(values, out, |x| narrow::<4, 3>(x) as u8 | sign(x) as u8),
            Dtype::F8E5M2 => encode_with(values, out, |x| narrow::<5, 2>(x) as u8 | sign(x) as u8),
            Dtype::I64 => encode_with(values, out, |x| rounded(x) as i64),
            Dtype::U64 => encode_with(values, out, |x| rounded(x) as u64),
            Dtype::I32 => encode_with(values, out, |x| rounded(x) as i32),
            Dtype::U32 => encode_with(values, out, |x| rounded(x) as u32),
            Dtype::I16 => encode_with(values, out, |x| rounded(x) as i16),
            Dtype::U16 => encode_with(values, out, |x| rounded(x) as u16),
            Dtype::I8 => encode_with(values, out, |x| rounded(x) as i8),
            Dtype::U8 => encode_with(values, out, |x| rounded(x) as u8),
            Dtype::Bool => encode_with(values, out, |x| u8::from(rounded(x) != 0.0)),
        }
    }
}

#[inline(always)]
fn encode_with<F: Merged, T: bytemuck::Pod>(values: &[F], out: &mut [u8], store: impl Fn(F) -> T) {
    for (out, value) in bytemuck::cast_slice_mut::<u8, T>(out).iter_mut().zip(values) {
        *out = store(*value);
    }
}

#[inline(always)]
fn rounded<F: Merged>(x: F) -> f64 {
    x.widen().round_ties_even()
}

dispatch! {
    /// Whether every value is a number within the limits.
    pub fn all_within<A: Arch, F: Merged>(values: &[F], limits: &RangeInclusive<f64>) -> bool {
        let (low, high) = (*limits.start(), *limits.end());
        let mut within = true;
        for x in values {
            within &= x.widen() >= low && x.widen() <= high;
        }
        within
    }
}

dispatch! {
    /// Whether every value of `row`, plus the base's value, is a number within the limits. `base` is as long as `row`,
    /// or empty for zero.
    pub fn all_fit<A: Arch, E: Element>(row: &[E], base: &[f64], limits: &RangeInclusive<f64>) -> bool {
        let (low, high) = (*limits.start(), *limits.end());
        let mut fit = true;
        if base.is_empty() {
            for x in row {
                fit &= x.widen() >= low && x.widen() <= high;
            }
        } else {
            for (x, base) in row.iter().zip(base) {
                let sum = x.widen() + base;
                fit &= sum >= low && sum <= high;
            }
        }
        fit
    }
}

/// The sign of `x` as bit 7.
#[inline(always)]
fn sign<F: Merged>(x: F) -> u16 {
    ((x.round_to_odd().to_bits() >> 24) & 0x80) as u16
}

#[inline(always)]
fn narrow_bf16<F: Merged>(x: F) -> u16 {
    let bits = x.round_to_odd().to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// The magnitude of `x` in a format of EXPONENT and MANTISSA bits. For a value beyond the largest finite number it is
/// the code of infinity. In e4m3, which has no infinity, it is the last code, NaN.
#[inline(always)]
fn narrow<const EXPONENT: u32, const MANTISSA: u32>(x: impl Merged) -> u32 {
    let odd = x.round_to_odd().to_bits() & 0x7fff_ffff;
    let bias = (1 << (EXPONENT - 1)) - 1;
    let smallest_normal = (127 + 1 - bias) << 23;
    let shift = 23 - MANTISSA;
    // Subnormals are multiples of one step. Adding a number whose last bit is one step rounds to it.
    let step_anchor = f32::from_bits((127 + 1 - bias + shift) << 23);
    let subnormal = (f32::from_bits(odd) + step_anchor).to_bits() - step_anchor.to_bits();
    let half_to_even = (1 << (shift - 1)) - 1 + ((odd >> shift) & 1);
    let normal = ((odd + half_to_even) >> shift).wrapping_sub((127 - bias) << MANTISSA);
    let last_code = (1 << (EXPONENT + MANTISSA)) - 1;
    let infinity = if EXPONENT == 4 { last_code } else { last_code >> MANTISSA << MANTISSA };
    if odd < smallest_normal { subnormal } else { normal.min(infinity) }
}

/// The number of an e5m2 code: the upper half of an f16.
#[inline(always)]
fn widen_e5m2(code: u8) -> f64 {
    widen_f16(f16::from_bits(u16::from(code) << 8))
}

/// The number of each e4m3 code.
static E4M3: [f64; 256] = e4m3_table();

const fn e4m3_table() -> [f64; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = e4m3(code as u64);
        code += 1;
    }
    table
}

const fn e4m3(code: u64) -> f64 {
    let (exponent, mantissa) = ((code >> 3) & 15, code & 7);
    let magnitude = if exponent == 15 && mantissa == 7 {
        f64::NAN
    } else if exponent == 0 {
        mantissa as f64 / 512.0
    } else {
        f64::from_bits((1023 + exponent - 7) << 52 | mantissa << 49)
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;
    use serde_json::Value;

    /// A golden table of `data/vectors`, made by exact arithmetic in Python.
    fn vectors(file: &str) -> Vec<Value> {
        let path = format!("{}/data/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn number(hex: &Value) -> f64 {
        let hex = hex.as_str().unwrap();
        hex.strip_prefix("0x")
            .map_or(f64::NAN, |digits| f64::from_bits(u64::from_str_radix(digits, 16).unwrap()))
    }

    #[track_caller]
    fn assert_decodes(dtype: Dtype, bytes: &[u8], expected: &[f64]) {
        for isa in Isa::available() {
            let mut out = vec![f64::MIN; expected.len()];
            decode(isa, dtype, bytes, &mut out);
            for (i, (got, want)) in out.iter().zip(expected).enumerate() {
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "{dtype} value {i} on {isa}: got {got:e}, expected {want:e}");
            }
        }
    }

    #[test]
    fn integers_that_f64_does_not_hold_become_nan() {
        let nan = f64::NAN;
        let signed = [(1i64 << 53) + 1, (1 << 53) + 2, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1];
        let expected = [nan, 9_007_199_254_740_994.0, 2f64.powi(63), -2f64.powi(63), nan, nan];
        assert_decodes(Dtype::I64, bytemuck::cast_slice(&signed), &expected);
        let unsigned = [(1u64 << 63) + 5, 1 << 63, u64::MAX, u64::MAX - 1];
        assert_decodes(
            Dtype::U64,
            bytemuck::cast_slice(&unsigned),
            &[nan, 2f64.powi(63), 2f64.powi(64), nan],
        );
    }

    #[test]
    fn decode_matches_the_golden_tables() {
        for (dtype, file) in [(Dtype::F8E4M3, "f8_e4m3.json"), (Dtype::F8E5M2, "f8_e5m2.json")] {
            let expected: Vec<f64> = vectors(file).iter().map(number).collect();
            let codes: Vec<u8> = (0..=255).collect();
            assert_decodes(dtype, &codes, &expected);
        }
        let f16s = vectors("f16_decode.json");
        let codes: Vec<u16> = f16s.iter().map(|row| row[0].as_u64().unwrap() as u16).collect();
        let expected: Vec<f64> = f16s.iter().map(|row| number(&row[1])).collect();
        assert_decodes(Dtype::F16, bytemuck::cast_slice(&codes), &expected);
    }

    #[test]
    fn decode_reads_every_other_dtype() {
        let cast = bytemuck::cast_slice::<u64, u8>;
        let bits = [0x0102_0304_0506_0700_u64, 0xfffe_fdfc_fbfa_f800];
        assert_decodes(Dtype::U64, cast(&bits), &bits.map(|x| x as f64));
        assert_decodes(
            Dtype::I64,
            cast(&bits),
            &[0x0102_0304_0506_0700_i64 as f64, -0x1_0203_0405_0800_i64 as f64],
        );
        let bits = [0x3ff8_0000_c000_0000_u64, 0x8000_0000_0000_0001];
        assert_decodes(Dtype::F64, cast(&bits), &bits.map(f64::from_bits));
        assert_decodes(Dtype::F32, cast(&bits), &[-2.0, 1.9375, 1e-45f32.into(), -0.0]);
        assert_decodes(Dtype::BF16, cast(&bits[..1]), &[0.0, -2.0, 0.0, 1.9375]);
        assert_decodes(Dtype::U32, cast(&bits[..1]), &[3_221_225_472.0, 1_073_217_536.0]);
        assert_decodes(Dtype::I32, cast(&bits[..1]), &[-1_073_741_824.0, 1_073_217_536.0]);
        assert_decodes(Dtype::U16, cast(&bits[..1]), &[0.0, 49152.0, 0.0, 16376.0]);
        assert_decodes(Dtype::I16, cast(&bits[..1]), &[0.0, -16384.0, 0.0, 16376.0]);
        assert_decodes(Dtype::U8, &[0, 127, 128, 255], &[0.0, 127.0, 128.0, 255.0]);
        assert_decodes(Dtype::I8, &[0, 127, 128, 255], &[0.0, 127.0, -128.0, -1.0]);
        assert_decodes(Dtype::Bool, &[0, 1, 2, 255], &[0.0, 1.0, 1.0, 1.0]);
    }

    #[track_caller]
    fn assert_encodes<T: bytemuck::Pod + PartialEq + std::fmt::Debug>(
        dtype: Dtype,
        values: &[f64],
        expected: &[T],
    ) {
        for isa in Isa::available() {
            let mut out = expected.to_vec();
            bytemuck::cast_slice_mut::<T, u8>(&mut out).fill(0xa5);
            encode(isa, dtype, values, bytemuck::cast_slice_mut(&mut out));
            for (i, (got, want)) in out.iter().zip(expected).enumerate() {
                assert_eq!(got, want, "{dtype} of {:e} (value {i}) on {isa}", values[i]);
            }
        }
    }

    #[test]
    fn encode_rounds_once() {
        let cases = vectors("round_f64.json");
        assert!(cases.len() > 1000);
        let values: Vec<f64> = cases.iter().map(|case| number(&case["x"])).collect();
        let column = |key: &str| cases.iter().map(|case| case[key].as_u64().unwrap()).collect();
        let bits: Vec<u64> = column("f32");
        assert_encodes(Dtype::F32, &values, &bits.iter().map(|x| *x as u32).collect::<Vec<_>>());
        for (dtype, key) in [(Dtype::F16, "f16"), (Dtype::BF16, "bf16")] {
            let bits: Vec<u64> = column(key);
            assert_encodes(dtype, &values, &bits.iter().map(|x| *x as u16).collect::<Vec<_>>());
        }
        for (dtype, key) in [(Dtype::F8E4M3, "e4m3"), (Dtype::F8E5M2, "e5m2")] {
            let bits: Vec<u64> = column(key);
            assert_encodes(dtype, &values, &bits.iter().map(|x| *x as u8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn encode_rounds_integers_half_to_even() {
        let values = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.49];
        assert_encodes(Dtype::I64, &values, &[-2i64, -2, 0, 0, 2, 2, 3]);
        assert_encodes(Dtype::I32, &values, &[-2i32, -2, 0, 0, 2, 2, 3]);
        assert_encodes(Dtype::I16, &values, &[-2i16, -2, 0, 0, 2, 2, 3]);
        assert_encodes(Dtype::I8, &values, &[-2i8, -2, 0, 0, 2, 2, 3]);
        assert_encodes(Dtype::U8, &values[2..], &[0u8, 0, 2, 2, 3]);
        assert_encodes(Dtype::U16, &values[2..], &[0u16, 0, 2, 2, 3]);
        assert_encodes(Dtype::U32, &values[2..], &[0u32, 0, 2, 2, 3]);
        assert_encodes(Dtype::U64, &[1.5, u64::MAX as f64], &[2u64, u64::MAX]);
        assert_encodes(Dtype::Bool, &[0.0, 0.5, 0.51, 1.0], &[0u8, 0, 1, 1]);
        assert_encodes(Dtype::F64, &[0.1, -0.0], &[0.1f64.to_bits(), 1 << 63]);
    }

    #[test]
    fn limit_is_the_last_magnitude_that_stays_finite() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8E4M3, Dtype::F8E5M2] {
            let limit = *dtype.limits().end();
            let mut back = [0.0f64; 2];
            let mut code = [0u64; 2];
            let bytes = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut code)[..2 * dtype.bytes()];
            encode(Isa::detect(), dtype, &[limit, limit.next_up()], bytes);
            decode(Isa::detect(), dtype, bytes, &mut back);
            assert!(back[0].is_finite(), "{dtype}");
            assert!(!back[1].is_finite(), "{dtype}");
        }
    }

    #[test]
    fn all_within_sees_every_bad_value() {
        for isa in Isa::available() {
            for len in [0, 1, 7, 8, 9, 33] {
                let good = vec![-2.0; len];
                assert!(all_within(isa, &good, &(-2.0..=2.0)));
                for at in 0..len {
                    for bad in [2.1, -2.1, f64::NAN, f64::NEG_INFINITY] {
                        let mut values = good.clone();
                        values[at] = bad;
                        assert!(!all_within(isa, &values, &(-2.0..=2.0)), "{bad} at {at} of {len} on {isa}");
                    }
                }
            }
        }
    }
}
