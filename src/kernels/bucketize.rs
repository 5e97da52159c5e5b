//! Finds the bucket of a magnitude among ascending thresholds.
//!
//! The bucket is the code of a quantizer that is symmetric about zero. Agreement: bits. The kernel multiplies and
//! compares, and adds nothing.

use crate::kernels::dispatch;

/// The most thresholds that the kernel compares one by one.
const FEW: usize = 15;
/// The most thresholds.
const MOST: usize = 127;

dispatch! {
    /// The code of each value: the number of thresholds below `|x| * factor`, and in the next higher bit whether `x` is
    /// below zero. There are at most 127 thresholds, in ascending order; their number is one less than a power of two.
    pub fn bucketize<A: Arch>(values: &[f32], factor: f32, thresholds: &[f32], codes: &mut [u8]) {
        match thresholds.len() {
            0 => compared::<0>(values, factor, thresholds, codes),
            1 => compared::<1>(values, factor, thresholds, codes),
            3 => compared::<3>(values, factor, thresholds, codes),
            7 => compared::<7>(values, factor, thresholds, codes),
            FEW => compared::<FEW>(values, factor, thresholds, codes),
            31 => searched::<31>(values, factor, thresholds, codes),
            63 => searched::<63>(values, factor, thresholds, codes),
            _ => searched::<MOST>(values, factor, thresholds, codes),
        }
    }
}

/// Counts the thresholds below each value.
#[inline(always)]
fn compared<const COUNT: usize>(values: &[f32], factor: f32, thresholds: &[f32], codes: &mut [u8]) {
    let mut own = [0.0; COUNT];
    own.copy_from_slice(thresholds);
    for i in 0..values.len().min(codes.len()) {
        let scaled = values[i].abs() * factor;
        let mut code = if values[i] < 0.0 { COUNT as u32 + 1 } else { 0 };
        let mut threshold = 0;
        while threshold < COUNT {
            code += u32::from(scaled > own[threshold]);
            threshold += 1;
        }
        codes[i] = code as u8;
    }
}

/// Halves the range of thresholds until one is left.
#[inline(always)]
fn searched<const COUNT: usize>(values: &[f32], factor: f32, thresholds: &[f32], codes: &mut [u8]) {
    let mut own = [0.0; MOST + 1];
    own[..COUNT].copy_from_slice(thresholds);
    for i in 0..values.len().min(codes.len()) {
        let scaled = values[i].abs() * factor;
        let (mut below, mut half) = (0, COUNT.div_ceil(2));
        while half > 0 {
            // Never beyond the last threshold. The mask tells the compiler so.
            below += if scaled > own[(below + half - 1) & MOST] { half } else { 0 };
            half /= 2;
        }
        codes[i] = (below + if values[i] < 0.0 { COUNT + 1 } else { 0 }) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    #[test]
    fn codes_count_the_thresholds_below() {
        for isa in Isa::available() {
            for (len, bits) in
                [0, 1, 31, 32, 33, 65, 257, 1031].into_iter().flat_map(|len| (0..=7).map(move |b| (len, b)))
            {
                let count = (1usize << bits) - 1;
                let thresholds: Vec<f32> = (0..count).map(|i| 0.1 + (i as f32).powf(1.3) * 0.05).collect();
                let values: Vec<f32> =
                    (0..len).map(|i| ((i * 7_919 % 997) as f32 / 499.0 - 1.0) * 15.0).collect();
                let mut codes = vec![0xaa; len];
                bucketize(isa, &values, 0.7, &thresholds, &mut codes);
                for (x, code) in values.iter().zip(codes) {
                    let below = thresholds.iter().filter(|threshold| x.abs() * 0.7 > **threshold).count();
                    let expected = below + usize::from(*x < 0.0) * (count + 1);
                    assert_eq!(usize::from(code), expected, "{x} among {count} on {isa}");
                }
            }
        }
    }

    #[test]
    fn ends_and_zeros_have_codes() {
        let values = [0.0, -0.0, 1.0, -1.0, 1.0f32.next_up(), f32::MAX, f32::MIN, f32::INFINITY];
        for isa in Isa::available() {
            let mut codes = [9; 8];
            bucketize(isa, &values, 1.0, &[1.0, 2.0, 3.0], &mut codes);
            assert_eq!(codes, [0, 0, 0, 4, 1, 3, 7, 3], "{isa}");
        }
    }
}
