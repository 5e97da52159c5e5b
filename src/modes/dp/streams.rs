//! Streams of noise: their keys, their numbers, and the sum of their draws on the CPU.

use crate::kernels::chacha20::Stream;
use crate::kernels::discrete_gaussian::{Level, noise};
use crate::kernels::integer_sum::add_integers;
use crate::kernels::lanes::Isa;
use crate::privacy::key::Key;

/// The domains of a key's streams. No two streams share a block.
pub(crate) mod domain {
    /// Noise on the coordinates, of one release.
    pub(crate) const COORDINATES: u32 = 1;
    /// Noise on the count of updates below the clip bound.
    pub(crate) const COUNT: u32 = 2;
    /// The draws of a round, from the key of its transcript. The round's number is the segment.
    pub(crate) const ROUND: u32 = 3;
    /// The nodes of a tree at level 0, whose number is the segment. Nodes of level L have the domain `NODES + L`.
    pub(crate) const NODES: u32 = 0x100;
}

/// The number of coordinates that noise is drawn for at a time: they fit the first-level cache.
const BLOCK_COORDINATES: usize = 1024;

/// A stream of noise: its key, its numbers, and whether its noise is subtracted.
pub(super) struct SignedStream {
    pub(super) key: Key,
    pub(super) domain: u32,
    pub(super) segment: u32,
    /// Whether the noise is subtracted.
    pub(super) is_negative: bool,
}

impl SignedStream {
    /// The stream.
    pub(super) fn stream(&self) -> Stream<'_> {
        Stream { key: self.key.bytes(), domain: self.domain, segment: self.segment }
    }

    /// Adds the draws to integers, or subtracts them.
    fn add(&self, isa: Isa, level: Level, first: u64, sums: &mut [i64]) {
        let mut draws = [0; BLOCK_COORDINATES];
        let draws = &mut draws[..sums.len()];
        noise(isa, self.stream(), level, first, draws);
        if self.is_negative {
            draws.iter_mut().for_each(|draw| *draw = -*draw);
        }
        add_integers(isa, draws, sums);
    }
}

/// Adds the noise of streams to the integers of the coordinates from `first` on.
pub(super) fn add(isa: Isa, level: Level, streams: &[SignedStream], first: u64, sums: &mut [i64]) {
    for (block, sums) in (0..).zip(sums.chunks_mut(BLOCK_COORDINATES)) {
        let first = first + block * BLOCK_COORDINATES as u64;
        streams.iter().for_each(|stream| stream.add(isa, level, first, sums));
    }
}
