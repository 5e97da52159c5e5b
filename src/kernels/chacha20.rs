//! ChaCha20, the source of noise. Without the key, its words look random.
//!
//! Any thread and any device can compute any block of a stream on its own, with the same result.
//!
//! A block starts from sixteen words: four constants, eight of the key, and four that identify the block. Each of these
//! four has one meaning, so two blocks of a key are never equal by accident (RFC 8439, section 4, on nonces):
//!
//! | word | here | in RFC 8439 |
//! |---|---|---|
//! | 12 | low half of the block's number | counter |
//! | 13 | high half of the block's number | first word of the nonce |
//! | 14 | domain: the purpose of the words | second |
//! | 15 | segment: a part of the domain | third |
//!
//! With the number in two words this is also the layout of Bernstein, "ChaCha, a variant of Salsa20", 2008.
//!
//! Paper: Nir and Langley, RFC 8439, 2018, section 2.3. Agreement: bits.

use crate::kernels::dispatch;

/// Words of a block.
pub const WORDS: usize = 16;
/// Blocks that are computed together: the lanes of the widest vector.
pub(super) const BLOCKS: usize = 16;
const DOUBLE_ROUNDS: usize = 10;
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Sixteen blocks, word by word: each entry holds one word of every block.
pub(super) type Blocks = [[u32; BLOCKS]; WORDS];

/// A stream of blocks. Not printable, since the key determines the noise.
#[derive(Clone, Copy)]
pub struct Stream<'k> {
    /// The key, from the operating system.
    pub key: &'k [u8; 32],
    /// The purpose of the words.
    pub domain: u32,
    /// A part of the domain, such as a tensor.
    pub segment: u32,
}

dispatch! {
    /// Fills `out` with the blocks from number `first` on.
    pub fn blocks<A: Arch>(stream: Stream, first: u64, out: &mut [[u32; WORDS]]) {
        let mut number = first;
        for out in out.chunks_mut(BLOCKS) {
            let made = sixteen_blocks::<A::Words>(stream, number);
            for block in 0..out.len() {
                for word in 0..WORDS {
                    out[block][word] = made[word][block];
                }
            }
            number = number.wrapping_add(BLOCKS as u64);
        }
    }
}

/// Sixteen blocks, from number `first` on.
#[inline(always)]
pub(super) fn sixteen_blocks<W: Words>(stream: Stream, first: u64) -> Blocks {
    let start = start(stream, first);
    let mut state = start.map(W::of);
    for _ in 0..DOUBLE_ROUNDS {
        quarter_round(&mut state, [0, 4, 8, 12]);
        quarter_round(&mut state, [1, 5, 9, 13]);
        quarter_round(&mut state, [2, 6, 10, 14]);
        quarter_round(&mut state, [3, 7, 11, 15]);
        quarter_round(&mut state, [0, 5, 10, 15]);
        quarter_round(&mut state, [1, 6, 11, 12]);
        quarter_round(&mut state, [2, 7, 8, 13]);
        quarter_round(&mut state, [3, 4, 9, 14]);
    }
    let mut blocks = [[0; BLOCKS]; WORDS];
    for word in 0..WORDS {
        blocks[word] = state[word].plus(W::of(start[word])).words();
    }
    blocks
}

#[inline(always)]
fn start(stream: Stream, first: u64) -> Blocks {
    let mut start = [[0; BLOCKS]; WORDS];
    for word in 0..4 {
        start[word] = [CONSTANTS[word]; BLOCKS];
    }
    for word in 0..8 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|byte| stream.key[4 * word + byte]);
        start[4 + word] = [u32::from_le_bytes([a, b, c, d]); BLOCKS];
    }
    let number = |block: usize| first.wrapping_add(block as u64);
    start[12] = std::array::from_fn(|block| number(block) as u32);
    start[13] = std::array::from_fn(|block| (number(block) >> 32) as u32);
    start[14] = [stream.domain; BLOCKS];
    start[15] = [stream.segment; BLOCKS];
    start
}

/// A quarter round over the words at these places (RFC 8439, section 2.1).
#[inline(always)]
fn quarter_round<W: Words>(state: &mut [W; WORDS], places: [usize; 4]) {
    let [a, b, c, d] = places;
    [state[a], state[b], state[c], state[d]] = W::quarter_round([state[a], state[b], state[c], state[d]]);
}

/// One word of sixteen blocks. Call the methods only in code entered through `dispatch!`.
pub trait Words: Copy {
    /// The vector of these words.
    fn of(words: [u32; BLOCKS]) -> Self;
    /// The words.
    fn words(self) -> [u32; BLOCKS];
    /// `self + other`, modulo 2^32.
    fn plus(self, other: Self) -> Self;
    /// The quarter round of four words.
    fn quarter_round(words: [Self; 4]) -> [Self; 4];
}

impl Words for [u32; BLOCKS] {
    #[inline(always)]
    fn of(words: [u32; BLOCKS]) -> Self {
        words
    }
    #[inline(always)]
    fn words(self) -> [u32; BLOCKS] {
        self
    }
    #[inline(always)]
    fn plus(mut self, other: Self) -> Self {
        for block in 0..BLOCKS {
            self[block] = self[block].wrapping_add(other[block]);
        }
        self
    }
    #[inline(always)]
    fn quarter_round([mut a, mut b, mut c, mut d]: [Self; 4]) -> [Self; 4] {
        for block in 0..BLOCKS {
            a[block] = a[block].wrapping_add(b[block]);
            d[block] = (d[block] ^ a[block]).rotate_left(16);
            c[block] = c[block].wrapping_add(d[block]);
            b[block] = (b[block] ^ c[block]).rotate_left(12);
            a[block] = a[block].wrapping_add(b[block]);
            d[block] = (d[block] ^ a[block]).rotate_left(8);
            c[block] = c[block].wrapping_add(d[block]);
            b[block] = (b[block] ^ c[block]).rotate_left(7);
        }
        [a, b, c, d]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCKS, Words};
    use std::arch::x86_64::*;

    /// Implements [`Words`] for a register type, given its addition and its rotation of changed words.
    macro_rules! register_words {
        ($register:ty, $add:ident, $turn:ident) => {
            impl Words for $register {
                #[inline(always)]
                fn of(words: [u32; BLOCKS]) -> Self {
                    // SAFETY: both are sixteen words, and any bits are valid words.
                    unsafe { std::mem::transmute(words) }
                }
                #[inline(always)]
                fn words(self) -> [u32; BLOCKS] {
                    // SAFETY: as for `of`.
                    unsafe { std::mem::transmute(self) }
                }
                #[inline(always)]
                fn plus(self, other: Self) -> Self {
                    // SAFETY: the set was detected (see the trait).
                    unsafe { $add(self, other) }
                }
                #[inline(always)]
                fn quarter_round([mut a, mut b, mut c, mut d]: [Self; 4]) -> [Self; 4] {
                    // SAFETY: the set was detected (see the trait).
                    unsafe {
                        a = $add(a, b);
                        d = $turn::<16, 16>(d, a);
                        c = $add(c, d);
                        b = $turn::<12, 20>(b, c);
                        a = $add(a, b);
                        d = $turn::<8, 24>(d, a);
                        c = $add(c, d);
                        b = $turn::<7, 25>(b, c);
                    }
                    [a, b, c, d]
                }
            }
        };
    }
    register_words!([__m256i; 2], add_two, turn_two);
    register_words!(__m512i, _mm512_add_epi32, turn);

    #[inline(always)]
    unsafe fn add_two(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the caller has the set.
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }

    /// `x ^ y`, rotated to the left by `LEFT` bits. `LEFT` and `RIGHT` add up to 32.
    #[inline(always)]
    unsafe fn turn_two<const LEFT: i32, const RIGHT: i32>(x: [__m256i; 2], y: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the caller has the set.
        unsafe {
            let [low, high] = [_mm256_xor_si256(x[0], y[0]), _mm256_xor_si256(x[1], y[1])];
            [
                _mm256_or_si256(_mm256_slli_epi32::<LEFT>(low), _mm256_srli_epi32::<RIGHT>(low)),
                _mm256_or_si256(_mm256_slli_epi32::<LEFT>(high), _mm256_srli_epi32::<RIGHT>(high)),
            ]
        }
    }

    /// `x ^ y`, rotated to the left by `LEFT` bits.
    #[inline(always)]
    unsafe fn turn<const LEFT: i32, const RIGHT: i32>(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the caller has the set.
        unsafe { _mm512_rol_epi32::<LEFT>(_mm512_xor_si512(x, y)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;
    use ::chacha20::ChaCha20Rng;
    use ::chacha20::rand_core::{Rng, SeedableRng};

    fn key() -> [u8; 32] {
        std::array::from_fn(|i| i as u8)
    }

    /// RFC 8439, section 2.3.2. Its nonce starts with 0x09000000, here the number's high half.
    #[test]
    fn the_published_block_is_made() {
        let key = key();
        let stream = Stream { key: &key, domain: 0x4a00_0000, segment: 0 };
        let expected = [
            0xe4e7_f110,
            0x1559_3bd1,
            0x1fdd_0f50,
            0xc471_20a3,
            0xc7f4_d1c7,
            0x0368_c033,
            0x9aaa_2204,
            0x4e6c_d4c3,
            0x4664_82d2,
            0x09aa_9f07,
            0x05d7_c214,
            0xa202_8bd9,
            0xd19c_12b5,
            0xb94e_16de,
            0xe883_d0cb,
            0x4e3c_50a2,
        ];
        for isa in Isa::available() {
            let mut block = [[0; WORDS]];
            blocks(isa, stream, 0x0900_0000_0000_0001, &mut block);
            assert_eq!(block[0], expected, "{isa}");
        }
    }

    /// The blocks of the crate `chacha20`.
    fn known(stream: Stream, first: u64, count: usize) -> Vec<[u32; WORDS]> {
        let mut words = ChaCha20Rng::from_seed(*stream.key);
        words.set_stream(u64::from(stream.segment) << 32 | u64::from(stream.domain));
        (0..count as u64)
            .map(|i| {
                words.set_block_pos(first.wrapping_add(i));
                std::array::from_fn(|_| words.next_u32())
            })
            .collect()
    }

    #[test]
    fn blocks_are_those_of_another_implementation() {
        let key = key();
        let stream = Stream { key: &key, domain: 0x0123_4567, segment: 0x89ab_cdef };
        for isa in Isa::available() {
            for count in [0, 1, 15, 16, 17, 33] {
                // From the start, from a place within a vector, and over the carry into the second word.
                for first in [0, 5, u64::from(u32::MAX) - 7] {
                    let mut found = vec![[0xdead_beef; WORDS]; count];
                    blocks(isa, stream, first, &mut found);
                    assert_eq!(found, known(stream, first, count), "{count} blocks from {first} on {isa}");
                }
            }
        }
    }

    #[test]
    fn keys_domains_segments_and_numbers_name_other_blocks() {
        let (key, mut other) = (key(), key());
        other[31] ^= 0x80;
        let block = |key: &[u8; 32], domain: u32, segment: u32, number: u64| {
            let mut block = [[0; WORDS]];
            blocks(Isa::detect(), Stream { key, domain, segment }, number, &mut block);
            block[0]
        };
        let first = block(&key, 0, 0, 0);
        let others =
            [block(&other, 0, 0, 0), block(&key, 1, 0, 0), block(&key, 0, 1, 0), block(&key, 0, 0, 1 << 32)];
        for other in others {
            assert!(first.iter().zip(other).all(|(a, b)| *a != b));
        }
    }
}
