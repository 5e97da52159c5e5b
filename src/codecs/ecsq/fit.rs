//! Finds the table of frequencies with the fewest bits for counted codes and for the table itself.
//!
//! A level costs fewer bits the nearer it is to its expected value. For rare magnitudes that saves more than an exact
//! frequency. Magnitudes beyond a limit go to the escape if that is shorter.

use super::table::{FINEST, LEAST_BITS, OCTAVES, Table, expected};
use crate::codecs::packing::bit_stream::{golomb_bits, signed_bits};
use crate::kernels::dead_zone::{ESCAPE, LARGEST, MOST};

/// Counts of codes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    /// Counts of codes as bytes; [`ESCAPE`] counts all magnitudes above [`MOST`].
    pub(super) codes: Vec<u64>,
    /// Counts of those magnitudes, by their number of binary digits.
    pub(super) large: Vec<u64>,
}

/// The most digits of a magnitude, plus one.
pub(super) const DIGITS: usize = LARGEST.ilog2() as usize + 2;

/// The part of all bits that one more bit of frequencies must save: decoders read a longer table for every chunk.
const WORTH_A_BIT: f64 = 0.0002;

/// A table, and the bits of the codes and of the table.
struct Candidate {
    table: Table,
    bits: f64,
}

/// The table of the fewest bits, and these bits.
pub(super) fn fit(counts: &Counts) -> (Table, f64) {
    let mut mosts = counts.worthwhile();
    // The resolution matters less than the largest magnitude, and hardly depends on it.
    let first = mosts.pop().unwrap_or(0);
    let mut best = cheapest(
        (0..=FINEST)
            .flat_map(|resolution| (0..=2).map(move |order| (resolution, order)))
            .map(|(resolution, order)| counts.candidate(first, resolution, order, false)),
    );
    let (resolution, order) = (best.table.resolution, best.table.order);
    let others = mosts.into_iter().map(|most| counts.candidate(most, resolution, order, false));
    best = cheapest(std::iter::once(best).chain(others));
    let most = best.table.most();
    if counts.sides_differ(most) {
        best = cheapest([best, counts.candidate(most, resolution, order, true)].into_iter());
    }
    (best.table, best.bits)
}

fn cheapest(candidates: impl Iterator<Item = Candidate>) -> Candidate {
    let empty = Candidate { table: Table { bits: LEAST_BITS, ..Table::default() }, bits: f64::INFINITY };
    candidates.fold(empty, |best, next| if next.bits < best.bits { next } else { best })
}

impl Counts {
    /// Codes of a magnitude up to [`MOST`], of both signs.
    pub(super) fn of(&self, magnitude: u8) -> u64 {
        match usize::from(magnitude) {
            0 => self.codes[0],
            m => self.codes[2 * m - 1] + self.codes[2 * m],
        }
    }

    /// Largest magnitudes of tables worth trying. Each leaves about twice as many codes to the escape as the next one.
    fn worthwhile(&self) -> Vec<u8> {
        let mut rest = self.codes[usize::from(ESCAPE)];
        let mut bound = rest;
        let mut mosts = Vec::new();
        for most in (0..=MOST).rev() {
            if mosts.is_empty() && (self.of(most) > 0 || rest > 0 || most == 0) {
                mosts.push(most);
            } else if rest > bound {
                mosts.push(most);
                bound = 2 * rest;
            }
            rest += self.of(most);
        }
        mosts.reverse();
        mosts
    }

    /// Whether the counts of the two signs differ enough for separate levels.
    fn sides_differ(&self, most: u8) -> bool {
        let cost = |m: u8| {
            let sides = [self.codes[2 * usize::from(m) - 1], self.codes[2 * usize::from(m)]];
            let half = self.of(m) as f64 / 2.0;
            sides.iter().filter(|n| **n > 0).map(|n| *n as f64 * (*n as f64 / half).log2()).sum::<f64>()
        };
        (1..=most).map(cost).sum::<f64>() > f64::from(most)
    }

    /// The levels of the magnitudes up to `most` and of the escape, and their bits.
    fn candidate(&self, most: u8, resolution: u32, order: u32, is_two_sided: bool) -> Candidate {
        let fitting = Fitting { zeros: (self.codes[0] as f64).max(0.5), resolution };
        let mut levels = vec![0];
        for m in 1..=most {
            let level = fitting.level(self.of(m) as f64, 2.0, expected(&levels), order);
            levels.push(level);
        }
        let negative = |m: u8| {
            let (code, level) = (2 * usize::from(m), levels[usize::from(m)]);
            fitting.level(self.codes[code] as f64, 1.0, level, 0)
        };
        let positive = |m: u8| {
            let (code, level) = (2 * usize::from(m) - 1, levels[usize::from(m)]);
            fitting.level(self.codes[code] as f64, 1.0, level, 0)
        };
        let negative: Option<Vec<i32>> = is_two_sided.then(|| (1..=most).map(negative).collect());
        let positive: Vec<i32> = match is_two_sided {
            true => (1..=most).map(positive).collect(),
            false => levels[1..].to_vec(),
        };
        let escaped = self.escaped(most);
        let last = positive.last().copied().unwrap_or(0);
        let (escape_order, escape_bits) = self.escape_order(most);
        let escape = (escaped > 0).then(|| (fitting.level(escaped as f64, 1.0, last, order), escape_order));
        let table = Table { bits: LEAST_BITS, resolution, order, positive, negative, escape };
        let own = f64::from(table.own_bits()) + escape_bits;
        cheapest((LEAST_BITS..LEAST_BITS + 4).map(|bits| {
            let table = Table { bits, ..table.clone() };
            let codes = self.bits(&table) * (1.0 + WORTH_A_BIT * f64::from(bits - LEAST_BITS));
            Candidate { table, bits: own + codes }
        }))
    }

    /// Codes above a magnitude.
    fn escaped(&self, most: u8) -> u64 {
        self.codes[2 * usize::from(most) + 1..].iter().sum()
    }

    /// Bits of all codes by a table, without what follows an escape.
    fn bits(&self, table: &Table) -> f64 {
        let frequencies = table.frequencies();
        let own = 2 * usize::from(table.most()) + 1;
        let cost = |(code, n): (usize, &u64)| if *n > 0 { *n as f64 * frequencies.cost(code) } else { 0.0 };
        let escaped = self.escaped(table.most());
        self.codes[..own].iter().enumerate().map(cost).sum::<f64>() + cost((own, &escaped))
    }

    /// The best order of the codes after escapes, and the bits of these codes.
    fn escape_order(&self, most: u8) -> (u32, f64) {
        let bits = |order: u32| {
            let one = |magnitude: u32| f64::from(golomb_bits(magnitude - u32::from(most) - 1, order) + 1);
            let small = (most + 1..=MOST).map(|m| self.of(m) as f64 * one(u32::from(m))).sum::<f64>();
            let middle =
                |digits: usize| one(3 << (digits - 2)) + if digits + 1 == DIGITS { 32.0 } else { 0.0 };
            let large = self.large.iter().enumerate().filter(|(_, n)| **n > 0);
            small + large.map(|(digits, n)| *n as f64 * middle(digits)).sum::<f64>()
        };
        let least = (0..16).map(|order| (order, bits(order))).min_by(|a, b| a.1.total_cmp(&b.1));
        least.unwrap_or((0, 0.0))
    }
}

/// The scale of levels.
struct Fitting {
    /// Number of codes for zero.
    zeros: f64,
    resolution: u32,
}

impl Fitting {
    /// The level with the fewest bits, for `codes` codes that occur `count` times together.
    fn level(&self, count: f64, codes: f64, expected: i32, order: u32) -> i32 {
        let steps = f64::from(1 << self.resolution);
        let limit = OCTAVES << self.resolution;
        let nearest = ((count.max(0.3) / codes / self.zeros).log2() * steps).round() as i32;
        let (nearest, expected) = (nearest.clamp(-limit, limit), expected.clamp(-limit, limit));
        // The cost of a wrong frequency: count ln(count / taken) - count + taken.
        let bits = |level: &i32| {
            let taken = codes * self.zeros * (f64::from(*level) / steps).exp2();
            let wrong = taken - count - if count > 0.0 { count * (taken / count).ln() } else { 0.0 };
            wrong / std::f64::consts::LN_2 + f64::from(signed_bits(level - expected, order))
        };
        let towards = (nearest - 8).max(nearest.min(expected))..=(nearest + 8).min(nearest.max(expected));
        let best = towards.map(|level| (level, bits(&level))).min_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or(nearest, |(level, _)| level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of zero, and of each magnitude as positive and negative codes.
    fn counts(zeros: u64, sides: &[(u64, u64)]) -> Counts {
        let mut codes = vec![0; 256];
        codes[0] = zeros;
        for (m, (positive, negative)) in (1..).zip(sides) {
            (codes[2 * m - 1], codes[2 * m]) = (*positive, *negative);
        }
        Counts { codes, large: vec![0; DIGITS] }
    }

    #[test]
    fn the_largest_table_worth_trying_ends_at_the_largest_magnitude() {
        assert_eq!(counts(100, &[(9, 9), (5, 4), (1, 0)]).worthwhile().last(), Some(&3));
        assert_eq!(counts(100, &[]).worthwhile(), [0]);
        let mut beyond = counts(100, &[(9, 9)]);
        beyond.codes[usize::from(ESCAPE)] = 1;
        assert_eq!(beyond.worthwhile().last(), Some(&MOST));
    }

    #[test]
    fn signs_that_differ_get_separate_levels() {
        let (same, uneven) = (counts(1000, &[(500, 500)]), counts(1000, &[(1000, 20)]));
        assert!(!same.sides_differ(1) && uneven.sides_differ(1));
        assert!(counts(1000, &[(20, 1000)]).sides_differ(1));
        let table = uneven.candidate(1, 2, 0, true).table;
        // The counts are 1 and 1/50 of the zeros; four levels are an octave.
        assert_eq!((table.positive, table.negative), (vec![0], Some(vec![-23])));
    }

    #[test]
    fn a_level_near_the_expected_one_gives_way_to_it() {
        let fitting = Fitting { zeros: 10.0, resolution: 3 };
        // 5.4 codes of 10 are nearest to level -7, but level -8 costs nothing to write.
        assert_eq!(fitting.level(5.4, 1.0, -8, 0), -8);
        assert_eq!(fitting.level(5.4e6, 1e6, -8, 0), -7);
    }
}
