//! Vectors of sixteen floats on every instruction set.
//!
//! The order of additions in sums does not depend on the width of the machine's vectors.

/// Sixteen f32. The width is the same on every machine, so that sums have the same order of additions. As for
/// [`Lanes`](super::Lanes), call the methods only in code entered through `dispatch!`.
pub trait Floats: Copy {
    /// Sixteen f64.
    type Doubles: Doubles;
    /// Zeros.
    fn zero() -> Self;
    /// The sixteen floats at `from`.
    ///
    /// # Safety
    ///
    /// All sixteen must be readable.
    unsafe fn load(from: *const f32) -> Self;
    /// The lanes.
    fn lanes(self) -> [f32; FLOATS];
    /// `self - other`.
    fn minus(self, other: Self) -> Self;
    /// `self * other + sum`, rounded once.
    fn times_plus(self, other: Self, sum: Self) -> Self;
    /// The smaller float of each lane. Lanes hold numbers.
    fn lesser(self, other: Self) -> Self;
    /// The larger float of each lane. Lanes hold numbers.
    fn greater(self, other: Self) -> Self;
    /// The smallest of all lanes, which hold numbers.
    fn lowest(self) -> f32;
    /// The largest of all lanes, which hold numbers.
    fn highest(self) -> f32;
    /// The same numbers as f64.
    fn widen(self) -> Self::Doubles;
    /// One bit per lane: whether the bits of its magnitude are at least `key`, which is at most `1 << 31`.
    fn at_least(self, key: u32) -> u32;

    /// The sum of each vector's lanes, added as a tree: halves, then halves of those, and so on.
    #[inline(always)]
    fn sums_of<const N: usize>(vectors: [Self; N]) -> [f32; N] {
        let mut sums = [0.0; N];
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            let mut lanes = vector.lanes();
            for half in [8, 4, 2, 1] {
                for lane in 0..half {
                    lanes[lane] += lanes[lane + half];
                }
            }
            *sum = lanes[0];
        }
        sums
    }
}

/// Sixteen f64; the rules of [`Floats`] hold for them too.
pub trait Doubles: Copy {
    /// Zeros.
    fn zero() -> Self;
    /// The lanes.
    fn lanes(self) -> [f64; FLOATS];
    /// `self - other`.
    fn minus(self, other: Self) -> Self;
    /// `self + x * x`; the square is rounded before the addition.
    fn plus_square(self, x: Self) -> Self;
    /// `self + x * y` for numbers that were f32. Their product is exact, so fused or not there is one rounding.
    fn plus_exact(self, x: Self, y: Self) -> Self;
}

/// Lanes of [`Floats`].
pub const FLOATS: usize = 16;

/// The bits of an f32 without its sign.
pub(crate) const MAGNITUDE: u32 = 0x7fff_ffff;

impl Floats for [f32; FLOATS] {
    type Doubles = [f64; FLOATS];
    #[inline(always)]
    fn zero() -> Self {
        [0.0; FLOATS]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; any bits are floats.
        unsafe { from.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    fn lanes(self) -> [f32; FLOATS] {
        self
    }
    #[inline(always)]
    fn minus(mut self, other: Self) -> Self {
        for (x, y) in self.iter_mut().zip(other) {
            *x -= y;
        }
        self
    }
    #[inline(always)]
    fn times_plus(mut self, other: Self, sum: Self) -> Self {
        for ((x, y), sum) in self.iter_mut().zip(other).zip(sum) {
            *x = x.mul_add(y, sum);
        }
        self
    }
    #[inline(always)]
    fn lesser(mut self, other: Self) -> Self {
        for (x, y) in self.iter_mut().zip(other) {
            *x = if y < *x { y } else { *x };
        }
        self
    }
    #[inline(always)]
    fn greater(mut self, other: Self) -> Self {
        for (x, y) in self.iter_mut().zip(other) {
            *x = if y > *x { y } else { *x };
        }
        self
    }
    #[inline(always)]
    fn lowest(self) -> f32 {
        self.into_iter().fold(f32::INFINITY, f32::min)
    }
    #[inline(always)]
    fn highest(self) -> f32 {
        self.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn widen(self) -> [f64; FLOATS] {
        self.map(f64::from)
    }
    #[inline(always)]
    fn at_least(self, key: u32) -> u32 {
        let mut lanes = 0;
        for (lane, x) in self.iter().enumerate() {
            lanes |= u32::from(x.to_bits() & MAGNITUDE >= key) << lane;
        }
        lanes
    }
}

impl Doubles for [f64; FLOATS] {
    #[inline(always)]
    fn zero() -> Self {
        [0.0; FLOATS]
    }
    #[inline(always)]
    fn lanes(self) -> [f64; FLOATS] {
        self
    }
    #[inline(always)]
    fn minus(mut self, other: Self) -> Self {
        for (x, y) in self.iter_mut().zip(other) {
            *x -= y;
        }
        self
    }
    #[inline(always)]
    fn plus_square(mut self, x: Self) -> Self {
        for (sum, x) in self.iter_mut().zip(x) {
            *sum += x * x;
        }
        self
    }
    #[inline(always)]
    fn plus_exact(mut self, x: Self, y: Self) -> Self {
        for ((sum, x), y) in self.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Doubles, FLOATS, Floats, MAGNITUDE};
    use std::arch::x86_64::*;

    impl Floats for [__m256; 2] {
        type Doubles = [__m256d; 4];
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { [_mm256_setzero_ps(); 2] }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise; unaligned loads are allowed, and the set was detected.
            unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
        }
        #[inline(always)]
        fn lanes(self) -> [f32; FLOATS] {
            // SAFETY: both are sixteen floats, and any bits are floats.
            unsafe { std::mem::transmute(self) }
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { [_mm256_sub_ps(self[0], other[0]), _mm256_sub_ps(self[1], other[1])] }
        }
        #[inline(always)]
        fn times_plus(self, other: Self, sum: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe {
                [_mm256_fmadd_ps(self[0], other[0], sum[0]), _mm256_fmadd_ps(self[1], other[1], sum[1])]
            }
        }
        #[inline(always)]
        fn lesser(self, other: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { [_mm256_min_ps(self[0], other[0]), _mm256_min_ps(self[1], other[1])] }
        }
        #[inline(always)]
        fn greater(self, other: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { [_mm256_max_ps(self[0], other[0]), _mm256_max_ps(self[1], other[1])] }
        }
        #[inline(always)]
        fn lowest(self) -> f32 {
            // SAFETY: the set was detected (see the trait).
            let eight = unsafe { std::mem::transmute::<__m256, [f32; 8]>(_mm256_min_ps(self[0], self[1])) };
            eight.into_iter().fold(f32::INFINITY, f32::min)
        }
        #[inline(always)]
        fn highest(self) -> f32 {
            // SAFETY: the set was detected (see the trait).
            let eight = unsafe { std::mem::transmute::<__m256, [f32; 8]>(_mm256_max_ps(self[0], self[1])) };
            eight.into_iter().fold(f32::NEG_INFINITY, f32::max)
        }
        #[inline(always)]
        fn widen(self) -> [__m256d; 4] {
            // SAFETY: the set was detected (see the trait).
            let halves = self.map(|x| unsafe {
                let (low, high) = (_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                [_mm256_cvtps_pd(low), _mm256_cvtps_pd(high)]
            });
            [halves[0][0], halves[0][1], halves[1][0], halves[1][1]]
        }
        #[inline(always)]
        fn at_least(self, key: u32) -> u32 {
            // Compares as signed integers. Magnitudes are not negative, so a negative `below` is below all of them.
            let below = key.wrapping_sub(1) as i32;
            // SAFETY: the set was detected (see the trait).
            let lanes = self.map(|x| unsafe {
                let magnitudes =
                    _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(MAGNITUDE as i32));
                let larger = _mm256_cmpgt_epi32(magnitudes, _mm256_set1_epi32(below));
                _mm256_movemask_ps(_mm256_castsi256_ps(larger)) as u32
            });
            lanes[0] | lanes[1] << 8
        }
    }

    impl Doubles for [__m256d; 4] {
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { [_mm256_setzero_pd(); 4] }
        }
        #[inline(always)]
        fn lanes(self) -> [f64; FLOATS] {
            // SAFETY: both are sixteen floats, and any bits are floats.
            unsafe { std::mem::transmute(self) }
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            std::array::from_fn(|i| unsafe { _mm256_sub_pd(self[i], other[i]) })
        }
        #[inline(always)]
        fn plus_square(self, x: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            std::array::from_fn(|i| unsafe { _mm256_add_pd(self[i], _mm256_mul_pd(x[i], x[i])) })
        }
        #[inline(always)]
        fn plus_exact(self, x: Self, y: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            std::array::from_fn(|i| unsafe { _mm256_fmadd_pd(x[i], y[i], self[i]) })
        }
    }

    impl Doubles for [__m512d; 2] {
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { [_mm512_setzero_pd(); 2] }
        }
        #[inline(always)]
        fn lanes(self) -> [f64; FLOATS] {
            // SAFETY: both are sixteen floats, and any bits are floats.
            unsafe { std::mem::transmute(self) }
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            std::array::from_fn(|i| unsafe { _mm512_sub_pd(self[i], other[i]) })
        }
        #[inline(always)]
        fn plus_square(self, x: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            std::array::from_fn(|i| unsafe { _mm512_add_pd(self[i], _mm512_mul_pd(x[i], x[i])) })
        }
        #[inline(always)]
        fn plus_exact(self, x: Self, y: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            std::array::from_fn(|i| unsafe { _mm512_fmadd_pd(x[i], y[i], self[i]) })
        }
    }

    impl Floats for __m512 {
        type Doubles = [__m512d; 2];
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise; unaligned loads are allowed, and the set was detected.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        fn lanes(self) -> [f32; FLOATS] {
            // SAFETY: both are sixteen floats, and any bits are floats.
            unsafe { std::mem::transmute(self) }
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { _mm512_sub_ps(self, other) }
        }
        #[inline(always)]
        fn times_plus(self, other: Self, sum: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { _mm512_fmadd_ps(self, other, sum) }
        }
        #[inline(always)]
        fn lesser(self, other: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { _mm512_min_ps(self, other) }
        }
        #[inline(always)]
        fn greater(self, other: Self) -> Self {
            // SAFETY: the set was detected (see the trait).
            unsafe { _mm512_max_ps(self, other) }
        }
        #[inline(always)]
        fn lowest(self) -> f32 {
            // SAFETY: the set was detected (see the trait).
            unsafe { _mm512_reduce_min_ps(self) }
        }
        #[inline(always)]
        fn highest(self) -> f32 {
            // SAFETY: the set was detected (see the trait).
            unsafe { _mm512_reduce_max_ps(self) }
        }
        #[inline(always)]
        fn widen(self) -> [__m512d; 2] {
            // SAFETY: the set was detected (see the trait).
            unsafe {
                let high = _mm512_extractf32x8_ps::<1>(self);
                [_mm512_cvtps_pd(_mm512_castps512_ps256(self)), _mm512_cvtps_pd(high)]
            }
        }
        #[inline(always)]
        fn at_least(self, key: u32) -> u32 {
            // SAFETY: the set was detected (see the trait).
            unsafe {
                let magnitudes =
                    _mm512_and_si512(_mm512_castps_si512(self), _mm512_set1_epi32(MAGNITUDE as i32));
                u32::from(_mm512_cmpge_epu32_mask(magnitudes, _mm512_set1_epi32(key as i32)))
            }
        }
        /// Adds four vectors at a time, in the same tree, by a transposition that adds.
        #[inline(always)]
        fn sums_of<const N: usize>(vectors: [Self; N]) -> [f32; N] {
            let mut sums = [0.0; N];
            for (four, sums) in vectors.chunks(4).zip(sums.chunks_mut(4)) {
                let at = |i: usize| four[i.min(four.len() - 1)];
                // SAFETY: the set was detected (see the trait).
                let four = unsafe { sums_of_four(at(0), at(1), at(2), at(3)) };
                sums.copy_from_slice(&four[..sums.len()]);
            }
            sums
        }
    }

    /// The sums of the lanes of four vectors.
    #[inline(always)]
    unsafe fn sums_of_four(a: __m512, b: __m512, c: __m512, d: __m512) -> [f32; 4] {
        // SAFETY: the caller has the set; the result is four floats.
        unsafe {
            let ab = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
            let cd = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
            let quads =
                _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
            let pairs = _mm512_add_ps(quads, _mm512_permute_ps::<0b0100_1110>(quads));
            let ones = _mm512_add_ps(pairs, _mm512_permute_ps::<0b1011_0001>(pairs));
            let lanes: [f32; FLOATS] = std::mem::transmute(ones);
            [lanes[0], lanes[4], lanes[8], lanes[12]]
        }
    }
}
