//! Cuts a layout into tiles.
//!
//! A tile is a range of coordinates of one dtype, small enough that all clients' rows of it stay in a core's
//! caches. Its shape depends on the clients and the layout only, never on threads, and none of those cut for the caches
//! reaches over the end of a section: so shards have the tiles that they have together.

use crate::engine::passes::sections::SECTION;
use crate::kernels::gram::BLOCK;
use crate::model::dtype::{Dtype, Working};
use crate::model::tile::LINE_BYTES;
use crate::updates::set::UpdateSet;
use crate::updates::source::Placement;
use std::ops::Range;

/// Bytes of a tile that its shape aims at: what stays in a core's share of the caches.
const TILE_BYTES: usize = 3 << 20;

/// Bytes of one row of a tile: enough to be read at full speed, at most what a tile of few rows needs.
const ROW_BYTES: Range<usize> = 32 << 10..256 << 10;

/// Bytes that a tile of very many rows may take; rows get shorter than [`ROW_BYTES`] to keep to it.
const MAX_TILE_BYTES: usize = 40 << 20;

/// A range of coordinates that is merged in one go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Its place in the order of tiles.
    pub number: usize,
    /// Its coordinates.
    pub coordinates: Range<usize>,
    /// The float that kernels work in.
    pub working: Working,
    /// The dtype of the layout's tensors there.
    pub dtype: Dtype,
}

/// All tiles of a layout, in order, without a list of them.
#[derive(Debug)]
pub struct TilePlan {
    stretches: Vec<Stretch>,
    tiles: usize,
    /// Clients' rows that are held at once.
    pub rows: usize,
    /// Consecutive tiles that one worker takes: those of a section where updates are encoded, since values that are
    /// encoded together are best decoded once.
    pub at_once: usize,
}

/// Consecutive tensors of one dtype and one working float.
#[derive(Debug)]
struct Stretch {
    coordinates: Range<usize>,
    working: Working,
    dtype: Dtype,
    columns: usize,
    /// Tiles do not reach over multiples of this.
    section: usize,
    first_tile: usize,
}

impl TilePlan {
    /// Cuts the layout of an update set into tiles of which `rows` clients' rows are held at once.
    pub fn new(set: &UpdateSet, rows: usize) -> Self {
        Self::of_ranges(set, rows, std::slice::from_ref(&(0..set.layout.parameters())))
    }

    /// Cuts some ranges of coordinates, in order, into tiles for the caches as [`new`](Self::new) does.
    pub fn of_ranges(set: &UpdateSet, rows: usize, ranges: &[Range<usize>]) -> Self {
        Self::cut(set.working(), set, rows, ranges, SECTION, |working| tile_columns(rows, working.bytes()))
    }

    /// Cuts some ranges of coordinates for the caches, into tiles whose working floats hold other rows too.
    pub fn with_rows(set: &UpdateSet, others: &[&Placement], rows: usize, ranges: &[Range<usize>]) -> Self {
        let working = set.working_with(others);
        Self::cut(working, set, rows, ranges, SECTION, |working| tile_columns(rows, working.bytes()))
    }

    /// Cuts some ranges of coordinates, in order, at multiples of `columns`, and between tensors of different floats, and
    /// nowhere else: what of a tensor lies between two multiples is whole in one tile, whatever floats clients send.
    pub fn at_multiples(set: &UpdateSet, rows: usize, ranges: &[Range<usize>], columns: usize) -> Self {
        Self::cut(set.working(), set, rows, ranges, columns, |_| columns)
    }

    /// Cuts the layout into tiles of up to so many columns, without regard to sections.
    pub fn of_columns(set: &UpdateSet, rows: usize, columns: impl Fn(Working) -> usize) -> Self {
        Self::within(set, rows, std::slice::from_ref(&(0..set.layout.parameters())), columns)
    }

    /// Cuts some ranges of coordinates, in order, into tiles of up to so many columns, without regard to sections.
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
            let dtype = set.layout.tensors()[tensor].dtype;
            let whole = set.layout.coordinates(tensor);
            let parts = ranges.iter().map(|range| whole.start.max(range.start)..whole.end.min(range.end));
            for coordinates in parts.filter(|part| !part.is_empty()) {
                match stretches.last_mut() {
                    Some(last)
                        if (last.working, last.dtype, last.coordinates.end)
                            == (working, dtype, coordinates.start) =>
                    {
                        last.coordinates.end = coordinates.end;
                    }
                    _ => {
                        let columns = columns(working);
                        let first_tile = 0;
                        stretches.push(Stretch { coordinates, working, dtype, columns, section, first_tile });
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

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// The tile of that number.
    pub fn tile(&self, number: usize) -> Tile {
        let stretch = self.stretches.partition_point(|stretch| stretch.first_tile <= number) - 1;
        let stretch = &self.stretches[stretch];
        let coordinates = stretch.tile(number - stretch.first_tile);
        Tile { number, coordinates, working: stretch.working, dtype: stretch.dtype }
    }

    /// Columns of the widest tile.
    pub fn most_columns(&self) -> usize {
        self.stretches.iter().map(|s| s.columns.min(s.coordinates.len())).max().unwrap_or(0)
    }

    /// Bytes of the longest row.
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

    /// Tiles in the sections before one. Those between the first and the last are whole.
    fn tiles_before(&self, section: usize) -> usize {
        match section - self.coordinates.start / self.section {
            0 => 0,
            sections => {
                let first = self.coordinates.start / self.section;
                self.tiles_of(first) + (sections - 1) * self.section.div_ceil(self.columns)
            }
        }
    }

    /// Columns of the tiles of a part: as even as whole blocks of the kernels allow.
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
    let row_bytes = row_bytes.min(MAX_TILE_BYTES / rows).max(LINE_BYTES * size_of::<f64>());
    (row_bytes / value_bytes).next_multiple_of(LINE_BYTES)
}
