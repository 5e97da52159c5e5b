//! The mean near the median against the oracle.

use super::{POISON, Sample, VALUES, Values, column, fill};
use crate::reference;
use crate::reference::nearest::nearest_to_median;
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::mean_near_median::mean_near_median;
use fedmill::model::tile::Rows;
use half::bf16;

/// Column counts around every vector width.
const COLUMNS: [usize; 9] = [0, 1, 15, 16, 17, 63, 64, 65, 1001];

/// Row counts around a sorted block, and around two and eight of them.
fn row_counts() -> impl Iterator<Item = usize> {
    (1..=70).chain([128, 257])
}

/// Numbers of kept values: all for few rows; for many rows, those that are easily wrong.
fn kept_counts(n: usize) -> Vec<usize> {
    match n {
        0..=70 => (1..=n).collect(),
        _ => vec![1, 2, 3, n / 2, n / 2 + 1, n - 2, n - 1, n],
    }
}

/// The divisor with which the oracle can add up the largest values of f64.
const SHRINK: f64 = 1024.0;

/// The first column whose value differs from the oracle's by more than rounding.
fn first_wrong<E: Sample>(rows: &Rows<E>, kept: usize, got: &[f64]) -> Option<String> {
    (0..rows.columns()).find_map(|j| {
        let values = column(rows, j);
        let largest = values.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        let shrink = if largest > 1e300 { SHRINK } else { 1.0 };
        let near = nearest_to_median(&values, kept);
        let want = near.iter().map(|x| x / shrink).sum::<f64>() / kept as f64 * shrink;
        // The roundings of a sum of all kept values and of one division, at least a step of f64's smallest.
        let bound = (kept + 2) as f64 * f64::EPSILON * largest + 5e-324;
        let fine = (got[j] - want).abs() <= bound;
        (!fine).then(|| format!("column {j}: got {:e}, expected {want:e} to {bound:e}", got[j]))
    })
}

fn near_median<E: Sample>(isa: Isa, rows: &Rows<E>, kept: usize) -> Vec<f64> {
    let mut out = vec![POISON; rows.columns()];
    assert!(mean_near_median(isa, rows, kept, &mut out), "n {} kept {kept}: not finite?", rows.len());
    out
}

fn check<E: Sample>(isa: Isa, n: usize, columns: usize, kind: Values, kept: usize) {
    let tile = fill::<E>(n, columns, kind);
    let rows = tile.rows::<E>(n, columns);
    let what = format!("n {n} kept {kept} of {columns} {kind:?}");
    let got = near_median(isa, &rows, kept);
    let portable = near_median(Isa::named("portable").unwrap(), &rows, kept);
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&got), bits(&portable), "not the portable bits: {what}");
    assert_eq!(first_wrong(&rows, kept, &got), None, "{what}");
}

pub(super) fn matches<E: Sample>(isa: Isa) {
    for n in row_counts() {
        for (turn, kind) in VALUES.into_iter().enumerate() {
            // Few columns for many numbers of kept values; the test below varies the columns.
            let columns = COLUMNS[1 + (n + turn) % 7];
            kept_counts(n).into_iter().for_each(|kept| check::<E>(isa, n, columns, kind, kept));
        }
    }
    for columns in COLUMNS {
        for n in [1, 2, 3, 31, 32, 33, 64, 65] {
            for kept in [1, n / 2 + 1, n] {
                check::<E>(isa, n, columns, Values::Smooth, kept);
                check::<E>(isa, n, columns, Values::Ties, kept);
            }
        }
    }
}

/// If all values are kept, the result is their mean; if one is kept, it is a value nearest to the median.
pub(super) fn ends_of_the_range<E: Sample>(isa: Isa) {
    for n in [1, 2, 3, 8, 33, 70] {
        let tile = fill::<E>(n, 65, Values::Ties);
        let rows = tile.rows::<E>(n, 65);
        let (all, one) = (near_median(isa, &rows, n), near_median(isa, &rows, 1));
        for j in 0..65 {
            let values = column(&rows, j);
            let mean = values.iter().sum::<f64>() / n as f64;
            assert!((all[j] - mean).abs() <= 1e-13, "n {n} column {j}: {} is not {mean}", all[j]);
            let median = reference::median(&values);
            let apart = |x: f64| (x - median).abs();
            let nearest = values.iter().map(|x| apart(*x)).fold(f64::INFINITY, f64::min);
            assert!(values.contains(&one[j]) && apart(one[j]) == nearest, "n {n} column {j}: {}", one[j]);
        }
    }
}

/// The negative control: the comparison notices a small error, one value too few or too many, and the larger of two
/// equally near values.
pub(super) fn wrong_is_noticed<E: Sample>(isa: Isa) {
    let tile = fill::<E>(9, 33, Values::Smooth);
    let rows = tile.rows::<E>(9, 33);
    let mut out = near_median(isa, &rows, 5);
    assert_eq!(first_wrong(&rows, 5, &out), None);
    assert!(first_wrong(&rows, 4, &out).is_some() && first_wrong(&rows, 6, &out).is_some());
    out[32] += 1e-12;
    assert!(first_wrong(&rows, 5, &out).is_some());
    let mut tile = fill::<E>(2, 1, Values::Smooth);
    for (row, x) in [1.0, 3.0].into_iter().enumerate() {
        bytemuck::cast_slice_mut::<u8, E>(tile.row_mut(row))[0] = E::of(x);
    }
    let rows = tile.rows::<E>(2, 1);
    assert_eq!(near_median(isa, &rows, 1), [1.0]);
    assert!(first_wrong(&rows, 1, &[3.0]).is_some());
}

/// The test covers the oracle's case of huge values: halves of the largest, whose sum overflows.
#[test]
fn huge_values_are_among_those_tried() {
    let tile = fill::<f64>(9, 33, Values::Extremes);
    let rows = tile.rows::<f64>(9, 33);
    assert!((0..33).any(|j| column(&rows, j).iter().filter(|x| **x == f64::MAX).count() > 2));
    assert!(column(&fill::<bf16>(3, 1, Values::AllEqual).rows::<bf16>(3, 1), 0) == [-0.75; 3]);
}
