//! Pseudorandom secret sharing: helpers share the sum of streams without a message between them.
//!
//! A client draws one seed for every set A of t - 1 helpers, and gives it to the helpers outside A. Let f_A be the
//! polynomial of degree t - 1 over F_p with f_A(0) = 1 and f_A(a) = 0 for a in A. Helper j computes the sum over A of
//! f_A(j) G(k_A) alone, since f_A(j) is zero where it lacks the seed. That is its Shamir share of the sum of all
//! streams. Any t shares give the sum by interpolation at 0; t - 1 helpers lack the stream of the set that they form.
//!
//! Paper: Cramer, Damgard and Ishai, "Share conversion, pseudorandom secret-sharing and applications to secure
//! computation", TCC 2005, section 3.

use crate::kernels::field::{P, multiply, subtract};

/// The most helpers of a committee: with ten, a client draws up to 252 seeds.
pub const MOST_HELPERS: usize = 10;

/// The committee of helpers. Helpers have numbers from 1 on: the points at which they hold shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committee {
    helpers: usize,
    threshold: usize,
}

/// A committee that cannot be.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error(
    "found {helpers} helpers with a threshold of {threshold}, expected 1 to {MOST_HELPERS} helpers and a threshold above half of them and at most all"
)]
pub struct NoCommittee {
    helpers: usize,
    threshold: usize,
}

/// A set of t - 1 helpers, bit by bit: bit j - 1 stands for helper j.
pub type HelperSet = u16;

/// Whether a set holds a helper.
pub fn holds(set: HelperSet, helper: usize) -> bool {
    set >> (helper - 1) & 1 == 1
}

impl Committee {
    /// A committee of `helpers` helpers, of whom `threshold` suffice and fewer learn nothing.
    ///
    /// # Errors
    ///
    /// When two disjoint halves could each answer, or there are too many or too few.
    pub fn new(helpers: usize, threshold: usize) -> Result<Self, NoCommittee> {
        let is_sound =
            (1..=MOST_HELPERS).contains(&helpers) && threshold <= helpers && 2 * threshold > helpers;
        if is_sound { Ok(Self { helpers, threshold }) } else { Err(NoCommittee { helpers, threshold }) }
    }

    /// The number of helpers.
    pub fn helpers(self) -> usize {
        self.helpers
    }

    /// The number of answers that suffice.
    pub fn threshold(self) -> usize {
        self.threshold
    }

    /// The most corrupt helpers with which a server cannot get sums over two sets of clients: it needs `threshold`
    /// answers for each, and an honest helper answers once.
    pub fn most_corrupt(self) -> usize {
        // 2t - c > K.
        (2 * self.threshold - self.helpers - 1).min(self.threshold - 1)
    }

    /// The sets of t - 1 helpers, in increasing order: one seed for each.
    pub fn sets(self) -> Vec<HelperSet> {
        let all = 0..1u16 << self.helpers;
        all.filter(|set| set.count_ones() as usize == self.threshold - 1).collect()
    }

    /// The sets without a helper, in increasing order: the seeds that it holds.
    pub fn sets_without(self, helper: usize) -> Vec<HelperSet> {
        self.sets().into_iter().filter(|set| !holds(*set, helper)).collect()
    }

    /// f_A(j) for the set A.
    pub fn value_at(self, set: HelperSet, point: usize) -> u32 {
        let members = (1..=self.helpers).filter(|helper| holds(set, *helper));
        // The product over a in A of (j - a) / (0 - a).
        members.fold(1, |value, a| {
            let top = subtract(point as u32, a as u32);
            multiply(value, multiply(top, inverse(subtract(0, a as u32))))
        })
    }
}

/// The inverse of a number other than 0, by Fermat: a^(p - 2).
fn inverse(number: u32) -> u32 {
    let (mut power, mut square, mut exponent) = (1, number, P - 2);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = multiply(power, square);
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    power
}

/// The factors by which the shares at `points` give the value at `at` of the polynomial of degree `points.len() - 1`
/// (Lagrange interpolation). The points are different.
pub fn factors(points: &[usize], at: usize) -> Vec<u32> {
    let factor = |i: &usize| {
        let others = points.iter().filter(|j| *j != i);
        others.fold(1, |factor, j| {
            let top = subtract(at as u32, *j as u32);
            multiply(factor, multiply(top, inverse(subtract(*i as u32, *j as u32))))
        })
    };
    points.iter().map(factor).collect()
}

/// The subsets of `items` of `size` items, in order.
pub fn subsets(items: &[usize], size: usize) -> Vec<Vec<usize>> {
    let chosen = (0..1u32 << items.len()).filter(|bits| bits.count_ones() as usize == size);
    chosen
        .map(|bits| {
            let held = items.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
            held.map(|(_, item)| *item).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::field::add;

    fn committees() -> Vec<Committee> {
        let all = (1..=7).flat_map(|helpers| (1..=helpers).map(move |threshold| (helpers, threshold)));
        all.filter_map(|(helpers, threshold)| Committee::new(helpers, threshold).ok()).collect()
    }

    #[test]
    fn numbers_are_those_of_the_protocol() {
        for (helpers, threshold, drawn, held, corrupt) in [
            (1, 1, 1, 1, 0),
            (3, 2, 3, 2, 0),
            (5, 3, 10, 6, 0),
            (5, 4, 10, 4, 2),
            (7, 4, 35, 20, 0),
            (10, 6, 252, 126, 1),
        ] {
            let committee = Committee::new(helpers, threshold).unwrap();
            assert_eq!(committee.sets().len(), drawn, "{helpers}, {threshold}");
            assert_eq!(committee.sets_without(helpers).len(), held, "{helpers}, {threshold}");
            assert_eq!(committee.most_corrupt(), corrupt, "{helpers}, {threshold}");
        }
        for (helpers, threshold) in [(0, 0), (5, 0), (5, 2), (4, 2), (5, 6), (11, 6)] {
            assert!(Committee::new(helpers, threshold).is_err(), "{helpers}, {threshold}");
        }
    }

    #[test]
    fn the_polynomial_of_a_set_is_one_at_zero_and_vanishes_on_it() {
        for committee in committees() {
            for set in committee.sets() {
                assert_eq!(committee.value_at(set, 0), 1);
                for helper in 1..=committee.helpers() {
                    let value = committee.value_at(set, helper);
                    assert_eq!(value == 0, holds(set, helper), "{committee:?} {set:b} {helper}");
                }
            }
        }
    }

    /// The shares of the sum of one word per set.
    fn shares(committee: Committee, words: &[u32]) -> Vec<u32> {
        let share = |helper: usize| {
            let sets = committee.sets().into_iter().zip(words);
            sets.fold(0, |share, (set, word)| add(share, multiply(committee.value_at(set, helper), *word)))
        };
        (1..=committee.helpers()).map(share).collect()
    }

    #[test]
    fn any_threshold_of_answers_gives_the_sum() {
        for committee in committees() {
            let count = committee.sets().len() as u32;
            let words: Vec<u32> = (0..count).map(|i| (i + 1).wrapping_mul(2_654_435_761) % P).collect();
            let sum = words.iter().fold(0, |sum, word| add(sum, *word));
            let shares = shares(committee, &words);
            let helpers: Vec<usize> = (1..=committee.helpers()).collect();
            for size in committee.threshold()..=helpers.len() {
                for points in subsets(&helpers, size) {
                    let found = points.iter().zip(factors(&points, 0));
                    let found =
                        found.fold(0, |all, (helper, factor)| add(all, multiply(factor, shares[helper - 1])));
                    assert_eq!(found, sum, "{committee:?} {points:?}");
                }
            }
            for points in subsets(&helpers, committee.threshold() - 1) {
                let found = points.iter().zip(factors(&points, 0));
                let found =
                    found.fold(0, |all, (helper, factor)| add(all, multiply(factor, shares[helper - 1])));
                assert!(found != sum || committee.threshold() == 1, "{committee:?} {points:?}");
            }
        }
    }

    /// Over F_5 by counting all draws: what t - 1 helpers hold, together with the masked word, is equally likely for
    /// every word that a client may send.
    #[test]
    fn fewer_helpers_learn_nothing() {
        const SMALL: u32 = 5;
        for (helpers, threshold) in [(2, 2), (3, 2), (3, 3), (4, 3)] {
            let committee = Committee::new(helpers, threshold).unwrap();
            let sets = committee.sets();
            let all: Vec<usize> = (1..=helpers).collect();
            for corrupt in subsets(&all, threshold - 1) {
                let seen = |word: u32| {
                    let mut views = std::collections::BTreeMap::new();
                    for draw in 0..SMALL.pow(sets.len() as u32) {
                        let words: Vec<u32> =
                            (0..sets.len() as u32).map(|i| draw / SMALL.pow(i) % SMALL).collect();
                        let masked = (word + words.iter().sum::<u32>()) % SMALL;
                        let held = |(set, word): (&HelperSet, &u32)| {
                            corrupt.iter().any(|helper| !holds(*set, *helper)).then_some(*word)
                        };
                        let held: Vec<Option<u32>> = sets.iter().zip(&words).map(held).collect();
                        *views.entry((masked, held)).or_insert(0) += 1;
                    }
                    views
                };
                let first = seen(0);
                assert!((1..SMALL).all(|word| seen(word) == first), "{helpers}, {threshold}, {corrupt:?}");
            }
        }
    }
}
