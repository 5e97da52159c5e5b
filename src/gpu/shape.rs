//! The numbers of a tile that every kernel reads, laid out as in `shaders/shared/shape.wgsl`.

/// The rows, columns and parameter of one dispatch.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Shape {
    /// Rows that the kernel reads.
    pub(super) rows: u32,
    /// Columns of the tile.
    pub(super) columns: u32,
    /// Words from one row to the next.
    pub(super) stride: u32,
    /// A number whose meaning each kernel defines.
    pub(super) parameter: u32,
}

/// A number of rows, columns or words as shaders hold it. Tiles are cut so that it fits.
pub(super) fn words(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
