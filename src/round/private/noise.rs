//! The noise of a release, whatever makes it: what sums it up does not care.
//!
//! [`Noise::Fresh`] is of this release alone. Noise of a coordinate hangs on the key and the coordinate's number, so tiles
//! may come in any order.

use super::directory::AccountError;
use crate::kernels::chacha20::Stream;
use crate::kernels::discrete_gaussian::{Level, noise};
use crate::kernels::integer_sum::add_integers;
use crate::kernels::lanes::Isa;
use crate::privacy::key::Key;

/// What the words of a key are for. No two of these streams share a block.
pub(super) mod domain {
    /// Noise on the coordinates.
    pub(in crate::round::private) const COORDINATES: u32 = 1;
    /// Noise on the count of updates below the clip bound.
    pub(in crate::round::private) const COUNT: u32 = 2;
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
}

impl Noise {
    /// Adds the noise of the coordinates from `first` on to their sums.
    ///
    /// # Errors
    ///
    /// When noise that was made before cannot be read.
    pub fn add(&self, isa: Isa, first: u64, sums: &mut [i64]) -> Result<(), AccountError> {
        let mut made = [0; MADE];
        for (block, sums) in sums.chunks_mut(MADE).enumerate() {
            let made = &mut made[..sums.len()];
            self.make(isa, first + (block * MADE) as u64, made);
            add_integers(isa, made, sums);
        }
        Ok(())
    }

    fn make(&self, isa: Isa, first: u64, made: &mut [i64]) {
        match self {
            Self::Fresh { key, level } => {
                let stream = Stream { key: key.bytes(), domain: domain::COORDINATES, segment: 0 };
                noise(isa, stream, *level, first, made);
            }
        }
    }
}

/// Noise on a count, one integer of the same release.
pub(super) fn of_count(isa: Isa, key: &Key, level: Level) -> i64 {
    let mut made = [0];
    noise(isa, Stream { key: key.bytes(), domain: domain::COUNT, segment: 0 }, level, 0, &mut made);
    made[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_added_in_any_portions() {
        let fresh = Noise::Fresh { key: Key::of_test_seed(1), level: Level::L2 };
        let mut whole = vec![5; 3000];
        fresh.add(Isa::detect(), 7, &mut whole).unwrap();
        let mut parts = vec![5; 3000];
        for (place, part) in parts.chunks_mut(701).enumerate() {
            fresh.add(Isa::detect(), 7 + 701 * place as u64, part).unwrap();
        }
        assert_eq!(whole, parts);
        assert!(whole.iter().any(|sum| *sum != 5));
    }
}
