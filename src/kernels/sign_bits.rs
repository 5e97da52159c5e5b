//! One bit a value: whether it is negative. Zero is not.
//!
//! Eight values a byte, the first in the lowest bit; what is left of the last byte is zeros. Agreement: bits.

use crate::kernels::dispatch;

dispatch! {
    /// The signs of values.
    pub fn pack<A: Arch>(values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; values.len().div_ceil(8)];
        for (byte, values) in bytes.iter_mut().zip(values.chunks(8)) {
            for (bit, x) in values.iter().enumerate() {
                *byte |= u8::from(*x < 0.0) << bit;
            }
        }
        bytes
    }
}

dispatch! {
    /// A magnitude with the sign of each bit. There are bytes for all of `out`.
    pub fn unpack<A: Arch>(bytes: &[u8], magnitude: f32, out: &mut [f32]) {
        for (byte, out) in bytes.iter().zip(out.chunks_mut(8)) {
            for (bit, x) in out.iter_mut().enumerate() {
                let sign = u32::from(byte >> bit & 1) << 31;
                *x = f32::from_bits(magnitude.to_bits() | sign);
            }
        }
    }
}

/// Whether there are as many bytes as so many values have, and the rest of the last one is zeros.
pub fn is_whole(bytes: &[u8], len: usize) -> bool {
    let rest = bytes.last().filter(|_| !len.is_multiple_of(8)).map_or(0, |last| last >> (len % 8));
    bytes.len() == len.div_ceil(8) && rest == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    #[test]
    fn signs_come_back() {
        for isa in Isa::available() {
            for len in [0usize, 1, 7, 8, 9, 63, 64, 65, 1001] {
                let values: Vec<f32> = (0..len).map(|i| ((i * i) % 7) as f32 - 2.0).collect();
                let bytes = pack(isa, &values);
                assert!(is_whole(&bytes, len));
                let mut out = vec![f32::NAN; len];
                unpack(isa, &bytes, 2.0, &mut out);
                let expected: Vec<f32> = values.iter().map(|x| if *x < 0.0 { -2.0 } else { 2.0 }).collect();
                assert_eq!(out, expected);
            }
        }
    }

    #[test]
    fn more_or_fewer_bits_are_noticed() {
        assert!(!is_whole(&[0b100], 2));
        assert!(!is_whole(&[], 2));
        assert!(!is_whole(&[0, 0], 2));
    }
}
