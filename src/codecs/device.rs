//! What an encoder may have a device do: those of its kernels that have shaders.

use std::fmt;

/// A device. What it finds has the bits of the CPU's kernels; it finds nothing once it failed, and then the encoder does
/// the work by itself: who lent the device knows of the failure, and throws away what was encoded.
pub trait Device: fmt::Debug + Send + Sync {
    /// How many of the values have each next digit, as a [`Search`](crate::kernels::select_largest::Search) wants it.
    fn histogram(&self, values: &[f32], digit: [u32; 4]) -> Option<Vec<u64>>;
    /// The indices, ascending, of the values beyond a magnitude, given by its key, and of the first `ties` that have it.
    fn take(&self, values: &[f32], key: u32, ties: u64) -> Option<Vec<u32>>;
}
