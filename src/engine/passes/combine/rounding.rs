//! Measures what rounding to a narrow float takes from the merged delta.
//!
//! A step below the resolution of bf16 or f16 leaves the model where it was. The pass adds up the squares of
//! `rounded(base + delta) - (base + delta)` and of `delta`, over all tensors of floats below 32 bits.

use crate::engine::passes::blocks::add_rows;
use crate::engine::passes::combine::{CombinePass, SquaredNorms, TileWork};
use crate::kernels::convert::decode;
use crate::kernels::element::Merged;
use crate::kernels::norms::squared_norm;
use crate::model::dtype::Dtype;
use std::ops::Range;

/// The norm of what rounding lost, as a share of the merged delta's norm. `None` if the model has no narrow floats, or
/// the delta there is zero or unknown.
pub fn share_lost(rounding: SquaredNorms) -> Option<f64> {
    let sums = rounding.total().flatten()?;
    let [lost, moved] = sums[..] else { return None };
    (moved > 0.0).then(|| (lost / moved).sqrt())
}

impl CombinePass<'_> {
    /// Whether the pass measures the rounding of tensors of this dtype.
    pub(super) fn measures_rounding(&self, dtype: Dtype) -> bool {
        dtype.is_narrow_float() && self.set.knows_delta()
    }
}

impl TileWork<'_, '_> {
    /// Adds the rounding of a block of encoded values.
    pub(super) fn measure_rounding<F: Merged>(&mut self, block: &Range<usize>, values: &[F]) {
        let dtype = self.tile.dtype;
        if !self.pass.measures_rounding(dtype) {
            return;
        }
        let values: Vec<f64> = values.iter().map(|x| x.widen()).collect();
        let mut stored = vec![0.0_f32; values.len()];
        let bytes = block.start * dtype.bytes()..block.end * dtype.bytes();
        decode(self.isa, dtype, &self.worker.encoded.row(0)[bytes], &mut stored);
        let lost = squared_norm(self.isa, &stored, &values);
        let base = self.worker.reader.base().get(block.clone()).unwrap_or_default();
        let moved = squared_norm(self.isa, &values, base);
        self.worker.rounding.resize(2, 0.0);
        add_rows(&mut self.worker.rounding, &[lost, moved]);
    }
}
