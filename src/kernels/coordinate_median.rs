//! The median of every coordinate, unweighted.
//!
//! For an even number of rows it is the midpoint of the two middle values.
//!
//! Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, 2018,
//! definition 1. Agreement: bits.

use crate::kernels::columns::{
    Block, ColumnSorter, Extremes, GatherBlock, Padding, SortBlock, with_block_size,
};
use crate::kernels::dispatch;
use crate::kernels::element::{Element, Merged};
use crate::kernels::lanes::{Lanes, Outlined};
use crate::kernels::network::{BLOCK_SIZES, MAX_BLOCK};
use crate::model::tile::Rows;
use std::ops::Range;

/// Columns per chunk: the kernel first finds their middle keys, then turns all into floats in one vectorised loop.
const CHUNK: usize = 512;

dispatch! {
    /// Writes the median of each column of `rows` (at least one) to `out`. Returns whether every value is finite; if
    /// not, `out` is meaningless.
    pub fn coordinate_median<A: Arch, E: Element, F: Merged>(rows: &Rows<E>, out: &mut [F]) -> bool {
        let padding = Padding::new(rows);
        let mut middle = Middle::<E::Lanes<A>>::new(rows, &padding);
        let mut extremes = Extremes::none::<E>();
        let (mut lows, mut highs) = ([E::MIN_KEY; CHUNK], [E::MIN_KEY; CHUNK]);
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            let columns = chunk * CHUNK..chunk * CHUNK + out.len();
            let (lows, highs) = (&mut lows[..], &mut highs[..]);
            E::Lanes::<A>::call(MiddleKeys { middle: &mut middle, columns, lows, highs, extremes: &mut extremes });
            for ((out, low), high) in out.iter_mut().zip(&*lows).zip(&*highs) {
                *out = F::midpoint(E::from_key(*low), E::from_key(*high));
            }
        }
        extremes.finite::<E>()
    }
}

/// Finds the two middle keys of columns, equal if the number of rows is odd.
#[expect(clippy::large_enum_variant, reason = "one call makes one, on the stack")]
enum Middle<'a, V: Lanes> {
    /// Up to 32 rows: computes only the comparators that the middle depends on.
    Select { block: Block<'a, V::Key>, is_odd: bool },
    /// Any number of rows.
    Sort { sorter: ColumnSorter<'a, V>, lower: usize, upper: usize },
}

impl<'a, V: Lanes> Middle<'a, V> {
    fn new<E: Element<Key = V::Key>>(rows: &Rows<'a, E>, padding: &'a Padding<V::Key>) -> Self {
        let n = rows.len();
        if n > MAX_BLOCK {
            let (lower, upper) = ((n - 1) / 2, n / 2);
            Self::Sort { sorter: ColumnSorter::new(rows, padding, lower..=upper), lower, upper }
        } else {
            // Equal padding at both ends keeps the middle rows in the middle.
            let size = BLOCK_SIZES.into_iter().find(|size| *size >= n).unwrap_or(MAX_BLOCK);
            Self::Select { block: Block::new(rows, 0, n, (size - n) / 2, padding), is_odd: n % 2 == 1 }
        }
    }
}

/// Writes the middle keys of some columns, and updates the extremes.
struct MiddleKeys<'w, 'a, V: Lanes> {
    middle: &'w mut Middle<'a, V>,
    columns: Range<usize>,
    lows: &'w mut [V::Key],
    highs: &'w mut [V::Key],
    extremes: &'w mut Extremes<V>,
}

impl<V: Lanes> Outlined for MiddleKeys<'_, '_, V> {
    #[inline(always)]
    fn run(self) {
        let Self { middle, columns, lows, highs, extremes } = self;
        match middle {
            Middle::Sort { sorter, lower, upper } => {
                for (i, column) in columns.step_by(V::WIDTH).enumerate() {
                    let sorted = sorter.sort(column, extremes);
                    sorted[*lower].store(&mut lows[i * V::WIDTH..]);
                    sorted[*upper].store(&mut highs[i * V::WIDTH..]);
                }
            }
            Middle::Select { block, is_odd } => with_block_size!(block.size(), N => {
                let mut seen = *extremes;
                for (i, column) in columns.step_by(V::WIDTH).enumerate() {
                    let rows = <[V; N]>::gathered(block, column);
                    seen.see(&rows);
                    let sorted = rows.sorted();
                    sorted[N / 2 - 1].store(&mut lows[i * V::WIDTH..]);
                    sorted[if *is_odd { N / 2 - 1 } else { N / 2 }].store(&mut highs[i * V::WIDTH..]);
                }
                *extremes = seen;
            }),
        }
    }
}
