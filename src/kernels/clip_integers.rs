//! Turns values into integers of a grid, clipped to a norm.
//!
//! All steps are exact, so the result is the same on every machine and in any order.
//!
//! The norm of an update bounds its effect on a sum. Floats do not keep that bound: sums and norms are rounded, and in
//! sums of many terms the rounding exceeds the contribution of a client (Casacuberta et al., "Widespread
//! underestimation of sensitivity in differentially private libraries and how to fix it", 2022). So nothing here adds
//! floats:
//!
//! 1. [`Squares`] is the exact sum of the squares of all values.
//! 2. From it follows the [`Scale`] at which the norm meets its bound.
//! 3. [`quantize`] makes integers: magnitude times scale, rounded toward zero, so no magnitude grows. It returns the exact
//!    sum of their squares, by which the caller verifies the norm. [`add_quantized`] also adds them to sums.
//!
//! Values are floats of any width, or their differences from a base in f64. A value below the smallest normal f64
//! counts as zero; every value of a narrower float counts. Agreement: bits.

use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::kernels::lanes::Arch;
use std::ops::RangeInclusive;

/// Bits of the significand of an f64, without the leading one.
const FRACTION: u32 = 52;
/// The exponent of infinity and NaN, as stored.
const NON_FINITE: u64 = 0x7ff;
/// A value is its significand of 53 bits, times two to the power of its stored exponent minus this.
const OFFSET: i32 = 1075;

/// The significand of a value's magnitude, a whole number of at most 53 bits, and its stored exponent.
#[inline(always)]
fn magnitude(bits: u64) -> (u64, u64) {
    let exponent = bits >> FRACTION & NON_FINITE;
    let significand = bits & ((1 << FRACTION) - 1) | 1 << FRACTION;
    (if exponent == 0 { 0 } else { significand }, exponent)
}

/// Two to the power of a normal f64's exponent.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << FRACTION)
}

/// The number of exponents that share a sum of squares, and the bits of an exponent within a window.
const WINDOW: usize = 8;
const WINDOW_BITS: u32 = WINDOW.ilog2();
const WINDOWS: usize = (NON_FINITE as usize + 1) / WINDOW;
/// Sums that are added to in turn, so that consecutive additions are independent.
const TURNS: usize = 4;

/// A sum of squares of up to 120 bits each: the value modulo 2^128, and the number of overflows.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Window {
    low: u128,
    high: u64,
}

impl Window {
    #[inline(always)]
    fn add(&mut self, low: u128, high: u64) {
        let (sum, is_over) = self.low.overflowing_add(low);
        self.low = sum;
        self.high += high + u64::from(is_over);
    }

    fn to_f64(self) -> f64 {
        self.high as f64 * power_of_two(128) + self.low as f64
    }
}

/// The exact sum of the squares of values: a whole number for each window of exponents. Sums of parts add up to the sum
/// of the whole, however it is cut.
#[derive(Clone, PartialEq, Debug)]
pub struct Squares {
    windows: Vec<Window>,
    largest_exponent: u64,
}

impl Default for Squares {
    fn default() -> Self {
        Self { windows: vec![Window::default(); WINDOWS], largest_exponent: 0 }
    }
}

impl Squares {
    /// Adds the squares of `row - base`. `base` is as long as `row`, or empty for zero.
    pub fn add<E: Element>(&mut self, row: &[E], base: &[f64]) {
        if base.is_empty() {
            self.add_values(row.len(), |i| row[i].widen());
        } else {
            let base = &base[..row.len()];
            self.add_values(row.len(), |i| row[i].widen() - base[i]);
        }
    }

    #[inline(always)]
    fn add_values(&mut self, len: usize, value: impl Fn(usize) -> f64) {
        let mut turns = [[Window::default(); WINDOWS]; TURNS];
        let mut largest = 0;
        for i in 0..len {
            let (significand, exponent) = magnitude(value(i).to_bits());
            let aligned = u128::from(significand << (exponent % WINDOW as u64));
            turns[i % TURNS][(exponent >> WINDOW_BITS) as usize % WINDOWS].add(aligned * aligned, 0);
            largest = largest.max(exponent);
        }
        self.largest_exponent = self.largest_exponent.max(largest);
        for turn in &turns {
            self.add_windows(turn);
        }
    }

    /// Adds the sum for other values.
    pub fn merge(&mut self, other: &Self) {
        self.largest_exponent = self.largest_exponent.max(other.largest_exponent);
        self.add_windows(&other.windows);
    }

    fn add_windows(&mut self, windows: &[Window]) {
        for (sum, window) in self.windows.iter_mut().zip(windows) {
            sum.add(window.low, window.high);
        }
    }

    /// Whether all values were finite.
    pub fn is_finite(&self) -> bool {
        self.largest_exponent < NON_FINITE
    }

    /// The root of the sum as a float, and a power of two as its factor, given as exponent. `None` if the sum is zero.
    fn root(&self) -> Option<(f64, i32)> {
        let top = self.windows.iter().rposition(|window| *window != Window::default())?;
        let mut sum = 0.0;
        for (window, squares) in self.windows[..=top].iter().enumerate() {
            // Windows far below the top change no bit.
            let apart = 2 * WINDOW as i32 * (window as i32 - top as i32);
            sum += squares.to_f64() * power_of_two(apart.max(-900));
        }
        Some((sum.sqrt(), (WINDOW * top) as i32 - OFFSET))
    }

    /// The L2 norm of the values, correct to the last bits of an f64. Infinite if it overflows f64. Meaningless if a
    /// value is not finite.
    pub fn norm(&self) -> f64 {
        // In two steps: a single power may leave the range of f64 although the norm does not.
        let scaled =
            |(root, power): (f64, i32)| root * power_of_two(power / 2) * power_of_two(power - power / 2);
        self.root().map_or(0.0, scaled)
    }

    /// The scale at which the norm is `bound`, rounded down; `None` if the norm is zero.
    pub fn scale_to(&self, bound: f64) -> Option<Scale> {
        self.root().map(|(root, power)| Scale::rounded_down(bound / root, -power))
    }
}

/// The factor from values to integers: `multiplier * 2^exponent`. The multiplier's highest bit is set, unless the
/// factor is zero. The derived order is that of the numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Scale {
    exponent: i32,
    multiplier: u32,
}

impl Scale {
    /// The scale zero: every integer is zero.
    pub const ZERO: Self = Self { exponent: i32::MIN, multiplier: 0 };

    /// The largest scale that is at most `x * 2^power`, for a finite `x`. Zero if `x` is not positive.
    pub fn rounded_down(x: f64, power: i32) -> Self {
        const DROPPED: u32 = FRACTION + 1 - u32::BITS;
        let (significand, exponent) = magnitude(x.to_bits());
        if significand == 0 || x < 0.0 {
            return Self::ZERO;
        }
        let exponent = exponent as i32 - OFFSET + DROPPED as i32 + power;
        Self { exponent, multiplier: (significand >> DROPPED) as u32 }
    }

    /// Its multiplier of 32 bits. The highest bit is set, unless the scale is zero.
    pub fn multiplier(self) -> u32 {
        self.multiplier
    }

    /// The exponent of the power of two beside the multiplier.
    pub fn exponent(self) -> i32 {
        self.exponent
    }

    /// A scale that is smaller by about 2^-12 of it.
    pub fn shrunk(self) -> Self {
        let less = self.multiplier - (self.multiplier >> 12);
        let zeros = less.leading_zeros();
        if less == 0 {
            return Self::ZERO;
        }
        Self { exponent: self.exponent - zeros as i32, multiplier: less << zeros }
    }

    /// The scale times a weight from zero to one, rounded down.
    pub fn weighted(self, weight: f64) -> Self {
        if self == Self::ZERO {
            return self;
        }
        Self::rounded_down(f64::from(self.multiplier) * weight, self.exponent).min(self)
    }

    /// The scale as a float, if products with it need a single rounding. `None` for zero and for extreme scales, at
    /// which subnormal values or products would matter.
    fn to_f64(self) -> Option<f64> {
        const MIDDLE: RangeInclusive<i32> = -900..=900;
        MIDDLE.contains(&self.exponent).then(|| f64::from(self.multiplier) * power_of_two(self.exponent))
    }

    /// The distance of values that become neighbouring integers: the inverse of the scale. The scale is within 2^-900
    /// and 2^900.
    pub fn unit(self) -> f64 {
        power_of_two(-self.exponent) / f64::from(self.multiplier)
    }
}

dispatch! {
    /// Writes the integers of `row - base` at a scale, rounded toward zero. Returns the sum of their squares, exactly
    /// or as the largest u128. `base` is as long as `row`, or empty for zero.
    ///
    /// Magnitudes of 2^51 or more, which are above every bound, may become other integers of that size.
    pub fn quantize<A: Arch, E: Element>(row: &[E], base: &[f64], scale: Scale, out: &mut [i64]) -> u128 {
        let out = &mut out[..row.len()];
        out.fill(0);
        each_block::<A, E>(row, base, scale, out)
    }
}

dispatch! {
    /// Adds the integers of [`quantize`] to sums, and returns the sum of their squares. The caller ensures that no sum
    /// overflows i64. That is so if the norms are within their bound.
    pub fn add_quantized<A: Arch, E: Element>(row: &[E], base: &[f64], scale: Scale, sums: &mut [i64]) -> u128 {
        each_block::<A, E>(row, base, scale, sums)
    }
}

/// Values in a block, which fits the first-level cache. The kernel adds their squares first, and then checks for
/// overflow.
const BLOCK: usize = 2048;

/// Adds the integers of a row to sums, block by block.
#[inline(always)]
fn each_block<A: Arch, E: Element>(row: &[E], base: &[f64], scale: Scale, sums: &mut [i64]) -> u128 {
    let sums = &mut sums[..row.len()];
    let mut squares = 0u128;
    let mut start = 0;
    while start < row.len() {
        let block = start..row.len().min(start + BLOCK);
        let (row, sums) = (&row[block.clone()], &mut sums[block.clone()]);
        let more = if base.is_empty() {
            add_block::<A>(row.len(), |i| row[i].widen(), scale, sums)
        } else {
            let base = &base[block.clone()];
            add_block::<A>(row.len(), |i| row[i].widen() - base[i], scale, sums)
        };
        squares = squares.saturating_add(more);
        start = block.end;
    }
    squares
}

#[inline(always)]
fn add_block<A: Arch>(
    len: usize,
    value: impl Fn(usize) -> f64 + Copy,
    scale: Scale,
    sums: &mut [i64],
) -> u128 {
    match scale.to_f64() {
        Some(scale) if A::FUSES => add_values(len, value, |x| fused_magnitude(x, scale), sums),
        _ => add_values(len, value, |x| whole_magnitude(x, scale), sums),
    }
}

/// Adds the integers of up to [`BLOCK`] values to sums. Returns the sum of their squares.
#[inline(always)]
fn add_values(
    len: usize,
    value: impl Fn(usize) -> f64,
    magnitude: impl Fn(f64) -> u64,
    sums: &mut [i64],
) -> u128 {
    let sums = &mut sums[..len];
    let (mut squares, mut any) = (0u64, 0u64);
    for (i, sum) in sums.iter_mut().enumerate() {
        let x = value(i);
        let magnitude = magnitude(x);
        let sign = x.to_bits() as i64 >> 63;
        *sum = sum.wrapping_add((magnitude as i64 ^ sign) - sign);
        let low = magnitude & u64::from(u32::MAX);
        squares = squares.wrapping_add(low * low);
        any |= magnitude;
    }
    // The squares of a block of integers of 26 bits fit.
    const { assert!(BLOCK <= 1 << (u64::BITS - 2 * SMALL_BITS)) };
    if any >> SMALL_BITS == 0 { u128::from(squares) } else { sum_of_large_squares(len, value, magnitude) }
}

/// Bits of integers whose squares fit a block's sum without a check.
const SMALL_BITS: u32 = 26;

/// The sum of the squares, exactly or as the largest u128.
#[inline(always)]
fn sum_of_large_squares(len: usize, value: impl Fn(usize) -> f64, magnitude: impl Fn(f64) -> u64) -> u128 {
    let mut sum = 0u128;
    for i in 0..len {
        sum = sum.saturating_add(u128::from(magnitude(value(i))).pow(2));
    }
    sum
}

/// The magnitude of a value's integer, at a scale that fits f64.
///
/// Above 2^52 an f64 is an integer, so a fused multiply-add gives the integer nearest to the product. A second one
/// gives the sign of the rounding error. If the first rounded up, the kernel subtracts one.
#[inline(always)]
fn fused_magnitude(value: f64, scale: f64) -> u64 {
    const WHOLE: f64 = (1u64 << FRACTION) as f64;
    let value = value.abs();
    let nearest = value.mul_add(scale, WHOLE);
    let missing = value.mul_add(scale, -(nearest - WHOLE));
    let is_above = missing.to_bits() >> 63;
    nearest.to_bits().wrapping_sub(WHOLE.to_bits()).wrapping_sub(is_above)
}

/// The magnitude at any scale, by integer arithmetic. The product of significand and multiplier has 85 bits. The lowest
/// 32 are dropped before the rest of the shift, which does not change the result.
#[inline(always)]
fn whole_magnitude(value: f64, scale: Scale) -> u64 {
    let (significand, exponent) = magnitude(value.to_bits());
    let multiplier = u64::from(scale.multiplier);
    let (low, high) = (significand & u64::from(u32::MAX), significand >> 32);
    let product = high * multiplier + ((low * multiplier) >> 32);
    let shift = i64::from(OFFSET - 32) - i64::from(scale.exponent) - exponent as i64;
    product >> shift.clamp(0, 63)
}

#[cfg(test)]
mod tests;
