//! The noise of a release, whatever makes it: what sums it up does not care.
//!
//! [`Noise::Fresh`] is of this release alone; [`Noise::Tree`] and [`Noise::Row`] are of a run whose rounds have correlated
//! noise. Noise of a coordinate hangs on the key, the round and the coordinate's number, so tiles may come in any order.

use super::account::Account;
use super::directory::AccountError;
use super::history::History;
use super::transaction::Granted;
use crate::io::source::SourceFile;
use crate::kernels::chacha20::Stream;
use crate::kernels::discrete_gaussian::{self, Level};
use crate::kernels::integer_sum::{add_integers, add_multiple};
use crate::kernels::lanes::Isa;
use crate::privacy::correlated::banded::Banded;
use crate::privacy::correlated::tree::{self, Node};
use crate::privacy::correlated::{Factor, MOST_ROUNDS};
use crate::privacy::key::Key;
use rayon::ThreadPool;

/// What the words of a key are for. No two of these streams share a block.
pub(super) mod domain {
    /// Noise on the coordinates, of one release.
    pub(in crate::round::private) const COORDINATES: u32 = 1;
    /// Noise on the count of updates below the clip bound.
    pub(in crate::round::private) const COUNT: u32 = 2;
    /// What is drawn for a round, whose number is the segment.
    pub(in crate::round::private) const ROUND: u32 = 3;
    /// The nodes of a tree at level 0, whose number is the segment; each level has a domain of its own.
    pub(in crate::round::private) const NODES: u32 = 0x100;
}

/// Coordinates that noise is made for at a time: they stay in the first-level cache.
const MADE: usize = 1024;

/// The noise of a release.
#[derive(Debug)]
pub enum Noise {
    /// New noise for every release.
    Fresh {
        /// Of the release.
        key: Key,
        /// How wide the noise is.
        level: Level,
    },
    /// That of a round, by the nodes of a tree.
    Tree {
        /// Of the run.
        key: Key,
        /// How wide the noise of a node is.
        level: Level,
        /// The round, from one on.
        round: u32,
    },
    /// That of a round, made before.
    Row(SourceFile),
}

impl Account {
    /// The noise of a release that was granted, at so many coordinates. Noise that hangs on that of earlier rounds is made
    /// here, and kept.
    ///
    /// # Errors
    ///
    /// When that cannot be written, or a signal asked to stop.
    pub fn noise(
        &self,
        granted: &Granted,
        coordinates: u64,
        isa: Isa,
        pool: &ThreadPool,
    ) -> Result<Noise, AccountError> {
        let (key, level) = (Key::kept(*granted.key.bytes()), granted.mechanism.level);
        let Some((correlated, round)) = self.plan().correlated.zip(granted.round) else {
            return Ok(Noise::Fresh { key, level });
        };
        let round = u32::try_from(round.min(MOST_ROUNDS)).unwrap_or(u32::MAX);
        match correlated.factor {
            Factor::Tree => Ok(Noise::Tree { key, level, round }),
            Factor::Banded { bands } => {
                let (banded, directory) = (Banded::new(bands), &self.books().directory);
                let history = History { directory, banded: &banded, key: &key, level, coordinates, isa };
                Ok(Noise::Row(history.row(round, pool)?))
            }
        }
    }
}

impl Noise {
    /// Adds the noise of the coordinates from `first` on to their sums.
    ///
    /// # Errors
    ///
    /// When noise that was made before cannot be read.
    pub fn add(&self, isa: Isa, first: u64, sums: &mut [i64]) -> Result<(), AccountError> {
        for (block, sums) in sums.chunks_mut(MADE).enumerate() {
            let first = first + (block * MADE) as u64;
            match self {
                Self::Fresh { key, level } => {
                    let stream = Stream { key: key.bytes(), domain: domain::COORDINATES, segment: 0 };
                    add(isa, stream, *level, first, 1, sums);
                }
                Self::Tree { key, level, round } => {
                    let of = |node: Node| Stream {
                        key: key.bytes(),
                        domain: domain::NODES + node.level,
                        segment: node.number,
                    };
                    add(isa, of(tree::comes(*round)), *level, first, 1, sums);
                    tree::go(*round).for_each(|node| add(isa, of(node), *level, first, -1, sums));
                }
                Self::Row(row) => add_row(isa, row, first, sums)?,
            }
        }
        Ok(())
    }
}

/// Noise on a count, one integer of the same release.
pub(super) fn of_count(isa: Isa, key: &Key, level: Level) -> i64 {
    let mut noised = [0];
    let stream = Stream { key: key.bytes(), domain: domain::COUNT, segment: 0 };
    discrete_gaussian::noise(isa, stream, level, 0, &mut noised);
    noised[0]
}

/// Adds what is drawn from a stream, or takes it away.
fn add(isa: Isa, stream: Stream, level: Level, first: u64, sign: i64, sums: &mut [i64]) {
    let mut made = [0; MADE];
    let made = &mut made[..sums.len()];
    discrete_gaussian::noise(isa, stream, level, first, made);
    made.iter_mut().for_each(|made| *made *= sign);
    add_integers(isa, made, sums);
}

fn add_row(isa: Isa, row: &SourceFile, first: u64, sums: &mut [i64]) -> Result<(), AccountError> {
    let mut kept = [0_i32; MADE];
    let kept = &mut kept[..sums.len()];
    let offset = first * size_of::<i32>() as u64;
    row.read_exact_at(bytemuck::cast_slice_mut(kept), offset).map_err(AccountError::at(row.path()))?;
    add_multiple(isa, kept, 1, sums);
    Ok(())
}

#[cfg(test)]
mod tests;
