//! Finds the k values of largest magnitude of a vector exactly, by radix select.
//!
//! The order of the magnitudes of finite floats is that of the 31 bits below the sign. Three passes over all values
//! find the bits of the k-th largest, 11, 11 and 9 at a time. Each pass counts the values that share the known bits, by
//! their next digit (Alabi et al., Fast k-selection algorithms for graphics processing units, 2012). Among equal values
//! the lowest indices win, so the choice depends on the values alone.
//!
//! Agreement: bits; the sum of magnitudes has a fixed order of additions.

use crate::kernels::dispatch;
use crate::kernels::lanes::{FLOATS, Floats, Isa, MAGNITUDE};
use std::ops::Range;

/// Lowest bit and number of bits of each digit of a key, the highest digit first.
const DIGITS: [(u32, u32); 3] = [(20, 11), (9, 11), (0, 9)];

/// Histograms filled in turn, so that consecutive equal values do not wait for each other's count.
const HISTOGRAMS: usize = 4;

/// Values that are tested at once: one for each bit of a word.
const BLOCK: usize = u64::BITS as usize;

/// Partial sums of magnitudes. The number is the same on every machine.
const PARTS: usize = 16;

/// The bits that determine the order of magnitudes.
#[inline(always)]
pub fn key(x: f32) -> u32 {
    x.to_bits() & MAGNITUDE
}

/// A search for the k-th largest magnitude.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Search {
    /// Number of known digits.
    digits: usize,
    /// The known bits, in their places.
    prefix: u32,
    /// The rank of the wanted value among the values with these bits; the largest has rank 1.
    wanted: u64,
    /// Number of values with these bits.
    alike: u64,
}

/// The k-th largest magnitude.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// Its bits.
    pub key: u32,
    /// Number of values with this key among the k.
    pub ties: u64,
    /// Number of values with this key.
    pub tied: u64,
}

impl Search {
    /// A search for the k-th largest of at least `k` values; `k` is at least 1.
    pub fn new(k: u64) -> Self {
        Self { digits: 0, prefix: 0, wanted: k, alike: 0 }
    }

    /// The magnitude; `None` before three looks.
    pub fn threshold(&self) -> Option<Threshold> {
        let is_settled = self.digits == DIGITS.len();
        is_settled.then_some(Threshold { key: self.prefix, ties: self.wanted, tied: self.alike })
    }

    /// The parameters of the next pass, for a device: the bits found, their mask, the lowest bit of the next digit, and
    /// the digit's mask. `None` once the magnitude is found.
    pub fn next_digit(&self) -> Option<[u32; 4]> {
        let (low, bits) = DIGITS.get(self.digits)?;
        let settled = MAGNITUDE & !((1u32 << (low + bits)) - 1);
        Some([self.prefix, settled, *low, (1 << bits) - 1])
    }

    /// A look: the number of these values with each next digit. The caller adds the counts of all values.
    pub fn count(&self, isa: Isa, values: &[f32]) -> Vec<u64> {
        let Some((low, bits)) = DIGITS.get(self.digits).copied() else { return Vec::new() };
        let mut counts = vec![[0u32; HISTOGRAMS]; 1 << bits];
        count_digits(isa, values, self.prefix, low, bits, &mut counts);
        counts.iter().map(|counts| counts.iter().map(|count| u64::from(*count)).sum()).collect()
    }

    /// Takes the counts of all values, and finds the next digit.
    pub fn narrow(&mut self, counts: &[u64]) {
        let Some((low, _)) = DIGITS.get(self.digits) else { return };
        for (digit, count) in counts.iter().enumerate().rev() {
            if self.wanted <= *count || digit == 0 {
                self.prefix |= (digit as u32) << low;
                (self.wanted, self.alike) = (self.wanted.min(*count), *count);
                break;
            }
            self.wanted -= count;
        }
        self.digits += 1;
    }
}

dispatch! {
    fn count_digits<A: Arch>(
        values: &[f32],
        prefix: u32,
        low: u32,
        bits: u32,
        counts: &mut [[u32; HISTOGRAMS]],
    ) {
        let (above, digit) = (low + bits, (1u32 << bits) - 1);
        let counts = &mut counts[..digit as usize + 1];
        let mut histogram = 0;
        for x in values {
            let key = key(*x);
            if key >> above == prefix >> above {
                counts[((key >> low) & digit) as usize][histogram] += 1;
                histogram = (histogram + 1) % HISTOGRAMS;
            }
        }
    }
}

/// Number of upper bits of a key by which a sample is counted.
const SAMPLED_BITS: u32 = 15;
/// The lowest of them.
const SAMPLED_LOW: u32 = 31 - SAMPLED_BITS;
/// The allowed error of a rank in a sample, in standard deviations of a random sample.
const DEVIATIONS: f64 = 6.0;

/// A sample takes one value in this many of a chunk.
const COUNTED: usize = 4;

/// The numbers of a sample of these values, by the upper bits of their keys, up to the largest that is there.
pub fn count_sample(values: &[f32]) -> Vec<u64> {
    let sample = || values.iter().step_by(COUNTED).map(|x| (key(*x) >> SAMPLED_LOW) as usize);
    let mut counts = vec![0; sample().max().map_or(0, |largest| largest + 1)];
    sample().for_each(|bin| counts[bin] += 1);
    counts
}

/// The range of keys that most likely holds the k-th largest of `len` values, by the counts of a sample.
pub fn likely(counts: &[u64], k: u64, len: u64) -> Range<u32> {
    let sampled: u64 = counts.iter().sum();
    let rank = k as f64 * sampled as f64 / len as f64;
    let margin = DEVIATIONS * (rank + 1.0).sqrt();
    let (first, last) = (rank - margin, rank + margin);
    // Values that are not in the sample may be larger than all of it.
    let (mut larger, mut high) = (0, 1 << SAMPLED_BITS);
    for (bin, count) in counts.iter().enumerate().rev() {
        if larger as f64 <= first {
            high = bin + 1;
        }
        larger += count;
        if larger as f64 >= last {
            return (bin as u32) << SAMPLED_LOW..(high as u32) << SAMPLED_LOW;
        }
    }
    0..(high as u32) << SAMPLED_LOW
}

dispatch! {
    /// The number of these values with keys above a range. Appends the keys in the range to `within`, while it has
    /// fewer than `most`.
    pub fn narrow_down<A: Arch>(values: &[f32], range: &Range<u32>, within: &mut Vec<u32>, most: usize) -> u64 {
        let mut beyond = 0u64;
        for values in values.chunks(BLOCK) {
            let larger = at_least::<A::Floats>(values, range.end);
            let inside = at_least::<A::Floats>(values, range.start) & !larger;
            beyond += u64::from(larger.count_ones());
            if inside != 0 && within.len() < most {
                within.extend(set_bits(inside).map(|i| key(values[i])));
            }
        }
        beyond
    }
}

/// One bit for each of at most [`BLOCK`] values: whether its key is at least `least`.
#[inline(always)]
fn at_least<F: Floats>(values: &[f32], least: u32) -> u64 {
    let mut bits = 0;
    let (whole, rest) = values.as_chunks::<FLOATS>();
    for (place, values) in whole.iter().enumerate() {
        // SAFETY: the array has the length of the load.
        let values = unsafe { F::load(values.as_ptr()) };
        bits |= u64::from(values.at_least(least)) << (place * FLOATS);
    }
    for (i, x) in rest.iter().enumerate() {
        bits |= u64::from(key(*x) >= least) << (whole.len() * FLOATS + i);
    }
    bits
}

/// The indices of the bits that are set, ascending.
#[inline(always)]
fn set_bits(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (bits != 0).then_some(bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        place
    })
}

/// The k-th largest magnitude, if it is one of these keys. `beyond` is the number of values larger than all of them.
pub fn threshold_among(mut keys: Vec<u32>, beyond: u64, k: u64) -> Option<Threshold> {
    let rank = usize::try_from(k.checked_sub(beyond + 1)?).ok().filter(|rank| *rank < keys.len())?;
    let (larger, key, rest) = keys.select_nth_unstable_by(rank, |a, b| b.cmp(a));
    let (key, before) = (*key, larger.iter().filter(|other| **other == *key).count() as u64);
    let behind = rest.iter().filter(|other| **other == key).count() as u64;
    Some(Threshold { key, ties: before + 1, tied: before + 1 + behind })
}

/// The counts of values at and above a magnitude.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Beyond {
    /// Number of values with exactly that magnitude.
    pub tied: u64,
    /// The sum of all larger magnitudes.
    pub sum: f64,
}

dispatch! {
    /// The counts of these values at and above the magnitude with this key.
    pub fn beyond<A: Arch>(values: &[f32], threshold: u32) -> Beyond {
        let (mut tied, mut parts) = (0u64, [0.0f64; PARTS]);
        for values in values.chunks(PARTS) {
            for (x, part) in values.iter().zip(&mut parts) {
                let key = key(*x);
                tied += u64::from(key == threshold);
                *part += if key > threshold { f64::from(x.abs()) } else { 0.0 };
            }
        }
        Beyond { tied, sum: parts.iter().sum() }
    }
}

dispatch! {
    /// The ascending indices of the values above the magnitude with this key, and of the first `ties` values equal to
    /// it.
    pub fn take<A: Arch>(values: &[f32], threshold: u32, ties: u64) -> Vec<u32> {
        let (mut taken, mut ties) = (Vec::new(), ties);
        for (block, values) in values.chunks(BLOCK).enumerate() {
            for i in set_bits(at_least::<A::Floats>(values, threshold)) {
                let is_tied = key(values[i]) == threshold;
                if is_tied && ties == 0 {
                    continue;
                }
                ties -= u64::from(is_tied);
                taken.push((block * BLOCK + i) as u32);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The indices of the k largest, ties to the lowest index: by sorting.
    fn sorted(values: &[f32], k: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..values.len() as u32).collect();
        order.sort_by(|a, b| values[*b as usize].abs().total_cmp(&values[*a as usize].abs()).then(a.cmp(b)));
        order.truncate(k);
        order.sort_unstable();
        order
    }

    fn selected(isa: Isa, values: &[f32], k: usize) -> Vec<u32> {
        let mut search = Search::new(k as u64);
        while search.threshold().is_none() {
            // In two halves, as chunks are.
            let (a, b) = values.split_at(values.len() / 2);
            let (a, b) = (search.count(isa, a), search.count(isa, b));
            let counts: Vec<u64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            search.narrow(&counts);
        }
        let Threshold { key, ties, tied } = search.threshold().unwrap();
        let at = beyond(isa, values, key);
        assert_eq!(at.tied, tied);
        let larger: f64 =
            values.iter().map(|x| f64::from(x.abs())).filter(|x| *x > f64::from(f32::from_bits(key))).sum();
        assert!((at.sum - larger).abs() <= 1e-12 * larger);
        take(isa, values, key, ties)
    }

    #[test]
    fn the_same_as_by_sorting() {
        let mut state = 7u32;
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for isa in Isa::available() {
            for len in [1usize, 2, 63, 64, 65, 257, 1001] {
                let any: Vec<f32> = (0..len).map(|_| f32::from_bits(draw() << 7)).collect();
                let any: Vec<f32> = any.into_iter().map(|x| if x.is_finite() { x } else { 3e38 }).collect();
                let few: Vec<f32> = (0..len).map(|_| (draw() % 5) as f32 - 2.0).collect();
                let near: Vec<f32> =
                    (0..len).map(|_| -f32::from_bits(0x3f80_0000 | (draw() % 700))).collect();
                for values in [any, few, near, vec![1.5; len], vec![0.0; len]] {
                    for k in [1, 2, len / 2, len - 1, len].into_iter().filter(|k| (1..=len).contains(k)) {
                        assert_eq!(selected(isa, &values, k), sorted(&values, k), "{k} of {len} on {isa}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_sample_says_where_to_look() {
        let random = |len: u32| (0..len).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761) >> 2) - 1.0);
        let values: Vec<f32> = random(100_000).collect();
        let tied: Vec<f32> = (0..100_000).map(|i| [1.0, -1.0, 2.0][i % 3]).collect();
        for isa in Isa::available() {
            for (values, k) in
                [(&values, 1), (&values, 1000), (&values, 99_999), (&tied, 50_000), (&tied, 10)]
            {
                let range = likely(&count_sample(&values[..10_000]), k, values.len() as u64);
                let mut keys = Vec::new();
                let beyond = narrow_down(isa, values, &range, &mut keys, usize::MAX);
                let mut search = Search::new(k);
                while search.threshold().is_none() {
                    search.narrow(&search.count(isa, values));
                }
                assert_eq!(threshold_among(keys.clone(), beyond, k), search.threshold(), "{k} {range:?}");
                // A search in the wrong range finds nothing.
                assert_eq!(threshold_among(keys, k, k), None);
            }
        }
    }
}
