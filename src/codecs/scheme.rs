//! The decoding half of a codec: the streams of a vector, and the decoder of a run of values.

use crate::codecs::codec::Vector;
use crate::codecs::device::Device;
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::model::layout::TensorSpec;
use crate::model::sparsity::Sparsity;
use std::ops::Range;

/// A stream of an encoded vector: one tensor of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// What follows the vector's name in the stream's name; empty for the vector's own name.
    pub suffix: &'static str,
    /// The dtype of its elements.
    pub dtype: Dtype,
    /// Its length.
    pub extent: Extent,
}

impl Stream {
    /// The tensor that the stream is in a file, for a vector of this name.
    ///
    /// # Errors
    ///
    /// When the stream is longer than addresses.
    pub fn spec(&self, name: &str, chunk_bytes: u64) -> Result<TensorSpec, Invalid> {
        let name = format!("{name}{}", self.suffix);
        let shape = match &self.extent {
            Extent::Known(shape) => shape.clone(),
            Extent::Chunks => vec![usize::try_from(chunk_bytes).unwrap_or(usize::MAX)],
        };
        let len = shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
        let len = len.filter(|len| len.checked_mul(self.dtype.bytes()).is_some());
        let len = len.ok_or_else(|| Invalid(format!("stream `{name}` is too long")))?;
        Ok(TensorSpec { name, dtype: self.dtype, shape, len })
    }
}

/// The length of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Extent {
    /// A tensor of this shape.
    Known(Vec<usize>),
    /// The bytes of all chunks; the directory has the bytes of each. At most one stream, the last.
    Chunks,
}

/// Why bytes of a file are not the output of an encoder.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// Takes what was found and what was expected.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// The layout of an encoded vector, and its decoder.
pub trait Scheme {
    /// The streams of a vector.
    ///
    /// # Errors
    ///
    /// When no encoder has these settings for this vector.
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid>;
    /// Values of the shortest run that can be decoded alone; runs start at its multiples. Divides
    /// [`CHUNK`](crate::codecs::CHUNK).
    fn unit(&self, _vector: &Vector) -> usize {
        1
    }
    /// The bytes of a stream of known extent that a run of values needs. The run starts at a unit, and ends at one or
    /// at the end of the vector.
    fn bytes(&self, vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize>;
    /// Which values of a vector are kept.
    fn sparsity(&self, _vector: &Vector) -> Sparsity {
        Sparsity::Dense
    }
    /// Decodes the run from `start` on that fills `out`, within one chunk. `streams` has for each stream of known
    /// extent the bytes that [`bytes`](Self::bytes) names, and for the other stream those of the chunk.
    ///
    /// # Errors
    ///
    /// When the bytes are not what an encoder writes.
    fn decode(
        &self,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid>;
    /// Whether a device can do part of the decoding. Then all streams have a known extent.
    fn has_shaders(&self) -> bool {
        false
    }
    /// Decodes as [`decode`](Self::decode). A device computes the part that has shaders; the run may then cross chunks.
    ///
    /// # Errors
    ///
    /// When the bytes are not what an encoder writes.
    fn decode_on(
        &self,
        _device: Option<&dyn Device>,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        self.decode(isa, vector, start, streams, out)
    }
}

/// Checks that a run of values comes with exactly the bytes that it needs of each stream of known extent.
pub(crate) fn check_lengths(
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
