//! Counts of signs against plain comparisons.

use super::{COLUMNS, Random, Sample, VALUES, Values, fill, sample};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::signs::add_signs;
use fedmill::model::tile::Rows;

/// The initial counts. Kernels add to the counts of the row, and leave those after it.
fn before(len: usize) -> Vec<i32> {
    (0..len as i32).map(|i| 7 * i - 100).collect()
}

/// Counts for three more columns than the rows have.
fn counted<E: Sample>(isa: Isa, rows: &Rows<E>, base: &[f64]) -> Vec<i32> {
    let mut counts = before(rows.columns() + 3);
    (0..rows.len()).for_each(|i| add_signs(isa, rows.row(i), base, &mut counts));
    counts
}

fn expected<E: Sample>(rows: &Rows<E>, base: &[f64]) -> Vec<i32> {
    let mut counts = before(rows.columns() + 3);
    for (j, count) in counts.iter_mut().take(rows.columns()).enumerate() {
        let base = base.get(j).copied().unwrap_or(0.0);
        let above = (0..rows.len()).filter(|i| rows.row(*i)[j].widen() > base).count();
        let below = (0..rows.len()).filter(|i| rows.row(*i)[j].widen() < base).count();
        *count += above as i32 - below as i32;
    }
    counts
}

/// Values of the rows, so that some deltas are zero, and their negatives.
fn base_like<E: Sample>(rows: &Rows<E>, kind: Values) -> Vec<f64> {
    let mut random = Random(0x1234_5678_9abc_def1);
    let value = |j: usize| match j % 3 {
        0 => rows.row(j % rows.len())[j].widen(),
        1 => -rows.row(0)[j].widen(),
        _ => sample::<E>(kind, &mut random).widen(),
    };
    (0..rows.columns()).map(value).collect()
}

pub(super) fn matches<E: Sample>(isa: Isa) {
    for columns in COLUMNS.into_iter().chain([0, 63, 64, 65, 1001]) {
        for kind in VALUES {
            for n in [1, 2, 5, 40] {
                let tile = fill::<E>(n, columns, kind);
                let rows = tile.rows::<E>(n, columns);
                for base in [Vec::new(), base_like(&rows, kind)] {
                    let what = format!("{n} rows of {columns} {kind:?}, base {}", !base.is_empty());
                    assert_eq!(counted(isa, &rows, &base), expected(&rows, &base), "{what}");
                }
            }
        }
    }
}

/// The negative control: the check notices one changed sign, and a base that the kernel ignores.
pub(super) fn wrong_is_noticed<E: Sample>(isa: Isa) {
    let mut tile = fill::<E>(3, 17, Values::Smooth);
    let want = expected(&tile.rows::<E>(3, 17), &[]);
    let high = expected(&tile.rows::<E>(3, 17), &[10.0; 17]);
    assert_eq!(counted(isa, &tile.rows::<E>(3, 17), &[10.0; 17]), high);
    assert_ne!(want, high);
    let row = bytemuck::cast_slice_mut::<u8, E>(tile.row_mut(1));
    row[16] = E::of(-row[16].widen());
    let got = counted(isa, &tile.rows::<E>(3, 17), &[]);
    assert_eq!(got[..16], want[..16]);
    assert_ne!(got, want);
}
