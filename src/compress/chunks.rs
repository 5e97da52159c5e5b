//! The chunks of parts, in batches for all threads.

use crate::codecs::CHUNK;
use crate::compress::parts::PartPlan;

/// Chunks of a batch for each thread, where appended chunks wait in memory for the ones before.
pub(super) const CHUNKS_AT_ONCE: usize = 8;

/// Chunks of a batch for each thread, where no chunk waits for others.
pub(super) const UNORDERED_AT_ONCE: usize = 64;

/// A chunk of a part.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    /// The number of the part.
    pub(super) part: usize,
    /// The index of its first value in the part.
    pub(super) start: usize,
    /// Number of values.
    pub(super) len: usize,
}

/// The chunks of parts, each with the values that its encoder takes at once.
pub(super) fn chunks<'p>(parts: impl Iterator<Item = (&'p PartPlan, usize)>) -> impl Iterator<Item = Chunk> {
    parts.enumerate().flat_map(|(number, (plan, at_once))| {
        let len = plan.vector.len;
        (0..len).step_by(at_once).map(move |start| Chunk {
            part: number,
            start,
            len: at_once.min(len - start),
        })
    })
}

/// Batches of chunks: for each thread the values of `at_once` chunks of usual length.
pub(super) fn batches(chunks: &[Chunk], at_once: usize) -> impl Iterator<Item = &[Chunk]> {
    let longest = chunks.iter().map(|chunk| chunk.len).max().unwrap_or(CHUNK).max(CHUNK);
    chunks.chunks((at_once * CHUNK / longest).max(1) * rayon::current_num_threads())
}
