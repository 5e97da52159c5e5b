//! Packs codes of one to eight bits into a stream of bytes, lowest bits first, and back.
//!
//! Eight codes of b bits are b bytes. One word joins them: pairs, then pairs of pairs, then the two halves (Warren,
//! Hacker's Delight, 2012, chapter 7).
//!
//! Agreement: bits.

use crate::kernels::dispatch;

/// Bytes of `codes` packed codes of `bits` bits.
pub const fn packed_len(codes: usize, bits: u8) -> usize {
    // A product with all codes could overflow.
    codes / 8 * bits as usize + (codes % 8 * bits as usize).div_ceil(8)
}

/// Calls a function for the number of bits of a code, 1 to 8.
macro_rules! by_bits {
    ($bits:expr, $function:ident($($argument:expr),*)) => {
        match $bits {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            4 => $function::<4>($($argument),*),
            5 => $function::<5>($($argument),*),
            6 => $function::<6>($($argument),*),
            7 => $function::<7>($($argument),*),
            _ => $function::<8>($($argument),*),
        }
    };
}

dispatch! {
    /// Packs the lowest `bits` bits, 1 to 8, of each code. `out` has [`packed_len`] bytes. Bits after the last code are
    /// zero.
    pub fn pack_bits<A: Arch>(bits: u8, codes: &[u8], out: &mut [u8]) {
        by_bits!(bits, pack(codes, out))
    }
}

dispatch! {
    /// Fills `codes` with codes of `bits` bits, 1 to 8, from [`packed_len`] bytes.
    pub fn unpack_bits<A: Arch>(bits: u8, packed: &[u8], codes: &mut [u8]) {
        by_bits!(bits, unpack(packed, codes))
    }
}

/// The lower half of each pair: of codes in two bytes, of pairs in four, of fours in eight.
#[inline(always)]
const fn lower_halves<const BITS: usize>() -> [u64; 3] {
    [
        u64::MAX / 0xffff * ((1 << BITS) - 1),
        u64::MAX / 0xffff_ffff * ((1 << (2 * BITS)) - 1),
        (1 << (4 * BITS)) - 1,
    ]
}

#[inline(always)]
fn pack<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    let (whole, rest) = codes.as_chunks::<8>();
    let (out, out_rest) = out.split_at_mut(BITS * whole.len());
    let out = out.as_chunks_mut::<BITS>().0;
    for i in 0..whole.len().min(out.len()) {
        let packed = gathered::<BITS>(u64::from_le_bytes(whole[i])).to_le_bytes();
        out[i].copy_from_slice(&packed[..BITS]);
    }
    let last = gathered::<BITS>(padded(rest)).to_le_bytes();
    out_rest.copy_from_slice(&last[..out_rest.len()]);
}

#[inline(always)]
fn unpack<const BITS: usize>(packed: &[u8], codes: &mut [u8]) {
    let (whole, rest) = codes.as_chunks_mut::<8>();
    let (packed, packed_rest) = packed.split_at(BITS * whole.len());
    let packed = packed.as_chunks::<BITS>().0;
    for i in 0..whole.len().min(packed.len()) {
        whole[i] = spread::<BITS>(padded(&packed[i])).to_le_bytes();
    }
    let last = spread::<BITS>(padded(packed_rest)).to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// The lowest bits of eight bytes, next to each other.
#[inline(always)]
fn gathered<const BITS: usize>(codes: u64) -> u64 {
    let [codes_of_pairs, pairs_of_fours, fours] = const { lower_halves::<BITS>() };
    let x = codes & codes_of_pairs | codes >> (8 - BITS) & codes_of_pairs << BITS;
    let x = x & pairs_of_fours | x >> (16 - 2 * BITS) & pairs_of_fours << (2 * BITS);
    x & fours | x >> (32 - 4 * BITS) & fours << (4 * BITS)
}

/// Eight codes next to each other, each in one byte.
#[inline(always)]
fn spread<const BITS: usize>(packed: u64) -> u64 {
    let [codes_of_pairs, pairs_of_fours, fours] = const { lower_halves::<BITS>() };
    let x = packed & fours | (packed & fours << (4 * BITS)) << (32 - 4 * BITS);
    let x = x & pairs_of_fours | (x & pairs_of_fours << (2 * BITS)) << (16 - 2 * BITS);
    x & codes_of_pairs | (x & codes_of_pairs << BITS) << (8 - BITS)
}

/// Up to eight bytes, lowest first, followed by zeros.
#[inline(always)]
fn padded(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    #[test]
    fn codes_stand_one_behind_the_other() {
        for isa in Isa::available() {
            for (len, bits) in [0usize, 1, 2, 7, 8, 9, 63, 64, 65, 257]
                .into_iter()
                .flat_map(|len| (1..=8).map(move |b| (len, b)))
            {
                let code = |i: usize| (i * 7_919 % 251) as u8 & (0xffu32 >> (8 - bits)) as u8;
                let codes: Vec<u8> = (0..len).map(code).collect();
                let mut packed = vec![0xaa; packed_len(len, bits)];
                pack_bits(isa, bits, &codes, &mut packed);
                let bit = |at: usize| packed[at / 8] >> (at % 8) & 1;
                for (i, code) in codes.iter().enumerate() {
                    let found =
                        (0..usize::from(bits)).fold(0, |x, j| x | bit(i * usize::from(bits) + j) << j);
                    assert_eq!(found, *code, "{i} of {len}, {bits} bits on {isa}");
                }
                assert!((len * usize::from(bits)..8 * packed.len()).all(|at| bit(at) == 0));
                let mut back = vec![0x55; len];
                unpack_bits(isa, bits, &packed, &mut back);
                assert_eq!(back, codes, "{len} of {bits} bits on {isa}");
            }
        }
    }

    #[test]
    fn higher_bits_do_not_leak_into_neighbours() {
        let mut packed = [0; 3];
        pack_bits(Isa::detect(), 3, &[0xf8, 0xff, 0xf8, 0xf8, 0xf8, 0xf8, 0xf8, 0xf8], &mut packed);
        assert_eq!(packed, [0b11_1000, 0, 0]);
    }

    #[test]
    fn lengths_do_not_overflow() {
        assert_eq!(packed_len(9, 3), 4);
        assert_eq!(packed_len(usize::MAX / 8 * 8, 8), usize::MAX / 8 * 8);
    }
}
