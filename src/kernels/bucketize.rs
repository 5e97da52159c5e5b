//! Finds the bucket of a magnitude among ascending thresholds: the code of a quantizer that is symmetric about zero.
//!
//! Agreement: bits. A product and comparisons, nothing is added.

use crate::kernels::dispatch;

/// Values that are counted side by side.
const LANES: usize = 32;

dispatch! {
    /// The code of each value: how many of the thresholds `|x| * factor` is above, and in the bit over those, whether
    /// `x` is below zero. Thresholds ascend, at most 127; their number is one less than a power of two.
    pub fn bucketize<A: Arch>(values: &[f32], factor: f32, thresholds: &[f32], codes: &mut [u8]) {
        let sign = (thresholds.len() + 1) as u32;
        for (values, codes) in values.chunks(LANES).zip(codes.chunks_mut(LANES)) {
            let (mut scaled, mut counts) = ([0.0f32; LANES], [0u32; LANES]);
            for ((scaled, count), x) in scaled.iter_mut().zip(&mut counts).zip(values) {
                *scaled = x.abs() * factor;
                *count = if *x < 0.0 { sign } else { 0 };
            }
            for threshold in thresholds {
                for lane in 0..LANES {
                    counts[lane] += u32::from(scaled[lane] > *threshold);
                }
            }
            for (code, count) in codes.iter_mut().zip(counts) {
                *code = count as u8;
            }
        }
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
