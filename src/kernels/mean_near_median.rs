//! The mean of the values of every coordinate that are nearest to its median, unweighted.
//!
//! Xie, Koyejo and Gupta, Generalized Byzantine-tolerant SGD, 2018, definition 6. In a sorted column those values are
//! consecutive. The kernel counts the place of the first one: a value does not belong to them if it is farther from the
//! median than the value `kept` places above. Let `below` and `above` be the middle values. `low` is farther than
//! `high` if below + above > low + high. That is decided exactly, from the sums of two floats and their rounding
//! errors. The values are summed in ascending order in f64, so the sum does not depend on which client sent which
//! value. Agreement: the choice of values is exact, on a GPU too; bits on the CPU, close on a GPU.

use crate::kernels::columns::{ColumnSorter, Extremes, Padding};
use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::kernels::exact_sum::exact_sum;
use crate::kernels::lanes::{Lanes, MAX_WIDTH};
use crate::kernels::trimmed_mean::mean_of_huge;
use crate::model::tile::Rows;

dispatch! {
    /// Writes to `out` the mean of the `kept` values of each column of `rows` that are nearest to its median. `kept` is
    /// at least one, and at most the number of rows. Of two equally near values the smaller counts. Returns whether
    /// every value is finite; if not, `out` is meaningless.
    pub fn mean_near_median<A: Arch, E: Element>(rows: &Rows<E>, kept: usize, out: &mut [f64]) -> bool {
        assert!((1..=rows.len()).contains(&kept), "some values are kept");
        let padding = Padding::new(rows);
        let n = rows.len();
        let mut sorter = ColumnSorter::<E::Lanes<A>>::new(rows, &padding, 0..=n - 1);
        let mut extremes = Extremes::none::<E>();
        let width = E::Lanes::<A>::WIDTH;
        for (block, out) in out.chunks_mut(width).enumerate() {
            let sorted = &sorter.sort(block * width, &mut extremes)[..n];
            let mut means = [0.0; MAX_WIDTH];
            match width {
                width if width % 8 == 0 => means_near_middle::<E, E::Lanes<A>, 8>(sorted, kept, &mut means),
                4 => means_near_middle::<E, E::Lanes<A>, 4>(sorted, kept, &mut means),
                _ => means_near_middle::<E, E::Lanes<A>, 1>(sorted, kept, &mut means),
            }
            out.copy_from_slice(&means[..out.len()]);
        }
        extremes.finite::<E>()
    }
}

/// The means of sorted columns, `L` lanes at a time, so that they fit the registers.
#[inline(always)]
fn means_near_middle<E: Element, V: Lanes<Key = E::Key>, const L: usize>(
    sorted: &[V],
    kept: usize,
    means: &mut [f64; MAX_WIDTH],
) {
    let n = sorted.len();
    for start in (0..V::WIDTH).step_by(L) {
        let scale = scales::<E, V, L>(sorted, start);
        let (below, above) =
            (widened::<E, V, L>(sorted[(n - 1) / 2], start), widened::<E, V, L>(sorted[n / 2], start));
        let mut middle = [(0.0, 0.0); L];
        for lane in 0..L {
            middle[lane] = exact_sum(below[lane] * scale[lane], above[lane] * scale[lane]);
        }
        let mut first = [0.0; L];
        for (low, high) in sorted.iter().zip(&sorted[kept..]) {
            let (low, high) = (widened::<E, V, L>(*low, start), widened::<E, V, L>(*high, start));
            for lane in 0..L {
                let (sum, rest) = exact_sum(low[lane] * scale[lane], high[lane] * scale[lane]);
                let (middle, middle_rest) = middle[lane];
                let is_farther = (sum < middle) | ((sum == middle) & (rest < middle_rest));
                first[lane] += if is_farther { 1.0 } else { 0.0 };
            }
        }
        let mut sum = [0.0; L];
        for (place, row) in sorted.iter().enumerate() {
            let (place, row) = (place as f64, widened::<E, V, L>(*row, start));
            for lane in 0..L {
                let counts = place >= first[lane] && place < first[lane] + kept as f64;
                sum[lane] += if counts { row[lane] } else { 0.0 };
            }
        }
        for lane in 0..L {
            means[start + lane] = sum[lane] / kept as f64;
            if !sum[lane].is_finite() {
                let near = &sorted[first[lane] as usize..][..kept];
                means[start + lane] = mean_of_huge::<E, V>(near, start + lane);
            }
        }
    }
}

/// The factors of values before they are added: a half if the sum may overflow f64. Beside such large values, only the
/// last bit of a subnormal is lost.
#[inline(always)]
fn scales<E: Element, V: Lanes<Key = E::Key>, const L: usize>(sorted: &[V], start: usize) -> [f64; L] {
    let mut scales = [1.0; L];
    if size_of::<E>() == size_of::<f64>() {
        let least = widened::<E, V, L>(sorted[0], start);
        let most = widened::<E, V, L>(sorted[sorted.len() - 1], start);
        for lane in 0..L {
            let may_overflow = (least[lane] < -f64::MAX / 2.0) | (most[lane] > f64::MAX / 2.0);
            scales[lane] = if may_overflow { 0.5 } else { 1.0 };
        }
    }
    scales
}

/// Some lanes as f64.
#[inline(always)]
fn widened<E: Element, V: Lanes<Key = E::Key>, const L: usize>(row: V, start: usize) -> [f64; L] {
    let mut keys = [E::MIN_KEY; MAX_WIDTH];
    row.store(&mut keys);
    let mut widened = [0.0; L];
    for lane in 0..L {
        widened[lane] = E::widen(E::from_key(keys[start + lane]));
    }
    widened
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;
    use crate::model::tile::TileBuffer;

    fn mean(values: &[f64], kept: usize) -> f64 {
        let mut tile = TileBuffer::new(values.len(), 8);
        for (i, value) in values.iter().enumerate() {
            bytemuck::cast_slice_mut::<u8, f64>(tile.row_mut(i))[0] = *value;
        }
        let mut means = [0.0];
        for isa in Isa::available() {
            assert!(mean_near_median(isa, &tile.rows::<f64>(values.len(), 1), kept, &mut means));
        }
        means[0]
    }

    #[test]
    fn the_farthest_end_goes_first() {
        let values = [100.0, 0.0, 1.0, -5.0, 2.0];
        assert_eq!(mean(&values, 5), 98.0 / 5.0);
        assert_eq!(mean(&values, 4), -0.5);
        assert_eq!(mean(&values, 3), 1.0);
        // For 0 and 2 the larger is left out.
        assert_eq!(mean(&values, 2), 0.5);
        assert_eq!(mean(&values, 1), 1.0);
        assert_eq!(mean(&[3.0, 1.0], 1), 1.0);
        assert_eq!(mean(&[f64::MAX, f64::MAX], 2), f64::MAX);
    }

    #[test]
    fn near_ties_are_decided_exactly() {
        // The middle is 5e29 + 0.5, which is nearer to 1e30 than to 0 by 0.5. f64 cannot hold that half.
        assert_eq!(mean(&[0.0, 1.0, 1e30, 1e30], 3), (1.0 + 1e30 + 1e30) / 3.0);
        // Equally near: the smaller counts.
        assert_eq!(mean(&[1.0, 1.0, 1e30, 1e30], 3), (1.0 + 1.0 + 1e30) / 3.0);
        // The smaller is nearer, by 1e-30.
        assert_eq!(mean(&[-1e30, -1e30, 1e-30, 1.0, 1e30], 1), 1e-30);
        assert_eq!(mean(&[-1e30, -1.0, -1e-30, 1.0, 1e30], 4), mean(&[-1e30, -1.0, -1e-30, 1.0], 4));
        assert_eq!(mean(&[-1e30, -1.0, 1e-30, 1.0, 1e30], 4), mean(&[-1.0, 1e-30, 1.0, 1e30], 4));
        // Half way between two of the smallest.
        assert_eq!(mean(&[0.0, 5e-324], 1), 0.0);
        assert_eq!(mean(&[0.0, 5e-324, 1e-323, 1e-323], 3), (5e-324 + 1e-323 + 1e-323) / 3.0);
        // Sums that f64 cannot hold.
        assert_eq!(mean(&[-f64::MAX, f64::MAX, f64::MAX], 2), f64::MAX);
        assert_eq!(mean(&[-f64::MAX, -f64::MAX, f64::MAX], 2), -f64::MAX);
        assert_eq!(mean(&[f64::MAX, 1.0, f64::MAX, f64::MAX], 3), f64::MAX);
    }
}
