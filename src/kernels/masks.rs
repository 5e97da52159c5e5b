//! Masks of secure aggregation: uniform elements of a field from seeds, added up over seeds.
//!
//! Lane `l` of a seed is word `l % 16` of block `l / 16` of the seed's stream of ChaCha20, domain 0. Words at or above
//! the prime 2^32 - 5 would make small elements more frequent. So such a word is replaced by the first word below the
//! prime of block `l` of domain 1: sixteen words of segment 0, then of segment 1, and so on. Every lane is exactly
//! uniform then, as if a true random source was asked again and again (von Neumann, "Various techniques used in
//! connection with random digits", 1951).
//!
//! Any thread and any device can compute any lane on its own, with the same result. One word in 859 million is
//! replaced, and its time reveals no more than that it was.
//!
//! Agreement: bits.

use crate::kernels::chacha20::{self, BLOCKS, Blocks, Stream, WORDS, Words};
use crate::kernels::dispatch;
use crate::kernels::field::{self, CARRY, P};

/// Lanes that are computed together.
const GROUP: usize = BLOCKS * WORDS;
/// The domain of the lanes' own words.
const FIRST: u32 = 0;
/// The domain of the words that replace those at or above the prime.
const AGAIN: u32 = 1;

dispatch! {
    /// Adds the masks of all seeds to `sums`, modulo the prime: those of the lanes from `first` on. The sums are below
    /// the prime. The lanes are below 2^36, for a seed has 2^32 blocks in the protocol.
    pub fn add_masks<A: Arch>(seeds: &[[u8; 32]], first: u64, sums: &mut [u32]) {
        if seeds.is_empty() {
            return;
        }
        let mut block = first / WORDS as u64;
        let mut start = (first % WORDS as u64) as usize;
        let mut sums = sums;
        while !sums.is_empty() {
            let (head, rest) = sums.split_at_mut(sums.len().min(GROUP - start));
            let group = group_of::<A::Words>(seeds, block);
            let group = &group[start..][..head.len()];
            for i in 0..head.len() {
                head[i] = field::add(head[i], group[i]);
            }
            (sums, start) = (rest, 0);
            block += BLOCKS as u64;
        }
    }
}

/// The sums over all seeds of the lanes of sixteen blocks, from this one on.
#[inline(always)]
fn group_of<W: Words>(seeds: &[[u8; 32]], block: u64) -> [u32; GROUP] {
    // A sum may be any word between additions: where it wraps, it is 2^32 too small, and gets 5. As the mask is below
    // the prime, the sum does not wrap again.
    let carry = W::splat(CARRY);
    let mut sums = [W::splat(0); WORDS];
    for seed in seeds {
        let mut masks = chacha20::sixteen_blocks::<W>(Stream { key: seed, domain: FIRST, segment: 0 }, block);
        let mut largest = W::splat(0);
        for words in masks {
            largest = largest.max(words);
        }
        if is_any_beyond(largest) {
            let mut words = chacha20::by_word(masks);
            replace(&mut words, seed, block);
            for word in 0..WORDS {
                masks[word] = W::of(words[word]);
            }
        }
        for word in 0..WORDS {
            sums[word] = sums[word].plus_and(masks[word], carry);
        }
    }
    in_order(&chacha20::by_word(sums))
}

/// Whether one of the words is not below the prime.
#[inline(always)]
fn is_any_beyond<W: Words>(words: W) -> bool {
    let mut is_beyond = false;
    for word in words.words() {
        is_beyond |= word >= P;
    }
    is_beyond
}

/// The lanes in order, below the prime.
#[inline(always)]
fn in_order(blocks: &Blocks) -> [u32; GROUP] {
    let mut lanes = [0; GROUP];
    for block in 0..BLOCKS {
        for word in 0..WORDS {
            let lane = blocks[word][block];
            lanes[block * WORDS + word] = lane.wrapping_add(if lane >= P { CARRY } else { 0 });
        }
    }
    lanes
}

/// Replaces the words of a seed's blocks, from this one on, that are not below the prime.
#[cold]
#[inline(never)]
fn replace(words: &mut Blocks, seed: &[u8; 32], first: u64) {
    for (place, words) in words.iter_mut().enumerate() {
        for (block, word) in words.iter_mut().enumerate() {
            let lane = (first + block as u64) * WORDS as u64 + place as u64;
            *word = accepted(P, *word, |segment| again(seed, lane, segment));
        }
    }
}

/// The words that may replace that of a lane.
fn again(seed: &[u8; 32], lane: u64, segment: u32) -> [u32; WORDS] {
    let stream = Stream { key: seed, domain: AGAIN, segment };
    chacha20::sixteen_blocks::<[u32; BLOCKS]>(stream, lane).map(|word| word[0])
}

/// The word, or if it is not below `bound` the first that is, among the words of the segments from 0 on.
#[inline(always)]
fn accepted<const N: usize>(bound: u32, word: u32, mut again: impl FnMut(u32) -> [u32; N]) -> u32 {
    if word < bound {
        return word;
    }
    let mut segment = 0;
    loop {
        if let Some(word) = again(segment).into_iter().find(|word| *word < bound) {
            return word;
        }
        segment += 1;
    }
}

#[cfg(test)]
mod tests;
