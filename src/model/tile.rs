//! A tile: the same range of coordinates of every client, one row each, in one reused buffer.

use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// Bytes in a cache line, and in the widest vector.
pub const LINE_BYTES: usize = 64;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

/// Rows of raw bytes at a fixed distance. Each starts on a cache line and ends in padding, so that a kernel may read
/// whole vectors past the last column.
pub struct TileBuffer {
    lines: Vec<Line>,
    lines_per_row: usize,
}

impl TileBuffer {
    /// Room for `rows` rows of up to `row_bytes` each.
    pub fn new(rows: usize, row_bytes: usize) -> Self {
        // One line more than needed: rows at a distance of a power of two would share cache sets.
        let lines_per_row = row_bytes.div_ceil(LINE_BYTES) + 1;
        Self { lines: vec![Line([0; LINE_BYTES]); rows * lines_per_row], lines_per_row }
    }

    /// Whether it holds `rows` rows of `row_bytes` each.
    pub fn holds(&self, rows: usize, row_bytes: usize) -> bool {
        self.lines.len() >= rows * self.lines_per_row && self.lines_per_row > row_bytes.div_ceil(LINE_BYTES)
    }

    /// The bytes of one row, padding included.
    pub fn row_mut(&mut self, row: usize) -> &mut [u8] {
        let start = row * self.lines_per_row;
        bytemuck::cast_slice_mut(&mut self.lines[start..start + self.lines_per_row])
    }

    /// The bytes of one row, padding included.
    pub fn row(&self, row: usize) -> &[u8] {
        let start = row * self.lines_per_row;
        bytemuck::cast_slice(&self.lines[start..start + self.lines_per_row])
    }

    /// Clears the padding behind the first `bytes` bytes of a row, as far as the last vector reaches: kernels read
    /// whole vectors.
    pub fn clear_behind(&mut self, row: usize, bytes: usize) {
        self.rows_mut().clear_behind(row, bytes);
    }

    /// All rows, to write.
    pub fn rows_mut(&mut self) -> RowsMut<'_> {
        RowsMut { lines: &mut self.lines, lines_per_row: self.lines_per_row }
    }

    /// Parts of up to `rows` rows, for several threads to write.
    pub fn parts_mut(&mut self, rows: usize) -> Vec<RowsMut<'_>> {
        let lines_per_row = self.lines_per_row;
        self.lines.chunks_mut(rows * lines_per_row).map(|lines| RowsMut { lines, lines_per_row }).collect()
    }

    /// The first `columns` values of each of the first `rows` rows.
    pub fn rows<E: Pod>(&self, rows: usize, columns: usize) -> Rows<'_, E> {
        let row_bytes = self.lines_per_row * LINE_BYTES;
        assert!(columns * size_of::<E>() <= row_bytes - LINE_BYTES, "row overflows the tile");
        Rows {
            values: bytemuck::cast_slice(&self.lines[..rows * self.lines_per_row]),
            stride: row_bytes / size_of::<E>(),
            rows,
            first: 0,
            columns,
        }
    }
}

/// Some rows of a tile, to write.
pub struct RowsMut<'a> {
    lines: &'a mut [Line],
    lines_per_row: usize,
}

impl RowsMut<'_> {
    /// Number of rows.
    #[expect(clippy::len_without_is_empty, reason = "a part always has a row")]
    pub fn len(&self) -> usize {
        self.lines.len() / self.lines_per_row
    }

    /// The bytes of one row, padding included.
    pub fn row_mut(&mut self, row: usize) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.lines[row * self.lines_per_row..][..self.lines_per_row])
    }

    /// The bytes of one row, padding included.
    pub fn row(&self, row: usize) -> &[u8] {
        bytemuck::cast_slice(&self.lines[row * self.lines_per_row..][..self.lines_per_row])
    }

    /// Clears the padding behind the first `bytes` bytes of a row, as far as the last vector reaches.
    pub fn clear_behind(&mut self, row: usize, bytes: usize) {
        let end = bytes.next_multiple_of(LINE_BYTES);
        self.row_mut(row)[bytes..end].fill(0);
    }
}

/// A matrix of `len` rows and `columns` columns. Kernels may read whole vectors that start in it: zeros or other
/// columns follow the last column.
#[derive(Clone, Copy)]
pub struct Rows<'a, E> {
    values: &'a [E],
    stride: usize,
    rows: usize,
    first: usize,
    columns: usize,
}

impl<'a, E> Rows<'a, E> {
    /// Number of rows.
    #[expect(clippy::len_without_is_empty, reason = "a tile always has a row")]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of readable columns: these, rounded up to a whole vector.
    pub fn whole_columns(&self) -> usize {
        self.columns.next_multiple_of(LINE_BYTES / size_of::<E>())
    }

    /// The values of one row.
    pub fn row(&self, row: usize) -> &'a [E] {
        &self.values[row * self.stride + self.first..][..self.columns]
    }

    /// The values of one row, up to a whole vector.
    pub fn whole_row(&self, row: usize) -> &'a [E] {
        &self.values[row * self.stride + self.first..][..self.whole_columns()]
    }

    /// Every `step`th row from `first` on.
    pub fn every(&self, first: usize, step: usize) -> Self {
        assert!(first < self.rows, "no such row");
        let first_value = self.first + first * self.stride;
        Self {
            first: first_value,
            stride: self.stride * step,
            rows: (self.rows - first).div_ceil(step),
            ..*self
        }
    }

    /// The same rows at some of their columns; `range` starts where a whole vector may.
    pub fn at(&self, range: Range<usize>) -> Self {
        assert!(
            range.end <= self.columns && range.start.is_multiple_of(LINE_BYTES),
            "columns outside the tile"
        );
        Self { first: self.first + range.start, columns: range.len(), ..*self }
    }
}
