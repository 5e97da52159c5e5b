//! Vectors of order-preserving integer keys, and the instruction sets they run on.
//!
//! Every order statistic compares integer keys, never floats. So every processor and device gives the same answer, and
//! signed zeros need no special case. The key of a float is its bit pattern, read as a signed integer; if the sign is
//! set, all other bits are flipped. The order of keys is that of the finite floats. The conversion is its own inverse.
//!
//! A kernel body is written once, generic over [`Arch`]. `dispatch!` compiles it for each instruction set, and picks
//! one at run time by [`Isa`].

mod floats;

pub(crate) use floats::MAGNITUDE;
pub use floats::{Doubles, FLOATS, Floats};

use crate::kernels::{chacha20::Words, hadamard::Butterfly, levels::Table};
use std::fmt;

/// An instruction set that this processor has. No other value of the type can exist, so calls into its code are sound.
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

    /// Every instruction set of this processor that kernels are compiled for. The best comes last.
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
/// The methods of the x86 implementations use instructions of their set. So values of those types stay inside code
/// entered through `dispatch!`.
pub trait Lanes: Copy {
    /// The integer in each lane.
    type Key: bytemuck::Pod + Ord;
    /// Number of lanes.
    const WIDTH: usize;
    /// Loads the first keys; `keys` has at least `WIDTH`.
    fn load(keys: &[Self::Key]) -> Self;
    /// Stores the lanes as the first keys; `keys` has at least `WIDTH`.
    fn store(self, keys: &mut [Self::Key]);
    /// The same key in every lane.
    fn splat(key: Self::Key) -> Self;
    /// The smaller key of each lane.
    fn min(self, other: Self) -> Self;
    /// The larger key of each lane.
    fn max(self, other: Self) -> Self;
    /// Converts float bits to keys, and keys to float bits: flips all other bits if the sign is set.
    fn flip(self) -> Self;
    /// Runs `code` as a call, compiled for the instruction set of this vector.
    fn call(code: impl Outlined);
}

/// Long code over keys. The binary has it once for each vector type, however many kernels and floats share the keys:
/// sorting networks take most of the time to build this crate.
pub trait Outlined {
    /// The code; implementations are `#[inline(always)]`.
    fn run(self);
}

/// The vector types of one instruction set.
pub trait Arch {
    /// Whether a fused multiply-add is one instruction.
    const FUSES: bool;
    /// Sixteen floats.
    type Floats: Floats + Butterfly + Table;
    /// Sixteen words.
    type Words: Words;
    /// The side of the square of rows that a kernel over pairs holds at once, two or four. `SQUARE * SQUARE` sums and
    /// two sides of rows must fit the registers.
    const SQUARE: usize;
    /// Keys of 16-bit floats.
    type I16: Lanes<Key = i16>;
    /// Keys of 32-bit floats.
    type I32: Lanes<Key = i32>;
    /// Keys of 64-bit floats.
    type I64: Lanes<Key = i64>;
}

/// The instruction set of every Rust target: one lane.
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
            #[inline(never)]
            fn call(code: impl Outlined) {
                code.run();
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
    use super::{Arch, Lanes, Outlined};
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

    /// Implements [`Lanes`] for a register type from the intrinsics of its set.
    macro_rules! register_lanes {
        ($name:ident($register:ty), $set:literal, $key:ty, $load:ident, $store:ident, $splat:ident,
         $min:ident, $max:ident, $flip:ident) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name($register);

            impl Lanes for $name {
                type Key = $key;
                const WIDTH: usize = size_of::<$register>() / size_of::<$key>();

                #[inline(always)]
                fn load(keys: &[$key]) -> Self {
                    assert!(keys.len() >= Self::WIDTH);
                    // SAFETY: the slice holds a whole register, loads may be unaligned, and the set was detected (see
                    // the trait).
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
                #[inline(always)]
                fn call(code: impl Outlined) {
                    #[target_feature(enable = $set)]
                    #[inline(never)]
                    fn compiled(code: impl Outlined) {
                        code.run();
                    }
                    // SAFETY: the set was detected (see the trait).
                    unsafe { compiled(code) }
                }
            }
        };
    }

    /// `flip` of [`Lanes`]: the sign, spread over the lane without its top bit, selects the bits to flip.
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

    // AVX2 compares signed 64-bit integers, but has neither their arithmetic shift nor their minimum.
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
        "fma,avx512f,avx512bw,avx512dq,avx512vl",
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
        "fma,avx512f,avx512bw,avx512dq,avx512vl",
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
        "fma,avx512f,avx512bw,avx512dq,avx512vl",
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
        "avx2,fma",
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
        "avx2,fma",
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
        "avx2,fma",
        i64,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_set1_epi64x,
        min_ymm64,
        max_ymm64,
        flip_ymm64
    );
}
