//! Sums over pairs of centred rows, and the centring itself, against sums in f64.

use super::{POISON, Sample, Values, fill};
use fedmill::kernels::element::{Element, Merged};
use fedmill::kernels::gram::{
    BLOCK, Product, RELATIVE_ERROR, SquaredDifference, Term, add_pair_sums, add_wide_pair_sums, centre,
};
use fedmill::kernels::lanes::Isa;
use fedmill::model::tile::{Rows, TileBuffer};

/// Column counts around every vector width, and whole blocks.
const COLUMNS: [usize; 11] = [0, 1, 15, 16, 17, 63, 64, 65, 1001, 1023, BLOCK];

/// Row counts that fill squares of pairs or do not, for one group of rows and for several.
const ROWS: [usize; 14] = [1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 65, 70, 128, 257];

/// Kinds whose squares f32 holds. Kernels sum larger and smaller values in f64.
const FITTING: [Values; 4] = [Values::Smooth, Values::Ties, Values::AllEqual, Values::SignedZeros];

fn portable() -> Isa {
    Isa::named("portable").unwrap()
}

/// Zeros for all pairs, and poison behind them.
fn before(n: usize) -> Vec<f64> {
    let mut sums = vec![0.0; n * (n + 1) / 2];
    sums.push(POISON);
    sums
}

/// The first pair whose error is more than `relative` times the sum of its terms' magnitudes, or a changed value behind
/// the sums.
fn first_wrong<T: Term>(rows: &[Vec<f64>], sums: &[f64], relative: f64) -> Option<String> {
    let n = rows.len();
    let pairs = (0..n).flat_map(|i| (i..n).map(move |j| (i, j)));
    if sums[n * (n + 1) / 2] != POISON {
        return Some("a value behind the sums was written".to_owned());
    }
    pairs.zip(sums).find_map(|((i, j), got)| {
        let (mut want, mut size) = (0.0, 0.0);
        for (a, b) in rows[i].iter().zip(&rows[j]) {
            let term = T::of(*a, *b);
            want += term;
            size += f64::abs(term);
        }
        let fine = (got - want).abs() <= relative * size;
        (!fine).then(|| format!("{i}, {j}: got {got:e}, expected {want:e} to {:e}", relative * size))
    })
}

fn widened<E: Element>(rows: &Rows<E>) -> Vec<Vec<f64>> {
    (0..rows.len()).map(|i| rows.row(i).iter().map(|x| x.widen()).collect()).collect()
}

/// Values after the last whole vector, which no sum may read.
fn soil_behind(tile: &mut TileBuffer, n: usize, whole_columns: usize) {
    for row in 0..n {
        bytemuck::cast_slice_mut::<u8, f32>(tile.row_mut(row))[whole_columns..].fill(f32::NAN);
    }
}

fn pair_sums<T: Term>(isa: Isa, rows: &Rows<f32>) -> Vec<f64> {
    let mut sums = before(rows.len());
    let end = sums.len() - 1;
    add_pair_sums::<T>(isa, rows, 0..rows.len(), &mut sums[..end]);
    sums
}

fn check_pairs<T: Term>(isa: Isa, n: usize, columns: usize, kind: Values) {
    let mut tile = fill::<f32>(n, columns, kind);
    let whole_columns = tile.rows::<f32>(n, columns).whole_columns();
    soil_behind(&mut tile, n, whole_columns);
    let rows = tile.rows::<f32>(n, columns);
    let what = format!("{n} rows of {columns} {kind:?}");
    let mut sums = pair_sums::<T>(isa, &rows);
    assert_eq!(first_wrong::<T>(&widened(&rows), &sums, RELATIVE_ERROR), None, "{what}");
    assert_eq!(bits(&sums), bits(&pair_sums::<T>(portable(), &rows)), "not the portable bits: {what}");
    // Kernels add to sums. After a second f32 run each sum is twice as large.
    let twice: Vec<f64> = sums.iter().map(|x| if *x == POISON { *x } else { 2.0 * x }).collect();
    let end = sums.len() - 1;
    add_pair_sums::<T>(isa, &rows, 0..n, &mut sums[..end]);
    assert_eq!(sums, twice, "{what}");
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

pub(super) fn pair_sums_match<T: Term>(isa: Isa) {
    for n in ROWS {
        // Many rows take long, so there is one number of columns, with the values that differ.
        let (columns, kinds) =
            if n > 40 { (&COLUMNS[7..8], &FITTING[..2]) } else { (&COLUMNS[..], &FITTING[..]) };
        for columns in columns {
            kinds.iter().for_each(|kind| check_pairs::<T>(isa, n, *columns, *kind));
        }
    }
    check_pairs::<T>(isa, 128, 1001, Values::Smooth);
    for n in 1..=40 {
        check_pairs::<T>(isa, n, 17, Values::Smooth);
    }
}

/// Sums of f64 rows, of huge and of tiny values too.
pub(super) fn wide_pair_sums_match<T: Term>(isa: Isa) {
    let kinds = [FITTING[0], FITTING[1], FITTING[3], Values::Extremes, Values::Subnormals];
    for n in [1, 2, 3, 7, 33, 70] {
        for columns in COLUMNS {
            for kind in kinds {
                // The extremes of f32 need f64 for their squares.
                let narrow = fill::<f32>(n, columns, kind);
                let rows = widened(&narrow.rows::<f32>(n, columns));
                check_wide::<T>(isa, &rows, columns, &format!("{n} rows of {columns} {kind:?}"));
            }
        }
    }
}

fn check_wide<T: Term>(isa: Isa, values: &[Vec<f64>], columns: usize, what: &str) {
    let n = values.len();
    let mut tile = TileBuffer::new(n, columns * size_of::<f64>());
    for (row, values) in values.iter().enumerate() {
        bytemuck::cast_slice_mut::<u8, f64>(tile.row_mut(row))[..columns].copy_from_slice(values);
    }
    let rows = tile.rows::<f64>(n, columns);
    let (mut sums, mut plain) = (before(n), before(n));
    let end = sums.len() - 1;
    add_wide_pair_sums::<T>(isa, &rows, 0..n, &mut sums[..end]);
    add_wide_pair_sums::<T>(portable(), &rows, 0..n, &mut plain[..end]);
    assert_eq!(bits(&sums), bits(&plain), "not the portable bits: {what}");
    let relative = (columns + 2) as f64 * f64::EPSILON;
    assert_eq!(first_wrong::<T>(values, &sums, relative), None, "{what}");
}

/// Rows minus a centre are the f64 differences, rounded once. The kernel reports the largest magnitude and writes
/// nothing after the row.
pub(super) fn centring_matches<E: Sample>(isa: Isa) {
    for columns in COLUMNS {
        for kind in [Values::Smooth, Values::Ties, Values::SignedZeros, Values::Subnormals, Values::Extremes]
        {
            let tile = fill::<E>(2, columns, kind);
            let rows = tile.rows::<E>(2, columns);
            let (row, middle) = (rows.row(0), rows.row(1));
            let wide: Vec<f64> = middle.iter().map(|x| x.widen()).collect();
            let narrow: Vec<f32> = middle.iter().map(|x| x.narrow()).collect();
            let what = format!("{columns} columns {kind:?}");
            let whole = |j: usize| row[j].narrow();
            check_centred::<E, f64>(isa, row, &[], whole, &what);
            check_centred(isa, row, &wide, |j| (row[j].widen() - wide[j]) as f32, &what);
            // The largest values of f64 do not fit f32, so this is infinity minus infinity.
            if E::LARGEST < f64::MAX || !matches!(kind, Values::Extremes) {
                check_centred(isa, row, &narrow, |j| row[j].narrow() - narrow[j], &what);
            }
        }
    }
}

fn check_centred<E: Element, C: Merged>(
    isa: Isa,
    row: &[E],
    middle: &[C],
    want: impl Fn(usize) -> f32,
    what: &str,
) {
    let mut out = vec![POISON as f32; row.len() + 5];
    let largest = centre(isa, row, middle, &mut out);
    for (j, got) in out[..row.len()].iter().enumerate() {
        assert_eq!(got.to_bits(), want(j).to_bits(), "column {j}: {got:e}, not {:e}: {what}", want(j));
    }
    assert!(out[row.len()..].iter().all(|x| *x == POISON as f32), "written behind the row: {what}");
    let most = (0..row.len()).map(|j| want(j).abs()).fold(0.0, f32::max);
    assert_eq!(largest, most.to_bits(), "the largest magnitude of {what}");
}

/// The kernel reports a value that is not finite, or does not fit, in any position.
pub(super) fn centring_sees_what_is_not_finite<E: Sample>(isa: Isa) {
    const INFINITY: u32 = 0x7f80_0000;
    for columns in [1, 16, 17, 65, 1001] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for place in [0, columns / 2, columns - 1] {
                let mut row = fill::<E>(1, columns, Values::Smooth).rows::<E>(1, columns).row(0).to_vec();
                row[place] = E::of(bad);
                let mut out = vec![0.0; columns];
                let what = format!("{bad} at {place} of {columns}");
                assert!(centre::<E, f32>(isa, &row, &[], &mut out) >= INFINITY, "{what}");
                assert!(centre(isa, &row, &vec![0.5f32; columns], &mut out) >= INFINITY, "{what}");
                assert!(centre(isa, &row, &vec![0.5f64; columns], &mut out) >= INFINITY, "{what}");
            }
        }
    }
    let mut out = [0.0];
    assert!(centre(isa, &[E::of(E::LARGEST)], &[-3e38f64], &mut out) < INFINITY || E::LARGEST > 1e38);
    assert_eq!(centre(isa, &[1e39f64], &[0.0f64], &mut out), INFINITY);
}

/// From rows of any float to sums of products about a centre, within a bound on the sums of the true values.
pub(super) fn centred_products_match<E: Sample>(isa: Isa) {
    for n in [1, 2, 3, 8, 33, 70] {
        for columns in [1, 17, 65, 1001] {
            for kind in [Values::Smooth, Values::Ties] {
                check_centred_products::<E>(isa, n, columns, kind);
            }
        }
    }
}

fn check_centred_products<E: Sample>(isa: Isa, n: usize, columns: usize, kind: Values) {
    let tile = fill::<E>(n, columns, kind);
    let rows = tile.rows::<E>(n, columns);
    // The working float in which the first pass holds combinations of such floats.
    let quarter = |j: usize| ((j % 7) as f64 - 3.0) / 4.0;
    let middle: Vec<E::Mixed> = (0..columns).map(|j| E::Mixed::rounded(quarter(j))).collect();
    let mut panel = TileBuffer::new(n, columns * size_of::<f32>());
    for i in 0..n {
        centre(isa, rows.row(i), &middle, bytemuck::cast_slice_mut(panel.row_mut(i)));
        panel.clear_behind(i, columns * size_of::<f32>());
    }
    let sums = pair_sums::<Product>(isa, &panel.rows(n, columns));
    let less = |row: Vec<f64>| row.iter().enumerate().map(|(j, x)| x - quarter(j)).collect();
    let values: Vec<Vec<f64>> = widened(&rows).into_iter().map(less).collect();
    let wrong = first_wrong::<Product>(&values, &sums, RELATIVE_ERROR);
    assert_eq!(wrong, None, "{n} rows of {columns} {kind:?}");
}

/// The negative control: the check notices a sum that is slightly outside the bound, a sum that lacks a column, a sum
/// of the other kind, and a write behind the sums.
pub(super) fn wrong_is_noticed(isa: Isa) {
    let tile = fill::<f32>(3, 65, Values::Smooth);
    let rows = tile.rows::<f32>(3, 65);
    let values = widened(&rows);
    let wrong = |sums: &[f64]| first_wrong::<SquaredDifference>(&values, sums, RELATIVE_ERROR);
    let sums = pair_sums::<SquaredDifference>(isa, &rows);
    assert_eq!(wrong(&sums), None);
    let mut off = sums.clone();
    off[1] *= 1.0 + 3.0 * RELATIVE_ERROR;
    assert!(wrong(&off).is_some());
    assert!(wrong(&pair_sums::<SquaredDifference>(isa, &tile.rows(3, 64))).is_some());
    assert!(wrong(&pair_sums::<Product>(isa, &rows)).is_some());
    let mut behind = sums;
    behind[3 * 4 / 2] = 0.0;
    assert!(wrong(&behind).unwrap().contains("behind the sums"));
}
