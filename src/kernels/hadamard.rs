//! The Walsh-Hadamard transform, and the random signs that make a rotation of it.
//!
//! The fast transform (Fino and Algazi, Unified matrix treatment of the fast Walsh-Hadamard transform, 1976), which is
//! not normalised: done twice it multiplies by the number of values. Sums are added stage by stage, first
//! those of neighbours, then of pairs of them: of `a` before `b` they make `a + b` and `a - b`. Nothing else is done to
//! a value, and every sum is rounded exactly, so all instruction sets and devices give the same bits, if no
//! value is so small that a device may take it for zero: see [`scaled`].
//!
//! Agreement: bits.

use crate::kernels::dispatch;
use crate::kernels::lanes::{FLOATS, Floats};

/// The most values of a transform.
pub const MOST_VALUES: usize = 65_536;
/// What is smaller than this part of the largest is dropped by [`scaled`].
const DROPPED: f32 = 1.0 / (1u64 << 60) as f32;

dispatch! {
    /// Transforms the values, in place. Their number is a power of two, at most [`MOST_VALUES`].
    pub fn hadamard<A: Arch>(values: &mut [f32]) {
        if values.len() < FLOATS {
            return few(values);
        }
        let vectors = values.as_chunks_mut::<FLOATS>().0;
        for vector in &mut *vectors {
            A::Floats::of(vector).among_lanes().put(vector);
        }
        let mut stride = 1;
        while 4 * stride <= vectors.len() {
            for group in vectors.chunks_exact_mut(4 * stride) {
                four_at::<A::Floats>(group, stride);
            }
            stride *= 4;
        }
        if 2 * stride <= vectors.len() {
            let (first, second) = vectors.split_at_mut(stride);
            for (a, b) in first.iter_mut().zip(second) {
                let (sum, difference) = A::Floats::of(a).sum_and_difference(A::Floats::of(b));
                sum.put(a);
                difference.put(b);
            }
        }
    }
}

/// Two stages, of vectors `stride` and `2 * stride` apart, of which the group has four.
#[inline(always)]
fn four_at<F: Floats + Butterfly>(group: &mut [[f32; FLOATS]], stride: usize) {
    let (low, high) = group.split_at_mut(2 * stride);
    let ((a, b), (c, d)) = (low.split_at_mut(stride), high.split_at_mut(stride));
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        let (ab, a_b) = F::of(a).sum_and_difference(F::of(b));
        let (cd, c_d) = F::of(c).sum_and_difference(F::of(d));
        let (first, third) = ab.sum_and_difference(cd);
        let (second, fourth) = a_b.sum_and_difference(c_d);
        first.put(a);
        second.put(b);
        third.put(c);
        fourth.put(d);
    }
}

/// The transform of fewer values than a vector has.
fn few(values: &mut [f32]) {
    let mut stride = 1;
    while stride < values.len() {
        for pair in values.chunks_exact_mut(2 * stride) {
            let (first, second) = pair.split_at_mut(stride);
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        stride *= 2;
    }
}

dispatch! {
    /// Flips the sign of each value whose bit is set: the lowest bit of the first word is the first value's.
    pub fn flip_signs<A: Arch>(words: &[u32], values: &mut [f32]) {
        for (values, word) in values.chunks_mut(32).zip(words) {
            for (i, x) in values.iter_mut().enumerate() {
                *x = f32::from_bits(x.to_bits() ^ (*word << (31 - i) & 0x8000_0000));
            }
        }
    }
}

dispatch! {
    /// Divides the values by the power of two that brings the largest magnitude into [1, 2), and makes zeros of those that
    /// are then below 2^-60: so no sum of a transform of them is subnormal, and none overflows. Returns the exponent
    /// of that power; none, and changes nothing, if all values are zero. Values are finite.
    pub fn scaled<A: Arch>(values: &mut [f32]) -> Option<i32> {
        let mut bits = 0u32;
        for x in values.iter() {
            bits = bits.max(x.to_bits() & 0x7fff_ffff);
        }
        if bits == 0 {
            return None;
        }
        let exponent = exponent(bits);
        // One factor may be no f32; half of it is, and what the first product rounds is dropped.
        let (first, second) = (power_of_two(-exponent / 2), power_of_two(-exponent - -exponent / 2));
        for x in values.iter_mut() {
            let scaled = *x * first * second;
            *x = if scaled.abs() < DROPPED { 0.0 } else { scaled };
        }
        Some(exponent)
    }
}

/// The exponent of a positive finite float, given its bits.
fn exponent(bits: u32) -> i32 {
    // As f64 none is subnormal.
    ((f64::from(f32::from_bits(bits)).to_bits() >> 52) as i32) - 1023
}

/// `2^exponent`, for exponents of normal floats.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// What a stage does to vectors of sixteen floats. Like those of [`Floats`], methods stay inside code entered through
/// `dispatch!`.
pub trait Butterfly: Copy {
    /// The sixteen floats.
    fn of(floats: &[f32; FLOATS]) -> Self;
    /// Writes them.
    fn put(self, floats: &mut [f32; FLOATS]);
    /// `self + other` and `self - other`.
    fn sum_and_difference(self, other: Self) -> (Self, Self);
    /// The four stages among the lanes.
    fn among_lanes(self) -> Self;
}

impl Butterfly for [f32; FLOATS] {
    #[inline(always)]
    fn of(floats: &[f32; FLOATS]) -> Self {
        *floats
    }
    #[inline(always)]
    fn put(self, floats: &mut [f32; FLOATS]) {
        *floats = self;
    }
    #[inline(always)]
    fn sum_and_difference(self, other: Self) -> (Self, Self) {
        let (mut sum, mut difference) = (self, self);
        for lane in 0..FLOATS {
            sum[lane] += other[lane];
            difference[lane] -= other[lane];
        }
        (sum, difference)
    }
    #[inline(always)]
    fn among_lanes(mut self) -> Self {
        few(&mut self);
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Butterfly, FLOATS};
    use std::arch::x86_64::*;

    impl Butterfly for [__m256; 2] {
        #[inline(always)]
        fn of(floats: &[f32; FLOATS]) -> Self {
            // SAFETY: both are sixteen floats.
            unsafe { std::mem::transmute(*floats) }
        }
        #[inline(always)]
        fn put(self, floats: &mut [f32; FLOATS]) {
            // SAFETY: both are sixteen floats.
            *floats = unsafe { std::mem::transmute::<Self, [f32; FLOATS]>(self) };
        }
        #[inline(always)]
        fn sum_and_difference(self, other: Self) -> (Self, Self) {
            let ([a, b], [c, d]) = (self, other);
            // SAFETY: the set was detected (see the trait).
            unsafe {
                let sum = [_mm256_add_ps(a, c), _mm256_add_ps(b, d)];
                (sum, [_mm256_sub_ps(a, c), _mm256_sub_ps(b, d)])
            }
        }
        #[inline(always)]
        fn among_lanes(self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe {
                let (a, b) = (among_eight(self[0]), among_eight(self[1]));
                [_mm256_add_ps(a, b), _mm256_sub_ps(a, b)]
            }
        }
    }

    /// Three stages among eight lanes. In each, a lane meets its partner; the second of a pair is taken from the first.
    #[inline(always)]
    unsafe fn among_eight(x: __m256) -> __m256 {
        // SAFETY: the caller has the set.
        unsafe {
            let other = _mm256_permute_ps::<0b1011_0001>(x);
            let x = _mm256_blend_ps::<0b1010_1010>(_mm256_add_ps(other, x), _mm256_sub_ps(other, x));
            let other = _mm256_permute_ps::<0b0100_1110>(x);
            let x = _mm256_blend_ps::<0b1100_1100>(_mm256_add_ps(other, x), _mm256_sub_ps(other, x));
            let other = _mm256_permute2f128_ps::<0b0000_0001>(x, x);
            _mm256_blend_ps::<0b1111_0000>(_mm256_add_ps(other, x), _mm256_sub_ps(other, x))
        }
    }

    impl Butterfly for __m512 {
        #[inline(always)]
        fn of(floats: &[f32; FLOATS]) -> Self {
            // SAFETY: both are sixteen floats.
            unsafe { std::mem::transmute(*floats) }
        }
        #[inline(always)]
        fn put(self, floats: &mut [f32; FLOATS]) {
            // SAFETY: both are sixteen floats.
            *floats = unsafe { std::mem::transmute::<Self, [f32; FLOATS]>(self) };
        }
        #[inline(always)]
        fn sum_and_difference(self, other: Self) -> (Self, Self) {
            // SAFETY: the set was detected (see the trait).
            unsafe { (_mm512_add_ps(self, other), _mm512_sub_ps(self, other)) }
        }
        #[inline(always)]
        fn among_lanes(self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe {
                let x = stage::<0xaaaa>(self, _mm512_permute_ps::<0b1011_0001>(self));
                let x = stage::<0xcccc>(x, _mm512_permute_ps::<0b0100_1110>(x));
                let x = stage::<0xf0f0>(x, _mm512_shuffle_f32x4::<0b1011_0001>(x, x));
                stage::<0xff00>(x, _mm512_shuffle_f32x4::<0b0100_1110>(x, x))
            }
        }
    }

    /// A stage among lanes, given each lane's partner; the mask has the second of each pair.
    #[inline(always)]
    unsafe fn stage<const SECONDS: u16>(x: __m512, other: __m512) -> __m512 {
        // SAFETY: the caller has the set.
        unsafe { _mm512_mask_sub_ps(_mm512_add_ps(other, x), SECONDS, other, x) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7_919 % 997) as f32 / 499.0 - 1.0) * [1.0, 1e-3, 40.0][i % 3]).collect()
    }

    /// Stage by stage, as the head says.
    fn staged(mut values: Vec<f32>) -> Vec<f32> {
        let mut stride = 1;
        while stride < values.len() {
            let stage = |i: usize| match i & stride {
                0 => values[i] + values[i + stride],
                _ => values[i - stride] - values[i],
            };
            values = (0..values.len()).map(stage).collect();
            stride *= 2;
        }
        values
    }

    #[test]
    fn bits_are_those_of_the_stages_on_every_isa() {
        for len in (0..=16).map(|k| 1usize << k) {
            let expected = staged(values(len));
            for isa in Isa::available() {
                let mut found = values(len);
                hadamard(isa, &mut found);
                let at = found.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits());
                assert_eq!(at, None, "{len} values on {isa}");
            }
        }
        hadamard(Isa::detect(), &mut []);
    }

    /// The definition: row `i` and column `j` of the matrix is -1 to the number of bits that both have.
    #[test]
    fn values_are_those_of_the_matrix() {
        for len in [1, 2, 8, 16, 64, 512] {
            let (values, mut found) = (values(len), values(len));
            hadamard(Isa::detect(), &mut found);
            for (i, found) in found.iter().enumerate() {
                let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                let want: f64 = values.iter().enumerate().map(|(j, x)| sign(j) * f64::from(*x)).sum();
                assert!((f64::from(*found) - want).abs() < 1e-3, "{i} of {len}: {found}, expected {want}");
            }
        }
    }

    #[test]
    fn signs_flip_by_bits() {
        for isa in Isa::available() {
            for len in [0, 1, 31, 32, 33, 65, 257] {
                let words: Vec<u32> = (0..9).map(|i: u32| i.wrapping_mul(0x9e37_79b9) ^ 1).collect();
                let (before, mut after) = (values(len), values(len));
                flip_signs(isa, &words, &mut after);
                for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                    let flips = words[i / 32] >> (i % 32) & 1 == 1;
                    assert_eq!(after.to_bits(), if flips { -before } else { *before }.to_bits());
                }
            }
        }
    }

    #[test]
    fn scaled_is_exact_and_keeps_what_counts() {
        for isa in Isa::available() {
            for largest in [f32::from_bits(1), 1e-40, f32::MIN_POSITIVE, 0.75, 1.0, 3.0, f32::MAX] {
                let values: Vec<f32> = (0..80).map(|k| -largest * 0.5f32.powi(k)).collect();
                let mut found = values.clone();
                let exponent = scaled(isa, &mut found).unwrap();
                assert!((1.0..2.0).contains(&found[0].abs()), "{largest:e} on {isa}: {}", found[0]);
                for (x, found) in values.iter().zip(found) {
                    let exact = f64::from(*x) * 2f64.powi(-exponent);
                    let kept = exact.abs() >= 2f64.powi(-60);
                    assert_eq!(f64::from(found), if kept { exact } else { 0.0 }, "{x:e} of {largest:e}");
                }
            }
            assert_eq!(scaled(isa, &mut [0.0; 5]), None);
            assert_eq!(scaled(isa, &mut []), None);
        }
    }
}
