//! The uniform quantizer with a dead zone: magnitudes below a border become zero.
//!
//! It rounds the other magnitudes. With an entropy coder after it, no quantizer is better for Laplacian values
//! (Sullivan, Efficient scalar quantization of exponential and Laplacian random variables, 1996).
//!
//! With `t = |x| (1 / step)` in f32, the magnitude of a code is 0 if `t < zero_below`, else `max(1, floor(t +
//! rounding))`. A code is 0, `2m - 1` for `+m`, `2m` for `-m`. Codes, counts and sums agree in bits, because sums run
//! in sixteen interleaved parts of fixed order.

use crate::kernels::dispatch;

/// The largest magnitude of a code. Larger values are clamped to it.
pub const LARGEST: u32 = 1 << 23;

/// The largest magnitude with a code of one byte. [`ESCAPE`] is left for all others.
pub const MOST: u8 = 127;

/// The code of one byte for all magnitudes above [`MOST`].
pub const ESCAPE: u8 = 2 * MOST + 1;

/// Partial sums. The number is fixed, so that the order of additions is the same on every machine.
const PARTS: usize = 16;

/// Values that are added in f32 before their sum is added in f64.
const RUN: usize = 64 * PARTS;

/// The magnitudes that become zero, and the rounding of the others, in steps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DeadZone {
    /// Half the width of the zone around zero, in steps: at least `1 - rounding`, less than `2 - rounding`.
    pub zero_below: f32,
    /// The amount added before rounding down, 0 to 1. Plain rounding adds 0.5.
    pub rounding: f32,
}

impl DeadZone {
    /// The zone of plain rounding.
    pub fn of(rounding: f32) -> Self {
        Self { zero_below: 1.0 - rounding, rounding }
    }

    /// The zone in the middle between two.
    pub fn halfway(self, other: Self) -> Self {
        let middle = |a: f32, b: f32| (a + b) / 2.0;
        Self {
            zero_below: middle(self.zero_below, other.zero_below),
            rounding: middle(self.rounding, other.rounding),
        }
    }
}

/// A quantizer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantizer {
    inverse: f32,
    zone: DeadZone,
}

impl Quantizer {
    /// The quantizer of a step whose inverse is a normal number.
    pub fn new(step: f32, zone: DeadZone) -> Self {
        Self { inverse: 1.0 / step, zone }
    }

    /// The magnitude of a value's code, at most [`LARGEST`].
    #[inline(always)]
    pub fn magnitude(self, x: f32) -> u32 {
        self.split(x).0 as u32
    }

    /// The magnitude of a value's code, and that of the value in steps.
    #[inline(always)]
    fn split(self, x: f32) -> (i32, f32) {
        let t = (x.abs() * self.inverse).min(LARGEST as f32);
        let raised = t + self.zone.rounding;
        // SAFETY: `min` returns a number even for NaN; it is from 0 to just above 2^23.
        let rounded = unsafe { raised.to_int_unchecked::<i32>() };
        let magnitude = rounded.clamp(1, LARGEST as i32);
        (if t < self.zone.zero_below { 0 } else { magnitude }, t)
    }
}

dispatch! {
    /// Writes the code of each value; `2 most + 1` stands for all magnitudes above `most`, which is at most [`MOST`].
    pub fn codes<A: Arch>(values: &[f32], quantizer: Quantizer, most: u8, out: &mut [u8]) {
        let escape = 2 * i32::from(most) + 1;
        for (x, code) in values.iter().zip(out) {
            let (magnitude, _) = quantizer.split(*x);
            let signed = 2 * magnitude - i32::from(*x > 0.0);
            *code = signed.clamp(0, escape) as u8;
        }
    }
}

/// The number of times each byte occurs.
pub fn count(codes: &[u8]) -> [u32; 256] {
    // Several tables, so that equal neighbours do not wait for each other.
    let mut tables = [[0u32; 256]; 4];
    let (fours, rest) = codes.as_chunks::<4>();
    for four in fours {
        for (table, code) in tables.iter_mut().zip(four) {
            table[usize::from(*code)] += 1;
        }
    }
    rest.iter().for_each(|code| tables[0][usize::from(*code)] += 1);
    std::array::from_fn(|code| tables.iter().map(|table| table[code]).sum())
}

/// The distances of values from their codes, in steps, for the magnitudes 0, 1, 2, and all above.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Deviations {
    /// The sums of `t - m`.
    pub sums: [f64; 4],
    /// The sums of their squares.
    pub squares: [f64; 4],
}

dispatch! {
    /// Adds up the distances of values from their codes.
    pub fn deviations<A: Arch>(values: &[f32], quantizer: Quantizer) -> Deviations {
        let mut all = Deviations::default();
        for run in values.chunks(RUN) {
            let mut sums = [[0.0f32; PARTS]; 4];
            let mut squares = [[0.0f32; PARTS]; 4];
            let mut lanes;
            for part in run.chunks(PARTS) {
                // Missing values at the end are zero and add nothing.
                let part = match part.first_chunk::<PARTS>() {
                    Some(whole) => whole,
                    None => {
                        lanes = [0.0; PARTS];
                        lanes[..part.len()].copy_from_slice(part);
                        &lanes
                    }
                };
                for lane in 0..PARTS {
                    let (magnitude, t) = quantizer.split(part[lane]);
                    let off = t - magnitude as f32;
                    for group in 0..4 {
                        let is_in = if group < 3 { magnitude == group as i32 } else { magnitude > 2 };
                        let off = if is_in { off } else { 0.0 };
                        sums[group][lane] += off;
                        squares[group][lane] += off * off;
                    }
                }
            }
            for group in 0..4 {
                all.sums[group] += sums[group].iter().map(|sum| f64::from(*sum)).sum::<f64>();
                all.squares[group] += squares[group].iter().map(|sum| f64::from(*sum)).sum::<f64>();
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;
    use crate::kernels::magnitudes::tests::samples;

    /// The definition of the module, value by value.
    fn plain(x: f32, step: f32, zone: DeadZone) -> u32 {
        let t = x.abs() * (1.0 / step);
        if t < zone.zero_below { 0 } else { ((t + zone.rounding).floor().min(8_388_608.0) as u32).max(1) }
    }

    #[test]
    fn codes_are_the_definition_s_on_every_isa() {
        let mut values = samples(1003);
        values.extend([0.0, 1e-45, f32::MAX, f32::MIN, 0.3, -0.3, 126.5, -127.6, 1e7]);
        for (zero_below, rounding) in [(0.5, 0.5), (0.6, 0.4), (0.9, 0.3), (1.6, 0.4)] {
            let zone = DeadZone { zero_below, rounding };
            for (step, most) in [(1.0f32, MOST), (0.3, 2), (0.01, MOST), (f32::MIN_POSITIVE, 1), (1e30, 0)] {
                let quantizer = Quantizer::new(step, zone);
                let expected: Vec<u8> = values
                    .iter()
                    .map(|x| match plain(*x, step, zone) {
                        m if m > u32::from(most) => 2 * most + 1,
                        0 => 0,
                        m if *x > 0.0 => 2 * m as u8 - 1,
                        m => 2 * m as u8,
                    })
                    .collect();
                for isa in Isa::available() {
                    let mut found = vec![77; values.len()];
                    codes(isa, &values, quantizer, most, &mut found);
                    assert_eq!(found, expected, "{isa} {step}");
                }
                values.iter().for_each(|x| assert_eq!(quantizer.magnitude(*x), plain(*x, step, zone)));
            }
        }
    }

    #[test]
    fn deviations_match_plain_sums_on_every_isa() {
        let zone = DeadZone { zero_below: 0.7, rounding: 0.4 };
        for len in [0, 1, 15, 17, 1024, 5003] {
            let values = samples(len);
            let mut plain_sums = Deviations::default();
            for x in &values {
                let m = plain(*x, 0.5, zone);
                let off = f64::from(x.abs()) * 2.0 - f64::from(m);
                plain_sums.sums[m.min(3) as usize] += off;
                plain_sums.squares[m.min(3) as usize] += off * off;
            }
            let first = deviations(Isa::detect(), &values, Quantizer::new(0.5, zone));
            for group in 0..4 {
                assert!((first.sums[group] - plain_sums.sums[group]).abs() < 1e-5 * (1 + len) as f64);
                assert!((first.squares[group] - plain_sums.squares[group]).abs() < 1e-5 * (1 + len) as f64);
            }
            for isa in Isa::available() {
                assert_eq!(deviations(isa, &values, Quantizer::new(0.5, zone)), first, "{isa}");
            }
        }
    }

    #[test]
    fn bytes_are_counted() {
        let bytes: Vec<u8> = (0..1021u32).map(|i| (i * i) as u8).collect();
        let counts = count(&bytes);
        for (byte, found) in counts.iter().enumerate() {
            assert_eq!(*found as usize, bytes.iter().filter(|b| usize::from(**b) == byte).count());
        }
    }
}
