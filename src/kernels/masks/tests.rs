//! Masks against another implementation of ChaCha20, word by word.

use super::*;
use crate::kernels::field::{reduced, to_signed};
use crate::kernels::lanes::Isa;
use ::chacha20::ChaCha20Rng;
use ::chacha20::rand_core::{Rng, SeedableRng};

/// Seeds and lanes whose words are not below the prime; an exhaustive search found them. The first is the prime itself.
const REPLACED: [([u8; 32], u64); 3] =
    [([27; 32], 21_018_699), ([19; 32], 141_569_811), ([6; 32], 266_954_063)];

/// The words of a stream of the crate `chacha20` from the start of a block on.
fn words(seed: &[u8; 32], domain: u32, segment: u32, block: u64) -> ChaCha20Rng {
    let mut words = ChaCha20Rng::from_seed(*seed);
    words.set_stream(u64::from(segment) << 32 | u64::from(domain));
    words.set_block_pos(block);
    words
}

/// A seed's mask of a lane, word by word from the definition.
fn known(seed: &[u8; 32], lane: u64) -> u32 {
    let mut block = words(seed, 0, 0, lane / 16);
    let word = (0..=lane % 16).map(|_| block.next_u32()).last().unwrap();
    if word < P {
        return word;
    }
    let again = (0..).find_map(|segment| {
        let mut block = words(seed, 1, segment, lane);
        (0..16).map(|_| block.next_u32()).find(|word| *word < P)
    });
    again.unwrap()
}

fn known_sums(seeds: &[[u8; 32]], first: u64, before: &[u32]) -> Vec<u32> {
    let sum = |(lane, before): (u64, &u32)| {
        let sum: u64 = seeds.iter().map(|seed| u64::from(known(seed, lane))).sum();
        reduced(sum + u64::from(*before))
    };
    (first..).zip(before).map(sum).collect()
}

fn seeds(count: usize) -> Vec<[u8; 32]> {
    (0..count).map(|i| std::array::from_fn(|byte| (i * 37 + byte * 11 + i / 256) as u8)).collect()
}

/// Sums that are there before: large, so that they wrap.
fn before(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| P - 1 - i % 7 * (P / 7)).collect()
}

/// Adds masks, and checks that nothing around the sums changed.
fn added(isa: Isa, seeds: &[[u8; 32]], first: u64, before: &[u32]) -> Vec<u32> {
    const POISON: u32 = 0xdead_beef;
    let mut all = vec![POISON; before.len() + 6];
    all[3..][..before.len()].copy_from_slice(before);
    add_masks(isa, seeds, first, &mut all[3..][..before.len()]);
    assert_eq!((&all[..3], &all[before.len() + 3..]), (&[POISON; 3][..], &[POISON; 3][..]), "{isa}");
    all[3..][..before.len()].to_vec()
}

#[test]
fn masks_are_those_of_another_implementation() {
    for isa in Isa::available() {
        for first in [0, 1, 15, 16, 17, 255, 256, 257, (1 << 36) - 600] {
            for len in [0, 1, 15, 16, 17, 255, 256, 257, 513] {
                let (seeds, before) = (seeds(3), before(len));
                let found = added(isa, &seeds, first, &before);
                assert_eq!(found, known_sums(&seeds, first, &before), "{len} from {first} on {isa}");
            }
        }
    }
}

#[test]
fn any_number_of_seeds_adds_up() {
    for isa in Isa::available() {
        for count in [0, 1, 2, 6, 10, 300] {
            let (seeds, before) = (seeds(count), before(259));
            let found = added(isa, &seeds, 9, &before);
            assert_eq!(found, known_sums(&seeds, 9, &before), "{count} seeds on {isa}");
        }
    }
}

/// One run over many lanes, and the same lanes in portions.
#[test]
fn any_cut_of_the_lanes_gives_the_same_sums() {
    const LEN: usize = 10_007;
    let seeds = seeds(2);
    let whole = added(Isa::detect(), &seeds, 3, &before(LEN));
    assert_eq!(whole[..300], known_sums(&seeds, 3, &before(300)));
    for isa in Isa::available() {
        for portion in [1, 16, 31, 256, 1000, LEN] {
            let mut found = before(LEN);
            let mut first = 3;
            for sums in found.chunks_mut(portion) {
                add_masks(isa, &seeds, first, sums);
                first += sums.len() as u64;
            }
            assert!(found == whole, "portions of {portion} on {isa}");
        }
    }
}

#[test]
fn words_that_are_not_below_the_prime_are_replaced() {
    for (i, (seed, lane)) in REPLACED.into_iter().enumerate() {
        let mut block = words(&seed, 0, 0, lane / 16);
        let word = (0..=lane % 16).map(|_| block.next_u32()).last().unwrap();
        assert!(if i == 0 { word == P } else { word >= P }, "lane {lane} has {word}");
        assert_eq!(known(&seed, lane), words(&seed, 1, 0, lane).next_u32());
        for isa in Isa::available() {
            for before_it in [0, 1, 15, 100, 255, 256] {
                let first = lane - before_it;
                let seeds = [[1; 32], seed, [2; 32]];
                let before = before(before_it as usize + 40);
                let found = added(isa, &seeds, first, &before);
                assert_eq!(found, known_sums(&seeds, first, &before), "{before_it} before {lane} on {isa}");
            }
            // The negative control: the word itself is no mask.
            assert_ne!(added(isa, &[seed], lane, &[0]), [reduced(u64::from(word))]);
        }
    }
}

/// Every outcome of a generator of few bits, each once: exactly as many runs end at each value. Two words a block leave
/// runs whose blocks are all used up; these end at none.
#[test]
fn replaced_words_are_exactly_uniform() {
    const WORDS: u32 = 8;
    for bound in [3, 5, 7] {
        let mut ends = vec![0u32; bound as usize];
        let mut later = vec![0u32; bound as usize];
        for run in 0..WORDS.pow(5) {
            let word = |place: u32| run / WORDS.pow(place) % WORDS;
            let mut segments = vec![];
            let again = |segment: u32| {
                segments.push(segment);
                // The third block ends every run.
                if segment == 2 { [bound, 0] } else { [word(1 + 2 * segment), word(2 + 2 * segment)] }
            };
            let found = accepted(bound, word(0), again);
            assert!(segments.iter().copied().eq(0..segments.len() as u32), "in the order of segments");
            match segments.len() {
                0..3 => ends[found as usize] += 1,
                _ => assert_eq!(found, 0),
            }
            if segments.len() == 2 {
                later[found as usize] += 1;
            }
        }
        let missed = WORDS - bound;
        assert_eq!(ends, vec![(WORDS.pow(5) - missed.pow(5)) / bound; bound as usize]);
        let in_second = missed.pow(3) * (WORDS.pow(2) - missed.pow(2));
        assert_eq!(later, vec![in_second / bound; bound as usize]);
    }
}

/// The replacement in a group of sixteen blocks, with words that a test chooses: at every place.
#[test]
fn a_word_is_replaced_at_every_place_of_a_group() {
    let (seed, first) = ([3; 32], 77);
    for chosen in [P, P + 1, u32::MAX] {
        let mut blocks = [[chosen; BLOCKS]; WORDS];
        replace(&mut blocks, &seed, first);
        for (place, of_place) in blocks.iter().enumerate() {
            for (block, word) in of_place.iter().enumerate() {
                let lane = (first + block as u64) * 16 + place as u64;
                assert_eq!(*word, words(&seed, 1, 0, lane).next_u32(), "word {place} of block {block}");
            }
        }
    }
    let mut kept = [[P - 1; BLOCKS]; WORDS];
    replace(&mut kept, &seed, first);
    assert_eq!(kept, [[P - 1; BLOCKS]; WORDS]);
}

/// Sums of many masks are any words; the lanes are below the prime, and in order.
#[test]
fn sums_of_a_group_are_put_in_order_and_reduced() {
    let mut blocks = [[0; BLOCKS]; WORDS];
    for (word, blocks) in blocks.iter_mut().enumerate() {
        for (block, sum) in blocks.iter_mut().enumerate() {
            *sum = (P - 128).wrapping_add((block * WORDS + word) as u32);
        }
    }
    let expected: Vec<u32> =
        (0..GROUP as u64).map(|lane| reduced((u64::from(P - 128) + lane) & 0xffff_ffff)).collect();
    assert_eq!(in_order(&blocks)[..], expected);
}

#[test]
fn masks_of_a_seed_cancel() {
    for isa in Isa::available() {
        let mut sums = vec![0; 300];
        add_masks(isa, &[[8; 32]], 40, &mut sums);
        for sum in &mut sums {
            *sum = P - *sum;
        }
        add_masks(isa, &[[8; 32]], 40, &mut sums);
        assert!(sums.iter().all(|sum| to_signed(*sum) == 0), "{isa}");
    }
}
