//! A histogram of a vector's magnitudes with 2048 bins, an eighth of an octave each.
//!
//! The bin of a value is the top eleven bits below its sign, so the kernel needs no step and no range. A bin has its
//! number of values, the sum of their magnitudes and the sum of their squares. The energy of the k largest values, and
//! the bits and error of any uniform quantizer, follow from these without another pass. The planner of a byte budget
//! uses them.
//!
//! Within a chunk all sums are of integers. Agreement: bits. [`cells`] estimates the cost and error of quantizers.

pub mod cells;

use crate::kernels::dispatch;

/// Bins of a histogram.
pub const BINS: usize = 2048;

/// Bits of a float below those of its bin.
const LOW_BITS: u32 = 20;

/// Tables that are filled in turn, so that a value does not wait for the value before it.
const SIDE_BY_SIDE: usize = 4;

/// Values for which a bin's integer sums have room.
const ROOM: usize = 1 << 20;

/// A histogram of magnitudes.
#[derive(Clone, PartialEq, Debug)]
pub struct Magnitudes {
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// The sum of their magnitudes.
    pub sums: Vec<f64>,
    /// The sum of their squares.
    pub squares: Vec<f64>,
}

/// A bin while it fills: the number of values and the sum of their low bits in one word, and the sum of those bits'
/// squares.
#[derive(Clone, Copy, Default)]
struct Filling {
    values: u64,
    squares: u64,
}

/// The amount that one value adds to [`Filling::values`], besides its low bits.
const ONE: u64 = 1 << 42;

dispatch! {
    fn fill<A: Arch>(values: &[f32], tables: &mut [[Filling; BINS]; SIDE_BY_SIDE]) -> () {
        let (fours, rest) = values.as_chunks::<SIDE_BY_SIDE>();
        for four in fours {
            for lane in 0..SIDE_BY_SIDE {
                add(&mut tables[lane], four[lane]);
            }
        }
        for x in rest {
            add(&mut tables[0], *x);
        }
    }
}

#[inline(always)]
fn add(table: &mut [Filling; BINS], x: f32) {
    let key = x.to_bits() & 0x7fff_ffff;
    let low = u64::from(key & ((1 << LOW_BITS) - 1));
    let bin = &mut table[(key >> LOW_BITS) as usize % BINS];
    bin.values += ONE + low;
    bin.squares += low * low;
}

/// The least magnitude of a bin. After the last finite bin, the number that would follow.
pub(super) fn edge(bin: usize) -> f64 {
    let least = f64::from(f32::from_bits((bin as u32) << LOW_BITS));
    if least.is_finite() { least } else { 2f64.powi(128) }
}

/// The value of the lowest bit in a bin.
fn unit(bin: usize) -> f64 {
    let exponent = (bin >> 3).max(1) as i32;
    2f64.powi(exponent - 150)
}

impl Default for Magnitudes {
    fn default() -> Self {
        Self { counts: vec![0; BINS], sums: vec![0.0; BINS], squares: vec![0.0; BINS] }
    }
}

impl Magnitudes {
    /// The histogram of finite values.
    pub fn of(isa: crate::kernels::lanes::Isa, values: &[f32]) -> Self {
        let mut all = Self::default();
        let mut tables = vec![[Filling::default(); BINS]; SIDE_BY_SIDE];
        for run in values.chunks(ROOM) {
            let Some(tables) = tables.first_chunk_mut() else { break };
            fill(isa, run, tables);
            for table in tables {
                all.empty(table);
            }
        }
        all
    }

    /// Moves the content of a filled table into the histogram.
    fn empty(&mut self, table: &mut [Filling; BINS]) {
        for (bin, filling) in table.iter_mut().enumerate().filter(|(_, filling)| filling.values != 0) {
            let count = filling.values / ONE;
            let (n, low, squares) = (count as f64, (filling.values % ONE) as f64, filling.squares as f64);
            let (edge, unit) = (edge(bin), unit(bin));
            self.counts[bin] += count;
            self.sums[bin] += n * edge + low * unit;
            self.squares[bin] += n * edge * edge + 2.0 * edge * unit * low + unit * unit * squares;
            *filling = Filling::default();
        }
    }

    /// Adds another histogram.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(all, more)| *all += more);
        self.sums.iter_mut().zip(&other.sums).for_each(|(all, more)| *all += more);
        self.squares.iter_mut().zip(&other.squares).for_each(|(all, more)| *all += more);
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all squares.
    pub fn energy(&self) -> f64 {
        self.squares.iter().sum()
    }

    /// An upper bound of the values; zero only if all are zero.
    pub fn largest(&self) -> f64 {
        match self.counts.iter().rposition(|count| *count > 0) {
            Some(bin) if self.sums[bin] > 0.0 => edge(bin + 1).min(f64::from(f32::MAX)),
            _ => 0.0,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    pub(in crate::kernels) fn samples(len: usize) -> Vec<f32> {
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / f64::from(1 << 24) + 1e-9
        };
        let normal = |u: f64, v: f64| (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        (0..len).map(|_| normal(uniform(), uniform()) as f32).collect()
    }

    #[test]
    fn bins_hold_what_plain_sums_say_on_every_isa() {
        let odd = [0.0f32, 1e-45, -3e-40, f32::MIN_POSITIVE, f32::MAX, -1.0, 1.0, 1.125];
        for values in [samples(0), samples(3), samples(65_537), odd.to_vec()] {
            let first = Magnitudes::of(Isa::detect(), &values);
            let mut plain = Magnitudes::default();
            for x in &values {
                let bin = (x.abs().to_bits() >> 20) as usize;
                plain.counts[bin] += 1;
                plain.sums[bin] += f64::from(x.abs());
                plain.squares[bin] += f64::from(*x).powi(2);
            }
            assert_eq!(first.counts, plain.counts);
            for (found, expected) in
                first.sums.iter().zip(&plain.sums).chain(first.squares.iter().zip(&plain.squares))
            {
                assert!((found - expected).abs() <= 1e-12 * expected, "{found} {expected}");
            }
            for isa in Isa::available() {
                assert_eq!(Magnitudes::of(isa, &values), first, "{isa}");
            }
        }
    }

    #[test]
    fn no_value_is_larger_than_the_largest_or_far_below_it() {
        let values = samples(20_000);
        let largest = f64::from(values.iter().fold(0.0, |most: f32, x| most.max(x.abs())));
        let found = Magnitudes::of(Isa::detect(), &values).largest();
        assert!(found >= largest && found < 1.13 * largest);
        assert_eq!(Magnitudes::of(Isa::detect(), &[0.0, 0.0]).largest(), 0.0);
    }
}
