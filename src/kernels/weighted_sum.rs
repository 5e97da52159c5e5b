//! The sum of weighted rows, in f64 and in row order.
//!
//! McMahan et al., Communication-efficient learning of deep networks from decentralized data, 2017,
//! algorithm 1. Product and sum are rounded apart (never fused), so every instruction set gives the
//! same bits. Agreement: bits on the CPU.

use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::model::tile::Rows;

/// Columns summed before moving on: their sums stay in the first-level cache.
const CHUNK: usize = 512;

dispatch! {
    /// Writes `sum_i weights[i] * rows[i] / divisor` to `out`, one weight a row.
    pub fn weighted_sum<A: Arch, E: Element>(
        rows: &Rows<E>,
        weights: &[f64],
        divisor: f64,
        out: &mut [f64],
    ) {
        assert_eq!(rows.len(), weights.len(), "one weight a row");
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            out.fill(0.0);
            for (row, weight) in weights.iter().enumerate() {
                for (sum, x) in out.iter_mut().zip(rows.from_column(row, chunk * CHUNK)) {
                    *sum += weight * x.widen();
                }
            }
            for sum in out {
                *sum /= divisor;
            }
        }
    }
}
