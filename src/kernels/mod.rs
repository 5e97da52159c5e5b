//! The numeric primitives, one file each: contract, CPU implementation, unit tests.
//!
//! | kernel | computes | agreement | shader |
//! |---|---|---|---|
//! | [`finite`] | finds NaN and infinity by bit pattern | bits | in every one: `status` |
//! | [`convert`] | dtype to working float and back, one rounding | bits | to f32: `rows` |
//! | [`weighted_sum`] | adds weighted rows in f64, in row order or exactly | bits on CPU | `weighted_sum`, `mixing` |
//! | [`coordinate_median`] | median of every column | bits | `coordinate_median`, `coordinate_median_many` |
//! | [`trimmed_mean`] | mean of every column without its extremes | bits on CPU | `trimmed_mean`, `trimmed_mean_many` |
//! | [`mean_near_median`] | mean of the values of every column nearest to its median | bits on CPU | `mean_near_median`, `mean_near_median_many` |
//! | [`signs`] | sums of the signs of every column | bits | `signs` |
//! | [`gram`] | sums over pairs of rows: products, squared differences | bits on CPU | `centre`, `gram`, `gram_reduce` |
//! | [`norms`] | squared norm, dot product, largest magnitude of a row | bits on CPU | `norms` |
//! | [`server_step`] | the server's step: average, momentum, adaptive | bits on CPU | `server_step` |
//! | [`magnitudes`] | histogram of magnitudes | bits | |
//! | [`dead_zone`] | integer codes of a uniform quantizer with a dead zone | bits | |
//! | [`distortion`] | squares, squared errors and products of values and what they are decoded to | bits on CPU | |
//! | [`block_quantize`] | ends of blocks; values to integers on an even grid, and back | bits | `block_ends`, `block_quantize`, `block_dequantize` |
//! | [`hadamard`] | the Walsh-Hadamard transform, random signs | bits | `hadamard` |
//! | [`bucketize`] | the bucket of a magnitude among thresholds | bits | `bucketize` |
//! | [`levels`] | the levels that codes stand for | bits | |
//! | [`philox`] | random words by counter | bits | in `block_quantize`: `philox` |
//! | [`pack_bits`] | codes of a few bits in a stream of bytes, and back | bits | |
//! | [`select_largest`] | the k values of largest magnitude | bits | `select_histogram`, `select_output` |
//! | [`low_rank`] | products with factors of few columns | bits on CPU | |
//! | [`clip_integers`] | exact sums of squares; values to integers of a grid | bits | |
//! | [`integer_sum`] | sums of integers | bits | from values: `integer_sum` |
//! | [`chacha20`] | the words of ChaCha20 by number | bits | in `discrete_gaussian`: `chacha20` |
//! | [`discrete_gaussian`] | discrete Gaussian noise of two widths | bits | `discrete_gaussian` |
//!
//! In the order of a round: what all values go through, rules by coordinate, rules by statistics and the server's step;
//! then what updates are compressed by: entropy-coded integers, blocks, few values, matrices; then what sums are made
//! private by.
//!
//! Below them: [`lanes`], the vectors and instruction sets they run on; [`element`], the floats they run over;
//! [`exact_sum`], how sums are exact; [`network`], which makes sorting networks, and `columns`, which sorts with them.
//! [`cells`] estimates what quantizers would do; [`peak`] measures what a core can do.

pub mod block_quantize;
pub mod bucketize;
pub mod cells;
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
pub mod finite;
pub mod gram;
pub mod hadamard;
pub mod integer_sum;
pub mod lanes;
pub mod levels;
pub mod low_rank;
pub mod magnitudes;
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

/// Compiles one kernel body for every instruction set and picks one at run time.
///
/// The body is generic over `A: Arch` first; the function that results takes the [`Isa`](lanes::Isa)
/// to run on as its first argument. Plain loops in the body are vectorised for each set by the
/// compiler.
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
                // SAFETY: an `Isa` of this kind is only made after its features were detected.
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
