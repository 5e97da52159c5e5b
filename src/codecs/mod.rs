//! Encodings of updates, one file each: a vector of f32 to fewer bytes, and back.
//!
//! A codec has two halves. The first knows the vector: a [`Codec`], as users name it, makes an [`Encoder`], which looks
//! at all values as often as it has to (each look adds up to a [`Tally`]), and then takes them chunk by chunk. The second
//! knows only the file: what the encoder settled on is a [`Coding`], which travels with the update, and says what streams
//! of bytes there are ([`Scheme::streams`]) and how a run of values is decoded from its bytes of each. Chunks are
//! [`CHUNK`] values, and no byte of a stream belongs to two: so tiles are decoded in place, from any thread.
//!
//! A decoder's input comes from strangers. It checks everything, and never allocates by a stream's say-so.
//!
//! - Floats and grids: [`half`]; [`uniform`] and [`symmetric`], [`fp8`], [`mxfp8`] over [`blocks`] of values that share a
//!   scale; [`eden`], blocks rotated first, with the levels of `lloyd_max`. Codes of few bits are packed by [`bits`], floats as they
//!   are checked by `floats`.
//! - Entropy-coded integers: [`ecsq`], over `rans`, and `bit_stream` for what is rare.
//! - Few values: [`topk`], its indices by `rice`; [`randk`]. Both go by a [`portion`] and write [`kept_values`].
//! - Others: [`sign`], [`lowrank`], [`sketch`]; [`constant`] and [`integers`], which are chosen where they belong.
//!
//! [`coding`] has all that decoders are told, [`directory`] what a file says of all its vectors, [`compressed_tensors`]
//! what others are told of it; a [`device`] may do part of an encoder's work.
//!
//! To add one: its file, a line in `CODECS`, a variant of [`Coding`].

mod bit_stream;
pub mod bits;
pub mod blocks;
pub mod coding;
pub mod compressed_tensors;
pub mod constant;
pub mod device;
pub mod directory;
pub mod ecsq;
pub mod eden;
mod floats;
pub mod fp8;
pub mod half;
pub mod integers;
pub mod kept_values;
mod lloyd_max;
pub mod lowrank;
pub mod mxfp8;
pub mod portion;
pub mod randk;
mod rans;
mod rice;
pub mod sign;
pub mod sketch;
pub mod symmetric;
pub mod topk;
#[cfg(test)]
mod trial;
pub mod uniform;

pub use coding::Coding;
pub use device::Device;

use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::settings::{self, Parse, SpecError};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Values that are encoded in one go; every scheme's unit divides it.
pub const CHUNK: usize = 65_536;

/// A vector that is encoded: a tensor, or several small ones, one behind the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vector {
    /// Number of values.
    pub len: usize,
    /// The extents of the tensor it is; just `len` if it is several.
    pub shape: Vec<usize>,
}

/// What an encoder may draw its random numbers from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seeds {
    /// This vector's own, of this client and round.
    pub own: u64,
    /// The same for this vector of all clients of a round.
    pub shared: u64,
}

/// What is added up over all values of a vector in a look.
#[derive(Clone, PartialEq, Debug)]
pub struct Tally {
    /// Counts.
    pub counts: Vec<u64>,
    /// Sums.
    pub sums: Vec<f64>,
    /// The smallest value.
    pub low: f32,
    /// The largest.
    pub high: f32,
    /// The lowest and the highest value of blocks, by the number of each, ascending.
    pub ends: Vec<(usize, blocks::Ends)>,
    /// Keys of magnitudes, one behind the other.
    pub keys: Vec<u32>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: Vec::new(),
            sums: Vec::new(),
            low: f32::INFINITY,
            high: f32::NEG_INFINITY,
            ends: Vec::new(),
            keys: Vec::new(),
        }
    }
}

impl Tally {
    /// Adds what was seen in the next chunk. Chunks are added in order, so that sums have one shape.
    pub fn add(&mut self, next: &Self) {
        self.counts.resize(self.counts.len().max(next.counts.len()), 0);
        self.sums.resize(self.sums.len().max(next.sums.len()), 0.0);
        self.counts.iter_mut().zip(&next.counts).for_each(|(all, more)| *all += more);
        self.sums.iter_mut().zip(&next.sums).for_each(|(all, more)| *all += more);
        self.low = self.low.min(next.low);
        self.high = self.high.max(next.high);
        self.add_ends(&next.ends);
        self.keys.extend(&next.keys);
    }

    /// Only the first block that was seen can have begun before.
    fn add_ends(&mut self, next: &[(usize, blocks::Ends)]) {
        match (self.ends.last_mut(), next) {
            (Some((last, [low, high])), [(first, ends), rest @ ..]) if last == first => {
                (*low, *high) = (low.min(ends[0]), high.max(ends[1]));
                self.ends.extend(rest);
            }
            _ => self.ends.extend(next),
        }
    }
}

/// Which coordinates an update that was encoded so can be other than zero at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// All of them.
    Dense,
    /// Those that the client chose.
    Chosen,
    /// Those that the round's seed chose, the same for all clients.
    Shared,
}

/// Which values of a vector an encoding of it keeps; all others are decoded as zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// All.
    All,
    /// As many as the client chose.
    Chosen {
        /// The codec.
        codec: &'static str,
        /// How many.
        values: u64,
    },
    /// Those that a seed chose: the same where seed and number are.
    Shared {
        /// The codec.
        codec: &'static str,
        /// The seed.
        seed: u64,
        /// How many runs of values.
        runs: u64,
    },
}

/// What a codec is to come to over a whole model, however its tensors share that.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ModelGoal {
    /// So many bits a value.
    Bits(f64),
    /// So much squared error over squared norm.
    Nmse(f64),
}

/// An encoding, as users name it.
pub trait Codec: fmt::Display + fmt::Debug + Send + Sync {
    /// Starts encoding a vector of at least one value.
    fn encoder(&self, isa: Isa, vector: &Vector, seeds: Seeds) -> Box<dyn Encoder>;
    /// Whether the mean of what is decoded, over seeds, is what was encoded. One that is biased should be used with a
    /// residual.
    fn is_unbiased(&self) -> bool {
        false
    }
    /// What it is to come to over a whole model, if it has one step for all of it that is yet to be found: that of
    /// `ecsq`.
    fn model_goal(&self) -> Option<ModelGoal> {
        None
    }
    /// Whether what clients of a round send can be added as it is. Then everything that travels is the same for all.
    fn is_linear(&self) -> bool {
        false
    }
    /// Which coordinates are sent.
    fn support(&self) -> Support {
        Support::Dense
    }
    /// Whether a device can do part of the work.
    fn has_shaders(&self) -> bool {
        false
    }
    /// The same, with a device that does the part that has shaders; none if no part has. The bytes are the same.
    fn on_device(&self, _device: Arc<dyn Device>) -> Option<Arc<dyn Codec>> {
        None
    }
}

/// A vector on its way into streams. All its values are finite, and none is `-0.0`.
pub trait Encoder: fmt::Debug + Send + Sync {
    /// Whether all values have to be looked at (again) before they are encoded.
    fn wants_look(&self) -> bool {
        false
    }
    /// Looks at one chunk of so many, from the first on.
    fn look_at_each(&self) -> usize {
        1
    }
    /// Looks at the values from `start` on: a chunk, or what is left at the end.
    fn look(&self, _start: usize, _values: &[f32]) -> Tally {
        Tally::default()
    }
    /// Learns from a look at all of them.
    fn learn(&mut self, _tally: Tally) {}
    /// What the decoder has to know. Settled once no look is wanted.
    fn coding(&self) -> Coding;
    /// Bytes that all chunks of all streams of which no size is known will have, about.
    fn expected_bytes(&self) -> u64 {
        0
    }
    /// Encodes the values from `start` on, a chunk or what is left at the end: the bytes of each stream.
    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>>;
}

/// The chunks of a vector of which all values are in memory, each with where it starts.
pub fn chunks(values: &[f32]) -> impl Iterator<Item = (usize, &[f32])> {
    (0..values.len()).step_by(CHUNK).zip(values.chunks(CHUNK))
}

/// Has an encoder look at such a vector as often as it wants.
pub fn settle(encoder: &mut dyn Encoder, values: &[f32]) {
    while encoder.wants_look() {
        let mut tally = Tally::default();
        let each = encoder.look_at_each();
        let wanted = chunks(values).filter(|(start, _)| (start / CHUNK).is_multiple_of(each));
        wanted.for_each(|(start, chunk)| tally.add(&encoder.look(start, chunk)));
        encoder.learn(tally);
    }
}

/// Bytes of an encoded vector that belong together: a tensor of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// What its name ends with, behind the vector's; empty for the vector's own.
    pub suffix: &'static str,
    /// What its values are.
    pub dtype: Dtype,
    /// How many there are.
    pub extent: Extent,
}

/// How long a stream is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Extent {
    /// A tensor of this shape.
    Known(Vec<usize>),
    /// As many bytes as each chunk turns out to have; the directory counts them. The last of the streams, at most one.
    Chunks,
}

/// Why what a file holds is no encoding of anything.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// Says what was found and what was expected.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// How values stand in streams.
pub trait Scheme {
    /// The streams of a vector.
    ///
    /// # Errors
    ///
    /// When a vector like this cannot have been encoded so.
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid>;
    /// Values are decoded in runs that start at a multiple of this. Divides [`CHUNK`].
    fn unit(&self, _vector: &Vector) -> usize {
        1
    }
    /// The bytes of a stream of known extent that a run of values is decoded from. The run starts at a unit and ends
    /// at one or at the vector's end.
    fn bytes(&self, vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize>;
    /// Which values are kept.
    fn kept(&self, _vector: &Vector) -> Kept {
        Kept::All
    }
    /// Decodes a run of values within one chunk, from `start` on, as many as `out` takes, from the bytes of each stream
    /// that [`bytes`](Self::bytes) says, or of the whole chunk.
    ///
    /// # Errors
    ///
    /// When they are not what an encoder writes.
    fn decode(
        &self,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid>;
}

/// Checks that a run of values came with as many bytes of each stream of known extent as it is decoded from.
fn check_lengths(
    scheme: &dyn Scheme,
    vector: &Vector,
    values: Range<usize>,
    streams: &[&[u8]],
) -> Result<(), Invalid> {
    let known = scheme.streams(vector)?.into_iter().enumerate();
    for (number, stream) in known.filter(|(_, stream)| stream.extent != Extent::Chunks) {
        let found = streams.get(number).map_or(0, |bytes| bytes.len());
        let expected = scheme.bytes(vector, number, values.clone()).len();
        if found != expected {
            return Err(Invalid(format!("found {found} bytes of `{}`, expected {expected}", stream.suffix)));
        }
    }
    Ok(())
}

/// The codecs that can be named, and how each is made from its settings.
const CODECS: &[(&str, Parse<Box<dyn Codec>>)] = &[
    ("f16", half::f16),
    ("bf16", half::bf16),
    ("ecsq", ecsq::parse),
    ("lowrank", lowrank::parse),
    ("randk", randk::parse),
    ("sign", sign::parse),
    ("sketch", sketch::parse),
    ("topk", topk::parse),
    ("u1", uniform::parse::<1>),
    ("u2", uniform::parse::<2>),
    ("u3", uniform::parse::<3>),
    ("u4", uniform::parse::<4>),
    ("u5", uniform::parse::<5>),
    ("u6", uniform::parse::<6>),
    ("u7", uniform::parse::<7>),
    ("u8", uniform::parse::<8>),
    ("i2", symmetric::parse::<2>),
    ("i3", symmetric::parse::<3>),
    ("i4", symmetric::parse::<4>),
    ("i5", symmetric::parse::<5>),
    ("i6", symmetric::parse::<6>),
    ("i7", symmetric::parse::<7>),
    ("i8", symmetric::parse::<8>),
    ("e4m3", fp8::parse),
    ("mxfp8", mxfp8::parse),
    ("eden1", eden::parse::<1>),
    ("eden2", eden::parse::<2>),
    ("eden3", eden::parse::<3>),
    ("eden4", eden::parse::<4>),
    ("eden5", eden::parse::<5>),
    ("eden6", eden::parse::<6>),
    ("eden7", eden::parse::<7>),
    ("eden8", eden::parse::<8>),
];

/// The codec that a text like `u8:block=128` names.
///
/// # Errors
///
/// When it names none, or a setting makes no sense.
pub fn parse(text: &str) -> Result<Box<dyn Codec>, SpecError> {
    settings::parse("codec", text, CODECS)
}

/// The names that can be given.
pub fn names() -> impl Iterator<Item = &'static str> {
    CODECS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_codecs_and_back() {
        for text in [
            "f16",
            "bf16",
            "u8:block=128",
            "u4:block=64",
            "u8:block=0,rounding=stochastic",
            "u2:per=channel",
            "i8:block=128",
            "i4:per=channel,rounding=stochastic",
            "e4m3:block=0",
            "e4m3:per=channel,as=f8",
            "mxfp8",
            "mxfp8:scale=floor",
            "eden1:block=4096,scale=unbiased",
            "eden8:block=256,scale=min-error",
        ] {
            let codec = parse(text).unwrap();
            assert_eq!(codec.to_string(), text);
        }
        for text in [
            "topk:k=100,values=u8",
            "randk:fraction=0.1,scale=inverse,values=f16",
            "sign",
            "sketch:rows=3,columns=100,k=7",
            "lowrank:rank=2",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert!(parse("u9").is_err());
        assert!(parse("u8:block=100").is_err());
        assert!(parse("f16:block=1").is_err());
        assert!(parse("i1").is_err());
        assert!(parse("i4:block=64,per=channel").is_err());
    }
}
