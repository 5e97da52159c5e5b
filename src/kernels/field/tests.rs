//! The field against long division.

use super::*;
use crate::kernels::chacha20::{Stream, WORDS, blocks};
use crate::kernels::lanes::Isa;

const PRIME: u128 = P as u128;

/// Elements at both ends and around the middle, and `count` in between.
fn elements(count: usize) -> Vec<u32> {
    let ends = [0, 1, 2, 4, 5, 6, P / 2 - 1, P / 2, P / 2 + 1, 1 << 31, P - 6, P - 5, P - 4, P - 2, P - 1];
    let mut words = vec![[0; WORDS]; count.div_ceil(WORDS)];
    blocks(Isa::detect(), Stream { key: &[9; 32], domain: 0, segment: 0 }, 0, &mut words);
    let words = words.as_flattened()[..count].iter().map(|word| word % P);
    ends.into_iter().chain(words).collect()
}

/// Lengths around the widths of vectors.
const LENGTHS: [usize; 14] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 255, 1001];

#[test]
fn the_prime_is_the_largest_below_two_to_the_32() {
    let is_prime = |n: u64| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    assert_eq!((P..=u32::MAX).rfind(|n| is_prime(u64::from(*n))), Some(P));
    assert_eq!(u64::from(CARRY), (1 << 32) % u64::from(P));
}

#[test]
fn scalars_are_those_of_long_division() {
    let elements = elements(60);
    for a in &elements {
        for b in &elements {
            let (long_a, long_b) = (u128::from(*a), u128::from(*b));
            assert_eq!(u128::from(add(*a, *b)), (long_a + long_b) % PRIME, "{a} + {b}");
            assert_eq!(u128::from(subtract(*a, *b)), (long_a + PRIME - long_b) % PRIME, "{a} - {b}");
            assert_eq!(u128::from(multiply(*a, *b)), long_a * long_b % PRIME, "{a} * {b}");
        }
    }
    let two_words = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let words: Vec<u32> = elements.iter().copied().chain(P..=u32::MAX).collect();
    for high in &words {
        for low in &words {
            let number = two_words(*high, *low);
            assert_eq!(u128::from(reduced(number)), u128::from(number) % PRIME, "{number}");
        }
    }
}

#[test]
fn signed_integers_come_back() {
    let half = i64::from(P / 2);
    for number in [0, 1, -1, 5, -5, half - 1, half, 1 - half, -half] {
        assert_eq!(to_signed(of_signed(number)), number);
        for laps in [-(1 << 30), -1, 1, 1 << 30] {
            assert_eq!(to_signed(of_signed(number + laps * i64::from(P))), number);
        }
    }
    // One step further is on the other side.
    assert_eq!((to_signed(of_signed(half + 1)), to_signed(of_signed(-half - 1))), (-half, half));
    for number in [i64::MIN, i64::MAX] {
        assert_eq!(i128::from(of_signed(number)), i128::from(number).rem_euclid(i128::from(P)));
    }
}

#[test]
fn vectors_are_the_scalars() {
    let all = elements(1001);
    for isa in Isa::available() {
        for len in LENGTHS {
            let from = &all[..len];
            let to: Vec<u32> = all.iter().rev().take(len).copied().collect();
            let mut sums = to.clone();
            add_elements(isa, from, &mut sums);
            let expected: Vec<u32> = to.iter().zip(from).map(|(to, from)| add(*to, *from)).collect();
            assert_eq!(sums, expected, "{len} on {isa}");
            for factor in [0, 1, 2, 0x8000_0000, P / 2, P - 5, P - 1] {
                let mut sums = to.clone();
                add_multiple(isa, factor, from, &mut sums);
                let add_one = |(to, from): (&u32, &u32)| add(*to, multiply(factor, *from));
                let expected: Vec<u32> = to.iter().zip(from).map(add_one).collect();
                assert_eq!(sums, expected, "{factor} times {len} on {isa}");
            }
        }
    }
}

#[test]
fn lanes_behind_the_row_stay() {
    for isa in Isa::available() {
        let mut to = [P - 1, P - 1, 0xdead_beef];
        add_elements(isa, &[1, 2], &mut to);
        add_multiple(isa, 3, &[4, 5], &mut to);
        assert_eq!(to, [12, 16, 0xdead_beef], "{isa}");
    }
}

#[test]
fn one_word_at_the_prime_is_found_anywhere() {
    for isa in Isa::available() {
        for len in LENGTHS {
            let mut words = vec![P - 1; len];
            assert!(all_below(isa, &words), "{len} on {isa}");
            for place in [0, len / 2, len.saturating_sub(1)].into_iter().filter(|place| *place < len) {
                for word in P..=u32::MAX {
                    words[place] = word;
                    assert!(!all_below(isa, &words), "{word} at {place} of {len} on {isa}");
                }
                words[place] = 0;
            }
        }
    }
}
