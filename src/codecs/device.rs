//! The kernels that a GPU may run for an encoder or a decoder.

use crate::codecs::CHUNK;
use crate::kernels::block_quantize::{BlockRun, Draw};
use std::fmt;

/// Steps of grids for which a GPU has the bits of the CPU: it may take smaller numbers for zero.
const STEPS: std::ops::RangeInclusive<f64> = 1.0 / (1u128 << 76) as f64..=(1u128 << 100) as f64;

/// Values that a GPU encodes or decodes at once: 16 MiB, whole chunks.
pub const AT_ONCE: usize = 64 * CHUNK;

/// Whether a GPU finds the same codes as the CPU on a grid of this step.
pub(super) fn suits(step: f64) -> bool {
    step == 0.0 || STEPS.contains(&step)
}

/// Whether a GPU finds the same values as the CPU by this step or scale. Of the zeros only that without a sign is one.
pub(super) fn suits_decoder(step: f32) -> bool {
    step.to_bits() == 0 || STEPS.contains(&f64::from(step))
}

/// A GPU. Its results have the bits of the CPU's kernels. After a failure it returns `None`, and the codec computes on
/// the CPU; the owner of the device knows of the failure and discards the file.
pub trait Device: fmt::Debug + Send + Sync {
    /// Counts the values by their next digit, for a [`Search`](crate::kernels::select_largest::Search).
    fn histogram(&self, values: &[f32], digit: [u32; 4]) -> Option<Vec<u64>>;
    /// The ascending indices of the values whose magnitude has a larger key, and of the first `ties` values with this
    /// key.
    fn take(&self, values: &[f32], key: u32, ties: u64) -> Option<Vec<u32>>;
    /// Codes from 0 to `top`. `grids` has the start and the inverse step of the grid of each block of the run.
    fn quantize(
        &self,
        values: &[f32],
        run: BlockRun,
        grids: &[[f32; 2]],
        top: u8,
        draw: Draw,
    ) -> Option<Vec<u8>>;
    /// Codes from `-top` to `top`. `inverses` has the inverse step of each block of the run.
    fn quantize_symmetric(
        &self,
        values: &[f32],
        run: BlockRun,
        inverses: &[f32],
        top: i8,
        draw: Draw,
    ) -> Option<Vec<i8>>;
    /// Flips signs and transforms each block of 4096 values twice. Returns the codes, with the factor of each block,
    /// and the transformed values.
    fn rotate_and_bucketize(
        &self,
        values: &[f32],
        flips: [&[u32]; 2],
        factors: &[f32],
        thresholds: &[f32],
    ) -> Option<(Vec<u8>, Vec<f32>)>;
    /// The values of codes. `grids` has the start and the step of the grid of each block of the run.
    fn dequantize(&self, codes: &[u8], run: BlockRun, grids: &[[f32; 2]]) -> Option<Vec<f32>>;
    /// The values of codes of either sign. `steps` has the step of each block of the run.
    fn dequantize_symmetric(&self, codes: &[i8], run: BlockRun, steps: &[f32]) -> Option<Vec<f32>>;
    /// The values of blocks of 4096 codes: each level is looked up, each block transformed twice, with a flip of signs
    /// after each transform, and then multiplied by its scale over 4096.
    fn rotate_back(
        &self,
        codes: &[u8],
        levels: &[f32],
        flips: [&[u32]; 2],
        scales: &[f32],
    ) -> Option<Vec<f32>>;
}
