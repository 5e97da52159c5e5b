//! Cuts a layout into tiles.
//!
//! A tile is a range of coordinates of one dtype and one class. It is small enough for all clients' rows of it to stay in a core's
//! caches. Its shape depends on the clients and the layout only, never on the number of threads. A tile for the caches
//! lies in one section. So a sharded run has the same tiles as a run in one process.

use crate::engine::passes::sections::SECTION;
use crate::kernels::gram::BLOCK;
use crate::model::class::TensorClass;
use crate::model::dtype::{Dtype, Working};
use crate::model::tile::LINE_BYTES;
use crate::updates::set::UpdateSet;
use crate::updates::source::Placement;
use std::ops::Range;

/// The target size of a tile in bytes: a core's share of the caches.
const TILE_BYTES: usize = 3 << 20;

/// Bytes of one row of a tile: enough to read at full speed.
const ROW_BYTES: Range<usize> = 32 << 10..256 << 10;

/// Bytes of a tile from which on rows are shorter than [`ROW_BYTES`], down to [`SHORT_ROW_BYTES`].
const LARGE_TILE_BYTES: usize = 16 << 20;

/// Bytes of a row of a large tile. Shorter reads than these cost more than they copy.
const SHORT_ROW_BYTES: usize = 16 << 10;

/// The most bytes of a tile with many rows. Rows are shorter than [`SHORT_ROW_BYTES`] if needed.
const MAX_TILE_BYTES: usize = 40 << 20;

/// A range of coordinates that a pass works on at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Its index in the order of tiles.
    pub number: usize,
    /// Its coordinates.
    pub coordinates: Range<usize>,
    /// The float that kernels work in.
    pub working: Working,
    /// The dtype of the layout's tensors there.
    pub dtype: Dtype,
    /// Their class.
    pub class: TensorClass,
}

/// All tiles of a layout, in order. Computes each tile on demand.
#[derive(Debug)]
pub struct TilePlan {
    stretches: Vec<Stretch>,
    tiles: usize,
    /// The number of clients' rows that a worker holds at once.
    pub rows: usize,
    /// The number of consecutive tiles that one worker takes. For encoded updates these are the tiles of a section,
    /// since a worker then decodes a chunk of values once.
    pub at_once: usize,
}

/// Consecutive tensors of one dtype, one class and one working float.
#[derive(Debug)]
struct Stretch {
    coordinates: Range<usize>,
    working: Working,
    dtype: Dtype,
    class: TensorClass,
    columns: usize,
    /// Tiles end at multiples of this.
    section: usize,
    first_tile: usize,
}

impl TilePlan {
    /// Cuts the layout of an update set into tiles, for workers that hold `rows` clients' rows at once.
    pub fn new(set: &UpdateSet, rows: usize) -> Self {
        Self::of_ranges(set, rows, std::slice::from_ref(&(0..set.layout.parameters())))
    }

    /// Cuts ranges of coordinates, in order, into tiles as [`new`](Self::new) does.
    pub fn of_ranges(set: &UpdateSet, rows: usize, ranges: &[Range<usize>]) -> Self {
        Self::cut(set.working(), set, rows, ranges, SECTION, |working| tile_columns(rows, working.bytes()))
    }

    /// Cuts some ranges of coordinates for the caches, into tiles whose working floats hold other rows too.
    pub fn with_rows(set: &UpdateSet, others: &[&Placement], rows: usize, ranges: &[Range<usize>]) -> Self {
        let working = set.working_with(others);
        Self::cut(working, set, rows, ranges, SECTION, |working| tile_columns(rows, working.bytes()))
    }

    /// Cuts ranges of coordinates, in order, only at multiples of `columns`, and between tensors of different floats or
    /// classes.
    /// The part of a tensor between two multiples is always in one tile, whatever floats clients send.
    pub fn at_multiples(set: &UpdateSet, rows: usize, ranges: &[Range<usize>], columns: usize) -> Self {
        Self::cut(set.working(), set, rows, ranges, columns, |_| columns)
    }

    /// Cuts ranges of coordinates, in order, into tiles of one block of the kernels for pairs, for many clients.
    pub fn of_blocks(set: &UpdateSet, rows: usize, ranges: &[Range<usize>]) -> Self {
        Self::cut(set.working(), set, rows, ranges, SECTION, |_| BLOCK)
    }

    /// Cuts the layout into tiles of up to `columns` columns, without regard to sections.
    pub fn of_columns(set: &UpdateSet, rows: usize, columns: impl Fn(Working) -> usize) -> Self {
        Self::within(set, rows, std::slice::from_ref(&(0..set.layout.parameters())), columns)
    }

    /// Cuts ranges of coordinates, in order, into tiles of up to `columns` columns, without regard to sections.
    pub fn within(
        set: &UpdateSet,
        rows: usize,
        ranges: &[Range<usize>],
        columns: impl Fn(Working) -> usize,
    ) -> Self {
        Self::cut(set.working(), set, rows, ranges, usize::MAX, columns)
    }

    fn cut(
        working: Vec<Working>,
        set: &UpdateSet,
        rows: usize,
        ranges: &[Range<usize>],
        section: usize,
        columns: impl Fn(Working) -> usize,
    ) -> Self {
        let mut stretches: Vec<Stretch> = Vec::new();
        let tensors = working.into_iter().enumerate();
        for (tensor, working) in tensors {
            let (dtype, class) = (set.layout.tensors()[tensor].dtype, set.layout.classes()[tensor]);
            let whole = set.layout.coordinates(tensor);
            let parts = ranges.iter().map(|range| whole.start.max(range.start)..whole.end.min(range.end));
            for coordinates in parts.filter(|part| !part.is_empty()) {
                match stretches.last_mut() {
                    Some(last)
                        if (last.working, last.dtype, last.class, last.coordinates.end)
                            == (working, dtype, class, coordinates.start) =>
                    {
                        last.coordinates.end = coordinates.end;
                    }
                    _ => {
                        let columns = columns(working);
                        let first_tile = 0;
                        stretches.push(Stretch {
                            coordinates,
                            working,
                            dtype,
                            class,
                            columns,
                            section,
                            first_tile,
                        });
                    }
                }
            }
        }
        let mut tiles = 0;
        for stretch in &mut stretches {
            stretch.first_tile = tiles;
            tiles += stretch.tiles();
        }
        let in_section = |stretch: &Stretch| SECTION.div_ceil(stretch.columns);
        let at_once = match set.clients.iter().any(|client| client.model.decoder.is_some()) {
            true => stretches.iter().map(in_section).max().unwrap_or(1),
            false => 1,
        };
        Self { stretches, tiles, rows, at_once }
    }

    /// The number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// The tile with this index.
    pub fn tile(&self, number: usize) -> Tile {
        let stretch = self.stretches.partition_point(|stretch| stretch.first_tile <= number) - 1;
        let stretch = &self.stretches[stretch];
        let coordinates = stretch.tile(number - stretch.first_tile);
        Tile { number, coordinates, working: stretch.working, dtype: stretch.dtype, class: stretch.class }
    }

    /// The number of columns of the widest tile.
    pub fn most_columns(&self) -> usize {
        self.stretches.iter().map(|s| s.columns.min(s.coordinates.len())).max().unwrap_or(0)
    }

    /// The number of bytes of the longest row.
    pub fn most_row_bytes(&self) -> usize {
        let bytes = |s: &Stretch| s.columns.min(s.coordinates.len()) * s.working.bytes();
        self.stretches.iter().map(bytes).max().unwrap_or(0)
    }
}

impl Stretch {
    fn tiles(&self) -> usize {
        let last = (self.coordinates.end - 1) / self.section;
        self.tiles_before(last) + self.tiles_of(last)
    }

    /// The coordinates of a tile, counted within the stretch.
    fn tile(&self, number: usize) -> Range<usize> {
        let first = self.coordinates.start / self.section;
        let in_first = self.tiles_of(first);
        let section = match number.checked_sub(in_first) {
            None => first,
            Some(behind) => first + 1 + behind / self.section.div_ceil(self.columns),
        };
        let part = self.part(section);
        let columns = self.columns_of(&part);
        let start = part.start + (number - self.tiles_before(section)) * columns;
        start..(start + columns).min(part.end)
    }

    /// The coordinates of the stretch in a section.
    fn part(&self, section: usize) -> Range<usize> {
        let start = section.saturating_mul(self.section);
        let end = start.saturating_add(self.section);
        self.coordinates.start.max(start)..self.coordinates.end.min(end)
    }

    fn tiles_of(&self, section: usize) -> usize {
        self.part(section).len().div_ceil(self.columns)
    }

    /// The number of tiles in the sections before this one. Sections between the first and the last are whole.
    fn tiles_before(&self, section: usize) -> usize {
        match section - self.coordinates.start / self.section {
            0 => 0,
            sections => {
                let first = self.coordinates.start / self.section;
                self.tiles_of(first) + (sections - 1) * self.section.div_ceil(self.columns)
            }
        }
    }

    /// The number of columns of the tiles of a part: whole blocks of the kernels, of equal size if possible.
    fn columns_of(&self, part: &Range<usize>) -> usize {
        if self.section == usize::MAX {
            return self.columns;
        }
        let unit = if self.columns < BLOCK { LINE_BYTES } else { BLOCK };
        let tiles = part.len().div_ceil(self.columns);
        part.len().div_ceil(tiles).next_multiple_of(unit).min(self.columns)
    }
}

fn tile_columns(rows: usize, value_bytes: usize) -> usize {
    let rows = rows.max(1);
    let row_bytes = (TILE_BYTES / rows).clamp(ROW_BYTES.start, ROW_BYTES.end);
    let row_bytes = row_bytes.min((LARGE_TILE_BYTES / rows).max(SHORT_ROW_BYTES));
    let row_bytes = row_bytes.min(MAX_TILE_BYTES / rows).max(LINE_BYTES * size_of::<f64>());
    (row_bytes / value_bytes).next_multiple_of(LINE_BYTES)
}
