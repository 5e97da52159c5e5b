//! The median of every coordinate, unweighted; the midpoint of the two middle values for an even
//! number of rows.
//!
//! Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, 2018,
//! definition 1. Agreement: bits.

use crate::kernels::columns::{middle_of_block, scratch, sort_columns};
use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::kernels::lanes::Lanes;
use crate::kernels::network::MAX_BLOCK;
use crate::model::tile::Rows;

/// Columns whose middle keys are found before any is turned into a float, in one vectorised loop.
const CHUNK: usize = 512;

dispatch! {
    /// Writes the median of each column of `rows` (at least one row, finite values) to `out`.
    pub fn coordinate_median<A: Arch, E: Element>(rows: &Rows<E>, out: &mut [f64]) {
        let n = rows.len();
        let (lower, upper) = ((n - 1) / 2, n / 2);
        let mut sorted = if n > MAX_BLOCK { scratch::<A, E>(n) } else { Vec::new() };
        let mut lows = [E::MIN_KEY; CHUNK];
        let mut highs = [E::MIN_KEY; CHUNK];
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            for start in (0..out.len()).step_by(E::Lanes::<A>::WIDTH) {
                let column = chunk * CHUNK + start;
                let [low, high] = if n > MAX_BLOCK {
                    sort_columns::<A, E>(rows, column, lower..=upper, &mut sorted);
                    [sorted[lower], sorted[upper]]
                } else {
                    middle_of_block::<A, E>(rows, column)
                };
                low.store(&mut lows[start..]);
                high.store(&mut highs[start..]);
            }
            for ((out, low), high) in out.iter_mut().zip(&lows).zip(&highs) {
                *out = midpoint(E::from_key(*low).widen(), E::from_key(*high).widen());
            }
        }
    }
}

/// The number halfway between two finite numbers, which never overflows.
#[inline(always)]
fn midpoint(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if sum.is_finite() { sum * 0.5 } else { a * 0.5 + b * 0.5 }
}
