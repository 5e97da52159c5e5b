//! Vectors of order-preserving integer keys, and the instruction sets they run on.
//!
//! Every order statistic compares integer keys, never floats: the same answer on every processor and
//! device, and no special cases for signed zeros. The key of a float is its bit pattern, with all bits but the
//! sign flipped when the sign is set, read as a signed integer: an order isomorphism from the
//! finite floats, and its own inverse.
//!
//! A kernel body is written once, generic over [`Arch`]; `dispatch!`
//! compiles it for each instruction set and picks one at run time by [`Isa`].

use crate::kernels::{chacha20::Words, hadamard::Butterfly, levels::Table};
use std::fmt;

/// An instruction set this processor was seen to have. Values for other sets cannot be made, which
/// is what makes calling into their code sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isa(IsaKind);

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IsaKind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        *Self::available().last().unwrap_or(&Self(IsaKind::Portable))
    }

    /// Every instruction set of this processor that kernels are compiled for, best last.
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Self(IsaKind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(Self(IsaKind::Avx2));
            }
            if is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                sets.push(Self(IsaKind::Avx512));
            }
        }
        sets
    }

    /// The instruction set of that name (`portable`, `avx2`, `avx512`), if this processor has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.to_string() == name)
    }

    pub(crate) fn kind(self) -> IsaKind {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            IsaKind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => "avx512",
        })
    }
}

/// Lanes of the widest vector.
pub(crate) const MAX_WIDTH: usize = 32;

/// A vector of keys. Minimum and maximum work lane by lane.
///
/// The methods of the x86 implementations use instructions of their set, so values of those types
/// stay inside code entered through `dispatch!`.
pub trait Lanes: Copy {
    /// The integer in each lane.
    type Key: bytemuck::Pod + Ord;
    /// Number of lanes.
    const WIDTH: usize;
    /// The lanes at the start of `keys`, which holds at least `WIDTH`.
    fn load(keys: &[Self::Key]) -> Self;
    /// Writes the lanes to the start of `keys`, which holds at least `WIDTH`.
    fn store(self, keys: &mut [Self::Key]);
    /// The same key in every lane.
    fn splat(key: Self::Key) -> Self;
    /// The smaller key of each lane.
    fn min(self, other: Self) -> Self;
    /// The larger key of each lane.
    fn max(self, other: Self) -> Self;
    /// Float bits to keys, and keys to float bits: all bits but the sign flip where the sign is set.
    fn flip(self) -> Self;
}

/// Sixteen f32, whatever the width of the machine's vectors, so that sums have one shape everywhere. Like those of
/// [`Lanes`], methods stay inside code entered through `dispatch!`.
pub trait Floats: Copy {
    /// Sixteen f64.
    type Doubles: Doubles;
    /// Zeros.
    fn zero() -> Self;
    /// The sixteen floats that `from` points at.
    ///
    /// # Safety
    ///
    /// All of them may be read.
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
    /// One bit a lane: whether the bits of its magnitude are at least those of `key`, which is at most `1 << 31`.
    fn at_least(self, key: u32) -> u32;

    /// The sum of each vector's lanes, added as a tree: the halves, the halves of that, and so on.
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

/// Sixteen f64, likewise.
pub trait Doubles: Copy {
    /// Zeros.
    fn zero() -> Self;
    /// The lanes.
    fn lanes(self) -> [f64; FLOATS];
    /// `self - other`.
    fn minus(self, other: Self) -> Self;
    /// `self + x * x`, the square rounded before it is added.
    fn plus_square(self, x: Self) -> Self;
    /// `self + x * y` of numbers that were f32, whose product is exact: it is rounded once, fused or not.
    fn plus_exact(self, x: Self, y: Self) -> Self;
}

/// Lanes of [`Floats`].
pub const FLOATS: usize = 16;

/// The bits of an f32 but its sign.
pub(crate) const MAGNITUDE: u32 = 0x7fff_ffff;

/// The vector types of one instruction set.
pub trait Arch {
    /// Whether a fused multiply-add is one instruction.
    const FUSES: bool;
    /// Sixteen floats.
    type Floats: Floats + Butterfly + Table;
    /// Sixteen words.
    type Words: Words;
    /// How many rows are worth holding against how many in a kernel over pairs of rows: `SQUARE * SQUARE` sums and
    /// as many rows have to fit the registers. Two or four.
    const SQUARE: usize;
    /// Keys of 16-bit floats.
    type I16: Lanes<Key = i16>;
    /// Keys of 32-bit floats.
    type I32: Lanes<Key = i32>;
    /// Keys of 64-bit floats.
    type I64: Lanes<Key = i64>;
}

/// What every Rust target can do: one lane.
pub(crate) struct Portable;

impl Arch for Portable {
    const FUSES: bool = false;
    const SQUARE: usize = 2;
    type Floats = [f32; FLOATS];
    type Words = [u32; FLOATS];
    type I16 = i16;
    type I32 = i32;
    type I64 = i64;
}

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

macro_rules! single_lane {
    ($key:ty) => {
        impl Lanes for $key {
            type Key = $key;
            const WIDTH: usize = 1;
            #[inline(always)]
            fn load(keys: &[$key]) -> Self {
                keys[0]
            }
            #[inline(always)]
            fn store(self, keys: &mut [$key]) {
                keys[0] = self;
            }
            #[inline(always)]
            fn splat(key: $key) -> Self {
                key
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                Ord::min(self, other)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                Ord::max(self, other)
            }
            #[inline(always)]
            fn flip(self) -> Self {
                self ^ ((self >> (<$key>::BITS - 1)) & <$key>::MAX)
            }
        }
    };
}
single_lane!(i16);
single_lane!(i32);
single_lane!(i64);

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Arch, Doubles, FLOATS, Floats, Lanes, MAGNITUDE};
    use std::arch::x86_64::*;

    pub(crate) struct Avx2;

    impl Arch for Avx2 {
        const FUSES: bool = true;
        const SQUARE: usize = 2;
        type Floats = [__m256; 2];
        type Words = [__m256i; 2];
        type I16 = Ymm16;
        type I32 = Ymm32;
        type I64 = Ymm64;
    }

    pub(crate) struct Avx512;

    impl Arch for Avx512 {
        const FUSES: bool = true;
        const SQUARE: usize = 4;
        type Floats = __m512;
        type Words = __m512i;
        type I16 = Zmm16;
        type I32 = Zmm32;
        type I64 = Zmm64;
    }

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
            // Magnitudes and what is below the key are signed numbers, of which those below zero are below all.
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
        /// Four vectors at a time: the same tree, as a transposition that adds.
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

    /// Implements [`Lanes`] for a register type from the intrinsics of its set.
    macro_rules! register_lanes {
        ($name:ident($register:ty), $key:ty, $load:ident, $store:ident, $splat:ident,
         $min:ident, $max:ident, $flip:ident) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name($register);

            impl Lanes for $name {
                type Key = $key;
                const WIDTH: usize = size_of::<$register>() / size_of::<$key>();

                #[inline(always)]
                fn load(keys: &[$key]) -> Self {
                    assert!(keys.len() >= Self::WIDTH);
                    // SAFETY: the slice holds a whole register, unaligned loads are allowed, and the
                    // set was detected (see the trait).
                    Self(unsafe { $load(keys.as_ptr().cast()) })
                }
                #[inline(always)]
                fn store(self, keys: &mut [$key]) {
                    assert!(keys.len() >= Self::WIDTH);
                    // SAFETY: as for `load`.
                    unsafe { $store(keys.as_mut_ptr().cast(), self.0) }
                }
                #[inline(always)]
                fn splat(key: $key) -> Self {
                    // SAFETY: the set was detected (see the trait).
                    Self(unsafe { $splat(key) })
                }
                #[inline(always)]
                fn min(self, other: Self) -> Self {
                    // SAFETY: the set was detected (see the trait).
                    Self(unsafe { $min(self.0, other.0) })
                }
                #[inline(always)]
                fn max(self, other: Self) -> Self {
                    // SAFETY: the set was detected (see the trait).
                    Self(unsafe { $max(self.0, other.0) })
                }
                #[inline(always)]
                fn flip(self) -> Self {
                    // SAFETY: the set was detected (see the trait).
                    Self(unsafe { $flip(self.0) })
                }
            }
        };
    }

    /// `flip` of [`Lanes`]: the sign spread over the lane, less its top bit, selects what to flip.
    macro_rules! flip {
        ($name:ident($register:ty), $sign:expr, $shift:ident, $xor:ident) => {
            #[inline(always)]
            unsafe fn $name(x: $register) -> $register {
                // SAFETY: the caller has the set.
                unsafe { $xor(x, $shift::<1>($sign(x))) }
            }
        };
    }
    flip!(flip_zmm16(__m512i), _mm512_srai_epi16::<15>, _mm512_srli_epi16, _mm512_xor_si512);
    flip!(flip_zmm32(__m512i), _mm512_srai_epi32::<31>, _mm512_srli_epi32, _mm512_xor_si512);
    flip!(flip_zmm64(__m512i), _mm512_srai_epi64::<63>, _mm512_srli_epi64, _mm512_xor_si512);
    flip!(flip_ymm16(__m256i), _mm256_srai_epi16::<15>, _mm256_srli_epi16, _mm256_xor_si256);
    flip!(flip_ymm32(__m256i), _mm256_srai_epi32::<31>, _mm256_srli_epi32, _mm256_xor_si256);
    flip!(flip_ymm64(__m256i), sign_ymm64, _mm256_srli_epi64, _mm256_xor_si256);

    // AVX2 compares signed 64-bit integers but neither shifts them arithmetically nor has a minimum.
    #[inline(always)]
    unsafe fn sign_ymm64(x: __m256i) -> __m256i {
        // SAFETY: the caller has the set.
        unsafe { _mm256_cmpgt_epi64(_mm256_setzero_si256(), x) }
    }
    #[inline(always)]
    unsafe fn min_ymm64(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has the set.
        unsafe { _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b)) }
    }
    #[inline(always)]
    unsafe fn max_ymm64(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has the set.
        unsafe { _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b)) }
    }

    register_lanes!(
        Zmm16(__m512i),
        i16,
        _mm512_loadu_epi16,
        _mm512_storeu_epi16,
        _mm512_set1_epi16,
        _mm512_min_epi16,
        _mm512_max_epi16,
        flip_zmm16
    );
    register_lanes!(
        Zmm32(__m512i),
        i32,
        _mm512_loadu_epi32,
        _mm512_storeu_epi32,
        _mm512_set1_epi32,
        _mm512_min_epi32,
        _mm512_max_epi32,
        flip_zmm32
    );
    register_lanes!(
        Zmm64(__m512i),
        i64,
        _mm512_loadu_epi64,
        _mm512_storeu_epi64,
        _mm512_set1_epi64,
        _mm512_min_epi64,
        _mm512_max_epi64,
        flip_zmm64
    );
    register_lanes!(
        Ymm16(__m256i),
        i16,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_set1_epi16,
        _mm256_min_epi16,
        _mm256_max_epi16,
        flip_ymm16
    );
    register_lanes!(
        Ymm32(__m256i),
        i32,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_set1_epi32,
        _mm256_min_epi32,
        _mm256_max_epi32,
        flip_ymm32
    );
    register_lanes!(
        Ymm64(__m256i),
        i64,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_set1_epi64x,
        min_ymm64,
        max_ymm64,
        flip_ymm64
    );
}
