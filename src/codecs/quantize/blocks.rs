//! Which values of a vector share a scale, and the lowest and highest value of each block.

use crate::codecs::tally::Ends;
use crate::codecs::{CHUNK, Invalid, Tally, Vector};
use crate::kernels::block_quantize::{BlockRun, block_ends};
use crate::kernels::lanes::Isa;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Which values share a scale.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Blocks {
    /// Runs of equal length, a power of two from [`SHORTEST`] to [`CHUNK`] values. The last may be shorter.
    Runs(u32),
    /// The values of one index on the first axis; all values of a tensor with one axis.
    Rows,
    /// All values.
    Whole,
}

/// Values of the shortest run. Its codes end on a byte, whatever their bits.
pub const SHORTEST: usize = 8;

/// The value of the setting `block`.
struct RunLength(u32);

impl FromStr for RunLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let len = text.parse().ok().filter(|len| *len == 0 || is_run(*len));
        let len = len.ok_or_else(|| {
            format!("found `{text}`, expected a power of two from {SHORTEST} to {CHUNK}, or 0 for all values")
        })?;
        Ok(Self(len))
    }
}

/// The value of the setting `per`.
struct Channel;

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "channel" => Ok(Self),
            _ => Err(format!("found `{text}`, expected channel")),
        }
    }
}

fn is_run(len: u32) -> bool {
    len.is_power_of_two() && (SHORTEST..=CHUNK).contains(&(len as usize))
}

impl Blocks {
    /// Takes the settings `block` and `per` of a codec.
    ///
    /// # Errors
    ///
    /// When a value is invalid, or both settings are given.
    pub(crate) fn parse(settings: &mut Settings, codec: &str, default: Self) -> Result<Self, SpecError> {
        let run = settings.take::<RunLength>("block")?;
        match (run, settings.take::<Channel>("per")?) {
            (None, None) => Ok(default),
            (None, Some(Channel)) => Ok(Self::Rows),
            (Some(RunLength(0)), None) => Ok(Self::Whole),
            (Some(RunLength(len)), None) => Ok(Self::Runs(len)),
            (Some(_), Some(Channel)) => Err(SpecError::BadValue {
                rule: codec.to_owned(),
                key: "block".to_owned(),
                why: "found beside per=channel, expected one of both".to_owned(),
            }),
        }
    }

    /// Checks that an encoder can have made the blocks.
    pub(crate) fn check(self) -> Result<(), Invalid> {
        match self {
            Self::Runs(len) if !is_run(len) => {
                Err(Invalid(format!("found blocks of {len} values, expected a power of two from {SHORTEST}")))
            }
            _ => Ok(()),
        }
    }

    /// Values of a block.
    pub(crate) fn len(self, vector: &Vector) -> usize {
        match (self, &vector.shape[..]) {
            (Self::Runs(len), _) => len as usize,
            (Self::Rows, [rows, _, ..]) => vector.len / rows,
            (Self::Rows | Self::Whole, _) => vector.len,
        }
    }

    /// Number of blocks.
    pub(crate) fn count(self, vector: &Vector) -> usize {
        vector.len.div_ceil(self.len(vector))
    }

    /// Values of the shortest run that is decoded alone.
    pub(crate) fn unit(self) -> usize {
        match self {
            Self::Runs(len) => len as usize,
            Self::Rows | Self::Whole => SHORTEST,
        }
    }

    /// The blocks that hold a run of values.
    pub(crate) fn touched(self, vector: &Vector, values: Range<usize>) -> Range<usize> {
        let len = self.len(vector);
        values.start / len..values.end.div_ceil(len)
    }

    /// For each block in a run of values from `start` on, where its values are in the run.
    pub(crate) fn pieces(
        self,
        vector: &Vector,
        start: usize,
        len: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let (block, end) = (self.len(vector), start + len);
        let piece = move |i: usize| (i * block).max(start) - start..((i + 1) * block).min(end) - start;
        self.touched(vector, start..end).map(piece)
    }

    /// Values of each block of a run, if all blocks but the last have as many: the kernels then take the run at once.
    pub(crate) fn even(self, values: usize) -> Option<usize> {
        match self {
            Self::Runs(len) => Some(len as usize),
            Self::Whole if values > 0 => Some(values),
            Self::Whole | Self::Rows => None,
        }
    }

    /// Where the blocks of a run of values from `start` on lie, as a GPU takes them.
    pub(crate) fn of_run(self, vector: &Vector, start: usize, values: usize) -> BlockRun {
        match self.even(values) {
            Some(block) => block.into(),
            None => {
                let block = self.len(vector);
                let left = block - start % block;
                // A device counts in words: a block beyond the run counts as long as the run.
                let block = block.min(values);
                BlockRun { block, skipped: block - left.min(block) }
            }
        }
    }

    fn ends_within(self, isa: Isa, vector: &Vector, start: usize, values: &[f32]) -> Vec<Ends> {
        let mut ends = vec![[0.0; 2]; self.touched(vector, start..start + values.len()).len()];
        match self {
            Self::Runs(len) => block_ends(isa, values, len as usize, &mut ends),
            Self::Rows | Self::Whole => {
                for (piece, ends) in self.pieces(vector, start, values.len()).zip(ends.chunks_mut(1)) {
                    block_ends(isa, &values[piece.clone()], piece.len(), ends);
                }
            }
        }
        ends
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(len) => write!(f, "block={len}"),
            Self::Rows => f.write_str("per=channel"),
            Self::Whole => f.write_str("block=0"),
        }
    }
}

/// Finds the ends of blocks: within each chunk if no block crosses chunks, otherwise in a look at all values.
#[derive(Debug)]
pub(crate) struct EndsOfBlocks {
    /// The instruction set to compute with.
    pub(crate) isa: Isa,
    /// The blocks.
    pub(crate) blocks: Blocks,
    /// The vector.
    pub(crate) vector: Vector,
    seen: Option<Vec<Ends>>,
}

impl EndsOfBlocks {
    pub(crate) fn new(isa: Isa, blocks: Blocks, vector: &Vector) -> Self {
        Self { isa, blocks, vector: vector.clone(), seen: None }
    }

    /// Whether blocks cross chunks and no look has seen them.
    pub(crate) fn wants_look(&self) -> bool {
        let reach_beyond = !matches!(self.blocks, Blocks::Runs(_)) && self.vector.len > CHUNK;
        reach_beyond && self.seen.is_none()
    }

    pub(crate) fn look(&self, start: usize, values: &[f32]) -> Tally {
        let first = start / self.blocks.len(&self.vector);
        let ends = self.blocks.ends_within(self.isa, &self.vector, start, values);
        Tally {
            ends: ends.into_iter().enumerate().map(|(i, ends)| (first + i, ends)).collect(),
            ..Tally::default()
        }
    }

    pub(crate) fn learn(&mut self, tally: Tally) {
        self.seen = Some(tally.ends.into_iter().map(|(_, ends)| ends).collect());
    }

    /// The ends of the blocks in a run of values from `start` on.
    pub(crate) fn of(&self, start: usize, values: &[f32]) -> Cow<'_, [Ends]> {
        match &self.seen {
            None => Cow::Owned(self.blocks.ends_within(self.isa, &self.vector, start, values)),
            Some(seen) => {
                Cow::Borrowed(&seen[self.blocks.touched(&self.vector, start..start + values.len())])
            }
        }
    }

    /// The scale of each of these blocks: it maps `top` to the largest magnitude. Zero if it would not be a normal f32.
    pub(crate) fn scales(&self, start: usize, values: &[f32], top: f64) -> Vec<f32> {
        let scale = |[low, high]: &Ends| {
            let scale = (f64::from(low.abs().max(high.abs())) / top) as f32;
            if scale < f32::MIN_POSITIVE { 0.0 } else { scale }
        };
        self.of(start, values).iter().map(scale).collect()
    }
}

/// The inverse of a scale; zero for a scale of zero.
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { (1.0 / f64::from(scale)) as f32 }
}

/// The scales in a stream.
///
/// # Errors
///
/// When a scale is negative or not finite.
pub(crate) fn scales(stream: &[u8]) -> Result<Vec<f32>, Invalid> {
    let scales: Vec<f32> = bytemuck::pod_collect_to_vec(stream);
    match scales.iter().find(|scale| !(scale.is_finite() && **scale >= 0.0)) {
        None => Ok(scales),
        Some(scale) => {
            Err(Invalid(format!("found {scale} as a scale, expected a finite number from zero up")))
        }
    }
}

/// Keeps values finite: a code times a scale can exceed the largest f32 by a rounding.
pub(crate) fn limit(values: &mut [f32]) {
    values.iter_mut().for_each(|x| *x = x.clamp(f32::MIN, f32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::chunks;

    fn shaped(shape: &[usize]) -> Vector {
        Vector { len: shape.iter().product(), shape: shape.to_vec() }
    }

    #[test]
    fn pieces_are_what_a_run_holds_of_each_block() {
        let vector = shaped(&[5, 7]);
        assert_eq!((Blocks::Rows.len(&vector), Blocks::Rows.count(&vector)), (7, 5));
        let pieces: Vec<_> = Blocks::Rows.pieces(&vector, 8, 16).collect();
        assert_eq!(pieces, [0..6, 6..13, 13..16]);
        assert_eq!(Blocks::Runs(16).pieces(&vector, 16, 19).collect::<Vec<_>>(), [0..16, 16..19]);
        assert!(Blocks::Whole.pieces(&vector, 8, 8).eq(std::iter::once(0..8)));
        assert_eq!(Blocks::Rows.len(&shaped(&[9])), 9);
    }

    #[test]
    fn ends_of_rows_are_joined_over_chunks() {
        let vector = shaped(&[3, 50_000]);
        let values: Vec<f32> = (0..vector.len).map(|i| ((i * 7919) % 100_003) as f32 - 5e4).collect();
        for blocks in [Blocks::Rows, Blocks::Whole] {
            let mut found = EndsOfBlocks::new(Isa::detect(), blocks, &vector);
            assert!(found.wants_look());
            let mut tally = Tally::default();
            chunks(&values).for_each(|(start, chunk)| tally.add(&found.look(start, chunk)));
            found.learn(tally);
            assert!(!found.wants_look());
            let ends = |block: &[f32]| {
                let low = block.iter().copied().fold(f32::INFINITY, f32::min);
                [low, block.iter().copied().fold(f32::NEG_INFINITY, f32::max)]
            };
            let expected: Vec<Ends> = values.chunks(blocks.len(&vector)).map(ends).collect();
            assert_eq!(found.of(0, &values).to_vec(), expected);
        }
    }
}
