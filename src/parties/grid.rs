//! The grid of a session: values as signed integers, of which a lane holds one or several.
//!
//! A value x becomes x levels / clip, clipped to -levels..=levels and rounded to one of its two neighbours, up with the
//! probability of its fraction: the expected integer is the value. A lane holds the integers q_i of `per_lane` values as
//! the sum of q_i B^i with B = 2 contributors levels + 1. Sums of lanes of that many contributors are then sums of digits
//! that no carry mixes, as long as B^per_lane is at most p.
//!
//! The bound counts every client of the cohort, since an overflow cannot be seen afterwards.

use crate::kernels::chacha20::{self, Stream, WORDS};
use crate::kernels::field::{self, P};
use crate::kernels::lanes::Isa;
use serde::{Deserialize, Serialize};

/// The most values in one lane.
pub const MOST_PER_LANE: u32 = 8;

/// The integers that a session's values become.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// The most contributors of a sum.
    pub contributors: u64,
    /// The largest integer of a value.
    pub levels: u32,
    /// Values in a lane.
    pub per_lane: u32,
}

/// A grid that cannot be.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum NoGrid {
    /// The field has no room for the sum.
    #[error(
        "{contributors} clients with {per_lane} values in a lane: found {found} levels, expected 1 to {most}, so that no sum overflows"
    )]
    Levels {
        /// The most contributors of a sum.
        contributors: u64,
        /// Values in a lane.
        per_lane: u32,
        /// The levels asked for; 0 if none fit.
        found: u32,
        /// The most levels.
        most: u32,
    },
    /// Too many values for a lane.
    #[error("found {0} values in a lane, expected 1 to {MOST_PER_LANE}")]
    PerLane(u32),
}

impl Grid {
    /// The grid for sums of up to `contributors` clients; without `levels` the finest.
    ///
    /// # Errors
    ///
    /// When the sum may overflow, or no level is left.
    pub fn new(contributors: u64, levels: Option<u32>, per_lane: u32) -> Result<Self, NoGrid> {
        if !(1..=MOST_PER_LANE).contains(&per_lane) {
            return Err(NoGrid::PerLane(per_lane));
        }
        let most = most_levels(contributors, per_lane);
        let levels = levels.unwrap_or(most);
        if levels == 0 || levels > most {
            return Err(NoGrid::Levels { contributors, per_lane, found: levels, most });
        }
        Ok(Self { contributors, levels, per_lane })
    }

    /// The number of lanes of `values` values.
    pub fn lanes(self, values: usize) -> usize {
        values.div_ceil(self.per_lane as usize)
    }

    /// The integers of values on this grid. `clip` is the magnitude that becomes the largest integer, and `factor`, at most
    /// 1, multiplies the clipped values. `words` are random words, one for each value. Returns the number of values beyond
    /// the clip.
    ///
    /// # Errors
    ///
    /// The place of a value that is not finite.
    pub fn quantize(
        self,
        (clip, factor): (f64, f64),
        values: &[f64],
        words: &[u32],
        integers: &mut [i32],
    ) -> Result<u64, usize> {
        let (most, scale) = (f64::from(self.levels), f64::from(self.levels) / clip);
        let mut clipped = 0;
        for (place, ((value, word), integer)) in values.iter().zip(words).zip(integers).enumerate() {
            if !value.is_finite() {
                return Err(place);
            }
            let scaled = value * scale;
            clipped += u64::from(scaled.abs() > most);
            *integer = rounded(scaled.clamp(-most, most) * factor, *word);
        }
        Ok(clipped)
    }

    /// The lanes of integers; the last lane may hold fewer.
    pub fn pack(self, integers: &[i32], lanes: &mut [u32]) {
        let base = self.base() as i64;
        for (digits, lane) in integers.chunks(self.per_lane as usize).zip(lanes) {
            let sum = digits.iter().rev().fold(0, |sum, digit| sum * base + i64::from(*digit));
            *lane = field::of_signed(sum);
        }
    }

    /// The sums of integers in lanes; the last lane may hold fewer.
    pub fn unpack(self, lanes: &[u32], sums: &mut [i64]) {
        let base = self.base() as i64;
        for (lane, sums) in lanes.iter().zip(sums.chunks_mut(self.per_lane as usize)) {
            let mut rest = field::to_signed(*lane);
            let last = sums.len() - 1;
            for sum in &mut sums[..last] {
                let digit = rest.rem_euclid(base);
                *sum = if digit > base / 2 { digit - base } else { digit };
                rest = (rest - *sum) / base;
            }
            sums[last] = rest;
        }
    }

    /// The digits of a lane count to this base.
    fn base(self) -> u64 {
        2 * self.contributors * u64::from(self.levels) + 1
    }
}

/// The most levels for which sums fit a lane; 0 if none.
pub fn most_levels(contributors: u64, per_lane: u32) -> u32 {
    // The largest B with B^per_lane at most p.
    let fits = |base: u64| u128::from(base).checked_pow(per_lane).is_some_and(|power| power <= u128::from(P));
    let (mut low, mut high) = (1, u64::from(P) + 1);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle) { low = middle } else { high = middle }
    }
    u32::try_from((low - 1) / 2 / contributors.max(1)).unwrap_or(u32::MAX)
}

/// A number between two integers, rounded up with the probability of its fraction. `word` is uniform.
fn rounded(value: f64, word: u32) -> i32 {
    let below = value.floor();
    let is_up = f64::from(word) < (value - below) * 4_294_967_296.0;
    below as i32 + i32::from(is_up)
}

/// Random words for values: word v of the stream of a key is that of value v.
pub fn words(isa: Isa, key: &[u8; 32], first: u64, count: usize) -> Vec<u32> {
    let stream = Stream { key, domain: 0, segment: 0 };
    let (block, skipped) = (first / WORDS as u64, (first % WORDS as u64) as usize);
    let mut blocks = vec![[0; WORDS]; (skipped + count).div_ceil(WORDS)];
    chacha20::blocks(isa, stream, block, &mut blocks);
    blocks.as_flattened()[skipped..skipped + count].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_protocol() {
        for (contributors, levels) in
            [(1, 2_147_483_645), (100, 21_474_836), (1_000, 2_147_483), (10_000, 214_748)]
        {
            assert_eq!(most_levels(contributors, 1), levels);
        }
        assert_eq!(most_levels(100, 2), 327);
        assert_eq!(most_levels(1 << 31, 1), 0);
        assert!(Grid::new(1 << 31, None, 1).is_err());
        assert!(Grid::new(100, Some(21_474_837), 1).is_err() && Grid::new(100, Some(0), 1).is_err());
        assert!(Grid::new(2, None, 0).is_err() && Grid::new(2, None, 9).is_err());
    }

    #[test]
    fn sums_of_lanes_are_sums_of_integers_up_to_the_bound() {
        for per_lane in 1..=4 {
            for contributors in [2u64, 3, 7] {
                let grid = Grid::new(contributors, None, per_lane).unwrap();
                let most = grid.levels as i32;
                for len in [1, 2, 3, 4, 5, 9] {
                    // All at the ends, and mixed.
                    for pattern in 0..4 {
                        let integer = |client: usize, i: usize| match pattern {
                            0 => most,
                            1 => -most,
                            2 => {
                                if i.is_multiple_of(2) {
                                    most
                                } else {
                                    -most
                                }
                            }
                            _ => ((client * 31 + i * 17) % 5) as i32 * (most / 5) - most / 2,
                        };
                        let mut sums = vec![0i64; len];
                        let mut lanes = vec![0u32; grid.lanes(len)];
                        for client in 0..contributors as usize {
                            let integers: Vec<i32> = (0..len).map(|i| integer(client, i)).collect();
                            let mut own = vec![9; grid.lanes(len)];
                            grid.pack(&integers, &mut own);
                            lanes.iter_mut().zip(own).for_each(|(lane, own)| *lane = field::add(*lane, own));
                            sums.iter_mut()
                                .zip(integers)
                                .for_each(|(sum, integer)| *sum += i64::from(integer));
                        }
                        let mut found = vec![7; len];
                        grid.unpack(&lanes, &mut found);
                        assert_eq!(found, sums, "{per_lane} {contributors} {len} {pattern}");
                    }
                }
            }
        }
    }

    #[test]
    fn rounding_is_up_as_often_as_the_fraction_says() {
        // Every 2^20th word: exact counts.
        let words: Vec<u32> = (0..4096u32).map(|i| i << 20).collect();
        for (value, ups) in [(0.25, 1024), (-0.25, 3072), (3.5, 2048), (-7.0, 0), (0.0, 0)] {
            let floor = f64::floor(value) as i32;
            let found = words.iter().filter(|word| rounded(value, **word) == floor + 1).count();
            assert_eq!(found, ups, "{value}");
            assert!(words.iter().all(|word| [floor, floor + 1].contains(&rounded(value, *word))));
        }
    }

    #[test]
    fn values_beyond_the_clip_are_counted_and_clipped() {
        let grid = Grid::new(10, Some(100), 1).unwrap();
        let mut integers = [0; 5];
        let clipped = grid.quantize((0.5, 1.0), &[0.5, -0.5, 0.6, -9e300, 0.005], &[0; 5], &mut integers);
        assert_eq!((clipped, integers), (Ok(2), [100, -100, 100, -100, 1]));
        let halved = grid.quantize((0.5, 0.5), &[0.5, 9.0], &[0; 2], &mut integers[..2]);
        assert_eq!((halved, &integers[..2]), (Ok(1), &[50, 50][..]), "clipped before the weight");
        for wrong in [f64::NAN, f64::INFINITY] {
            assert_eq!(grid.quantize((0.5, 1.0), &[0.0, wrong], &[0; 2], &mut [0; 2]), Err(1));
        }
    }
}
