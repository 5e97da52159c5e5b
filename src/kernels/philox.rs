//! Random words by counter: Philox4x32 with ten rounds.
//!
//! Any thread and any device can compute any word of a stream on its own, with the same result.
//!
//! Paper: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
//!
//! Agreement: bits.

use crate::kernels::dispatch;

/// Words that a counter makes.
pub const WORDS: usize = 4;
/// Counters that are computed together: the lanes of the widest vector.
const COUNTERS: usize = 16;
const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// The numbers added to the key after each round: the golden ratio, and the square root of three minus one.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

dispatch! {
    /// Fills `out` with the words from `first` on, a multiple of [`WORDS`], of the stream of `seed` and `purpose`. The
    /// seed is the key. The counter holds the word's number over four in two words, then the purpose, then zero.
    pub fn random_words<A: Arch>(seed: u64, purpose: u32, first: u64, out: &mut [u32]) {
        let key = [seed as u32, (seed >> 32) as u32];
        let mut number = first / WORDS as u64;
        for out in out.chunks_mut(COUNTERS * WORDS) {
            let mut words = [[0u32; COUNTERS]; WORDS];
            let [a, b, c, d] = &mut words;
            for (lane, (((a, b), c), d)) in a.iter_mut().zip(b).zip(c).zip(d).enumerate() {
                let counter = number.wrapping_add(lane as u64);
                [*a, *b, *c, *d] = block([counter as u32, (counter >> 32) as u32, purpose, 0], key);
            }
            for (place, out) in out.iter_mut().enumerate() {
                *out = words[place % WORDS][place / WORDS];
            }
            number = number.wrapping_add(COUNTERS as u64);
        }
    }
}

/// The words of one counter.
#[inline(always)]
fn block(mut counter: [u32; WORDS], mut key: [u32; 2]) -> [u32; WORDS] {
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    /// The authors' own: `kat_vectors` of Random123.
    #[test]
    fn published_answers_are_given() {
        let ones = u32::MAX;
        assert_eq!(block([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(block([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let digits_of_pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let made = block(digits_of_pi, [0xa409_3822, 0x299f_31d0]);
        assert_eq!(made, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn streams_are_the_same_wherever_they_are_entered() {
        // The counter carries into its second word on the way.
        let (seed, purpose, start) = (0x0123_4567_89ab_cdef, 77, (u64::from(u32::MAX) - 20) * 4);
        let word = |at: u64| {
            let counter = at / 4;
            let words = [counter as u32, (counter >> 32) as u32, purpose, 0];
            block(words, [seed as u32, (seed >> 32) as u32])[(at % 4) as usize]
        };
        for isa in Isa::available() {
            for len in [0, 1, 3, 4, 63, 64, 65, 255, 257] {
                for first in [0, 4, 60, start] {
                    let mut found = vec![0xdead_beef; len];
                    random_words(isa, seed, purpose, first, &mut found);
                    let expected: Vec<u32> = (0..len as u64).map(|i| word(first + i)).collect();
                    assert_eq!(found, expected, "{len} words from {first} on {isa}");
                }
            }
        }
    }

    #[test]
    fn seeds_and_purposes_name_other_streams() {
        let stream = |seed: u64, purpose: u32| {
            let mut words = [0; 8];
            random_words(Isa::detect(), seed, purpose, 0, &mut words);
            words
        };
        for (seed, purpose) in [(2, 0), (1 << 32 | 1, 0), (1, 1)] {
            assert!(stream(1, 0).iter().zip(stream(seed, purpose)).all(|(a, b)| *a != b));
        }
    }
}
