//! Work on the rows of a tile that both passes share: blocks for the cache, mixing, reducing.

use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::{Element, Merged};
use crate::kernels::lanes::Isa;
use crate::kernels::mean_near_median::mean_near_median;
use crate::kernels::trimmed_mean::trimmed_mean;
use crate::kernels::weighted_sum::add_weighted;
use crate::model::tile::{LINE_BYTES, Rows, TileBuffer};
use crate::rules::OrderStatistic;
use crate::rules::mixing::Mixing;
use std::ops::Range;

/// Bytes of the rows of one block, which stay in the second-level cache from one kernel to the next.
const BLOCK_BYTES: usize = 256 << 10;

/// Reduces each column of rows to a value. Returns whether every value is finite.
pub(crate) fn reduce<E: Element>(
    isa: Isa,
    statistic: OrderStatistic,
    rows: &Rows<E>,
    merged: &mut [f64],
) -> bool {
    match statistic {
        OrderStatistic::Median => coordinate_median(isa, rows, merged),
        OrderStatistic::TrimmedMean { cut } => trimmed_mean(isa, rows, cut, merged),
        OrderStatistic::MeanNearMedian { kept } => mean_near_median(isa, rows, kept, merged),
    }
}

/// Writes the mixtures of these clients' rows to `mixed`, divided by `divisor`. The base has the coefficient one minus the
/// sum of the others, unless `base` is empty. A mixture that does not fit the float is infinite.
pub(crate) fn mix<E: Element, M: Merged>(
    isa: Isa,
    rows: &Rows<E>,
    clients: &[usize],
    mixing: &Mixing,
    base: &[f64],
    divisor: f64,
    mixed: &mut TileBuffer,
) {
    let mut sums = vec![0.0; rows.columns()];
    for k in 0..mixing.len() {
        let row = mixing.row(k);
        let mut weights: Vec<f64> = clients.iter().map(|client| row[*client]).collect();
        sums.fill(0.0);
        if !base.is_empty() {
            add_times(base, (1.0 - weights.iter().sum::<f64>()) / divisor, &mut sums);
        }
        weights.iter_mut().for_each(|weight| *weight /= divisor);
        add_weighted(isa, rows, &weights, &mut sums);
        let row: &mut [M] = bytemuck::cast_slice_mut(mixed.row_mut(k));
        for (x, sum) in row.iter_mut().zip(&sums) {
            *x = M::rounded(*sum);
        }
        mixed.clear_behind(k, sums.len() * size_of::<M>());
    }
}

pub(crate) fn add_times(row: &[f64], factor: f64, sums: &mut [f64]) {
    for (sum, x) in sums.iter_mut().zip(row) {
        *sum += factor * x;
    }
}

/// Ranges of columns whose rows together fit the cache.
pub(crate) fn blocks<E>(rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let size = (BLOCK_BYTES / size_of::<E>() / rows).next_multiple_of(LINE_BYTES);
    (0..columns).step_by(size).map(move |start| start..(start + size).min(columns))
}

/// Adds the parts of a tile to the sums of each row. `parts` may be empty.
pub(crate) fn add_rows(sums: &mut [f64], parts: &[f64]) {
    for (sum, part) in sums.iter_mut().zip(parts) {
        *sum += part;
    }
}
