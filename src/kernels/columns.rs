//! Sorts the columns of a tile, a vector of columns at a time.
//!
//! A column of `n` keys is sorted as runs of up to 32 rows by straight-line networks held in
//! registers, then by bitonic merges of runs, which double until one is left. The merges are the
//! ascending form (the first stage compares row `i` with the mirrored row of the other run), so rows
//! past the end act as infinities that never move and any `n` works without padding to a power of
//! two. The last merge visits only the blocks that the caller will read.
//!
//! Batcher, Sorting networks and their applications, 1968.

use crate::kernels::element::Element;
use crate::kernels::lanes::{Arch, Lanes};
use crate::kernels::network::MAX_BLOCK;
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

include!(concat!(env!("OUT_DIR"), "/networks.rs"));

/// Calls `$body` with `$n` bound to the smallest block size that holds `$rows`.
macro_rules! with_block_size {
    ($rows:expr, $n:ident => $body:expr) => {
        with_block_size!(@ $rows, $n => $body; 2 4 6 8 12 16 20 24 28)
    };
    (@ $rows:expr, $n:ident => $body:expr; $($size:literal)*) => {
        match $rows {
            $(rows if rows <= $size => { const $n: usize = $size; $body })*
            _ => { const $n: usize = MAX_BLOCK; $body }
        }
    };
}

/// The two middle keys of columns `column..` of at most 32 rows, equal when the number of rows is odd.
/// Nothing but the comparators those two depend on is computed.
#[inline(always)]
pub(crate) fn middle_of_block<A: Arch, E: Element>(
    rows: &Rows<E>,
    column: usize,
) -> [E::Lanes<A>; 2] {
    let (upper, middle) = with_block_size!(rows.len(), N => {
        // Equal padding at both ends keeps the middle in the middle.
        let low_padding = (N - rows.len()) / 2;
        let block = gather::<A, E, N>(&Run { rows, column, low_padding, start: 0, len: rows.len() });
        let sorted = block.sorted();
        (sorted[N / 2], sorted[N / 2 - 1])
    });
    if rows.len() % 2 == 0 { [middle, upper] } else { [middle, middle] }
}

/// Room for one vector of columns of `n` rows.
pub(crate) fn scratch<A: Arch, E: Element>(n: usize) -> Vec<E::Lanes<A>> {
    vec![E::Lanes::<A>::splat(E::MAX_KEY); n.next_multiple_of(MAX_BLOCK)]
}

/// Sorts columns `column..` of `rows` into `out` (from [`scratch`]), keys ascending. Only the rows in `wanted` are
/// promised to be right.
#[inline(always)]
pub(crate) fn sort_columns<A: Arch, E: Element>(
    rows: &Rows<E>,
    column: usize,
    wanted: RangeInclusive<usize>,
    out: &mut [E::Lanes<A>],
) {
    for start in (0..rows.len()).step_by(MAX_BLOCK) {
        let len = (rows.len() - start).min(MAX_BLOCK);
        with_block_size!(len, N => sort_run::<A, E, N>(rows, start, len, column, out));
    }
    let padded = rows.len().next_multiple_of(MAX_BLOCK).min(out.len());
    let mut run = MAX_BLOCK;
    while run < padded {
        let last = 2 * run >= padded;
        let wanted = if last { wanted.clone() } else { 0..=padded - 1 };
        merge_runs::<A, E>(&mut out[..padded], run, &wanted);
        run *= 2;
    }
}

/// The rows `start..start + len` of a tile, with padding on both sides to fill a block.
struct Run<'a, E> {
    rows: &'a Rows<'a, E>,
    column: usize,
    start: usize,
    len: usize,
    low_padding: usize,
}

impl<E: Element> Run<'_, E> {
    /// The keys of row `i` of the block.
    #[inline(always)]
    fn keys<A: Arch>(&self, i: usize) -> E::Lanes<A> {
        if i < self.low_padding {
            E::Lanes::<A>::splat(E::MIN_KEY)
        } else if i - self.low_padding < self.len {
            keys::<A, E>(self.rows, self.start + i - self.low_padding, self.column)
        } else {
            E::Lanes::<A>::splat(E::MAX_KEY)
        }
    }
}

/// The keys of one row, from `column` on.
#[inline(always)]
pub(crate) fn keys<A: Arch, E: Element>(rows: &Rows<E>, row: usize, column: usize) -> E::Lanes<A> {
    E::Lanes::<A>::load(bytemuck::cast_slice(rows.from_column(row, column))).flip()
}

#[inline(always)]
fn gather<A: Arch, E: Element, const N: usize>(run: &Run<E>) -> [E::Lanes<A>; N] {
    let mut block = [E::Lanes::<A>::splat(E::MAX_KEY); N];
    for (i, row) in block.iter_mut().enumerate() {
        *row = run.keys::<A>(i);
    }
    block
}

/// Sorts rows `start..start + len` in registers; what pads them to a whole run goes behind.
#[inline(always)]
fn sort_run<A: Arch, E: Element, const N: usize>(
    rows: &Rows<E>,
    start: usize,
    len: usize,
    column: usize,
    out: &mut [E::Lanes<A>],
) where
    [E::Lanes<A>; N]: SortBlock,
{
    let block = gather::<A, E, N>(&Run { rows, column, start, len, low_padding: 0 });
    let run = &mut out[start..start + MAX_BLOCK];
    run[..N].copy_from_slice(&block.sorted());
    run[N..].fill(E::Lanes::<A>::splat(E::MAX_KEY));
}

/// Merges neighbouring sorted runs of `run` rows. Blocks outside `wanted` are left unsorted.
#[inline(always)]
fn merge_runs<A: Arch, E: Element>(
    out: &mut [E::Lanes<A>],
    run: usize,
    wanted: &RangeInclusive<usize>,
) {
    for pair in out.chunks_mut(2 * run) {
        let (low, high) = pair.split_at_mut(run.min(pair.len()));
        // Rows of `high` past its end are infinities: their partners in `low` already hold the minimum.
        for (h, high) in high.iter_mut().enumerate() {
            compare_exchange(&mut low[run - 1 - h], high);
        }
    }
    let mut distance = run / 2;
    while distance >= MAX_BLOCK {
        for block in wanted_blocks(out, 2 * distance, wanted) {
            let (low, high) = block.split_at_mut(distance.min(block.len()));
            for (low, high) in low.iter_mut().zip(high) {
                compare_exchange(low, high);
            }
        }
        distance /= 2;
    }
    for block in wanted_blocks(out, MAX_BLOCK, wanted) {
        if let Ok(block) = <&mut [E::Lanes<A>; MAX_BLOCK]>::try_from(block) {
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
