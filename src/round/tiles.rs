//! Cuts a layout into tiles.
//!
//! A tile is a range of coordinates of one dtype, small enough that all clients' rows of it stay in a core's
//! caches. Its shape depends on the clients and the layout only, never on threads.

use crate::model::dtype::{Dtype, Working};
use crate::model::tile::LINE_BYTES;
use crate::round::roster::UpdateSet;
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
}

/// Consecutive tensors of one dtype and one working float.
#[derive(Debug)]
struct Stretch {
    coordinates: Range<usize>,
    working: Working,
    dtype: Dtype,
    columns: usize,
    first_tile: usize,
}

impl TilePlan {
    /// Cuts the layout of an update set into tiles of which `rows` clients' rows are held at once.
    pub fn new(set: &UpdateSet, rows: usize) -> Self {
        Self::of_columns(set, rows, |working| tile_columns(rows, working.bytes()))
    }

    /// Cuts the layout into tiles of up to so many columns.
    pub fn of_columns(set: &UpdateSet, rows: usize, columns: impl Fn(Working) -> usize) -> Self {
        Self::within(set, rows, std::slice::from_ref(&(0..set.layout.parameters())), columns)
    }

    /// Cuts some ranges of coordinates, in order, into tiles for the caches as [`new`](Self::new) does.
    pub fn of_ranges(set: &UpdateSet, rows: usize, ranges: &[Range<usize>]) -> Self {
        Self::within(set, rows, ranges, |working| tile_columns(rows, working.bytes()))
    }

    /// Cuts some ranges of coordinates, in order, into tiles of up to so many columns.
    pub fn within(
        set: &UpdateSet,
        rows: usize,
        ranges: &[Range<usize>],
        columns: impl Fn(Working) -> usize,
    ) -> Self {
        let mut stretches: Vec<Stretch> = Vec::new();
        let tensors = set.working().into_iter().enumerate();
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
                        stretches.push(Stretch { coordinates, working, dtype, columns, first_tile: 0 });
                    }
                }
            }
        }
        let mut tiles = 0;
        for stretch in &mut stretches {
            stretch.first_tile = tiles;
            tiles += stretch.coordinates.len().div_ceil(stretch.columns);
        }
        Self { stretches, tiles, rows }
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// The tile of that number.
    pub fn tile(&self, number: usize) -> Tile {
        let stretch = self.stretches.partition_point(|stretch| stretch.first_tile <= number) - 1;
        let stretch = &self.stretches[stretch];
        let start = stretch.coordinates.start + (number - stretch.first_tile) * stretch.columns;
        let end = (start + stretch.columns).min(stretch.coordinates.end);
        Tile { number, coordinates: start..end, working: stretch.working, dtype: stretch.dtype }
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

fn tile_columns(rows: usize, value_bytes: usize) -> usize {
    let rows = rows.max(1);
    let row_bytes = (TILE_BYTES / rows).clamp(ROW_BYTES.start, ROW_BYTES.end);
    let row_bytes = row_bytes.min(MAX_TILE_BYTES / rows).max(LINE_BYTES * size_of::<f64>());
    (row_bytes / value_bytes).next_multiple_of(LINE_BYTES)
}
