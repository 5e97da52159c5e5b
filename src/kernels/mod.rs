//! The numeric primitives, one file each; [`KERNELS`] lists them.
//!
//! A file has the contract, the CPU implementation and unit tests.
//!
//! These files serve them: [`lanes`] has vectors and instruction sets, [`element`] the floats. [`exact_sum`] makes sums
//! exact, [`network`] makes sorting networks, and `columns` sorts with them. [`peak`] measures the most that a
//! core can do.

pub mod block_quantize;
pub mod bucketize;
pub mod chacha20;
pub mod clip_integers;
pub(crate) mod columns;
pub mod convert;
pub mod coordinate_median;
pub mod dead_zone;
pub mod discrete_gaussian;
pub mod distortion;
pub mod element;
pub mod exact_sum;
pub mod field;
pub mod finite;
pub mod gram;
pub mod hadamard;
pub mod integer_sum;
pub mod lanes;
pub mod levels;
pub mod low_rank;
pub mod magnitudes;
pub mod masks;
pub mod mean_near_median;
pub mod network;
pub mod norms;
pub mod pack_bits;
pub mod peak;
pub mod philox;
pub mod select_largest;
pub mod server_step;
pub mod signs;
pub mod trimmed_mean;
pub mod weighted_sum;

/// A kernel, as the tests, `fedmill doctor` and docs/gpu.md know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// The name of its module.
    pub name: &'static str,
    /// The quantity that it computes.
    pub computes: &'static str,
    /// The agreement of its CPU implementations.
    pub agreement: Agreement,
    /// The stems of its shaders; a stem in `shaders/shared/` where the shaders of other kernels import it.
    pub shaders: &'static [&'static str],
}

/// How closely the implementations of a kernel agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agreement {
    /// The same bits on every instruction set, and on a GPU if it has a shader.
    Bits,
    /// The same bits on every instruction set. A GPU keeps the bound that the shader's head states.
    BitsOnCpu,
}

/// Every kernel, in the order of a round: decoding, rules by coordinate, rules by geometry, the server's step; then
/// codecs (entropy-coded integers, blocks, few values, matrices), then private and secure sums.
#[rustfmt::skip]
pub const KERNELS: &[Kernel] = {
    use Agreement::{Bits, BitsOnCpu};
    const fn kernel(
        name: &'static str,
        agreement: Agreement,
        shaders: &'static [&'static str],
        computes: &'static str,
    ) -> Kernel {
        Kernel { name, computes, agreement, shaders }
    }
    &[
        kernel("finite", Bits, &["status"], "whether all values are finite, by their bits"),
        kernel("convert", Bits, &["rows"], "values of any dtype as working floats and back, rounded once"),
        kernel("weighted_sum", BitsOnCpu, &["weighted_sum", "mixing"],
            "sums of weighted rows in f64, in row order or exactly"),
        kernel("coordinate_median", Bits, &["coordinate_median", "coordinate_median_many"],
            "the median of every column"),
        kernel("trimmed_mean", BitsOnCpu, &["trimmed_mean", "trimmed_mean_many"],
            "the mean of every column without its extremes"),
        kernel("mean_near_median", BitsOnCpu, &["mean_near_median", "mean_near_median_many"],
            "the mean of the values of every column nearest to its median"),
        kernel("signs", Bits, &["signs"], "sums of the signs of every column"),
        kernel("gram", BitsOnCpu, &["centre", "gram", "gram_reduce"],
            "sums over pairs of rows: products, squared differences"),
        kernel("norms", BitsOnCpu, &["norms"], "squared norm, dot product and largest magnitude of a row"),
        kernel("server_step", BitsOnCpu, &["server_step"], "the server's step: average, momentum, adaptive"),
        kernel("magnitudes", Bits, &[], "a histogram of magnitudes"),
        kernel("dead_zone", Bits, &[], "integer codes of a uniform quantizer with a dead zone"),
        kernel("distortion", BitsOnCpu, &[],
            "sums of squares, squared errors and products of values and their decoded values"),
        kernel("block_quantize", Bits, &["block_ends", "block_quantize", "block_dequantize"],
            "extremes of blocks; values as integers on an even grid, and back"),
        kernel("hadamard", Bits, &["hadamard", "hadamard_back"], "the Walsh-Hadamard transform, random signs"),
        kernel("bucketize", Bits, &["bucketize"], "the bucket of a magnitude among thresholds"),
        kernel("levels", Bits, &[], "the levels that codes stand for"),
        kernel("philox", Bits, &["philox"], "random words by counter"),
        kernel("pack_bits", Bits, &[], "codes of a few bits as a stream of bytes, and back"),
        kernel("select_largest", Bits, &["select_histogram", "select_output"],
            "the k values of largest magnitude"),
        kernel("low_rank", BitsOnCpu, &[], "products with factors of few columns"),
        kernel("clip_integers", Bits, &[], "exact sums of squares; values as integers of a grid"),
        kernel("integer_sum", Bits, &["integer_sum", "integer_squares"], "sums of integers"),
        kernel("chacha20", Bits, &["chacha20"], "the words of ChaCha20 by number"),
        kernel("discrete_gaussian", Bits, &["discrete_gaussian"], "discrete Gaussian noise of two widths"),
        kernel("field", Bits, &["field"], "sums and multiples modulo a prime"),
        kernel("masks", Bits, &["masks"], "uniform elements of a field from seeds, added up"),
    ]
};

/// Compiles one kernel body for every instruction set and picks one at run time.
///
/// The body is generic over `A: Arch` first. The resulting function takes the [`Isa`](lanes::Isa) to run on as its
/// first argument. The compiler vectorises plain loops in the body for each set.
macro_rules! dispatch {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<A: Arch $(, $g:ident : $bound:path)*>($($arg:ident: $ty:ty),* $(,)?)
        $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name<$($g: $bound),*>(isa: $crate::kernels::lanes::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $crate::kernels::lanes::{self, Arch, IsaKind};

            #[allow(clippy::extra_unused_type_parameters, reason = "plain loops need no vector type")]
            #[inline(always)]
            fn body<A: Arch $(, $g: $bound)*>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512<$($g: $bound),*>($($arg: $ty),*) $(-> $ret)? {
                body::<lanes::Avx512 $(, $g)*>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<$($g: $bound),*>($($arg: $ty),*) $(-> $ret)? {
                body::<lanes::Avx2 $(, $g)*>($($arg),*)
            }

            match isa.kind() {
                IsaKind::Portable => body::<lanes::Portable $(, $g)*>($($arg),*),
                // SAFETY: an `Isa` of this kind exists only if its features were detected.
                #[cfg(target_arch = "x86_64")]
                IsaKind::Avx2 => unsafe { avx2::<$($g),*>($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                IsaKind::Avx512 => unsafe { avx512::<$($g),*>($($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;
