//! The mean of every coordinate without its smallest and largest values, unweighted.
//!
//! Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, 2018, definition 2. The kernel
//! sums the kept values [exactly](crate::kernels::exact_sum). So the sum depends neither on which client sent which
//! value, nor on an earlier grouping of clients. The kernel never subtracts the extremes from the total: one huge value
//! would destroy the digits of the rest. Agreement: bits on the CPU.

use crate::kernels::columns::{ColumnSorter, Extremes, Padding};
use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::kernels::exact_sum::{Rounding, TRIED, exact_sum};
use crate::kernels::lanes::{Isa, Lanes, MAX_WIDTH};
use crate::model::tile::Rows;
use std::ops::Range;

/// Writes the mean of each column of `rows`, without its `cut` smallest and `cut` largest values, to `out`. `2 * cut`
/// is less than the number of rows. Returns whether every value is finite; if not, `out` is meaningless.
pub fn trimmed_mean<E: Element>(isa: Isa, rows: &Rows<E>, cut: usize, out: &mut [f64]) -> bool {
    let kept = cut..rows.len() - cut;
    let mut errors = vec![0.0; out.len()];
    out.fill(0.0);
    let is_finite = trimmed_sum(isa, rows, kept.clone(), &mut [], out, &mut errors);
    for (column, (out, error)) in out.iter_mut().zip(errors).enumerate() {
        let sum = *out + error;
        *out = if sum.is_finite() { sum / kept.len() as f64 } else { mean_of_huge_kept(rows, column, &kept) };
    }
    is_finite
}

dispatch! {
    /// Adds the values of each column of `rows` at the places `kept` of ascending order to `sums` and `errors`,
    /// exactly. Writes the others to `edges`, ascending, one per row; `edges` may be empty. Returns whether every value
    /// is finite; if not, the outputs are meaningless.
    pub fn trimmed_sum<A: Arch, E: Element>(
        rows: &Rows<E>,
        kept: Range<usize>,
        edges: &mut [&mut [E]],
        sums: &mut [f64],
        errors: &mut [f64],
    ) -> bool {
        let padding = Padding::new(rows);
        let wanted = if edges.is_empty() { kept.start..=kept.end - 1 } else { 0..=rows.len() - 1 };
        let mut sorter = ColumnSorter::<E::Lanes<A>>::new(rows, &padding, wanted);
        let mut extremes = Extremes::none::<E>();
        let (width, mut before) = (E::Lanes::<A>::WIDTH, [0.0; TRIED]);
        for (chunk, (sums, errors)) in sums.chunks_mut(TRIED).zip(errors.chunks_mut(TRIED)).enumerate() {
            before[..sums.len()].copy_from_slice(sums);
            let mut exactly = !Rounding::IS_SEEN;
            // Runs once or twice. A loop, because sorting is long code that should be compiled once.
            loop {
                Rounding::start(sums);
                for (block, (sums, errors)) in sums.chunks_mut(width).zip(errors.chunks_mut(width)).enumerate() {
                    let column = chunk * TRIED + block * width;
                    let sorted = sorter.sort(column, &mut extremes);
                    write_edges(&sorted[..rows.len()], &kept, column, edges);
                    let middle = &sorted[kept.clone()];
                    if exactly {
                        add_lanes::<E, E::Lanes<A>>(middle, sums, errors, exact_addition);
                    } else {
                        add_lanes::<E, E::Lanes<A>>(middle, sums, errors, addition);
                    }
                }
                if exactly || !Rounding::end(sums) {
                    break;
                }
                sums.copy_from_slice(&before[..sums.len()]);
                exactly = true;
            }
        }
        extremes.finite::<E>()
    }
}

/// The sum, and the error unchanged: for additions without rounding.
#[inline(always)]
fn addition(x: f64, sum: f64, error: f64) -> (f64, f64) {
    (sum + x, error)
}

/// The sum, and the error plus the rounding error of the addition.
#[inline(always)]
fn exact_addition(x: f64, sum: f64, error: f64) -> (f64, f64) {
    let (sum, rest) = exact_sum(sum, x);
    (sum, error + rest)
}

/// Writes the sorted rows outside `kept` to the edges, up to their number of columns.
#[inline(always)]
fn write_edges<E: Element, V: Lanes<Key = E::Key>>(
    sorted: &[V],
    kept: &Range<usize>,
    column: usize,
    edges: &mut [&mut [E]],
) {
    let mut keys = [E::MIN_KEY; MAX_WIDTH];
    for (i, edge) in edges.iter_mut().enumerate() {
        let row = if i < kept.start { i } else { kept.end + i - kept.start };
        sorted[row].flip().store(&mut keys);
        let bits: &mut [E::Key] = bytemuck::cast_slice_mut(&mut edge[column..]);
        let len = V::WIDTH.min(bits.len());
        bits[..len].copy_from_slice(&keys[..len]);
    }
}

/// The mean of one lane of sorted rows whose sum overflows f64.
#[cold]
pub(super) fn mean_of_huge<E: Element, V: Lanes<Key = E::Key>>(rows: &[V], lane: usize) -> f64 {
    let mut keys = [E::MIN_KEY; MAX_WIDTH];
    let value = |row: &V| {
        row.store(&mut keys);
        E::from_key(keys[lane]).widen()
    };
    mean_of_sorted(&rows.iter().map(value).collect::<Vec<f64>>())
}

/// The mean of a column's kept values, whose sum overflows f64.
#[cold]
fn mean_of_huge_kept<E: Element>(rows: &Rows<E>, column: usize, kept: &Range<usize>) -> f64 {
    let mut values: Vec<f64> = (0..rows.len()).map(|row| rows.row(row)[column].widen()).collect();
    values.sort_by(f64::total_cmp);
    mean_of_sorted(&values[kept.clone()])
}

/// Rounded up, the parts may add up to more than the largest value, which no mean exceeds.
fn mean_of_sorted(values: &[f64]) -> f64 {
    let (least, most) = (values[0], values[values.len() - 1]);
    // Not `clamp`, which panics for NaN: values that are not finite are found later.
    values.iter().map(|value| value / values.len() as f64).sum::<f64>().max(least).min(most)
}

/// Adds the lanes of rows to sums and errors.
#[inline(always)]
fn add_lanes<E: Element, V: Lanes<Key = E::Key>>(
    rows: &[V],
    sums: &mut [f64],
    errors: &mut [f64],
    add: impl Fn(f64, f64, f64) -> (f64, f64) + Copy,
) {
    match V::WIDTH {
        width if width % 8 == 0 => add_rows::<E, V, 8>(rows, sums, errors, add),
        4 => add_rows::<E, V, 4>(rows, sums, errors, add),
        _ => add_rows::<E, V, 1>(rows, sums, errors, add),
    }
}

/// Adds the lanes of rows to sums and errors, `L` lanes at a time, so that they fit the registers.
#[inline(always)]
fn add_rows<E: Element, V: Lanes<Key = E::Key>, const L: usize>(
    rows: &[V],
    sums: &mut [f64],
    errors: &mut [f64],
    add: impl Fn(f64, f64, f64) -> (f64, f64) + Copy,
) {
    let mut keys = [E::MIN_KEY; MAX_WIDTH];
    for (part, (sums, errors)) in sums.chunks_mut(L).zip(errors.chunks_mut(L)).enumerate() {
        let (mut sum, mut error) = ([0.0; L], [0.0; L]);
        sum[..sums.len()].copy_from_slice(sums);
        error[..sums.len()].copy_from_slice(errors);
        for row in rows {
            row.store(&mut keys);
            for lane in 0..L {
                let x = E::from_key(keys[part * L + lane]).widen();
                (sum[lane], error[lane]) = add(x, sum[lane], error[lane]);
            }
        }
        sums.copy_from_slice(&sum[..sums.len()]);
        errors.copy_from_slice(&error[..errors.len()]);
    }
}
