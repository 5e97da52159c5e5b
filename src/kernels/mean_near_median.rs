//! The mean of the values of every coordinate that are nearest to its median, unweighted.
//!
//! Xie, Koyejo and Gupta, Generalized Byzantine-tolerant SGD, 2018, definition 6. In a sorted column those values
//! stand together: it loses its farthest end again and again; of two as far, the larger. They are summed in
//! ascending order in f64, so the sum does not depend on which client sent which value. Agreement: bits on the CPU.

use crate::kernels::columns::{ColumnSorter, Extremes, Padding};
use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::kernels::lanes::{Lanes, MAX_WIDTH};
use crate::model::tile::Rows;

dispatch! {
    /// Writes the mean of the `kept` values of each column of `rows` nearest to its median to `out`; one at least, and
    /// no more than there are. Returns whether every value is finite; if not, `out` means nothing.
    pub fn mean_near_median<A: Arch, E: Element>(rows: &Rows<E>, kept: usize, out: &mut [f64]) -> bool {
        let padding = Padding::new(rows);
        let n = rows.len();
        let mut sorter = ColumnSorter::<E::Lanes<A>>::new(rows, &padding, 0..=n - 1);
        let mut extremes = Extremes::none::<E>();
        let width = E::Lanes::<A>::WIDTH;
        // Column after column of the vector, each sorted.
        let mut columns = vec![0.0; n * width];
        for (block, out) in out.chunks_mut(width).enumerate() {
            let sorted = sorter.sort(block * width, &mut extremes);
            let mut keys = [E::MIN_KEY; MAX_WIDTH];
            for (i, row) in sorted[..n].iter().enumerate() {
                row.store(&mut keys);
                for lane in 0..width {
                    columns[lane * n + i] = E::from_key(keys[lane]).widen();
                }
            }
            for (out, column) in out.iter_mut().zip(columns.chunks(n)) {
                *out = mean_near_middle(column, kept);
            }
        }
        extremes.finite::<E>()
    }
}

#[inline(always)]
fn mean_near_middle(sorted: &[f64], kept: usize) -> f64 {
    let n = sorted.len();
    let middle = sorted[(n - 1) / 2] * 0.5 + sorted[n / 2] * 0.5;
    let mut low = 0;
    for high in (kept..n).rev() {
        // The values at `low` and `high + low` are the ends of what is left, `high + 1` values.
        let goes_low = middle - sorted[low] > sorted[low + high] - middle;
        low += usize::from(goes_low);
    }
    let near = &sorted[low..low + kept];
    let sum: f64 = near.iter().sum();
    if sum.is_finite() { sum / kept as f64 } else { near.iter().map(|x| x / kept as f64).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_end_goes_first() {
        let values = [-5.0, 0.0, 1.0, 2.0, 100.0];
        assert_eq!(mean_near_middle(&values, 5), 98.0 / 5.0);
        assert_eq!(mean_near_middle(&values, 4), -0.5);
        assert_eq!(mean_near_middle(&values, 3), 1.0);
        // Of 0 and 2 the larger goes.
        assert_eq!(mean_near_middle(&values, 2), 0.5);
        assert_eq!(mean_near_middle(&values, 1), 1.0);
        assert_eq!(mean_near_middle(&[1.0, 3.0], 1), 1.0);
        assert_eq!(mean_near_middle(&[f64::MAX, f64::MAX], 2), f64::MAX);
    }
}
