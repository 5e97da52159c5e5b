//! The floats that kernels run over, and the integer keys that order them.

use crate::kernels::lanes::{Arch, Lanes};
use crate::model::dtype::Dtype;
use half::{bf16, f16};
use std::fmt::Debug;

/// A float that tiles hold: `f32`, `f64`, `bf16` or `f16`.
///
/// Kernels see finite values only; [`finite`](crate::kernels::finite) screens them first.
pub trait Element: bytemuck::Pod + Debug + Send + Sync {
    /// The signed integer whose order is the order of the floats.
    type Key: bytemuck::Pod + Ord + Send + Sync;
    /// A vector of keys.
    type Lanes<A: Arch>: Lanes<Key = Self::Key>;
    /// A float that holds a median, between kernel and file, without a change of any bit.
    type Median: Merged;
    /// The float of combinations of these floats: f32, or f64 for f64.
    type Mixed: Element + Merged;
    /// The dtype of files that hold this float.
    const DTYPE: Dtype;
    /// The smallest bit pattern, without sign, that is not a finite number.
    const INFINITY: Self::Key;
    /// Bits of its significand, with the implicit one.
    const SIGNIFICAND_BITS: u32;
    /// The key of the largest finite float.
    const MAX_KEY: Self::Key;
    /// The key of the smallest finite float.
    const MIN_KEY: Self::Key;

    /// The bit pattern without its sign; at least [`INFINITY`](Self::INFINITY) for infinity and NaN.
    fn magnitude(self) -> Self::Key;
    /// The float of a key, exactly.
    fn from_key(key: Self::Key) -> Self;
    /// The number as `f64`, exactly.
    fn widen(self) -> f64;
    /// The nearest f32. Exact for all floats but f64.
    fn narrow(self) -> f32;
    /// The float that equals `x`. The caller knows that there is one.
    fn from_exact(x: f64) -> Self;
}

/// The float of merged values before they are stored: `f64`, or `f32` if that loses nothing.
pub trait Merged: bytemuck::Pod + Default + Send + Sync {
    /// The number halfway between two working floats, rounded to this float once. Never overflows.
    fn midpoint<E: Element>(a: E, b: E) -> Self;
    /// The number as f32, rounded to odd: if it does not fit, the neighbour with an odd last bit. So rounding the
    /// result to fewer bits equals rounding the number itself (Boldo and Melquiond, 2008).
    fn round_to_odd(self) -> f32;
    /// The number as `f64`, exactly.
    fn widen(self) -> f64;
    /// The float of this type nearest to `x`.
    fn rounded(x: f64) -> Self;
    /// `x - self`, to f32.
    fn less_from<E: Element>(self, x: E) -> f32;
}

impl Merged for f64 {
    #[inline(always)]
    fn midpoint<E: Element>(a: E, b: E) -> Self {
        let (a, b) = (a.widen(), b.widen());
        let sum = a + b;
        // For narrower floats halving first is exact; for f64 it would lose the last bit of the smallest.
        if E::SIGNIFICAND_BITS == Self::SIGNIFICAND_BITS && sum.is_finite() {
            sum * 0.5
        } else {
            a * 0.5 + b * 0.5
        }
    }
    #[inline(always)]
    fn round_to_odd(self) -> f32 {
        let nearest = self as f32;
        let widened = Self::from(nearest);
        let toward_zero = nearest.to_bits() - u32::from(widened.abs() > self.abs());
        f32::from_bits(toward_zero | u32::from(widened != self))
    }
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
    #[inline(always)]
    fn rounded(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn less_from<E: Element>(self, x: E) -> f32 {
        (E::widen(x) - self) as f32
    }
}

/// For medians of 16-bit floats. Their midpoint is exact in f32, or so close to half of the larger one that it rounds
/// to the same 16-bit float.
impl Merged for f32 {
    #[inline(always)]
    fn midpoint<E: Element>(a: E, b: E) -> Self {
        a.widen() as Self * 0.5 + b.widen() as Self * 0.5
    }
    #[inline(always)]
    fn round_to_odd(self) -> f32 {
        self
    }
    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn rounded(x: f64) -> Self {
        x as Self
    }
    #[inline(always)]
    fn less_from<E: Element>(self, x: E) -> f32 {
        x.narrow() - self
    }
}

macro_rules! element {
    ($float:ty, $dtype:ident, $median:ty, $mixed:ty, $key:ty, $lanes:ident, $infinity:literal, $significand:literal, $from_bits:expr, $to_bits:expr,
     $widen:expr, $narrow:expr, $from_exact:expr) => {
        impl Element for $float {
            type Key = $key;
            type Lanes<A: Arch> = A::$lanes;
            type Median = $median;
            type Mixed = $mixed;
            const DTYPE: Dtype = Dtype::$dtype;
            const INFINITY: $key = $infinity;
            const SIGNIFICAND_BITS: u32 = $significand;
            const MAX_KEY: $key = $infinity - 1;
            const MIN_KEY: $key = -$infinity;

            #[inline(always)]
            fn magnitude(self) -> $key {
                $to_bits(self) as $key & <$key>::MAX
            }
            #[inline(always)]
            fn from_key(key: $key) -> Self {
                let bits = key ^ ((key >> (<$key>::BITS - 1)) & <$key>::MAX);
                $from_bits(bits as _)
            }
            #[inline(always)]
            fn widen(self) -> f64 {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(self) -> f32 {
                $narrow(self)
            }
            #[inline(always)]
            fn from_exact(x: f64) -> Self {
                $from_exact(x)
            }
        }
    };
}
element!(
    f32,
    F32,
    f64,
    f32,
    i32,
    I32,
    0x7f80_0000,
    24,
    f32::from_bits,
    f32::to_bits,
    f64::from,
    |x| x,
    |x| x as f32
);
element!(
    f64,
    F64,
    f64,
    f64,
    i64,
    I64,
    0x7ff0_0000_0000_0000,
    53,
    f64::from_bits,
    f64::to_bits,
    f64::from,
    |x| x as f32,
    |x| x
);
element!(
    bf16,
    BF16,
    f32,
    f32,
    i16,
    I16,
    0x7f80,
    8,
    bf16::from_bits,
    bf16::to_bits,
    widen_bf16,
    bf16_to_f32,
    bf16::from_f64
);
element!(
    f16,
    F16,
    f32,
    f32,
    i16,
    I16,
    0x7c00,
    11,
    f16::from_bits,
    f16::to_bits,
    widen_f16,
    f16_to_f32,
    f16::from_f64
);

/// `bf16` is the upper half of an `f32`. Unlike `half`'s conversion this has no branch, so loops
/// over it vectorise.
#[inline(always)]
pub(crate) fn bf16_to_f32(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

#[inline(always)]
pub(crate) fn widen_bf16(x: bf16) -> f64 {
    f64::from(bf16_to_f32(x))
}

/// Moves exponent and mantissa into place and rescales by the difference of the exponent biases,
/// which is exact for subnormals too. No branch, so loops over it vectorise.
#[inline(always)]
pub(crate) fn f16_to_f32(x: f16) -> f32 {
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(x.to_bits());
    let finite = f32::from_bits((bits & 0x7fff) << 13) * REBIAS;
    let special = 0x7f80_0000 | (bits & 0x3ff) << 13;
    let magnitude = if bits & 0x7c00 == 0x7c00 { special } else { finite.to_bits() };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

#[inline(always)]
pub(crate) fn widen_f16(x: f16) -> f64 {
    f64::from(f16_to_f32(x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dispatch;
    use crate::kernels::lanes::Isa;

    dispatch! {
        /// Flips the first 32 keys in place.
        fn flip_first<A: Arch, E: Element>(keys: &mut [E::Key]) {
            for start in (0..32).step_by(E::Lanes::<A>::WIDTH) {
                E::Lanes::<A>::load(&keys[start..]).flip().store(&mut keys[start..]);
            }
        }
    }

    /// Keys of ascending floats ascend, give the floats back, and agree with the vectors' flip.
    fn ordered<E: Element + PartialEq>(ascending: &[E]) {
        let bits: &[E::Key] = bytemuck::cast_slice(ascending);
        for isa in Isa::available() {
            let mut keys = bits.to_vec();
            keys.resize(64, E::MAX_KEY);
            flip_first::<E>(isa, &mut keys);
            keys.truncate(bits.len());
            assert!(keys.is_sorted_by(|a, b| a < b), "{ascending:?} on {isa}");
            assert!(*keys.first().unwrap() == E::MIN_KEY && *keys.last().unwrap() == E::MAX_KEY);
            for (key, x) in keys.iter().zip(ascending) {
                assert!(E::from_key(*key) == *x);
            }
        }
    }

    #[test]
    fn keys_order_like_the_floats() {
        ordered(&[f32::MIN, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, f32::MAX]);
        ordered(&[f64::MIN, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, f64::MAX]);
        ordered(&[bf16::MIN, bf16::NEG_ONE, bf16::NEG_ZERO, bf16::ZERO, bf16::ONE, bf16::MAX]);
        ordered(&[f16::MIN, f16::NEG_ONE, f16::NEG_ZERO, f16::ZERO, f16::ONE, f16::MAX]);
    }
}
