//! The encoding half of a codec: [`Codec`], as users name it, and its [`Encoder`] of a vector.

use crate::codecs::coding::Coding;
use crate::codecs::device::Device;
use crate::codecs::tally::Tally;
use crate::kernels::lanes::Isa;
use std::fmt;
use std::sync::Arc;

/// Values in a chunk, the unit of encoding. The unit of every scheme divides it.
pub const CHUNK: usize = 65_536;

/// A vector to encode: one tensor, or several small tensors joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vector {
    /// Number of values.
    pub len: usize,
    /// The shape of the tensor; `[len]` for several tensors.
    pub shape: Vec<usize>,
}

/// The seeds of an encoder's random numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seeds {
    /// Differs between vectors, clients and rounds.
    pub own: u64,
    /// Differs between vectors and rounds; the same for all clients of a round.
    pub shared: u64,
}

/// A goal for the whole model, met by one step for all its tensors.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ModelGoal {
    /// Bits a value, at most.
    Bits(f64),
    /// Squared error over squared norm, at most.
    Nmse(f64),
}

/// A codec with its settings. Displays as the text that parses to it.
pub trait Codec: fmt::Display + fmt::Debug + Send + Sync {
    /// Starts to encode a vector of at least one value.
    fn encoder(&self, isa: Isa, vector: &Vector, seeds: Seeds) -> Box<dyn Encoder>;
    /// Whether the mean of the decoded values over seeds is the encoded value. A biased codec needs a residual.
    fn is_unbiased(&self) -> bool {
        false
    }
    /// Whether the decoded values as a whole are smaller than the encoded ones: values left out, or pulled towards zero.
    /// As weights they would be another model; as a delta they are a shorter step.
    fn shrinks(&self) -> bool {
        false
    }
    /// The expected squared error over the squared norm, where it follows from the settings alone.
    fn expected_nmse(&self, _vector: &Vector) -> Option<f64> {
        None
    }
    /// The settings of the same codec whose error is below the encoded values, as error feedback needs.
    fn contracting(&self) -> Option<String> {
        None
    }
    /// The goal for the whole model, if a search must find the step for it; only `ecsq` has one.
    fn model_goal(&self) -> Option<ModelGoal> {
        None
    }
    /// Whether the server can add the streams of several clients without decoding them.
    fn is_linear(&self) -> bool {
        false
    }
    /// Whether a device can do part of the encoding.
    fn has_shaders(&self) -> bool {
        false
    }
    /// The same codec with a device for the part that has shaders; `None` if no part has. The bytes do not change.
    fn on_device(&self, _device: Arc<dyn Device>) -> Option<Arc<dyn Codec>> {
        None
    }
}

/// Encodes one vector. Its values are finite, and none is `-0.0`.
pub trait Encoder: fmt::Debug + Send + Sync {
    /// Whether the encoder needs another look at the values before it can encode.
    fn wants_look(&self) -> bool {
        false
    }
    /// The step of the next look, in chunks: 1 takes every chunk.
    fn look_at_each(&self) -> usize {
        1
    }
    /// Looks at the values from `start` on: [`at_once`](Self::at_once) of them, or the rest at the end.
    fn look(&self, _start: usize, _values: &[f32]) -> Tally {
        Tally::default()
    }
    /// Takes the sum of a look's tallies.
    fn learn(&mut self, _tally: Tally) {}
    /// The decoder's coding. Final once the encoder wants no look.
    fn coding(&self) -> Coding;
    /// An estimate of the bytes of all chunks of the stream of unknown extent; 0 without such a stream.
    fn expected_bytes(&self) -> u64 {
        0
    }
    /// The number of these values that are beyond the range of the codec and decode as its end.
    fn cut(&self, _values: &[f32], _decoded: &[f32]) -> u64 {
        0
    }
    /// The most values that the encoder takes at once: whole chunks.
    fn at_once(&self) -> usize {
        CHUNK
    }
    /// Encodes the values from `start` on: [`at_once`](Self::at_once) of them, or the rest at the end. Returns the bytes
    /// of each stream. With a stream of unknown extent, it takes one chunk.
    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>>;
    /// Encodes the values as [`encode`](Self::encode) does. With a stream of unknown extent, returns the streams of each
    /// chunk, in order.
    fn encode_chunks(&self, start: usize, values: &[f32]) -> Vec<Vec<Vec<u8>>> {
        vec![self.encode(start, values)]
    }
}

/// The chunks of values in memory, each with the index of its first value.
pub fn chunks(values: &[f32]) -> impl Iterator<Item = (usize, &[f32])> {
    (0..values.len()).step_by(CHUNK).zip(values.chunks(CHUNK))
}

/// Gives an encoder every look it wants at values in memory.
pub fn settle(encoder: &mut dyn Encoder, values: &[f32]) {
    while encoder.wants_look() {
        let mut tally = Tally::default();
        let each = encoder.look_at_each();
        let wanted = chunks(values).filter(|(start, _)| (start / CHUNK).is_multiple_of(each));
        wanted.for_each(|(start, chunk)| tally.add(&encoder.look(start, chunk)));
        encoder.learn(tally);
    }
}
