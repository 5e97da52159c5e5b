//! Sorts the columns of a tile, a vector of columns at a time.
//!
//! Straight-line networks in registers sort a column of `n` keys in runs of up to 32 rows. Bitonic merges then join
//! runs of twice the length, until one is left. The merges use the ascending form: the first stage compares row `i`
//! with the mirrored row of the other run. So rows past the end act as infinities that never move, and `n` needs no
//! padding to a power of two. The last merge visits only the blocks that the caller will read.
//!
//! Batcher, Sorting networks and their applications, 1968.

use crate::kernels::element::Element;
use crate::kernels::lanes::{Lanes, MAX_WIDTH, Outlined};
use crate::kernels::network::{BLOCK_SIZES, MAX_BLOCK};
use crate::model::tile::Rows;
use std::ops::RangeInclusive;

/// Sorts a fixed number of rows held in registers.
pub(crate) trait SortBlock {
    /// The rows in ascending order, lane by lane.
    fn sorted(self) -> Self;
}

/// Sorts a bitonic sequence of rows held in registers.
pub(crate) trait MergeBlock {
    /// The rows in ascending order, lane by lane.
    fn merged(self) -> Self;
}

/// Loads a block of rows into registers.
pub(crate) trait GatherBlock<V: Lanes> {
    /// The keys of every row from `column` on.
    fn gathered(block: &Block<V::Key>, column: usize) -> Self;
}

include!(concat!(env!("OUT_DIR"), "/networks.rs"));

/// Evaluates `$body` with `$n` bound to the smallest block size that holds `$rows`.
macro_rules! with_block_size {
    ($rows:expr, $n:ident => $body:expr) => {
        $crate::kernels::columns::with_block_size!(@ $rows, $n => $body; 2 4 6 8 12 16 20 24 28)
    };
    (@ $rows:expr, $n:ident => $body:expr; $($size:literal)*) => {
        match $rows {
            $(rows if rows <= $size => { const $n: usize = $size; $body })*
            _ => { const $n: usize = $crate::kernels::network::MAX_BLOCK; $body }
        }
    };
}
pub(crate) use with_block_size;

/// Up to 32 rows of float bits, filled up to a block size with rows of padding.
pub(crate) struct Block<'a, K> {
    /// The first `size` rows have `columns` values, the others none.
    rows: [&'a [K]; MAX_BLOCK],
    size: usize,
    columns: usize,
}

impl<'a, K: bytemuck::Pod> Block<'a, K> {
    /// Rows `start..start + len` of a tile. `low` rows of small padding come before them, and rows of large padding
    /// after them up to the block size.
    pub(crate) fn new<E: Element<Key = K>>(
        rows: &Rows<'a, E>,
        start: usize,
        len: usize,
        low: usize,
        padding: &'a Padding<K>,
    ) -> Self {
        let columns = rows.whole_columns();
        let size = BLOCK_SIZES.into_iter().find(|size| *size >= len).unwrap_or(MAX_BLOCK);
        let row = |i: usize| match i.checked_sub(low) {
            _ if i >= size => &[],
            None => &padding.small[..columns],
            Some(i) if i < len => bytemuck::cast_slice(rows.whole_row(start + i)),
            Some(_) => &padding.large[..columns],
        };
        Self { rows: std::array::from_fn(row), size, columns }
    }

    /// The number of rows, padding counted.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Loads the first `size` rows from `column` on.
    #[inline(always)]
    fn reader<V: Lanes<Key = K>>(&self, column: usize, size: usize) -> Reader<'_, 'a, K> {
        assert!(size <= self.size && column + V::WIDTH <= self.columns, "outside the block");
        Reader { block: self, column }
    }
}

/// The rows of one block at one column. The maker checked that a whole vector follows.
struct Reader<'b, 'a, K> {
    block: &'b Block<'a, K>,
    column: usize,
}

impl<K: bytemuck::Pod> Reader<'_, '_, K> {
    #[inline(always)]
    fn load<V: Lanes<Key = K>>(&self, row: usize) -> V {
        // SAFETY: generated code asks only for rows below the size given to `reader`, which checked that the block has
        // them. They have `columns` values, and `reader` checked that a vector fits.
        V::load(unsafe { self.block.rows[row].get_unchecked(self.column..) }).flip()
    }
}

/// Padding rows: bits of the smallest and the largest finite floats, so that padding counts as finite.
pub(crate) struct Padding<K> {
    small: Vec<K>,
    large: Vec<K>,
}

impl<K: bytemuck::Pod> Padding<K> {
    /// Padding as long as the rows. Empty if the last block needs none.
    pub(crate) fn new<E: Element<Key = K>>(rows: &Rows<E>) -> Self {
        let bits = |key| bytemuck::cast::<E, K>(E::from_key(key));
        let last_block = (rows.len() - 1) % MAX_BLOCK + 1;
        let columns = if BLOCK_SIZES.contains(&last_block) { 0 } else { rows.whole_columns() };
        Self { small: vec![bits(E::MIN_KEY); columns], large: vec![bits(E::MAX_KEY); columns] }
    }
}

/// The smallest and the largest key so far, lane by lane.
#[derive(Clone, Copy)]
pub(crate) struct Extremes<V> {
    low: V,
    high: V,
}

impl<V: Lanes> Extremes<V> {
    pub(crate) fn none<E: Element<Key = V::Key>>() -> Self {
        Self { low: V::splat(E::MAX_KEY), high: V::splat(E::MIN_KEY) }
    }

    #[inline(always)]
    pub(crate) fn see(&mut self, keys: &[V]) {
        for keys in keys {
            self.low = Lanes::min(self.low, *keys);
            self.high = Lanes::max(self.high, *keys);
        }
    }

    /// Whether all keys so far are those of finite floats.
    #[inline(always)]
    pub(crate) fn finite<E: Element<Key = V::Key>>(self) -> bool {
        let (mut low, mut high) = ([E::MIN_KEY; MAX_WIDTH], [E::MAX_KEY; MAX_WIDTH]);
        self.low.store(&mut low);
        self.high.store(&mut high);
        low.iter().all(|key| *key >= E::MIN_KEY) && high.iter().all(|key| *key <= E::MAX_KEY)
    }
}

/// Sorts vectors of columns of one tile.
pub(crate) struct ColumnSorter<'a, V: Lanes> {
    runs: Vec<Block<'a, V::Key>>,
    last_run: usize,
    sorted: Vec<V>,
    wanted: RangeInclusive<usize>,
}

impl<'a, V: Lanes> ColumnSorter<'a, V> {
    /// A sorter whose output is right in the rows `wanted`.
    pub(crate) fn new<E: Element<Key = V::Key>>(
        rows: &Rows<'a, E>,
        padding: &'a Padding<V::Key>,
        wanted: RangeInclusive<usize>,
    ) -> Self {
        let runs: Vec<_> = (0..rows.len())
            .step_by(MAX_BLOCK)
            .map(|start| Block::new(rows, start, (rows.len() - start).min(MAX_BLOCK), 0, padding))
            .collect();
        let last_run = rows.len() - (runs.len() - 1) * MAX_BLOCK;
        let sorted = vec![V::splat(E::MAX_KEY); runs.len() * MAX_BLOCK];
        Self { runs, last_run, sorted, wanted }
    }

    /// Sorts the columns from `column` on by ascending key, and updates the extremes.
    #[inline(always)]
    pub(crate) fn sort(&mut self, column: usize, extremes: &mut Extremes<V>) -> &[V] {
        V::call(Sort { sorter: self, column, extremes });
        &self.sorted
    }
}

/// Sorts one vector of columns.
struct Sort<'w, 'a, V: Lanes> {
    sorter: &'w mut ColumnSorter<'a, V>,
    column: usize,
    extremes: &'w mut Extremes<V>,
}

impl<V: Lanes> Outlined for Sort<'_, '_, V> {
    #[inline(always)]
    fn run(self) {
        let ColumnSorter { runs, last_run, sorted, wanted } = self.sorter;
        let last = runs.len() - 1;
        for (i, (run, out)) in runs.iter().zip(sorted.chunks_mut(MAX_BLOCK)).enumerate() {
            let len = if i == last { *last_run } else { MAX_BLOCK };
            with_block_size!(len, N => {
                let block = <[V; N]>::gathered(run, self.column);
                self.extremes.see(&block);
                // The rows after a shorter block hold padding already.
                out[..N].copy_from_slice(&block.sorted());
            });
        }
        let rows = sorted.len();
        let mut run = MAX_BLOCK;
        while run < rows {
            let whole = 0..=rows - 1;
            let wanted = if 2 * run >= rows { &*wanted } else { &whole };
            merge_runs(sorted, run, wanted);
            run *= 2;
        }
    }
}

/// Merges neighbouring sorted runs of `run` rows. Does not sort blocks outside `wanted`.
#[inline(always)]
fn merge_runs<V: Lanes>(rows: &mut [V], run: usize, wanted: &RangeInclusive<usize>) {
    for pair in rows.chunks_mut(2 * run) {
        let (low, high) = pair.split_at_mut(run.min(pair.len()));
        // Rows of `high` past its end are infinities: their partners in `low` already hold the minimum.
        for (low, high) in low.iter_mut().rev().zip(high) {
            compare_exchange(low, high);
        }
    }
    let mut distance = run / 2;
    while distance >= MAX_BLOCK {
        for block in wanted_blocks(rows, 2 * distance, wanted) {
            let (low, high) = block.split_at_mut(distance.min(block.len()));
            for (low, high) in low.iter_mut().zip(high) {
                compare_exchange(low, high);
            }
        }
        distance /= 2;
    }
    for block in wanted_blocks(rows, MAX_BLOCK, wanted) {
        if let Ok(block) = <&mut [V; MAX_BLOCK]>::try_from(block) {
            *block = block.merged();
        }
    }
}

/// The blocks of `size` rows that hold a wanted row.
#[inline(always)]
fn wanted_blocks<'a, V>(
    rows: &'a mut [V],
    size: usize,
    wanted: &RangeInclusive<usize>,
) -> impl Iterator<Item = &'a mut [V]> {
    let first = wanted.start() / size;
    let last = wanted.end() / size;
    rows.chunks_mut(size).take(last + 1).skip(first)
}

#[inline(always)]
fn compare_exchange<V: Lanes>(low: &mut V, high: &mut V) {
    let (a, b) = (*low, *high);
    *low = Lanes::min(a, b);
    *high = Lanes::max(a, b);
}
