//! The Walsh-Hadamard transform, and random signs, which turn it into a rotation.
//!
//! The fast transform (Fino and Algazi, Unified matrix treatment of the fast Walsh-Hadamard transform, 1976) is not
//! normalised: applied twice, it multiplies by the number of values. Its stages turn `a` and a later `b` into `a + b`
//! and `a - b`, first for neighbours, then for pairs of them, and so on. Each value takes part in correctly rounded
//! sums only. So all instruction sets and devices give the same bits, unless a device flushes a small value: see
//! [`scaled`].
//!
//! Agreement: bits.

use crate::kernels::dispatch;
use crate::kernels::lanes::{FLOATS, Floats};

/// [`scaled`] replaces values below this part of the largest by zero.
const DROPPED: f32 = 1.0 / (1u64 << 60) as f32;

dispatch! {
    /// Transforms the values, in place. Their number is a power of two.
    pub fn hadamard<A: Arch>(values: &mut [f32]) {
        transform::<A::Floats, false>(&[], values);
    }
}

dispatch! {
    /// Flips signs as [`flip_signs`] does, then transforms. There is a bit for every value.
    pub fn flipped_hadamard<A: Arch>(words: &[u32], values: &mut [f32]) {
        transform::<A::Floats, true>(words, values);
    }
}

#[inline(always)]
fn transform<F: Floats + Butterfly, const FLIPS: bool>(words: &[u32], values: &mut [f32]) {
    if values.len() < 4 * FLOATS {
        if FLIPS {
            flip(words, values);
        }
        if values.len() < FLOATS {
            return few(values);
        }
    }
    let vectors = values.as_chunks_mut::<FLOATS>().0;
    let mut stride = among_neighbours::<F, FLIPS>(words, vectors);
    while 4 * stride <= vectors.len() {
        for group in 0..vectors.len() / (4 * stride) {
            four_at::<F>(&mut vectors[group * 4 * stride..(group + 1) * 4 * stride], stride);
        }
        stride *= 4;
    }
    if 2 * stride <= vectors.len() {
        let (first, second) = vectors.split_at_mut(stride);
        for i in 0..stride {
            let (sum, difference) = F::of(&first[i]).sum_and_difference(F::of(&second[i]));
            sum.put(&mut first[i]);
            difference.put(&mut second[i]);
        }
    }
}

/// The stages within vectors, and within groups of four vectors if there are four, whose signs it then flips before.
/// Returns the distance of the vectors that the next stage combines.
#[inline(always)]
fn among_neighbours<F: Floats + Butterfly, const FLIPS: bool>(
    words: &[u32],
    vectors: &mut [[f32; FLOATS]],
) -> usize {
    if vectors.len() < 4 {
        for vector in &mut *vectors {
            F::of(vector).among_lanes().put(vector);
        }
        return 1;
    }
    let groups = vectors.as_chunks_mut::<4>().0;
    let words = if FLIPS { &words[..2 * groups.len()] } else { words };
    for (group, [a, b, c, d]) in groups.iter_mut().enumerate() {
        let mut four = [F::of(a), F::of(b), F::of(c), F::of(d)];
        if FLIPS {
            let (low, high) = (words[2 * group], words[2 * group + 1]);
            four[0] = four[0].flipped(low as u16);
            four[1] = four[1].flipped((low >> 16) as u16);
            four[2] = four[2].flipped(high as u16);
            four[3] = four[3].flipped((high >> 16) as u16);
        }
        let [first, second, third, fourth] = four;
        let (first, second) = (first.among_lanes(), second.among_lanes());
        let four = met([first, second, third.among_lanes(), fourth.among_lanes()]);
        four[0].put(a);
        four[1].put(b);
        four[2].put(c);
        four[3].put(d);
    }
    4
}

/// Two stages of four vectors.
#[inline(always)]
fn met<F: Floats + Butterfly>([a, b, c, d]: [F; 4]) -> [F; 4] {
    let (ab, a_b) = a.sum_and_difference(b);
    let (cd, c_d) = c.sum_and_difference(d);
    let (first, third) = ab.sum_and_difference(cd);
    let (second, fourth) = a_b.sum_and_difference(c_d);
    [first, second, third, fourth]
}

/// Two stages on a group of four parts with `stride` vectors each.
#[inline(always)]
fn four_at<F: Floats + Butterfly>(group: &mut [[f32; FLOATS]], stride: usize) {
    let (low, high) = group.split_at_mut(2 * stride);
    let ((a, b), (c, d)) = (low.split_at_mut(stride), high.split_at_mut(stride));
    let (c, d) = (&mut c[..stride], &mut d[..stride]);
    for i in 0..stride {
        let four = met([F::of(&a[i]), F::of(&b[i]), F::of(&c[i]), F::of(&d[i])]);
        four[0].put(&mut a[i]);
        four[1].put(&mut b[i]);
        four[2].put(&mut c[i]);
        four[3].put(&mut d[i]);
    }
}

/// The transform of fewer values than a vector holds.
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
    /// Flips the sign of each value whose bit is set. The lowest bit of the first word belongs to the first value.
    pub fn flip_signs<A: Arch>(words: &[u32], values: &mut [f32]) {
        flip(words, values);
    }
}

/// Values per word.
const BITS: usize = u32::BITS as usize;

#[inline(always)]
fn flip(words: &[u32], values: &mut [f32]) {
    for (values, word) in values.chunks_mut(BITS).zip(words) {
        for (bit, x) in values.iter_mut().enumerate() {
            *x = flipped(*x, *word, bit);
        }
    }
}

/// A value, with its sign flipped if the word's bit is set.
#[inline(always)]
fn flipped(x: f32, word: u32, bit: usize) -> f32 {
    f32::from_bits(x.to_bits() ^ (word << (31 - bit) & 0x8000_0000))
}

dispatch! {
    /// Flips signs as [`flip_signs`] does, multiplies by one factor and then by the other, and clamps to finite
    /// numbers. Fills `out` from the first values.
    pub fn flipped_products<A: Arch>(words: &[u32], values: &[f32], factors: [f32; 2], out: &mut [f32]) {
        for ((values, out), word) in values.chunks(BITS).zip(out.chunks_mut(BITS)).zip(words) {
            for (bit, (x, out)) in values.iter().zip(out).enumerate() {
                let x = flipped(*x, *word, bit) * factors[0] * factors[1];
                *out = x.clamp(f32::MIN, f32::MAX);
            }
        }
    }
}

dispatch! {
    /// Divides the values by the power of two that brings the largest magnitude into [1, 2), and replaces those then
    /// below 2^-60 by zero. So a transform of them has no subnormal sum and no overflow. Returns the exponent of that
    /// power. If all values are zero, returns `None` and changes nothing. Values must be finite.
    pub fn scaled<A: Arch>(values: &mut [f32]) -> Option<i32> {
        let mut bits = 0u32;
        for x in values.iter() {
            bits = bits.max(x.to_bits() & 0x7fff_ffff);
        }
        if bits == 0 {
            return None;
        }
        let exponent = exponent(bits);
        // The factor may not fit f32, but both of its parts do. A value that the first product rounds becomes zero.
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
    // No f32 is subnormal as f64.
    ((f64::from(f32::from_bits(bits)).to_bits() >> 52) as i32) - 1023
}

/// `2^exponent`, for exponents of normal floats.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// A stage on vectors of sixteen floats. As for [`Floats`], call the methods only in code entered through `dispatch!`.
pub trait Butterfly: Copy {
    /// The vector of sixteen floats.
    fn of(floats: &[f32; FLOATS]) -> Self;
    /// Writes the sixteen floats.
    fn put(self, floats: &mut [f32; FLOATS]);
    /// `self + other` and `self - other`.
    fn sum_and_difference(self, other: Self) -> (Self, Self);
    /// The four stages among the lanes.
    fn among_lanes(self) -> Self;
    /// The vector with the signs of the lanes flipped whose bit is set; the lowest bit is that of the first lane.
    fn flipped(self, bits: u16) -> Self;
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
    #[inline(always)]
    fn flipped(mut self, bits: u16) -> Self {
        for (lane, x) in self.iter_mut().enumerate() {
            *x = flipped(*x, u32::from(bits), lane);
        }
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
        #[inline(always)]
        fn flipped(self, bits: u16) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe {
                // Brings the bit of each lane to the place of its sign.
                let places = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
                let [low, high] = [u32::from(bits), u32::from(bits >> 8)].map(|bits| {
                    let bits = _mm256_sllv_epi32(_mm256_set1_epi32(bits as i32), places);
                    _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(i32::MIN)))
                });
                [_mm256_xor_ps(self[0], low), _mm256_xor_ps(self[1], high)]
            }
        }
    }

    /// Three stages among eight lanes. In each, a lane is combined with its partner: the first of a pair gets the sum,
    /// the second the difference. Multiplying by minus one is exact, so sum and difference are rounded alike.
    #[inline(always)]
    unsafe fn among_eight(x: __m256) -> __m256 {
        // SAFETY: the caller has the set.
        unsafe {
            let x = _mm256_fmadd_ps(x, EIGHT_SIGNS[0], _mm256_permute_ps::<0b1011_0001>(x));
            let x = _mm256_fmadd_ps(x, EIGHT_SIGNS[1], _mm256_permute_ps::<0b0100_1110>(x));
            _mm256_fmadd_ps(x, EIGHT_SIGNS[2], _mm256_permute2f128_ps::<0b0000_0001>(x, x))
        }
    }

    // SAFETY: both sides have the same number of floats.
    const EIGHT_SIGNS: [__m256; 3] = unsafe { std::mem::transmute([signs::<8>(1), signs(2), signs(4)]) };
    // SAFETY: both sides have the same number of floats.
    const SIGNS: [__m512; 4] =
        unsafe { std::mem::transmute([signs::<FLOATS>(1), signs(2), signs(4), signs(8)]) };

    /// Minus one in the second lane of each pair of lanes `stride` apart, and one in the first.
    const fn signs<const LANES: usize>(stride: usize) -> [f32; LANES] {
        let mut signs = [1.0; LANES];
        let mut lane = 0;
        while lane < LANES {
            if lane & stride != 0 {
                signs[lane] = -1.0;
            }
            lane += 1;
        }
        signs
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
                // As among eight lanes.
                let x = _mm512_fmadd_ps(self, SIGNS[0], _mm512_permute_ps::<0b1011_0001>(self));
                let x = _mm512_fmadd_ps(x, SIGNS[1], _mm512_permute_ps::<0b0100_1110>(x));
                let x = _mm512_fmadd_ps(x, SIGNS[2], _mm512_shuffle_f32x4::<0b1011_0001>(x, x));
                _mm512_fmadd_ps(x, SIGNS[3], _mm512_shuffle_f32x4::<0b0100_1110>(x, x))
            }
        }
        #[inline(always)]
        fn flipped(self, bits: u16) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe {
                let x = _mm512_castps_si512(self);
                _mm512_castsi512_ps(_mm512_mask_xor_epi32(x, bits, x, _mm512_set1_epi32(i32::MIN)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7_919 % 997) as f32 / 499.0 - 1.0) * [1.0, 1e-3, 40.0][i % 3]).collect()
    }

    /// The definition, stage by stage.
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

    /// The definition: the entry at row `i` and column `j` is -1 to the power of the number of bits that both share.
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
    fn fused_steps_are_those_of_each() {
        for isa in Isa::available() {
            for len in [1, 2, 16, 32, 64, 4096] {
                let words: Vec<u32> = (0..128).map(|i: u32| i.wrapping_mul(0x9e37_79b9) ^ 1).collect();
                let (mut expected, mut found) = (values(len), values(len));
                flip_signs(isa, &words, &mut expected);
                hadamard(isa, &mut expected);
                flipped_hadamard(isa, &words, &mut found);
                assert_eq!(found, expected, "{len} values on {isa}");
                let mut out = vec![0.0; len.div_ceil(2)];
                flipped_products(isa, &words, &found, [3.0, 1e38], &mut out);
                flip_signs(isa, &words, &mut expected);
                let product = |x: &f32| (x * 3.0 * 1e38).clamp(f32::MIN, f32::MAX);
                let expected: Vec<f32> = expected[..out.len()].iter().map(product).collect();
                assert_eq!(out, expected, "{len} values on {isa}");
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
