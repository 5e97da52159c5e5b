//! One vector of an encoded update: reads the bytes of any run of its values, and decodes them.

use crate::codecs::device::AT_ONCE;
use crate::codecs::{CHUNK, Coding, Device, Invalid, Vector};
use crate::io::model_file::heap;
use crate::io::source::SourceFile;
use crate::kernels::lanes::Isa;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::ops::Range;

/// A vector, and where its bytes are.
#[derive(Debug)]
pub(crate) struct EncodedPart {
    pub(crate) coding: Coding,
    pub(crate) vector: Vector,
    pub(crate) streams: Vec<StreamPlace>,
    /// First byte of each chunk in the stream of unknown extent, and the end of the last.
    pub(crate) chunks: Vec<u64>,
}

/// Where the bytes of a stream are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamPlace {
    pub(crate) file: usize,
    pub(crate) offset: u64,
    pub(crate) is_chunks: bool,
}

/// Decoded chunks that all threads keep together, in 128 MiB, since the next tile often needs the rest of a chunk.
const KEPT_CHUNKS: usize = 512;
/// Decoded chunks that each thread may keep however many threads there are.
const LEAST_KEPT: usize = 8;

/// Decoded chunks that one of `threads` may keep.
fn kept_chunks(threads: usize) -> usize {
    (KEPT_CHUNKS / threads.max(1)).max(LEAST_KEPT)
}

/// A part of an open update: the number of the update in the process, and of the part in the update.
pub(crate) type PartKey = (u64, usize);

thread_local! {
    /// The last decoded chunk of each part, with the index of its first value. Tiles are smaller than chunks.
    static KEPT: RefCell<HashMap<PartKey, (usize, Vec<f32>)>> = RefCell::default();
}

/// Why a run was not decoded.
pub(crate) enum PartError {
    /// Its bytes cannot be read.
    Read(io::Error),
    /// The bytes are not what an encoder writes.
    Invalid(Invalid),
}

impl From<Invalid> for PartError {
    fn from(why: Invalid) -> Self {
        Self::Invalid(why)
    }
}

impl EncodedPart {
    /// Bytes of memory that it takes, about.
    pub(crate) fn memory(&self) -> usize {
        let lists = [
            size_of_val(&self.vector.shape[..]),
            size_of_val(&self.streams[..]),
            size_of_val(&self.chunks[..]),
        ];
        size_of::<Self>() + lists.into_iter().map(heap).sum::<usize>()
    }

    /// Decodes values from `start` on, in longer runs if there is a device that has shaders for them.
    pub(crate) fn decode(
        &self,
        isa: Isa,
        device: Option<&dyn Device>,
        files: &[SourceFile],
        key: PartKey,
        start: usize,
        out: &mut [f32],
    ) -> Result<(), PartError> {
        let Some(scheme) = self.coding.scheme() else { return Ok(()) };
        let of_chunks = self.streams.iter().any(|stream| stream.is_chunks);
        let unit = if of_chunks { CHUNK } else { scheme.unit(&self.vector) };
        let device = device.filter(|_| scheme.has_shaders() && !of_chunks);
        let at_once = if device.is_some() { AT_ONCE } else { CHUNK };
        let mut scratch = Vec::new();
        let mut done = 0;
        while done < out.len() {
            let from = start + done;
            let to = (start + out.len()).min((from / at_once + 1) * at_once);
            // The run of whole units around the values.
            let run = from / unit * unit..to.next_multiple_of(unit).min(self.vector.len);
            let wanted = &mut out[done..done + to - from];
            let within = from - run.start..to - run.start;
            if run == (from..to) {
                self.decode_run(isa, device, files, run.start, wanted)?;
            } else if of_chunks {
                self.copy_of_chunk(isa, files, key, run, within, wanted)?;
            } else {
                scratch.resize(run.len(), 0.0);
                self.decode_run(isa, device, files, run.start, &mut scratch)?;
                wanted.copy_from_slice(&scratch[within]);
            }
            done += to - from;
        }
        Ok(())
    }

    /// Decodes a run of whole units, within one chunk if there is no device.
    fn decode_run(
        &self,
        isa: Isa,
        device: Option<&dyn Device>,
        files: &[SourceFile],
        start: usize,
        out: &mut [f32],
    ) -> Result<(), PartError> {
        let Some(scheme) = self.coding.scheme() else { return Ok(()) };
        let bytes = self.read(files, &(start..start + out.len()))?;
        let streams: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        Ok(scheme.decode_on(device, isa, &self.vector, start, &streams, out)?)
    }

    /// Copies values of a chunk, and keeps the decoded chunk for the values beside them.
    fn copy_of_chunk(
        &self,
        isa: Isa,
        files: &[SourceFile],
        key: PartKey,
        chunk: Range<usize>,
        within: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PartError> {
        KEPT.with_borrow_mut(|kept| {
            if kept.len() >= kept_chunks(rayon::current_num_threads()) && !kept.contains_key(&key) {
                kept.clear();
            }
            let (start, values) = kept.entry(key).or_insert((usize::MAX, Vec::new()));
            if *start != chunk.start {
                *start = usize::MAX;
                values.resize(chunk.len(), 0.0);
                self.decode_run(isa, None, files, chunk.start, values)?;
                *start = chunk.start;
            }
            out.copy_from_slice(&values[within]);
            Ok(())
        })
    }

    /// Reads the bytes of each stream that a run needs; of a stream of chunks, the run's chunk.
    fn read(&self, files: &[SourceFile], run: &Range<usize>) -> Result<Vec<Vec<u8>>, PartError> {
        let Some(scheme) = self.coding.scheme() else { return Ok(Vec::new()) };
        let mut streams = Vec::with_capacity(self.streams.len());
        for (number, place) in self.streams.iter().enumerate() {
            let bytes = match place.is_chunks {
                true => {
                    let chunk = run.start / CHUNK;
                    self.chunks[chunk]..self.chunks[chunk + 1]
                }
                false => {
                    let bytes = scheme.bytes(&self.vector, number, run.clone());
                    bytes.start as u64..bytes.end as u64
                }
            };
            let mut read = vec![0; (bytes.end - bytes.start) as usize];
            files[place.file]
                .read_values_at(&mut read, place.offset + bytes.start)
                .map_err(PartError::Read)?;
            streams.push(read);
        }
        Ok(streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_chunks_are_bounded_over_all_threads() {
        let bytes = |threads: usize| threads * kept_chunks(threads) * CHUNK * size_of::<f32>();
        for threads in 0..=64 {
            assert!(bytes(threads) <= 128 << 20, "{threads}");
        }
        assert_eq!(kept_chunks(1), 512);
        assert_eq!(kept_chunks(1000), LEAST_KEPT);
    }
}
