//! The mean of every coordinate without its smallest and largest values, unweighted.
//!
//! Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, 2018,
//! definition 2. The kept values are summed in ascending order in f64, so the sum does not depend on
//! which client sent which value. It is never taken as the total less the extremes: one huge value
//! would leave nothing of the rest. Agreement: bits on the CPU.

use crate::kernels::columns::{scratch, sort_columns};
use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::kernels::lanes::Lanes;
use crate::model::tile::Rows;

dispatch! {
    /// Writes the mean of each column of `rows` without its `cut` smallest and `cut` largest values
    /// to `out`. `2 * cut` is less than the number of rows; values are finite.
    pub fn trimmed_mean<A: Arch, E: Element>(rows: &Rows<E>, cut: usize, out: &mut [f64]) {
        let width = E::Lanes::<A>::WIDTH;
        let kept = cut..=rows.len() - 1 - cut;
        let count = (rows.len() - 2 * cut) as f64;
        let mut sorted = scratch::<A, E>(rows.len());
        let mut keys = [E::MIN_KEY; 32];
        for (block, out) in out.chunks_mut(width).enumerate() {
            sort_columns::<A, E>(rows, block * width, kept.clone(), &mut sorted);
            let mut sum = [0.0; 32];
            for row in &sorted[kept.clone()] {
                row.store(&mut keys);
                for (sum, key) in sum[..width].iter_mut().zip(&keys[..width]) {
                    *sum += E::from_key(*key).widen();
                }
            }
            for (out, sum) in out.iter_mut().zip(sum) {
                *out = sum / count;
            }
        }
    }
}
