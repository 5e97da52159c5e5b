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
use crate::kernels::lanes::Lanes;
use crate::kernels::network::MAX_BLOCK;
use crate::model::tile::Rows;

/// Columns per chunk: the kernel first finds their middle keys, then turns all into floats in one vectorised loop.
const CHUNK: usize = 512;

dispatch! {
    /// Writes the median of each column of `rows` (at least one) to `out`. Returns whether every value is finite; if
    /// not, `out` is meaningless.
    pub fn coordinate_median<A: Arch, E: Element, F: Merged>(rows: &Rows<E>, out: &mut [F]) -> bool {
        let padding = Padding::new(rows);
        let n = rows.len();
        if n > MAX_BLOCK {
            let (lower, upper) = ((n - 1) / 2, n / 2);
            let mut sorter = ColumnSorter::<E::Lanes<A>>::new(rows, &padding, lower..=upper);
            medians::<E, E::Lanes<A>, F>(out, Sorting { sorter: &mut sorter, lower, upper })
        } else {
            with_block_size!(n, N => {
                // Equal padding at both ends keeps the middle rows in the middle.
                let block = Block::new(rows, 0, n, (N - n) / 2, &padding);
                medians::<E, E::Lanes<A>, F>(out, Selecting::<E, N> { block, odd: n % 2 == 1 })
            })
        }
    }
}

/// Finds the two middle keys of a vector of columns, equal when the number of rows is odd.
trait MiddleKeys<V> {
    fn middle(&mut self, column: usize, extremes: &mut Extremes<V>) -> [V; 2];
}

/// For up to 32 rows. Runs only the comparators on which the middle depends.
struct Selecting<'a, E: Element, const N: usize> {
    block: Block<'a, E::Key>,
    odd: bool,
}

impl<E, V, const N: usize> MiddleKeys<V> for Selecting<'_, E, N>
where
    E: Element,
    V: Lanes<Key = E::Key>,
    [V; N]: GatherBlock<V> + SortBlock,
{
    #[inline(always)]
    fn middle(&mut self, column: usize, extremes: &mut Extremes<V>) -> [V; 2] {
        let block = <[V; N]>::gathered(&self.block, column);
        extremes.see(&block);
        let sorted = block.sorted();
        [sorted[N / 2 - 1], sorted[if self.odd { N / 2 - 1 } else { N / 2 }]]
    }
}

/// For any number of rows.
struct Sorting<'s, 'a, V: Lanes> {
    sorter: &'s mut ColumnSorter<'a, V>,
    lower: usize,
    upper: usize,
}

impl<V: Lanes> MiddleKeys<V> for Sorting<'_, '_, V> {
    #[inline(always)]
    fn middle(&mut self, column: usize, extremes: &mut Extremes<V>) -> [V; 2] {
        let sorted = self.sorter.sort(column, extremes);
        [sorted[self.lower], sorted[self.upper]]
    }
}

#[inline(always)]
fn medians<E: Element, V: Lanes<Key = E::Key>, F: Merged>(
    out: &mut [F],
    mut keys: impl MiddleKeys<V>,
) -> bool {
    let mut extremes = Extremes::none::<E>();
    let mut lows = [E::MIN_KEY; CHUNK];
    let mut highs = [E::MIN_KEY; CHUNK];
    for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
        for start in (0..out.len()).step_by(V::WIDTH) {
            let [low, high] = keys.middle(chunk * CHUNK + start, &mut extremes);
            low.store(&mut lows[start..]);
            high.store(&mut highs[start..]);
        }
        for ((out, low), high) in out.iter_mut().zip(&lows).zip(&highs) {
            *out = F::midpoint(E::from_key(*low), E::from_key(*high));
        }
    }
    extremes.finite::<E>()
}
