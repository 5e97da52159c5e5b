//! `eden1` to `eden8`: randomly rotated blocks, as codes of the best Gaussian quantizer.
//!
//! The values of a rotated block are nearly Gaussian (EDEN: Vargaftik et al., 2022; DRIVE, 2021, is the case of one
//! bit).
//!
//! `y = H D2 H D1 x`, with `H` the Walsh-Hadamard transform over the root of the block's length and `D` random signs.
//! One round alone would leave a vector with few nonzero values unchanged, except for signs. The codes `q` are the bins
//! of `y sqrt(B) / |x|` between the levels of Lloyd and Max. The decoder multiplies the inverse rotation of `q` by one
//! float `S` a block:
//!
//! - `S = |x|^2 / <y, q>` is unbiased over rotations (their equation 2): for plain means.
//! - `S = <y, q> / |q|^2` has the least error: for use with a residual.
//! - `S = |x| / |q|` keeps the norm: for rules that judge norms.
//!
//! The values after the last whole block are padded with zeros to a power of two from 256 on, if that adds at most a
//! tenth of the vector. Otherwise they are cut into powers of two (OpenFL's rule).

use crate::codecs::device::{AT_ONCE, suits_decoder};
use crate::codecs::packing::bits;
use crate::codecs::quantize::blocks::scales;
use crate::codecs::quantize::lloyd_max::LEVELS;
use crate::codecs::{
    CHUNK, Codec, Coding, Device, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Vector,
    check_lengths,
};
use crate::kernels::bucketize::bucketize;
use crate::kernels::distortion::{products, squares};
use crate::kernels::hadamard::{flipped_hadamard, flipped_products, hadamard, scaled};
use crate::kernels::lanes::Isa;
use crate::kernels::levels::levels_of;
use crate::kernels::pack_bits::packed_len;
use crate::kernels::philox::random_words;
use crate::model::dtype::Dtype;
use crate::model::tile::TileBuffer;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "randomly rotated blocks, as codes of the best Gaussian quantizer",
    settings: &[("block", &["4096", "256"]), ("scale", &["unbiased", "min-error", "norm"])],
    tried: &[],
    codecs: &[
        ("eden1", parse::<1>),
        ("eden2", parse::<2>),
        ("eden3", parse::<3>),
        ("eden4", parse::<4>),
        ("eden5", parse::<5>),
        ("eden6", parse::<6>),
        ("eden7", parse::<7>),
        ("eden8", parse::<8>),
    ],
};

/// Values of the shortest block, and of the shortest padded rest.
const SHORTEST: usize = 256;

/// A rest is padded by at most the vector's length over this.
const PADDING: usize = 10;

/// Values of a block that a GPU can rotate.
const ON_DEVICE: usize = 4096;

/// The purposes of the random words of the two rounds of a rotation; every purpose draws other words.
const PURPOSES: [u32; 2] = [2, 3];

/// The coding: how the codes of a vector were made.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Eden {
    /// Bits of a code, 1 to 8.
    pub bits: u8,
    /// Values of a block, a power of two from 256 to [`CHUNK`].
    pub block: u32,
    /// The seed of the rotations.
    pub seed: u64,
}

/// The value of the setting `block`.
struct BlockLength(u32);

impl FromStr for BlockLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let len = text.parse().ok().filter(|len| is_block(*len));
        len.map(Self)
            .ok_or_else(|| format!("found `{text}`, expected a power of two from {SHORTEST} to {CHUNK}"))
    }
}

fn is_block(len: u32) -> bool {
    len.is_power_of_two() && (SHORTEST..=CHUNK).contains(&(len as usize))
}

/// The aim of a block's scale.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Scale {
    #[default]
    Unbiased,
    MinError,
    Norm,
}

const SCALES: [(&str, Scale); 3] =
    [("unbiased", Scale::Unbiased), ("min-error", Scale::MinError), ("norm", Scale::Norm)];

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = SCALES.into_iter().find(|(name, _)| *name == text);
        named
            .map(|(_, scale)| scale)
            .ok_or_else(|| format!("found `{text}`, expected unbiased, min-error or norm"))
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SCALES.into_iter().filter(|(_, scale)| scale == self).try_for_each(|(name, _)| f.write_str(name))
    }
}

impl Scale {
    /// The scale for the squared norm of a block, its product with the levels of its codes, and their squared norm.
    fn of(self, square: f64, product: f64, levels: f64) -> f64 {
        match self {
            Self::Unbiased => square / product,
            Self::MinError => product / levels,
            Self::Norm => (square / levels).sqrt(),
        }
    }
}

#[derive(Clone, Debug)]
struct EdenCodec {
    bits: u8,
    block: u32,
    scale: Scale,
    device: Option<Arc<dyn Device>>,
}

fn parse<const BITS: u8>(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let block = settings.take("block")?.unwrap_or(BlockLength(4096)).0;
    let scale = settings.take("scale")?.unwrap_or_default();
    Ok(Box::new(EdenCodec { bits: BITS, block, scale, device: None }))
}

impl fmt::Display for EdenCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eden{}:block={},scale={}", self.bits, self.block, self.scale)
    }
}

impl Codec for EdenCodec {
    fn encoder(&self, isa: Isa, vector: &Vector, seeds: Seeds) -> Box<dyn Encoder> {
        let scheme = Eden { bits: self.bits, block: self.block, seed: seeds.own };
        let (scale, code, device) = (self.scale, Code::of(self.bits), self.device.clone());
        Box::new(EdenEncoder { isa, scheme, scale, len: vector.len, code, device })
    }

    fn is_unbiased(&self) -> bool {
        self.scale == Scale::Unbiased
    }

    fn shrinks(&self) -> bool {
        self.scale == Scale::MinError
    }

    fn contracting(&self) -> Option<String> {
        (self.scale != Scale::MinError).then(|| Self { scale: Scale::MinError, ..self.clone() }.to_string())
    }

    fn has_shaders(&self) -> bool {
        self.block as usize == ON_DEVICE
    }

    fn on_device(&self, device: Arc<dyn Device>) -> Option<Arc<dyn Codec>> {
        self.has_shaders().then(|| Arc::new(Self { device: Some(device), ..self.clone() }) as Arc<dyn Codec>)
    }
}

/// The levels, and the thresholds between them.
#[derive(Clone, Debug)]
struct Code {
    /// The level of each code; the top bit of a code is the sign.
    levels: Vec<f32>,
    /// The thresholds between magnitudes.
    thresholds: Vec<f32>,
}

impl Code {
    fn of(bits: u8) -> Self {
        let positive = LEVELS[usize::from(bits) - 1];
        let middle = |pair: &[f32]| ((f64::from(pair[0]) + f64::from(pair[1])) / 2.0) as f32;
        let levels = positive.iter().copied().chain(positive.iter().map(|level| -level));
        Self { levels: levels.collect(), thresholds: positive.windows(2).map(middle).collect() }
    }
}

/// A block of values that are rotated together.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Block {
    /// The values in the vector.
    values: Range<usize>,
    /// The codes, with those of padding.
    codes: Range<usize>,
}

impl Eden {
    /// The blocks after the last whole one.
    fn tail(self, len: usize) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut value = len / self.block as usize * self.block as usize;
        let mut code = value;
        while value < len {
            let left = len - value;
            let fits = |codes: &usize| (codes - left).saturating_mul(PADDING) <= len;
            let next = left.next_power_of_two();
            let padded = [next.max(SHORTEST), next].into_iter().find(fits);
            let codes = padded.unwrap_or(next / 2);
            blocks.push(Block { values: value..value + codes.min(left), codes: code..code + codes });
            (value, code) = (value + codes.min(left), code + codes);
        }
        blocks
    }

    /// The blocks of a run of values.
    fn blocks(self, len: usize, run: &Range<usize>) -> Vec<Block> {
        let block = self.block as usize;
        let whole = (run.start..run.end / block * block).step_by(block);
        let mut blocks: Vec<Block> =
            whole.map(|start| Block { values: start..start + block, codes: start..start + block }).collect();
        if run.end == len {
            blocks.extend(self.tail(len));
        }
        blocks
    }

    /// The number of blocks and of codes before a value at which a block starts, or the vector ends.
    fn before(self, len: usize, value: usize) -> (usize, usize) {
        let whole = value / self.block as usize;
        match self.tail(len) {
            tail if value == len => (whole + tail.len(), tail.last().map_or(value, |last| last.codes.end)),
            _ => (whole, value),
        }
    }

    /// The random signs of a block in one round of its rotation, a bit each.
    fn signs(self, isa: Isa, purpose: u32, block: &Block) -> Vec<u32> {
        // Random words come in fours.
        let (start, skipped) = (block.codes.start / 128 * 4, block.codes.start % 128);
        let mut words = vec![0; (skipped + block.codes.len()).div_ceil(32)];
        random_words(isa, self.seed, purpose, start as u64, &mut words);
        words.drain(..skipped / 32);
        // A block shorter than a word lies within one word.
        words[0] >>= skipped % 32;
        words
    }

    /// The random signs of whole blocks from a value on, for both rounds.
    fn flips(self, isa: Isa, start: usize, len: usize) -> [Vec<u32>; 2] {
        let all = Block { values: start..start + len, codes: start..start + len };
        PURPOSES.map(|purpose| self.signs(isa, purpose, &all))
    }

    /// The values of the whole blocks at the start of a run, from the GPU; `None` after a failure, or if a scale is
    /// outside the range where the GPU has the CPU's bits.
    fn on_device(
        self,
        device: &dyn Device,
        isa: Isa,
        start: usize,
        codes: &[u8],
        scales: &[f32],
    ) -> Option<Vec<f32>> {
        let scales = self.has_shaders().then(|| &scales[..codes.len() / ON_DEVICE])?;
        if scales.is_empty() || !scales.iter().all(|scale| suits_decoder(*scale)) {
            return None;
        }
        let [first, second] = self.flips(isa, start, codes.len());
        device.rotate_back(codes, &Code::of(self.bits).levels, [&second, &first], scales)
    }

    /// Rotates. Without normalisation, each round multiplies by the root of the block's length.
    fn rotate(self, isa: Isa, purposes: &[u32], block: &Block, values: &mut [f32]) {
        for purpose in purposes {
            flipped_hadamard(isa, &self.signs(isa, *purpose, block), values);
        }
    }

    /// The inverse of [`rotate`](Self::rotate), times a scale. Overwrites `values`; `out` gets the values before the
    /// padding.
    fn rotate_back(self, isa: Isa, block: &Block, scale: f32, values: &mut [f32], out: &mut [f32]) {
        let [first, second] = PURPOSES.map(|purpose| self.signs(isa, purpose, block));
        hadamard(isa, values);
        flipped_hadamard(isa, &second, values);
        // The scale comes last: it may be subnormal.
        flipped_products(isa, &first, values, [1.0 / values.len() as f32, scale], out);
    }
}

#[derive(Debug)]
struct EdenEncoder {
    isa: Isa,
    scheme: Eden,
    scale: Scale,
    len: usize,
    code: Code,
    device: Option<Arc<dyn Device>>,
}

/// The norm of a block, for its rotation and its scale.
struct Norm {
    /// The exponent of the power of two that its values were divided by.
    exponent: i32,
    /// The squared norm after that division.
    square: f64,
    /// The factor that makes the rotated values Gaussian with variance one.
    factor: f32,
}

impl EdenEncoder {
    /// Scales a block, and returns its norm; `None` if all values are zero.
    fn norm(&self, values: &mut [f32]) -> Option<Norm> {
        let exponent = scaled(self.isa, values)?;
        let square = squares(self.isa, values);
        // For two rounds of a transform that is not normalised.
        let factor = (1.0 / (square.sqrt() * (values.len() as f64).sqrt())) as f32;
        Some(Norm { exponent, square, factor })
    }

    /// Encodes the values of a block with its padding, and returns its scale.
    /// Overwrites the values, and as many of `levels`.
    fn encode_block(&self, block: &Block, values: &mut [f32], codes: &mut [u8], levels: &mut [f32]) -> f32 {
        let Some(norm) = self.norm(values) else {
            codes.fill(0);
            return 0.0;
        };
        self.scheme.rotate(self.isa, &PURPOSES, block, values);
        bucketize(self.isa, values, norm.factor, &self.code.thresholds, codes);
        self.scale_of(&norm, values, codes, levels)
    }

    /// The scale of a block, from its rotated values and their codes. Overwrites as many of `levels`.
    fn scale_of(&self, norm: &Norm, rotated: &[f32], codes: &[u8], levels: &mut [f32]) -> f32 {
        let levels = &mut levels[..codes.len()];
        levels_of(self.isa, codes, &self.code.levels, levels);
        let [squares, products] = products(self.isa, levels, rotated);
        let scale = self.scale.of(norm.square, products / rotated.len() as f64, squares);
        (scale * f64::from(norm.exponent).exp2()).min(f64::from(f32::MAX)) as f32
    }

    /// The codes and scales of a chunk's whole blocks from the GPU; `None` without a GPU.
    fn on_device(&self, start: usize, values: &[f32]) -> Option<(Vec<u8>, Vec<f32>)> {
        let device = self.device.as_ref()?;
        let mut sent = values[..values.len() / ON_DEVICE * ON_DEVICE].to_vec();
        let norms: Vec<Option<Norm>> = sent.chunks_mut(ON_DEVICE).map(|block| self.norm(block)).collect();
        let factors: Vec<f32> =
            norms.iter().map(|norm| norm.as_ref().map_or(0.0, |norm| norm.factor)).collect();
        let flips = self.scheme.flips(self.isa, start, sent.len());
        let thresholds = &self.code.thresholds;
        let (codes, rotated) =
            device.rotate_and_bucketize(&sent, [&flips[0], &flips[1]], &factors, thresholds)?;
        let blocks = norms.iter().zip(rotated.chunks(ON_DEVICE).zip(codes.chunks(ON_DEVICE)));
        let mut levels = vec![0.0; ON_DEVICE];
        let scale = |(norm, (rotated, codes)): (&Option<Norm>, _)| {
            norm.as_ref().map_or(0.0, |norm| self.scale_of(norm, rotated, codes, &mut levels))
        };
        Some((codes.clone(), blocks.map(scale).collect()))
    }
}

impl Encoder for EdenEncoder {
    fn coding(&self) -> Coding {
        Coding::Eden(self.scheme)
    }

    fn at_once(&self) -> usize {
        if self.device.is_some() { AT_ONCE } else { CHUNK }
    }

    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let blocks = self.scheme.blocks(self.len, &(start..start + values.len()));
        let end = blocks.last().map_or(start, |last| last.codes.end);
        let is_whole = values.len() >= ON_DEVICE;
        let (mut codes, mut scales) =
            is_whole.then(|| self.on_device(start, values)).flatten().unwrap_or_default();
        let found = scales.len();
        codes.resize(end - start, 0);
        let mut buffer = TileBuffer::new(1, size_of::<f32>() * self.scheme.block as usize);
        let rotated: &mut [f32] = bytemuck::cast_slice_mut(buffer.row_mut(0));
        let mut levels = vec![0.0; self.scheme.block as usize];
        for block in &blocks[found..] {
            let rotated = &mut rotated[..block.codes.len()];
            let (own, padding) = rotated.split_at_mut(block.values.len());
            own.copy_from_slice(&values[block.values.start - start..block.values.end - start]);
            padding.fill(0.0);
            let codes = &mut codes[block.codes.start - start..block.codes.end - start];
            scales.push(self.encode_block(block, rotated, codes, &mut levels));
        }
        vec![bytemuck::cast_slice(&scales).to_vec(), bits::pack(self.isa, self.scheme.bits, codes)]
    }
}

impl Scheme for Eden {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        if !(1..=8).contains(&self.bits) {
            return Err(Invalid(format!("found codes of {} bits, expected 1 to 8", self.bits)));
        }
        if !is_block(self.block) {
            let expected = format!("a power of two from {SHORTEST} to {CHUNK}");
            return Err(Invalid(format!("found blocks of {} values, expected {expected}", self.block)));
        }
        let (blocks, codes) = self.before(vector.len, vector.len);
        let stream = |suffix, dtype, len| Stream { suffix, dtype, extent: Extent::Known(vec![len]) };
        Ok(vec![
            stream("_scale", Dtype::F32, blocks),
            stream("_codes", Dtype::U8, packed_len(codes, self.bits)),
        ])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        self.block as usize
    }

    fn bytes(&self, vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize> {
        let (first, last) = (self.before(vector.len, values.start), self.before(vector.len, values.end));
        match stream {
            0 => 4 * first.0..4 * last.0,
            _ => bits::range(self.bits, first.1..last.1),
        }
    }

    fn decode(
        &self,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        self.decode_on(None, isa, vector, start, streams, out)
    }

    fn has_shaders(&self) -> bool {
        self.block as usize == ON_DEVICE
    }

    fn decode_on(
        &self,
        device: Option<&dyn Device>,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let run = start..start + out.len();
        check_lengths(self, vector, run.clone(), streams)?;
        let scales = scales(streams[0])?;
        let blocks = self.blocks(vector.len, &run);
        let end = blocks.last().map_or(start, |last| last.codes.end);
        let codes = bits::unpack(isa, self.bits, streams[1], end - start)?;
        let of_device = &codes[..out.len() / ON_DEVICE * ON_DEVICE];
        let on_device = device.and_then(|device| self.on_device(device, isa, start, of_device, &scales));
        let found = on_device.unwrap_or_default();
        out[..found.len()].copy_from_slice(&found);
        let levels = Code::of(self.bits).levels;
        let mut buffer = TileBuffer::new(1, size_of::<f32>() * self.block as usize);
        let rotated: &mut [f32] = bytemuck::cast_slice_mut(buffer.row_mut(0));
        for (block, scale) in blocks.iter().zip(scales).skip(found.len() / ON_DEVICE) {
            let rotated = &mut rotated[..block.codes.len()];
            let codes = &codes[block.codes.start - start..block.codes.end - start];
            levels_of(isa, codes, &levels, rotated);
            let out = &mut out[block.values.start - start..block.values.end - start];
            self.rotate_back(isa, block, scale, rotated, out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
