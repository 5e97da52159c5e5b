//! Runs encoders over values: first the looks, then every chunk, in parallel batches.

use crate::codecs::constant::Constant;
use crate::codecs::wire::Bits;
use crate::codecs::{CHUNK, Coding, Encoder, Extent, Invalid, Seeds, Stream, Tally};
use crate::compress::batches::{self, Spare};
use crate::compress::chunks::{Chunk, chunks};
use crate::compress::parts::PartPlan;
use crate::compress::quality::Quality;
use crate::compress::sink::Sink;
use crate::compress::values::{NonFinite, ValueError, Values};
use crate::io::interrupt::{self, Interrupted};
use crate::kernels::convert::encode;
use crate::model::dtype::{Dtype, Kind};
use crate::model::layout::{Piece, TensorSpec};
use crate::model::shown::Shown;
use crate::model::tile::TileBuffer;
use crate::updates::encoded::round_to;
use rayon::prelude::*;
use std::io;
use std::ops::Range;

/// Values that are decoded at a time, a power of two.
const DECODED_AT_ONCE: usize = 8192;

/// Why an update cannot be encoded.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum EncodeError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("cannot be written: {0}")]
    Write(io::Error),
    #[error("tensor `{tensor}`: the delta {} at flat index {index} does not fit {dtype}", Shown(*value))]
    DoesNotFit { tensor: String, index: usize, value: f64, dtype: Dtype },
    #[error("tensor `{tensor}`: its encoding cannot be decoded: {why}")]
    Invalid { tensor: String, why: Invalid },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A part with its encoder, its coding and its streams.
#[derive(Debug)]
pub(crate) struct PartEncoder {
    /// The tensors, and the codec of the request.
    pub(crate) plan: PartPlan,
    /// The encoder; `None` if the part is sent as it is, or has one value only.
    encoder: Option<Box<dyn Encoder>>,
    /// What the decoder needs, once settled.
    pub(crate) coding: Coding,
    /// The streams, once settled.
    pub(crate) streams: Vec<Stream>,
}

/// The result of encoding all parts.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Bytes of each chunk in the stream of unknown extent, part by part.
    pub(crate) chunks: Vec<Vec<u32>>,
    /// The error of each part.
    pub(crate) quality: Vec<Quality>,
    /// Variances that the decoded update would make negative when it is added to the base.
    pub(crate) negative_variances: u64,
}

/// Takes the residual of a run of values: the part, the index of the first value, and the sent minus the decoded
/// values.
pub(crate) type Residue<'a> = dyn Fn(&PartPlan, usize, &[f32]) -> io::Result<()> + Sync + 'a;

/// Starts the encoders, and gives them looks until all are settled.
///
/// # Errors
///
/// When values cannot be read, or a signal stops the run.
pub(crate) fn settle(
    values: &Values,
    plans: Vec<PartPlan>,
    tensors: &[TensorSpec],
    seeds: impl Fn(usize) -> Seeds,
) -> Result<Vec<PartEncoder>, EncodeError> {
    let mut parts = Vec::with_capacity(plans.len());
    for (number, plan) in plans.into_iter().enumerate() {
        let encoder = match &plan.codec {
            Some(codec) => match if codec.is_linear() { None } else { constant(values, &plan)? } {
                Some(value) => Err(Coding::Constant(Constant(Bits(value)))),
                None => Ok(codec.encoder(values.isa, &plan.vector, seeds(number))),
            },
            None => Err(Coding::Raw),
        };
        let (encoder, coding) = match encoder {
            Ok(encoder) => (Some(encoder), Coding::Raw),
            Err(coding) => (None, coding),
        };
        parts.push(PartEncoder { plan, encoder, coding, streams: Vec::new() });
    }
    look(values, &mut parts)?;
    for part in &mut parts {
        if let Some(encoder) = &part.encoder {
            part.coding = encoder.coding();
        }
        part.streams = part.streams(tensors)?;
    }
    Ok(parts)
}

/// The value that all values of a part are equal to; `None` if they differ.
fn constant(values: &Values, plan: &PartPlan) -> Result<Option<f32>, EncodeError> {
    let mut chunk = vec![0.0; CHUNK.min(plan.vector.len)];
    let mut value = None;
    for start in (0..plan.vector.len).step_by(CHUNK) {
        let chunk = &mut chunk[..CHUNK.min(plan.vector.len - start)];
        values.read(plan, start, chunk)?;
        let first = *value.get_or_insert(chunk[0]);
        if chunk.iter().any(|x| *x != first) {
            return Ok(None);
        }
    }
    Ok(value)
}

/// Gives the encoders of all parts their looks.
fn look(values: &Values, parts: &mut [PartEncoder]) -> Result<(), EncodeError> {
    loop {
        // Each encoder looks at one chunk of this many; `None` if it wants no look.
        let wants = |encoder: &dyn Encoder| encoder.wants_look().then(|| encoder.look_at_each());
        let looking: Vec<Option<usize>> =
            parts.iter().map(|part| part.encoder.as_deref().and_then(wants)).collect();
        if looking.iter().all(Option::is_none) {
            return Ok(());
        }
        let mut tallies: Vec<Tally> = vec![Tally::default(); parts.len()];
        let seen = |chunk: &Chunk, values: &[f32]| {
            let encoder = parts[chunk.part].encoder.as_ref();
            encoder.map_or_else(Tally::default, |encoder| encoder.look(chunk.start, values))
        };
        let chunks = chunks(parts.iter().map(|part| (&part.plan, part.at_once()))).filter(|chunk| {
            looking[chunk.part].is_some_and(|each| (chunk.start / CHUNK).is_multiple_of(each))
        });
        let plan = |part: usize| &parts[part].plan;
        gather_chunks(values, chunks.collect(), plan, seen, |part, tally: Tally| tallies[part].add(&tally))?;
        for ((part, tally), _) in
            parts.iter_mut().zip(tallies).zip(looking).filter(|(_, looking)| looking.is_some())
        {
            if let Some(encoder) = &mut part.encoder {
                encoder.learn(tally);
            }
        }
    }
}

/// Looks at every chunk of some parts in parallel, and adds what each look returns in the order of chunks.
///
/// # Errors
///
/// When values cannot be read, or a signal stops the run.
pub(crate) fn gather<T: Send>(
    values: &Values,
    parts: &[PartPlan],
    look: impl Fn(usize, &[f32]) -> T + Sync,
    add: impl FnMut(usize, T),
) -> Result<(), EncodeError> {
    let look = |chunk: &Chunk, values: &[f32]| look(chunk.start, values);
    gather_chunks(
        values,
        chunks(parts.iter().map(|part| (part, CHUNK))).collect(),
        |part| &parts[part],
        look,
        add,
    )
}

fn gather_chunks<'p, T: Send>(
    values: &Values,
    chunks: Vec<Chunk>,
    plan: impl Fn(usize) -> &'p PartPlan + Sync,
    look: impl Fn(&Chunk, &[f32]) -> T + Sync,
    mut add: impl FnMut(usize, T),
) -> Result<(), EncodeError> {
    let spare = Spare::default();
    for batch in batches::of(&chunks, None) {
        let seen: Vec<T> = batch
            .par_iter()
            .map(|chunk| {
                interrupt::check()?;
                spare.with(|buffer| Ok(look(chunk, read(values, plan(chunk.part), *chunk, buffer)?)))
            })
            .collect::<Result<_, EncodeError>>()?;
        batch.iter().zip(seen).for_each(|(chunk, seen)| add(chunk.part, seen));
    }
    Ok(())
}

fn read<'b>(
    values: &Values,
    plan: &PartPlan,
    chunk: Chunk,
    buffer: &'b mut Vec<f32>,
) -> Result<&'b [f32], EncodeError> {
    buffer.resize(chunk.len, 0.0);
    values.read(plan, chunk.start, buffer)?;
    Ok(buffer)
}

impl PartEncoder {
    fn streams(&self, tensors: &[TensorSpec]) -> Result<Vec<Stream>, EncodeError> {
        let first = self.plan.tensors.first().map(|first| &tensors[*first]);
        match (self.coding.scheme(), first) {
            (Some(scheme), first) => scheme.streams(&self.plan.vector).map_err(|why| EncodeError::Invalid {
                tensor: first.map_or(String::new(), |spec| spec.name.clone()),
                why,
            }),
            (None, Some(spec)) => {
                let extent = Extent::Known(spec.shape.clone());
                Ok(vec![Stream { suffix: "", dtype: spec.dtype, extent }])
            }
            (None, None) => Ok(Vec::new()),
        }
    }

    /// The values that the encoder takes at once: whole chunks.
    fn at_once(&self) -> usize {
        self.encoder.as_ref().map_or(CHUNK, |encoder| encoder.at_once())
    }

    /// Whether all values are equal, and one is sent.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(self.coding, Coding::Constant(_))
    }

    /// Chunks of the stream of unknown extent; 0 without such a stream.
    pub(crate) fn chunk_count(&self) -> usize {
        let has = self.streams.iter().any(|stream| stream.extent == Extent::Chunks);
        if has { self.plan.vector.len.div_ceil(CHUNK) } else { 0 }
    }

    /// The runs in which a chunk of `len` values is decoded. If the streams can be cut, a run fits into a core's cache.
    fn runs(&self, len: usize) -> impl Iterator<Item = Range<usize>> {
        let unit = self.coding.scheme().map_or(1, |scheme| scheme.unit(&self.plan.vector));
        let run = if self.chunk_count() > 0 { CHUNK } else { DECODED_AT_ONCE.max(unit) };
        (0..len).step_by(run).map(move |start| start..len.min(start + run))
    }

    /// Bytes of the coding and of all streams, where `chunks` has the bytes of the chunks.
    pub(crate) fn bytes(&self, chunks: &[u32]) -> u64 {
        let coding = postcard::to_allocvec(&self.coding).map_or(0, |bytes| bytes.len() as u64);
        let known = self.streams.iter().filter(|stream| stream.extent != Extent::Chunks);
        let known: u64 =
            known.filter_map(|stream| stream.spec("", 0).ok()).map(|spec| spec.bytes() as u64).sum();
        coding + known + chunks.iter().map(|bytes| u64::from(*bytes)).sum::<u64>()
    }

    /// An estimate of the bytes of the stream of unknown extent.
    pub(crate) fn expected_bytes(&self) -> u64 {
        self.encoder.as_ref().map_or(0, |encoder| encoder.expected_bytes())
    }
}

/// The inputs that all chunks share.
pub(crate) struct Encoding<'a> {
    /// The values to send.
    pub(crate) values: &'a Values<'a>,
    /// The settled parts.
    pub(crate) parts: &'a [PartEncoder],
    /// The tensors of the update.
    pub(crate) tensors: &'a [TensorSpec],
    /// Takes the residual; `None` without error feedback.
    pub(crate) residue: Option<&'a Residue<'a>>,
}

/// Buffers for the encoding of a chunk.
#[derive(Default)]
struct Buffers {
    sent: Vec<f32>,
    decoded: Vec<f32>,
}

/// A run of values of a chunk, and the streams of the whole chunk.
struct Run<'a> {
    chunk: Chunk,
    values: Range<usize>,
    sent: &'a [f32],
    streams: &'a [Vec<u8>],
}

/// The result of encoding one chunk.
#[derive(Default)]
struct Done {
    /// Bytes to append to the stream of unknown extent, chunk by chunk.
    appended: Vec<Vec<u8>>,
    /// The error of each chunk.
    quality: Vec<Quality>,
    negative_variances: u64,
}

/// The number of values that are too small for a 16-bit float.
fn lost_in_half(coding: &Coding, sent: &[f32], decoded: &[f32]) -> u64 {
    let is_lost = |(x, decoded): &(&f32, &f32)| **x != 0.0 && **decoded == 0.0;
    match coding {
        Coding::Half(_) => sent.iter().zip(decoded).filter(is_lost).count() as u64,
        _ => 0,
    }
}

impl Encoding<'_> {
    /// Encodes all chunks into a sink. Chunks of a stream of unknown extent are appended in order.
    ///
    /// # Errors
    ///
    /// When values cannot be read, bytes cannot be written, or a signal stops the run.
    pub(crate) fn run(&self, sink: &mut Sink) -> Result<Outcome, EncodeError> {
        let all: Vec<Chunk> = chunks(self.parts.iter().map(|part| (&part.plan, part.at_once()))).collect();
        let mut outcome = Outcome {
            chunks: vec![Vec::new(); self.parts.len()],
            quality: vec![Quality::default(); self.parts.len()],
            negative_variances: 0,
        };
        let appended = self.parts.iter().filter(|part| part.chunk_count() > 0);
        let of_chunk = appended.map(|part| part.expected_bytes() / part.chunk_count() as u64).max();
        let spare = Spare::default();
        for batch in batches::of(&all, of_chunk.map(batches::at_once)) {
            let shared: &Sink = sink;
            let done: Vec<Done> = batch
                .par_iter()
                .map(|chunk| {
                    interrupt::check()?;
                    match self.parts[chunk.part].coding {
                        Coding::Raw => self.copy(*chunk, shared),
                        _ => spare.with(|buffers| self.encode(*chunk, shared, buffers)),
                    }
                })
                .collect::<Result<_, EncodeError>>()?;
            let mut appended = Vec::new();
            for (chunk, done) in batch.iter().zip(done) {
                done.quality.iter().for_each(|quality| outcome.quality[chunk.part].add(quality));
                outcome.negative_variances += done.negative_variances;
                for bytes in done.appended {
                    outcome.chunks[chunk.part].push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    appended.extend(bytes);
                }
            }
            sink.append(&appended).map_err(EncodeError::Write)?;
        }
        Ok(outcome)
    }

    /// Encodes a chunk, writes its streams of known extent, and decodes it again.
    fn encode(&self, chunk: Chunk, sink: &Sink, buffers: &mut Buffers) -> Result<Done, EncodeError> {
        let part = &self.parts[chunk.part];
        buffers.sent.resize(chunk.len, 0.0);
        let lost = self.values.read(&part.plan, chunk.start, &mut buffers.sent)?;
        let sent = &buffers.sent[..];
        let encoded = part.encoder.as_ref().map(|encoder| encoder.encode_chunks(chunk.start, sent));
        // One chunk, or those whose bytes are appended.
        let mut encoded = encoded.unwrap_or_else(|| vec![Vec::new()]);
        let is_appended = part.chunk_count() > 0;
        let len = if is_appended { CHUNK } else { chunk.len };
        let mut done = Done { quality: vec![Quality::of_lost(lost)], ..Done::default() };
        for (place, streams) in encoded.iter_mut().enumerate() {
            let of = place * len..chunk.len.min((place + 1) * len);
            let (chunk, sent) = (Chunk { start: chunk.start + of.start, len: of.len(), ..chunk }, &sent[of]);
            self.write(part, chunk, streams, sink)?;
            for values in part.runs(chunk.len) {
                buffers.decoded.resize(values.len(), 0.0);
                // The errors of each chunk are added up alone, however many an encoder takes at once.
                done.quality.resize(1 + (place * len + values.start) / CHUNK, Quality::default());
                let run = Run { chunk, sent: &sent[values.clone()], values, streams };
                self.judge(part, &run, &mut buffers.decoded, &mut done)?;
            }
            done.appended.extend(if is_appended { streams.pop() } else { None });
        }
        // Counters are in no norm, whatever the encoding.
        if self.tensors[part.plan.tensors[0]].dtype.kind() != Kind::Float {
            done.quality.clear();
        }
        Ok(done)
    }

    /// Decodes a run of a chunk, and compares it with the sent values.
    fn judge(
        &self,
        part: &PartEncoder,
        run: &Run,
        decoded: &mut [f32],
        done: &mut Done,
    ) -> Result<(), EncodeError> {
        let start = run.chunk.start + run.values.start;
        self.decode(part, run, decoded)?;
        let quality = Quality::of(self.values.isa, run.sent, decoded);
        let quality = Quality {
            cut: self.cut(part, run.sent, decoded),
            lost: lost_in_half(&part.coding, run.sent, decoded),
            ..quality
        };
        done.quality.iter_mut().last().into_iter().for_each(|all| all.add(&quality));
        let negative = self.values.negative_variances(&part.plan, start, decoded);
        done.negative_variances += negative.map_err(ValueError::Read)?;
        if let Some(residue) = self.residue {
            decoded.iter_mut().zip(run.sent).for_each(|(left, sent)| *left = sent - *left);
            residue(&part.plan, start, decoded).map_err(EncodeError::Write)?;
        }
        Ok(())
    }

    /// The number of values beyond the range of the codec, or of the dtype that the server rounds to.
    fn cut(&self, part: &PartEncoder, sent: &[f32], decoded: &[f32]) -> u64 {
        let by_codec = part.encoder.as_ref().map_or(0, |encoder| encoder.cut(sent, decoded));
        let limit = |tensor: &usize| *self.tensors[*tensor].dtype.limits().end();
        let limit = part.plan.tensors.iter().map(limit).fold(f64::INFINITY, f64::min);
        if limit >= f64::from(f32::MAX) {
            return by_codec;
        }
        let is_cut = |(x, decoded): &(&f32, &f32)| **decoded != 0.0 && f64::from(x.abs()) > limit;
        by_codec.max(sent.iter().zip(decoded).filter(is_cut).count() as u64)
    }

    /// Decodes the bytes of a run of a chunk, as the server will.
    fn decode(&self, part: &PartEncoder, run: &Run, decoded: &mut [f32]) -> Result<(), EncodeError> {
        let Some(scheme) = part.coding.scheme() else { return Ok(()) };
        let (vector, start) = (&part.plan.vector, run.chunk.start + run.values.start);
        let bytes = |(number, stream): (usize, &Stream)| match stream.extent {
            Extent::Chunks => &run.streams[number][..],
            Extent::Known(_) => {
                let of_chunk = scheme.bytes(vector, number, run.chunk.start..run.chunk.start + run.chunk.len);
                let bytes = scheme.bytes(vector, number, start..start + decoded.len());
                &run.streams[number][bytes.start - of_chunk.start..bytes.end - of_chunk.start]
            }
        };
        let bytes: Vec<&[u8]> = part.streams.iter().enumerate().map(bytes).collect();
        let first = part.plan.tensors.first().map(|first| self.tensors[*first].name.clone());
        scheme
            .decode(self.values.isa, vector, start, &bytes, decoded)
            .map_err(|why| EncodeError::Invalid { tensor: first.unwrap_or_default(), why })?;
        // The server sees the values rounded to the tensors' dtypes.
        let mut rest = decoded;
        for piece in part.plan.pieces(start, rest.len(), |tensor| self.tensors[tensor].len) {
            let (of_tensor, behind) = rest.split_at_mut(piece.len);
            round_to(self.values.isa, self.tensors[piece.tensor].dtype, of_tensor);
            rest = behind;
        }
        Ok(())
    }

    /// Writes the streams of known extent.
    fn write(
        &self,
        part: &PartEncoder,
        chunk: Chunk,
        streams: &[Vec<u8>],
        sink: &Sink,
    ) -> Result<(), EncodeError> {
        let Some(scheme) = part.coding.scheme() else { return Ok(()) };
        for (number, stream) in part.streams.iter().enumerate() {
            if stream.extent != Extent::Chunks {
                let run = chunk.start..chunk.start + chunk.len;
                let within = scheme.bytes(&part.plan.vector, number, run);
                sink.write(chunk.part, number, within.start, &streams[number]).map_err(EncodeError::Write)?;
            }
        }
        Ok(())
    }

    /// Sends a chunk of a tensor without loss: as it is, or as the difference from its base in the tensor's dtype.
    fn copy(&self, chunk: Chunk, sink: &Sink) -> Result<Done, EncodeError> {
        let part = &self.parts[chunk.part];
        let tensor = part.plan.tensors[0];
        let spec = &self.tensors[tensor];
        let dtype = spec.dtype;
        let sent = self.values.read_exact(tensor, chunk.start, chunk.len)?;
        let limits = dtype.limits();
        if let Some(index) = sent.iter().position(|x| x.is_finite() && !limits.contains(x)) {
            let (tensor, value) = (spec.name.clone(), sent[index]);
            return Err(EncodeError::DoesNotFit { tensor, index: chunk.start + index, value, dtype });
        }
        let mut stored = TileBuffer::new(1, chunk.len * dtype.bytes());
        let bytes = &mut stored.row_mut(0)[..chunk.len * dtype.bytes()];
        let is_replaced = dtype.kind() == Kind::Float && self.values.non_finite == NonFinite::Zero;
        match self.values.base {
            None if !is_replaced => self.values.read_bytes(tensor, chunk.start, bytes)?,
            _ => encode(self.values.isa, dtype, &sent, bytes),
        }
        sink.write(chunk.part, 0, chunk.start * dtype.bytes(), bytes).map_err(EncodeError::Write)?;
        self.leave(chunk, tensor)?;
        let floats: Vec<f32> = match dtype.kind() {
            Kind::Float => sent.iter().map(|x| *x as f32).collect(),
            _ => Vec::new(),
        };
        Ok(Done { quality: vec![Quality::of(self.values.isa, &floats, &floats)], ..Done::default() })
    }

    /// A tensor that is sent without loss takes no residual: its old residual stays.
    fn leave(&self, chunk: Chunk, tensor: usize) -> Result<(), EncodeError> {
        let (Some(residue), Some(carried)) = (self.residue, self.values.carried) else { return Ok(()) };
        let mut left = vec![0.0; chunk.len];
        let piece = Piece { tensor, start: chunk.start, len: chunk.len };
        carried.add(self.values.isa, piece, &mut left).map_err(ValueError::from)?;
        let left: Vec<f32> = left.into_iter().map(|left| left as f32).collect();
        residue(&self.parts[chunk.part].plan, chunk.start, &left).map_err(EncodeError::Write)
    }
}
