//! Codes of equal length, from the lowest bit of each byte up.

use crate::codecs::Invalid;
use crate::kernels::lanes::Isa;
use crate::kernels::pack_bits::{pack_bits, packed_len, unpack_bits};
use std::ops::Range;

/// The bytes of a run of codes, which starts at a multiple of eight, and ends at one or at the last code.
pub(crate) fn range(bits: u8, codes: Range<usize>) -> Range<usize> {
    packed_len(codes.start, bits)..packed_len(codes.end, bits)
}

/// Packs codes of `bits` bits. Bits after the last code are zero.
pub(crate) fn pack(isa: Isa, bits: u8, codes: Vec<u8>) -> Vec<u8> {
    if bits == 8 {
        return codes;
    }
    let mut packed = vec![0; packed_len(codes.len(), bits)];
    pack_bits(isa, bits, &codes, &mut packed);
    packed
}

/// Unpacks `len` codes of `bits` bits.
///
/// # Errors
///
/// When the number of bytes is wrong, or a bit after the last code is set.
pub(crate) fn unpack(isa: Isa, bits: u8, packed: &[u8], len: usize) -> Result<Vec<u8>, Invalid> {
    let (found, expected) = (packed.len(), packed_len(len, bits));
    if found != expected {
        return Err(Invalid(format!("found {found} bytes of codes, expected {expected}")));
    }
    let mut codes = vec![0; len];
    unpack_bits(isa, bits, packed, &mut codes);
    let used = len * usize::from(bits) % 8;
    match packed.last() {
        Some(last) if used != 0 && last >> used != 0 => {
            Err(Invalid(format!("found {last:#010b} as the last byte of codes, expected {used} bits")))
        }
        _ => Ok(codes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_nothing_follows_them() {
        let isa = Isa::detect();
        for (bits, len) in (1..=8).flat_map(|bits| [1, 7, 8, 9, 1031].map(|len| (bits, len))) {
            let codes: Vec<u8> = (0..len).map(|i| (i * 37 % (1 << bits)) as u8).collect();
            let packed = pack(isa, bits, codes.clone());
            assert_eq!(packed.len(), (len * usize::from(bits)).div_ceil(8));
            assert_eq!(unpack(isa, bits, &packed, len).unwrap(), codes);
        }
        assert_eq!(pack(isa, 3, vec![1, 2, 3]), [0b1101_0001, 0]);
        assert!(unpack(isa, 3, &[0b1101_0001, 0b10], 3).is_err());
        assert!(unpack(isa, 3, &[0b1101_0001], 3).is_err());
        assert!(unpack(isa, 3, &[0b1101_0001, 0, 0], 3).is_err());
    }
}
