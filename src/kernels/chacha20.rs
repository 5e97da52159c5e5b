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
            let made = by_word(sixteen_blocks::<A::Words>(stream, number));
            for block in 0..out.len() {
                for word in 0..WORDS {
                    out[block][word] = made[word][block];
                }
            }
            number = number.wrapping_add(BLOCKS as u64);
        }
    }
}

/// Sixteen blocks, from number `first` on: one vector for each word.
#[inline(always)]
pub(super) fn sixteen_blocks<W: Words>(stream: Stream, first: u64) -> [W; WORDS] {
    let start = start::<W>(stream, first);
    let mut state = start;
    W::rounds(&mut state);
    for word in 0..WORDS {
        state[word] = state[word].plus(start[word]);
    }
    state
}

/// The words of vectors.
#[inline(always)]
pub(super) fn by_word<W: Words>(vectors: [W; WORDS]) -> Blocks {
    let mut blocks = [[0; BLOCKS]; WORDS];
    for word in 0..WORDS {
        blocks[word] = vectors[word].words();
    }
    blocks
}

#[inline(always)]
fn start<W: Words>(stream: Stream, first: u64) -> [W; WORDS] {
    let mut start = [W::splat(stream.segment); WORDS];
    for word in 0..4 {
        start[word] = W::splat(CONSTANTS[word]);
    }
    let key: &[[u8; 4]] = stream.key.as_chunks().0;
    for word in 0..8 {
        start[4 + word] = W::splat(u32::from_le_bytes(key[word]));
    }
    let (mut low, mut high) = ([0; BLOCKS], [0; BLOCKS]);
    for block in 0..BLOCKS {
        let number = first.wrapping_add(block as u64);
        (low[block], high[block]) = (number as u32, (number >> 32) as u32);
    }
    start[12] = W::of(low);
    start[13] = W::of(high);
    start[14] = W::splat(stream.domain);
    start
}

/// The twenty rounds over one word of some blocks each.
#[inline(always)]
fn rounds<R: Register>(state: &mut [R; WORDS]) {
    for _ in 0..DOUBLE_ROUNDS {
        quarter_round(state, [0, 4, 8, 12]);
        quarter_round(state, [1, 5, 9, 13]);
        quarter_round(state, [2, 6, 10, 14]);
        quarter_round(state, [3, 7, 11, 15]);
        quarter_round(state, [0, 5, 10, 15]);
        quarter_round(state, [1, 6, 11, 12]);
        quarter_round(state, [2, 7, 8, 13]);
        quarter_round(state, [3, 4, 9, 14]);
    }
}

/// The twenty rounds where a vector has `N` registers: one part of the blocks after the other, for the registers of the
/// processor hold no more.
#[inline(always)]
fn rounds_in_parts<R: Register, const N: usize>(state: &mut [[R; N]; WORDS]) {
    for (part, first) in state[0].into_iter().enumerate() {
        let mut registers = [first; WORDS];
        for word in 1..WORDS {
            registers[word] = state[word][part];
        }
        rounds(&mut registers);
        for word in 0..WORDS {
            state[word][part] = registers[word];
        }
    }
}

/// A quarter round over the words at these places (RFC 8439, section 2.1).
#[inline(always)]
fn quarter_round<R: Register>(state: &mut [R; WORDS], places: [usize; 4]) {
    let [a, b, c, d] = places;
    state[a] = state[a].plus(state[b]);
    state[d] = state[d].turned::<16, 16>(state[a]);
    state[c] = state[c].plus(state[d]);
    state[b] = state[b].turned::<12, 20>(state[c]);
    state[a] = state[a].plus(state[b]);
    state[d] = state[d].turned::<8, 24>(state[a]);
    state[c] = state[c].plus(state[d]);
    state[b] = state[b].turned::<7, 25>(state[c]);
}

/// What the rounds do with the words that one register holds.
trait Register: Copy {
    /// `self + other`, modulo 2^32.
    fn plus(self, other: Self) -> Self;
    /// `self ^ other`, rotated to the left by `LEFT` bits. `LEFT` and `RIGHT` add up to 32.
    fn turned<const LEFT: i32, const RIGHT: i32>(self, other: Self) -> Self;
}

/// One word of sixteen blocks. Call the methods only in code entered through `dispatch!`.
pub trait Words: Copy {
    /// The vector of these words.
    fn of(words: [u32; BLOCKS]) -> Self;
    /// The words.
    fn words(self) -> [u32; BLOCKS];
    /// The same word for every block.
    fn splat(word: u32) -> Self;
    /// `self + other`, modulo 2^32.
    fn plus(self, other: Self) -> Self;
    /// `self + other`, and `more` on top where the sum wraps around 2^32.
    fn plus_and(self, other: Self, more: Self) -> Self;
    /// The larger word of each block.
    fn max(self, other: Self) -> Self;
    /// The twenty rounds.
    fn rounds(state: &mut [Self; WORDS]);
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
    fn splat(word: u32) -> Self {
        [word; BLOCKS]
    }
    #[inline(always)]
    fn plus(mut self, other: Self) -> Self {
        for block in 0..BLOCKS {
            self[block] = self[block].wrapping_add(other[block]);
        }
        self
    }
    #[inline(always)]
    fn plus_and(mut self, other: Self, more: Self) -> Self {
        for block in 0..BLOCKS {
            let sum = self[block].wrapping_add(other[block]);
            let more = if sum < other[block] { more[block] } else { 0 };
            self[block] = sum.wrapping_add(more);
        }
        self
    }
    #[inline(always)]
    fn max(mut self, other: Self) -> Self {
        for block in 0..BLOCKS {
            self[block] = if self[block] < other[block] { other[block] } else { self[block] };
        }
        self
    }
    #[inline(always)]
    fn rounds(state: &mut [Self; WORDS]) {
        let mut parts = state.map(portable::of);
        rounds_in_parts(&mut parts);
        *state = parts.map(portable::words);
    }
}

/// The registers of a processor of x86-64 without any extension: four words.
#[cfg(target_arch = "x86_64")]
mod portable {
    use super::{BLOCKS, Register};
    use std::arch::x86_64::*;

    /// The registers of these words.
    #[inline(always)]
    pub(super) fn of(words: [u32; BLOCKS]) -> [__m128i; 4] {
        // SAFETY: both are sixteen words, and any bits are valid words.
        unsafe { std::mem::transmute(words) }
    }

    /// The words.
    #[inline(always)]
    pub(super) fn words(registers: [__m128i; 4]) -> [u32; BLOCKS] {
        // SAFETY: as for `of`.
        unsafe { std::mem::transmute(registers) }
    }

    impl Register for __m128i {
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: every processor of x86-64 has the set.
            unsafe { _mm_add_epi32(self, other) }
        }
        #[inline(always)]
        fn turned<const LEFT: i32, const RIGHT: i32>(self, other: Self) -> Self {
            // SAFETY: every processor of x86-64 has the set.
            unsafe {
                let x = _mm_xor_si128(self, other);
                _mm_or_si128(_mm_slli_epi32::<LEFT>(x), _mm_srli_epi32::<RIGHT>(x))
            }
        }
    }
}

/// Other processors: four words, which the compiler puts into a register.
#[cfg(not(target_arch = "x86_64"))]
mod portable {
    use super::{BLOCKS, Register};

    /// The parts of these words.
    #[inline(always)]
    pub(super) fn of(words: [u32; BLOCKS]) -> [[u32; 4]; 4] {
        bytemuck::cast(words)
    }

    /// The words.
    #[inline(always)]
    pub(super) fn words(parts: [[u32; 4]; 4]) -> [u32; BLOCKS] {
        bytemuck::cast(parts)
    }

    impl Register for [u32; 4] {
        #[inline(always)]
        fn plus(mut self, other: Self) -> Self {
            for block in 0..4 {
                self[block] = self[block].wrapping_add(other[block]);
            }
            self
        }
        #[inline(always)]
        fn turned<const LEFT: i32, const RIGHT: i32>(mut self, other: Self) -> Self {
            for block in 0..4 {
                let word = self[block] ^ other[block];
                self[block] = word << LEFT | word >> RIGHT;
            }
            self
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCKS, Register, WORDS, Words, rounds, rounds_in_parts};
    use std::arch::x86_64::*;

    /// Implements [`Words`] for a register type, given its operations.
    macro_rules! register_words {
        ($register:ty, $splat:ident, $add:ident, $add_and:ident, $max:ident, $rounds:ident) => {
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
                fn splat(word: u32) -> Self {
                    // SAFETY: the set was detected (see the trait).
                    unsafe { $splat(word.cast_signed()) }
                }
                #[inline(always)]
                fn plus(self, other: Self) -> Self {
                    // SAFETY: as for `splat`.
                    unsafe { $add(self, other) }
                }
                #[inline(always)]
                fn plus_and(self, other: Self, more: Self) -> Self {
                    // SAFETY: as for `splat`.
                    unsafe { $add_and(self, other, more) }
                }
                #[inline(always)]
                fn max(self, other: Self) -> Self {
                    // SAFETY: as for `splat`.
                    unsafe { $max(self, other) }
                }
                #[inline(always)]
                fn rounds(state: &mut [Self; WORDS]) {
                    $rounds(state);
                }
            }
        };
    }
    register_words!([__m256i; 2], splat_two, add_two, add_and_two, max_two, rounds_in_parts);
    register_words!(__m512i, _mm512_set1_epi32, _mm512_add_epi32, add_and, _mm512_max_epu32, rounds);

    #[inline(always)]
    unsafe fn splat_two(word: i32) -> [__m256i; 2] {
        // SAFETY: the caller has the set.
        unsafe { [_mm256_set1_epi32(word); 2] }
    }

    #[inline(always)]
    unsafe fn add_two(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the caller has the set.
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn max_two(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the caller has the set.
        unsafe { [_mm256_max_epu32(a[0], b[0]), _mm256_max_epu32(a[1], b[1])] }
    }

    /// `a + b`, and `more` on top where the sum wraps.
    #[inline(always)]
    unsafe fn add_and_two(a: [__m256i; 2], b: [__m256i; 2], more: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the caller has the set.
        unsafe { [add_and_half(a[0], b[0], more[0]), add_and_half(a[1], b[1], more[1])] }
    }

    #[inline(always)]
    unsafe fn add_and_half(a: __m256i, b: __m256i, more: __m256i) -> __m256i {
        // SAFETY: the caller has the set.
        unsafe {
            let sum = _mm256_add_epi32(a, b);
            let is_whole = _mm256_cmpeq_epi32(_mm256_max_epu32(sum, b), sum);
            _mm256_add_epi32(sum, _mm256_andnot_si256(is_whole, more))
        }
    }

    impl Register for __m256i {
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: the set was detected (see `Words`).
            unsafe { _mm256_add_epi32(self, other) }
        }
        #[inline(always)]
        fn turned<const LEFT: i32, const RIGHT: i32>(self, other: Self) -> Self {
            // SAFETY: the set was detected (see `Words`).
            unsafe {
                let x = _mm256_xor_si256(self, other);
                match LEFT {
                    16 => _mm256_shuffle_epi8(x, moved_bytes::<2>()),
                    8 => _mm256_shuffle_epi8(x, moved_bytes::<3>()),
                    _ => _mm256_or_si256(_mm256_slli_epi32::<LEFT>(x), _mm256_srli_epi32::<RIGHT>(x)),
                }
            }
        }
    }

    impl Register for __m512i {
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: the set was detected (see `Words`).
            unsafe { _mm512_add_epi32(self, other) }
        }
        #[inline(always)]
        fn turned<const LEFT: i32, const RIGHT: i32>(self, other: Self) -> Self {
            // SAFETY: the set was detected (see `Words`).
            unsafe { _mm512_rol_epi32::<LEFT>(_mm512_xor_si512(self, other)) }
        }
    }

    /// The shuffle of bytes that puts byte `FIRST` of every word first.
    #[inline(always)]
    unsafe fn moved_bytes<const FIRST: u8>() -> __m256i {
        let mut places = [0u8; 32];
        for (place, from) in places.iter_mut().enumerate() {
            *from = (place as u8 & 0b1100) | ((place as u8 + FIRST) & 0b11);
        }
        // SAFETY: both have 32 bytes, and any bits are valid bytes.
        unsafe { std::mem::transmute(places) }
    }

    /// `a + b`, and `more` on top where the sum wraps.
    #[inline(always)]
    unsafe fn add_and(a: __m512i, b: __m512i, more: __m512i) -> __m512i {
        // SAFETY: the caller has the set.
        unsafe {
            let sum = _mm512_add_epi32(a, b);
            _mm512_mask_add_epi32(sum, _mm512_cmplt_epu32_mask(sum, b), sum, more)
        }
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
