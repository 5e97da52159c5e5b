//! The mean of every coordinate without its smallest and largest values, unweighted.
//!
//! Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, 2018,
//! definition 2. The kept values are summed in ascending order in f64, so the sum does not depend on
//! which client sent which value. It is never taken as the total less the extremes: one huge value
//! would leave nothing of the rest. Agreement: bits on the CPU.

use crate::kernels::columns::{ColumnSorter, Extremes, Padding};
use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::kernels::lanes::{Lanes, MAX_WIDTH};
use crate::model::tile::Rows;

dispatch! {
    /// Writes the mean of each column of `rows` without its `cut` smallest and `cut` largest values
    /// to `out`; `2 * cut` is less than the number of rows. Returns whether every value is finite; if not, `out`
    /// means nothing.
    pub fn trimmed_mean<A: Arch, E: Element>(rows: &Rows<E>, cut: usize, out: &mut [f64]) -> bool {
        let kept = cut..=rows.len() - 1 - cut;
        let count = (rows.len() - 2 * cut) as f64;
        let padding = Padding::new(rows);
        let mut sorter = ColumnSorter::<E::Lanes<A>>::new(rows, &padding, kept.clone());
        let mut extremes = Extremes::none::<E>();
        for (block, out) in out.chunks_mut(E::Lanes::<A>::WIDTH).enumerate() {
            let sorted = sorter.sort(block * E::Lanes::<A>::WIDTH, &mut extremes);
            let sums = ascending_sums::<E, E::Lanes<A>>(&sorted[kept.clone()]);
            for (lane, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                let kept = &sorted[kept.clone()];
                *out = if sum.is_finite() { sum / count } else { mean_of_huge::<E, _>(kept, lane) };
            }
        }
        extremes.finite::<E>()
    }
}

/// The mean of one lane of sorted rows whose sum is more than f64 can hold. Parts that were rounded up may add up to
/// more than the largest value, which no mean is.
#[cold]
pub(super) fn mean_of_huge<E: Element, V: Lanes<Key = E::Key>>(rows: &[V], lane: usize) -> f64 {
    let mut keys = [E::MIN_KEY; MAX_WIDTH];
    let mut value = |row: &V| {
        row.store(&mut keys);
        E::from_key(keys[lane]).widen()
    };
    let (least, most) = (value(&rows[0]), value(&rows[rows.len() - 1]));
    // Not `clamp`: what is not finite is told apart later, and must not panic here.
    rows.iter().map(|row| value(row) / rows.len() as f64).sum::<f64>().max(least).min(most)
}

/// The sum of the rows, lane by lane.
#[inline(always)]
fn ascending_sums<E: Element, V: Lanes<Key = E::Key>>(rows: &[V]) -> [f64; MAX_WIDTH] {
    let mut sums = [0.0; MAX_WIDTH];
    match V::WIDTH {
        width if width % 8 == 0 => sum_lanes::<E, V, 8>(rows, &mut sums),
        4 => sum_lanes::<E, V, 4>(rows, &mut sums),
        _ => sum_lanes::<E, V, 1>(rows, &mut sums),
    }
    sums
}

/// Sums `L` lanes at a time, few enough to stay in a register.
#[inline(always)]
fn sum_lanes<E: Element, V: Lanes<Key = E::Key>, const L: usize>(rows: &[V], sums: &mut [f64; MAX_WIDTH]) {
    let mut keys = [E::MIN_KEY; MAX_WIDTH];
    for start in (0..V::WIDTH).step_by(L) {
        let mut sum = [0.0; L];
        for row in rows {
            row.store(&mut keys);
            for (lane, sum) in sum.iter_mut().enumerate() {
                *sum += E::from_key(keys[start + lane]).widen();
            }
        }
        sums[start..start + L].copy_from_slice(&sum);
    }
}
