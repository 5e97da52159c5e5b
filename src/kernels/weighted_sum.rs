//! The sum of weighted rows, in f64 and in row order.
//!
//! McMahan et al., Communication-efficient learning of deep networks from decentralized data, 2017,
//! algorithm 1. Product and sum are rounded apart, so every instruction set gives the same bits; a fused
//! multiply-add is used only where it cannot make a difference. Agreement: bits on the CPU.

use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::model::tile::Rows;

/// Columns summed before moving on: their sums stay in the first-level cache.
const CHUNK: usize = 1024;

dispatch! {
    /// Adds `weights[i] * rows[i]` to `sums` for every row in order, one weight a row. A value that is not finite
    /// leaves a sum that is not finite.
    pub fn add_weighted<A: Arch, E: Element>(rows: &Rows<E>, weights: &[f64], sums: &mut [f64]) {
        assert_eq!(rows.len(), weights.len(), "one weight a row");
        if A::FUSES && weights.iter().all(|weight| product_is_exact::<E>(*weight)) {
            add_rows(rows, weights, sums, f64::mul_add);
        } else {
            add_rows(rows, weights, sums, |x, weight, sum| sum + x * weight);
        }
    }
}

/// Whether the product of the weight and any float of this type is exact in f64, and fusing it with the sum
/// so changes nothing. Example counts are small integers and pass.
fn product_is_exact<E: Element>(weight: f64) -> bool {
    let spare_bits = f64::SIGNIFICAND_BITS.saturating_sub(E::SIGNIFICAND_BITS);
    let unused = f64::SIGNIFICAND_BITS - spare_bits;
    let fits = weight.to_bits().trailing_zeros() >= unused;
    weight == 0.0 || fits && (1e-9..1e15).contains(&weight.abs()) && E::SIGNIFICAND_BITS < 53
}

/// Rows are taken four at a time: a sum is loaded and stored once for all four, added to in their order.
#[inline(always)]
fn add_rows<E: Element>(
    rows: &Rows<E>,
    weights: &[f64],
    sums: &mut [f64],
    add: impl Fn(f64, f64, f64) -> f64 + Copy,
) {
    for (chunk, sums) in sums.chunks_mut(CHUNK).enumerate() {
        let len = sums.len();
        let row = |row: usize| &rows.row(row)[chunk * CHUNK..][..len];
        let mut first = 0;
        for weights in weights.chunks(4) {
            if let [u, v, w, x] = *weights {
                let (a, b) = (row(first), row(first + 1));
                let (c, d) = (row(first + 2), row(first + 3));
                for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    let two = add(b.widen(), v, add(a.widen(), u, *sum));
                    *sum = add(d.widen(), x, add(c.widen(), w, two));
                }
            } else {
                for (i, weight) in weights.iter().enumerate() {
                    for (sum, a) in sums.iter_mut().zip(row(first + i)) {
                        *sum = add(a.widen(), *weight, *sum);
                    }
                }
            }
            first += 4;
        }
    }
}
