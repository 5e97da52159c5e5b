//! Kernels against the oracle on every backend: one suite, which each backend joins in one line.

mod near_median;
mod pairs;
mod registry;
mod server_step;
mod signs;

use crate::reference;
use fedmill::kernels::coordinate_median::coordinate_median;
use fedmill::kernels::element::{Element, Merged};
use fedmill::kernels::exact_sum::add_sums;
use fedmill::kernels::gram::{Product, SquaredDifference};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::mean_near_median::mean_near_median;
use fedmill::kernels::trimmed_mean::{trimmed_mean, trimmed_sum};
use fedmill::kernels::weighted_sum::{add_weighted, add_weighted_exactly};
use fedmill::model::tile::{Rows, TileBuffer};
use half::{bf16, f16};

/// Fills outputs beforehand. No kernel may leave it.
const POISON: f64 = -7.0e77;

/// Column counts around every vector width and chunk size.
const COLUMNS: [usize; 12] = [1, 2, 7, 8, 9, 15, 16, 17, 33, 511, 513, 1031];

/// A small deterministic generator (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Kinds of values that a column may hold.
#[derive(Clone, Copy, Debug)]
enum Values {
    Smooth,
    Ties,
    AllEqual,
    SignedZeros,
    Subnormals,
    Extremes,
}

const VALUES: [Values; 6] = [
    Values::Smooth,
    Values::Ties,
    Values::AllEqual,
    Values::SignedZeros,
    Values::Subnormals,
    Values::Extremes,
];

/// The properties of a working float that the suite needs, besides those for kernels.
trait Sample: Element + PartialOrd {
    fn of(x: f64) -> Self;
    const LARGEST: f64;
    const SMALLEST: f64;
}

impl Sample for f32 {
    fn of(x: f64) -> Self {
        x as Self
    }
    const LARGEST: f64 = f32::MAX as f64;
    const SMALLEST: f64 = 1.401298464324817e-45;
}

impl Sample for f64 {
    fn of(x: f64) -> Self {
        x
    }
    const LARGEST: f64 = f64::MAX;
    const SMALLEST: f64 = 5e-324;
}

impl Sample for bf16 {
    fn of(x: f64) -> Self {
        Self::from_f64(x)
    }
    const LARGEST: f64 = 3.3895313892515355e38;
    const SMALLEST: f64 = 9.183549615799121e-41;
}

impl Sample for f16 {
    fn of(x: f64) -> Self {
        Self::from_f64(x)
    }
    const LARGEST: f64 = 65504.0;
    const SMALLEST: f64 = 5.960464477539063e-8;
}

fn sample<E: Sample>(kind: Values, random: &mut Random) -> E {
    let r = random.next() >> 11;
    let unit = r as f64 / (1u64 << 53) as f64 - 0.5;
    E::of(match kind {
        Values::Smooth => unit,
        Values::Ties => (r % 5) as f64 - 2.0,
        Values::AllEqual => -0.75,
        Values::SignedZeros => [0.0, -0.0][(r % 2) as usize],
        Values::Subnormals => ((r % 9) as f64 - 4.0) * E::SMALLEST,
        Values::Extremes => [E::LARGEST, -E::LARGEST, 1.0, 0.0][(r % 4) as usize],
    })
}

fn fill<E: Sample>(n: usize, columns: usize, kind: Values) -> TileBuffer {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ ((n * 7919 + columns) as u64) << 8 | 1);
    let mut tile = TileBuffer::new(n, columns * size_of::<E>());
    for row in 0..n {
        let bytes = tile.row_mut(row);
        for x in bytemuck::cast_slice_mut::<u8, E>(&mut bytes[..columns * size_of::<E>()]) {
            *x = sample(kind, &mut random);
        }
    }
    tile
}

fn column<E: Element>(rows: &Rows<E>, column: usize) -> Vec<f64> {
    (0..rows.len()).map(|row| rows.row(row)[column].widen()).collect()
}

/// Calls `check` on a tile for every number of rows and kind of values.
fn for_tiles<E: Sample>(check: impl Fn(&Rows<E>, Values)) {
    for n in 1..=300 {
        let columns = COLUMNS[n % COLUMNS.len()];
        for kind in VALUES {
            check(&fill::<E>(n, columns, kind).rows(n, columns), kind);
        }
    }
    for columns in COLUMNS {
        for n in [1, 2, 3, 31, 32, 33, 64, 65] {
            check(&fill::<E>(n, columns, Values::Smooth).rows(n, columns), Values::Smooth);
        }
    }
}

fn median_matches<E: Sample>(isa: Isa) {
    for_tiles::<E>(|rows, kind| {
        let mut out = vec![POISON; rows.columns()];
        assert!(coordinate_median(isa, rows, &mut out), "n {} {kind:?}", rows.len());
        for (j, got) in out.iter().enumerate() {
            let want = reference::median(&column(rows, j));
            // Bits must agree, except for the sign of a zero between zeros and the half of f64's smallest.
            let exact = *got == want || (got - want).abs() <= 5e-324;
            assert!(exact, "n {} column {j} {kind:?}: got {got:e}, expected {want:e}", rows.len());
        }
    });
}

fn narrow_median_stores_the_same<E: Sample>(isa: Isa) {
    use fedmill::kernels::convert::encode;
    for_tiles::<E>(|rows, kind| {
        let mut wide = vec![POISON; rows.columns()];
        let mut narrow = vec![POISON as f32; rows.columns()];
        coordinate_median(isa, rows, &mut wide);
        coordinate_median(isa, rows, &mut narrow);
        let mut stored = [TileBuffer::new(1, 2 * wide.len()), TileBuffer::new(1, 2 * wide.len())];
        encode(isa, E::DTYPE, &wide, &mut stored[0].row_mut(0)[..2 * wide.len()]);
        encode(isa, E::DTYPE, &narrow, &mut stored[1].row_mut(0)[..2 * wide.len()]);
        let [wide, narrow] = &mut stored;
        assert_eq!(wide.row_mut(0), narrow.row_mut(0), "n {} {kind:?}", rows.len());
    });
}

fn trimmed_mean_matches<E: Sample>(isa: Isa) {
    for_tiles::<E>(|rows, kind| {
        // The largest values of f64 add up to infinity in the oracle too.
        if E::LARGEST == f64::MAX && matches!(kind, Values::Extremes) {
            return;
        }
        let n = rows.len();
        // For many rows, one cut at a time: the oracle sorts each column anew.
        let cuts = [0, 1, n / 5, (n - 1) / 2];
        for cut in if n > 70 { &cuts[2 + n % 2..][..1] } else { &cuts[..] }.iter().copied() {
            if 2 * cut >= n {
                continue;
            }
            let mut out = vec![POISON; rows.columns()];
            assert!(trimmed_mean(isa, rows, cut, &mut out));
            for (j, got) in out.iter().enumerate() {
                let values = column(rows, j);
                let scale = values.iter().fold(E::SMALLEST, |a, x| a.max(x.abs()));
                let want = reference::trimmed_mean(&values, cut);
                reference::assert_close(
                    *got,
                    want,
                    n,
                    scale,
                    &format!("n {n} cut {cut} column {j} {kind:?}"),
                );
            }
        }
    });
}

fn weighted_sum_matches<E: Sample>(isa: Isa) {
    for_tiles::<E>(|rows, kind| {
        if E::LARGEST == f64::MAX && matches!(kind, Values::Extremes) {
            return;
        }
        for fractional in [false, true] {
            let weight =
                |i: usize| if fractional { 0.1 + 1.0 / (i + 3) as f64 } else { (i * 37 % 101) as f64 + 1.0 };
            let weights: Vec<f64> = (0..rows.len()).map(weight).collect();
            let total: f64 = weights.iter().sum();
            let mut sums = vec![0.0; rows.columns()];
            add_weighted(isa, rows, &weights, &mut sums);
            let mut plain = vec![0.0; rows.columns()];
            add_weighted(Isa::named("portable").unwrap(), rows, &weights, &mut plain);
            for (j, sum) in sums.iter().enumerate() {
                assert_eq!(
                    sum.to_bits(),
                    plain[j].to_bits(),
                    "not the portable bits: n {} {kind:?}",
                    rows.len()
                );
                let values = column(rows, j);
                let scale = values.iter().fold(E::SMALLEST, |a, x| a.max(x.abs()));
                let want = reference::weighted_mean(&values, &weights);
                reference::assert_close(
                    sum / total,
                    want,
                    rows.len(),
                    scale,
                    &format!("n {} {kind:?}", rows.len()),
                );
            }
        }
    });
}

/// Sum and error together are the exact sum, on every processor and for every grouping of rows.
fn exact_sum_matches<E: Sample>(isa: Isa) {
    for_tiles::<E>(|rows, kind| {
        let (n, columns) = (rows.len(), rows.columns());
        // The oracle grows one expansion per column. For many rows it takes only a few numbers of columns.
        if matches!(kind, Values::Extremes) || n > 40 && n % 51 != 0 {
            return;
        }
        for fractional in [false, true] {
            let weight =
                |i: usize| if fractional { 0.1 + 1.0 / (i + 3) as f64 } else { (i * 37 % 101) as f64 };
            let weights: Vec<f64> = (0..n).map(weight).collect();
            let (mut sums, mut errors) = (vec![0.0; columns], vec![0.0; columns]);
            add_weighted_exactly(isa, rows, &weights, &mut sums, &mut errors);
            let (mut tree, mut tree_errors) = (vec![0.0; columns], vec![0.0; columns]);
            for first in (0..3.min(n)).rev() {
                let some: Vec<f64> = weights.iter().copied().skip(first).step_by(3).collect();
                let (mut sums, mut errors) = (vec![0.0; columns], vec![0.0; columns]);
                add_weighted_exactly(isa, &rows.every(first, 3), &some, &mut sums, &mut errors);
                add_sums(&sums, &errors, &mut tree, &mut tree_errors);
            }
            for j in 0..columns {
                let want = reference::exact_weighted_sum(&column(rows, j), &weights);
                let what = format!("n {n} column {j} of {columns} {kind:?} fractional {fractional}");
                assert_eq!(sums[j] + errors[j], want, "{what}");
                assert_eq!(tree[j] + tree_errors[j], want, "in three parts: {what}");
            }
        }
    });
}

/// The parts of a trimmed mean: the smallest and largest values, and the exact sum of the others.
fn trimmed_sum_matches<E: Sample>(isa: Isa) {
    for_tiles::<E>(|rows, kind| {
        let (n, columns) = (rows.len(), rows.columns());
        if matches!(kind, Values::Extremes) || n > 40 && n % 51 != 0 {
            return;
        }
        for (low, high) in [(0, 0), (1, 0), (1, 1), (n / 3, n / 4), (n / 2, n - n / 2)] {
            if low + high > n {
                continue;
            }
            let mut edges = vec![vec![E::of(7.0e7); columns]; low + high];
            let (mut sums, mut errors) = (vec![0.0; columns], vec![0.0; columns]);
            let mut slices: Vec<&mut [E]> = edges.iter_mut().map(Vec::as_mut_slice).collect();
            assert!(trimmed_sum(isa, rows, low..n - high, &mut slices, &mut sums, &mut errors));
            for j in 0..columns {
                let mut values = column(rows, j);
                values.sort_by(f64::total_cmp);
                let what = format!("n {n} low {low} high {high} column {j} of {columns} {kind:?}");
                let want: Vec<u64> =
                    values[..low].iter().chain(&values[n - high..]).map(|x| x.to_bits()).collect();
                let got: Vec<u64> = edges.iter().map(|edge| edge[j].widen().to_bits()).collect();
                assert_eq!(got, want, "{what}");
                let middle = &values[low..n - high];
                let want = reference::exact_weighted_sum(middle, &vec![1.0; middle.len()]);
                assert_eq!(sums[j] + errors[j], want, "{what}");
            }
        }
    });
}

/// The kernels that screen find NaN and infinity in every position.
fn non_finite_is_seen<E: Sample>(isa: Isa) {
    for n in [1, 2, 3, 5, 8, 13, 21, 32, 33, 64, 70] {
        for columns in [1, 17, 33] {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for place in [0, columns * n / 2, columns * n - 1] {
                    let mut tile = fill::<E>(n, columns, Values::Smooth);
                    let row = &mut tile.row_mut(place / columns)[..columns * size_of::<E>()];
                    bytemuck::cast_slice_mut::<u8, E>(row)[place % columns] = E::of(bad);
                    let rows = tile.rows::<E>(n, columns);
                    let mut out = vec![POISON; columns];
                    let what = format!("{bad} at {place} of {n} x {columns}");
                    assert!(!coordinate_median(isa, &rows, &mut out), "median: {what}");
                    assert!(!trimmed_mean(isa, &rows, (n - 1) / 2, &mut out), "trimmed mean: {what}");
                    for kept in [1, n] {
                        assert!(!mean_near_median(isa, &rows, kept, &mut out), "near {kept}: {what}");
                    }
                    let mut sums = vec![0.0; columns];
                    add_weighted(isa, &rows, &vec![2.0; n], &mut sums);
                    assert!(!sums[place % columns].is_finite(), "weighted sum: {what}");
                    let (mut sums, mut errors) = (vec![0.0; columns], vec![0.0; columns]);
                    add_weighted_exactly(isa, &rows, &vec![2.0; n], &mut sums, &mut errors);
                    let sum = sums[place % columns] + errors[place % columns];
                    assert!(!sum.is_finite(), "exact sum: {what}");
                    assert!(
                        !trimmed_sum(isa, &rows, 0..n, &mut [], &mut sums, &mut errors),
                        "trimmed sum: {what}"
                    );
                }
            }
        }
    }
}

/// The negative control: the comparison notices an output that is off by one bit.
fn a_wrong_median_is_noticed<E: Sample>(isa: Isa) {
    let rows = fill::<E>(9, 33, Values::Smooth);
    let rows = rows.rows::<E>(9, 33);
    let mut out = vec![POISON; 33];
    coordinate_median(isa, &rows, &mut out);
    let want = reference::median(&column(&rows, 32));
    assert_eq!(out[32], want);
    assert_ne!(out[32].next_up(), want);
}

/// A window on some columns of a tile gives the values of the whole tile there.
fn windows_agree_with_the_whole<E: Sample>(isa: Isa) {
    let tile = fill::<E>(40, 500, Values::Smooth);
    let rows = tile.rows::<E>(40, 500);
    let mut whole = vec![POISON; 500];
    coordinate_median(isa, &rows, &mut whole);
    for range in [0..64, 64..128, 448..500, 0..500] {
        let mut part = vec![POISON; range.len()];
        coordinate_median(isa, &rows.at(range.clone()), &mut part);
        assert_eq!(part, whole[range]);
    }
}

#[test]
fn midpoints_never_overflow() {
    assert_eq!(<f64 as Merged>::midpoint(f64::MAX, f64::MAX), f64::MAX);
    assert_eq!(<f64 as Merged>::midpoint(5e-324, 5e-324), 5e-324);
    assert_eq!(<f32 as Merged>::midpoint(bf16::MAX, bf16::MAX), bf16::MAX.to_f32());
}

/// The suite, for one backend and every working float.
macro_rules! suite {
    ($isa:ident) => {
        mod $isa {
            use super::*;

            fn on_backend(check: fn(Isa)) {
                match Isa::named(stringify!($isa)) {
                    Some(isa) => check(isa),
                    None => crate::harness::skip(concat!("this processor has no ", stringify!($isa))),
                }
            }

            suite!(@each f32 float32);
            suite!(@each f64 float64);
            suite!(@each bf16 bfloat16);
            suite!(@each f16 float16);

            #[test]
            fn narrow_median() {
                on_backend(narrow_median_stores_the_same::<bf16>);
                on_backend(narrow_median_stores_the_same::<f16>);
            }
            #[test]
            fn server_steps() {
                on_backend(server_step::matches);
            }
            #[test]
            fn server_step_negative_control() {
                on_backend(server_step::wrong_is_noticed);
            }
            #[test]
            fn pair_products() {
                on_backend(pairs::pair_sums_match::<Product>);
                on_backend(pairs::wide_pair_sums_match::<Product>);
            }
            #[test]
            fn pair_differences() {
                on_backend(pairs::pair_sums_match::<SquaredDifference>);
                on_backend(pairs::wide_pair_sums_match::<SquaredDifference>);
            }
            #[test]
            fn pairs_negative_control() {
                on_backend(pairs::wrong_is_noticed);
            }
        }
    };
    (@each $float:ident $name:ident) => {
        mod $name {
            use super::*;

            #[test]
            fn median() {
                on_backend(median_matches::<$float>);
            }
            #[test]
            fn trimmed() {
                on_backend(trimmed_mean_matches::<$float>);
            }
            #[test]
            fn weighted() {
                on_backend(weighted_sum_matches::<$float>);
            }
            #[test]
            fn exact() {
                on_backend(exact_sum_matches::<$float>);
            }
            #[test]
            fn trimmed_exact() {
                on_backend(trimmed_sum_matches::<$float>);
            }
            #[test]
            fn non_finite() {
                on_backend(non_finite_is_seen::<$float>);
            }
            #[test]
            fn negative_control() {
                on_backend(a_wrong_median_is_noticed::<$float>);
            }
            #[test]
            fn windows() {
                on_backend(windows_agree_with_the_whole::<$float>);
            }
            #[test]
            fn near_median() {
                on_backend(near_median::matches::<$float>);
                on_backend(near_median::ends_of_the_range::<$float>);
            }
            #[test]
            fn near_median_negative_control() {
                on_backend(near_median::wrong_is_noticed::<$float>);
            }
            #[test]
            fn centring() {
                on_backend(pairs::centring_matches::<$float>);
                on_backend(pairs::centring_sees_what_is_not_finite::<$float>);
            }
            #[test]
            fn centred_products() {
                on_backend(pairs::centred_products_match::<$float>);
            }
            #[test]
            fn signs() {
                on_backend(signs::matches::<$float>);
            }
            #[test]
            fn signs_negative_control() {
                on_backend(signs::wrong_is_noticed::<$float>);
            }
        }
    };
}

suite!(portable);
suite!(avx2);
suite!(avx512);

#[test]
fn ten_thousand_rows_sort() {
    let tile = fill::<f32>(10_000, 17, Values::Smooth);
    let rows = tile.rows::<f32>(10_000, 17);
    for isa in Isa::available() {
        let mut out = vec![POISON; 17];
        coordinate_median(isa, &rows, &mut out);
        for (j, got) in out.iter().enumerate() {
            assert_eq!(*got, reference::median(&column(&rows, j)), "column {j} on {isa}");
        }
    }
}
