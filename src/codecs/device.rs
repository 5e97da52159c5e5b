//! What an encoder may have a device do: those of its kernels that have shaders.

use crate::kernels::block_quantize::Draw;
use std::fmt;

/// Steps of grids that a device makes the same of as the CPU: none is lost to what it takes for zero.
const STEPS: std::ops::RangeInclusive<f64> = 1.0 / (1u128 << 76) as f64..=(1u128 << 100) as f64;

/// Whether a device finds the same codes on a grid of this step.
pub(super) fn suits(step: f64) -> bool {
    step == 0.0 || STEPS.contains(&step)
}

/// A device. What it finds has the bits of the CPU's kernels; it finds nothing once it failed, and then the encoder does
/// the work by itself: who lent the device knows of the failure, and throws away what was encoded.
pub trait Device: fmt::Debug + Send + Sync {
    /// How many of the values have each next digit, as a [`Search`](crate::kernels::select_largest::Search) wants it.
    fn histogram(&self, values: &[f32], digit: [u32; 4]) -> Option<Vec<u64>>;
    /// The indices, ascending, of the values beyond a magnitude, given by its key, and of the first `ties` that have it.
    fn take(&self, values: &[f32], key: u32, ties: u64) -> Option<Vec<u32>>;
    /// The codes 0 to `top`, given of each block of `block` values where its grid starts and the inverse of its step.
    fn quantize(
        &self,
        values: &[f32],
        block: usize,
        grids: &[[f32; 2]],
        top: u8,
        draw: Draw,
    ) -> Option<Vec<u8>>;
    /// The codes `-top` to `top`, given of each block of `block` values the inverse of its step.
    fn quantize_symmetric(
        &self,
        values: &[f32],
        block: usize,
        inverses: &[f32],
        top: i8,
        draw: Draw,
    ) -> Option<Vec<i8>>;
    /// The codes of blocks of 4096 values, and the values themselves, after signs were flipped and the block transformed
    /// twice, given the factor of each block.
    fn rotate_and_bucketize(
        &self,
        values: &[f32],
        flips: [&[u32]; 2],
        factors: &[f32],
        thresholds: &[f32],
    ) -> Option<(Vec<u8>, Vec<f32>)>;
}
