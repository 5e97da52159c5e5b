//! The jobs of private sums as data: integers of rows on a grid, and noise on sums of them.

use crate::gpu::job::TileShape;
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::Scale;
use crate::kernels::discrete_gaussian::Level;

/// Words of an integer.
pub const INTEGER_WORDS: usize = 2;

/// Integers in front of those that get noise: the number of a block, and the range of the streams.
pub const NOISE_HEAD: usize = 2;

/// The integers of every tile of a pass, as [`quantize`](crate::kernels::clip_integers::quantize) makes them.
#[derive(Clone, Debug)]
pub struct IntegersJob {
    /// The shape of the tiles. Its only reference, if it has one, is the base.
    pub shape: TileShape,
    /// The scale of each row.
    pub scales: Vec<Scale>,
    /// Whether to subtract the base from each row first.
    pub less_base: Vec<bool>,
}

/// The integers of a tile, added up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IntegerSums {
    /// The sum of each column.
    pub sums: Vec<i64>,
    /// The sum of the squares of each row; the largest number if an integer is 2^51 or more.
    pub squares: Vec<u128>,
}

/// Noise of streams that is added to integers. Every tile says which of the streams it gets. Not printable, since it
/// holds the keys of the noise.
#[derive(Clone, Copy)]
pub struct NoiseJob<'a> {
    /// The width of the noise.
    pub level: Level,
    /// The streams, each with whether its noise is subtracted.
    pub streams: &'a [(Stream<'a>, bool)],
    /// Most integers of a tile.
    pub columns: usize,
}
