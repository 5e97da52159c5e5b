//! Batches of chunks, which threads share, and buffers that chunks reuse.

use crate::codecs::CHUNK;
use crate::compress::chunks::Chunk;
use std::sync::{Mutex, PoisonError};

/// Chunks of a batch for each thread. Between batches, threads wait for the slowest.
pub(crate) const CHUNKS_AT_ONCE: usize = 64;

/// The fewest chunks of a batch for each thread.
const FEWEST_AT_ONCE: usize = 8;

/// Bytes for each thread that wait for the chunks before them, if that allows more than the fewest chunks.
const WAITING_BYTES: u64 = 1 << 20;

/// Chunks of a batch for each thread, where appended chunks of this size wait in memory for the ones before.
pub(crate) fn at_once(bytes_of_chunk: u64) -> usize {
    let fitting = usize::try_from(WAITING_BYTES / bytes_of_chunk.max(1)).unwrap_or(usize::MAX);
    fitting.clamp(FEWEST_AT_ONCE, CHUNKS_AT_ONCE)
}

/// The batches. `waiting` has the chunks of usual length for each thread whose bytes may wait in memory; `None` if no
/// bytes wait. Then a batch is long, so that some threads read files while others wait for a GPU.
pub(crate) fn of(chunks: &[Chunk], waiting: Option<usize>) -> impl Iterator<Item = &[Chunk]> {
    let longest = chunks.iter().map(|chunk| chunk.len).max().unwrap_or(CHUNK).max(CHUNK);
    let at_once = waiting.map_or(CHUNKS_AT_ONCE, |chunks| (chunks * CHUNK / longest).max(1));
    chunks.chunks(at_once * rayon::current_num_threads())
}

/// Buffers that chunks of this batch and the next ones reuse.
pub(crate) struct Spare<T>(Mutex<Vec<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Spare<T> {
    /// Does work with a buffer that no other thread has now.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let spare = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = spare().pop().unwrap_or_default();
        let done = work(&mut buffer);
        spare().push(buffer);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_chunks_come_in_small_batches() {
        assert_eq!([0, 1 << 12, 1 << 16, 1 << 17, u64::MAX].map(at_once), [64, 64, 16, 8, 8]);
    }

    #[test]
    fn long_chunks_come_in_small_batches_only_where_their_bytes_wait() {
        let chunks: Vec<Chunk> =
            (0..200).map(|number| Chunk { part: 0, start: number * 64 * CHUNK, len: 64 * CHUNK }).collect();
        let threads = rayon::current_num_threads();
        let first = |waiting| of(&chunks, waiting).next().unwrap().len() / threads.min(chunks.len());
        assert_eq!((first(Some(64)), first(Some(8))), (1, 1));
        assert_eq!(of(&chunks, None).next().unwrap().len(), chunks.len().min(CHUNKS_AT_ONCE * threads));
    }

    #[test]
    fn a_buffer_is_used_again_but_by_one_at_a_time() {
        let spare = Spare::<Vec<u8>>::default();
        spare.with(|outer| {
            outer.push(1);
            spare.with(|inner| assert!(inner.is_empty()));
        });
        assert_eq!(spare.with(|last| last.clone()), [1]);
    }
}
