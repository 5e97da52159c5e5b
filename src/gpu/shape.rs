//! The size of a dispatch: the numbers that every kernel reads, and the workgroups that run.

/// The numbers of a tile that every kernel reads, laid out as `Shape` of `shaders/shared/shape.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Shape {
    /// Rows that the kernel reads.
    pub rows: u32,
    /// Columns of the tile.
    pub columns: u32,
    /// Words from one row to the next.
    pub stride: u32,
    /// A number whose meaning each kernel defines.
    pub parameter: u32,
}

impl Shape {
    /// The shape of a flat vector.
    pub(super) fn flat(len: usize) -> Self {
        Self { rows: 1, columns: words(len), stride: 0, parameter: 0 }
    }
}

/// A number of rows, columns or words as shaders hold it. Tiles are cut so that it fits.
pub(super) fn words(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Most workgroups in one dimension.
const MOST_GROUPS: u32 = 65_535;

/// Workgroups of `size` columns each.
pub(super) fn column_groups(columns: usize, size: usize) -> [u32; 2] {
    let groups = words(columns.div_ceil(size).max(1));
    [groups.min(MOST_GROUPS), groups.div_ceil(MOST_GROUPS)]
}
