//! Noise for released sums: discrete Gaussians of three widths, from a stream of ChaCha20.
//!
//! A draw is an integer with P(x) proportional to exp(-x^2 / (2 64^2)). It takes 128 bits: a search among the
//! cumulative probabilities finds the magnitude from 127 of them, and one is the sign. Sums of draws make wide noise
//! from narrow:
//!
//! | | sum | of | variance |
//! |---|---|---|---|
//! | Y | X1 + 32 X2 | draws X | 64^2 (1 + 2^10) |
//! | [`Level::L1`] | Y1 + 1024 X3 | three draws of a block | 4299165696 |
//! | Z, [`Level::L2`] | Y1 + 1024 Y2 | four draws, a block | 4402345676800 |
//! | W, [`Level::L3`] | Z1 + 1024 Z2 | eight draws, two blocks | 4616198422741913600 |
//!
//! A sum X + k Y of discrete Gaussians is almost a discrete Gaussian. Its probabilities are off by a factor within 1 +-
//! 4 exp(-2 pi^2 s^2), with s = 64 / sqrt(1 + k^2) for the first sum, and by less for the others. By Poisson's
//! summation formula this bounds the effect of the centre on a Gaussian of width s summed over the integers (Micciancio
//! and Walter, 2017, section 3). Here the bound is 2^-111.
//!
//! **Fixed work.** A sampler whose time grows with its outcome reveals the outcome to an attacker with a clock (Jin et
//! al., "Are we there yet? Timing and floating-point attacks on differential privacy systems", 2022). This one rejects
//! and repeats nothing, and no branch depends on a draw: each draw reads one cell and meets the same number of
//! thresholds. Only the lines of a table of 18 KB that it reads depend on the draw; the table fits the innermost cache.
//!
//! Distribution: Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy", 2020, definition 1.
//! Agreement: bits.

mod table;
#[cfg(test)]
mod tests;

use crate::kernels::chacha20::{self, Blocks, Stream};
use crate::kernels::dispatch;
use table::MAGNITUDES;
pub(crate) use table::THRESHOLDS;

/// Draws per block of words.
const DRAWS: usize = 4;
/// The shift of each draw of a block in bits: factors 1, 32, 1024 and 32 * 1024.
const SHIFTS: [u32; DRAWS] = [0, 5, 10, 15];
/// The shift of a coordinate's second block in bits.
const SECOND_BLOCK: u32 = 10;
/// The lower bits of a draw, which determine its magnitude.
const UNIFORM: u128 = u128::MAX >> 1;

/// The width of noise.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, Debug)]
pub enum Level {
    /// Standard deviation 65568.02, close to 2^16.
    L1,
    /// Standard deviation 2098176.75, close to 2^21.
    L2,
    /// Standard deviation 2148534017.125, close to 2^31.
    L3,
}

impl Level {
    /// Its exact variance.
    pub const fn variance(self) -> u64 {
        match self {
            Self::L1 => 4_299_165_696,
            Self::L2 => 4_402_345_676_800,
            Self::L3 => 4_616_198_422_741_913_600,
        }
    }

    /// Its standard deviation.
    pub fn sigma(self) -> f64 {
        (self.variance() as f64).sqrt()
    }

    /// The largest magnitude of noise.
    pub(crate) const fn largest(self) -> i64 {
        let of_draw = MAGNITUDES as i64 - 1;
        let of_block = of_draw * (1 + 32) * (1 + 1024);
        match self {
            Self::L1 => of_draw * (1 + 32 + 1024),
            Self::L2 => of_block,
            Self::L3 => of_block * (1 + 1024),
        }
    }

    /// Blocks that a coordinate takes.
    pub const fn blocks(self) -> usize {
        match self {
            Self::L1 | Self::L2 => 1,
            Self::L3 => 2,
        }
    }

    /// Draws of each block that count.
    pub const fn draws(self) -> usize {
        match self {
            Self::L1 => 3,
            Self::L2 | Self::L3 => 4,
        }
    }
}

dispatch! {
    /// Fills `out` with the noise of the coordinates from `first` on. The noise of a coordinate depends only on the
    /// stream, the level and the coordinate's number. So coordinates may be computed in any portions.
    pub fn noise<A: Arch>(stream: Stream, level: Level, first: u64, out: &mut [i64]) {
        let mut number = first.wrapping_mul(level.blocks() as u64);
        for out in out.chunks_mut(chacha20::BLOCKS / level.blocks()) {
            let blocks = chacha20::by_word(chacha20::sixteen_blocks::<A::Words>(stream, number));
            convolve(&blocks, level, out);
            number = number.wrapping_add(chacha20::BLOCKS as u64);
        }
    }
}

/// The noise from sixteen blocks; a shorter `out` gets the first part. Compiled once: wider vectors would not be
/// faster.
#[inline(never)]
fn convolve(blocks: &Blocks, level: Level, out: &mut [i64]) {
    for (place, out) in out.iter_mut().enumerate() {
        *out = match level {
            Level::L1 => of_block::<3>(blocks, place),
            Level::L2 => of_block::<4>(blocks, place),
            Level::L3 => {
                of_block::<4>(blocks, 2 * place) + (of_block::<4>(blocks, 2 * place + 1) << SECOND_BLOCK)
            }
        };
    }
}

/// The sum of the first draws of a block.
#[inline(always)]
fn of_block<const COUNT: usize>(blocks: &Blocks, block: usize) -> i64 {
    let mut sum = 0;
    for draw in 0..COUNT {
        let word = |place: usize| u128::from(blocks[4 * draw + place][block]);
        sum += value(word(3) << 96 | word(2) << 64 | word(1) << 32 | word(0)) << SHIFTS[draw];
    }
    sum
}

/// The draw that 128 random bits select. The highest bit is the sign; zero has no sign.
#[inline(always)]
fn value(bits: u128) -> i64 {
    let sign = -((bits >> 127) as i64);
    (magnitude(bits & UNIFORM) as i64 ^ sign) - sign
}

/// Bits of a cell's number after its leading one.
const FRACTION: u32 = 4;
/// Cells that draws fall into.
const CELLS: usize = 128 << FRACTION;
/// Thresholds to compare with a draw of a cell: no cell has more thresholds inside. A test checks this.
const COMPARED: usize = 3;
/// For each cell, the number of thresholds that are at or below all of its draws.
static GUIDE: [u16; CELLS] = guide();

/// The number of thresholds at or below `uniform`, which is below 2^127.
#[inline(always)]
fn magnitude(uniform: u128) -> usize {
    let start = usize::from(GUIDE[cell(uniform)]);
    let near = &THRESHOLDS[start..start + COMPARED];
    let mut magnitude = start;
    for threshold in near {
        magnitude += usize::from(*threshold <= uniform);
    }
    magnitude
}

/// The cell of `uniform`, which works like a float: the place of the leading one in the distance from the end, and the
/// four bits after it. So cells are narrow in the tail of the Gaussian.
#[inline(always)]
fn cell(uniform: u128) -> usize {
    let left = (UNIFORM - uniform) << 1 | 1;
    let zeros = left.leading_zeros();
    let leading = (left << zeros >> (127 - FRACTION)) as usize;
    ((zeros as usize + 2) << FRACTION) - 1 - leading
}

/// The smallest number of a cell. For an empty cell, that of the next one.
const fn first_of(cell: usize) -> u128 {
    let zeros = cell >> FRACTION;
    let leading = (2 << FRACTION) - 1 - cell as u128 % (1 << FRACTION);
    let left = ((leading + 1) << (127 - FRACTION)).wrapping_sub(1) >> zeros;
    UNIFORM - (left.saturating_sub(1) >> 1)
}

const fn guide() -> [u16; CELLS] {
    let mut guide = [0; CELLS];
    let (mut cell, mut passed) = (0, 0);
    while cell < CELLS {
        while passed < MAGNITUDES - COMPARED && THRESHOLDS[passed] <= first_of(cell) {
            passed += 1;
        }
        guide[cell] = passed as u16;
        cell += 1;
    }
    guide
}
