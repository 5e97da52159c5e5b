//! The table of frequencies in few bytes.
//!
//! It has the logarithm of each frequency, minus its expectation from the ones before.
//!
//! The weight of a magnitude is `2^(level / 2^resolution)`, and zero has level 0. Levels fall nearly along a line for
//! all vectors that occur, so a level takes about three bits. Integer arithmetic alone turns weights into frequencies,
//! so no rounding of floats matters.

use crate::codecs::Invalid;
use crate::codecs::packing::bit_stream::{Reader, Writer};
use crate::codecs::packing::rans::Frequencies;
use crate::kernels::dead_zone::MOST;

/// `2^15 2^(i / 8)`.
const EIGHTHS: [u64; 8] = [32_768, 35_734, 38_968, 42_495, 46_341, 50_535, 55_109, 60_097];

/// Octaves of a weight above or below that of zero, at most.
pub(super) const OCTAVES: i32 = 18;

/// The finest resolution.
pub(super) const FINEST: u32 = 3;

/// The fewest bits of frequencies; up to three more are possible.
pub(super) const LEAST_BITS: u32 = 12;

/// The weights of codes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Table {
    /// Bits of frequencies, from 12 to 15.
    pub(super) bits: u32,
    /// The logarithm of the steps of an octave.
    pub(super) resolution: u32,
    /// The order of the codes of levels, 0 to 3.
    pub(super) order: u32,
    /// The levels of positive codes, from magnitude 1 on.
    pub(super) positive: Vec<i32>,
    /// The levels of negative codes; `None` for those of positive codes.
    pub(super) negative: Option<Vec<i32>>,
    /// The level of the escape and the order of the codes after it, up to 15; `None` without larger magnitudes.
    pub(super) escape: Option<(i32, u32)>,
}

/// The expected next level. The first one, 0, is that of magnitude zero.
pub(super) fn expected(before: &[i32]) -> i32 {
    match *before {
        [.., third, _, last] => last + (last - third) / 2,
        [.., last] => last,
        [] => 0,
    }
}

impl Table {
    /// The largest magnitude that has a code.
    pub(super) fn most(&self) -> u8 {
        self.positive.len() as u8
    }

    /// The weight of a level.
    fn weight(&self, level: i32) -> u64 {
        weight(level, self.resolution)
    }

    /// The frequency of each code: zero, +1, -1, +2, -2, and so on, and the escape.
    pub(super) fn frequencies(&self) -> Frequencies {
        let negative = self.negative.as_ref().unwrap_or(&self.positive);
        let both = self.positive.iter().zip(negative).flat_map(|(positive, negative)| [positive, negative]);
        let escape = self.escape.iter().map(|(level, _)| level);
        let levels = std::iter::once(&0).chain(both).chain(escape);
        let weights: Vec<u64> = levels.map(|level| self.weight(*level)).collect();
        Frequencies::of(&weights, self.bits)
    }

    /// Bits of the table itself.
    pub(super) fn own_bits(&self) -> u32 {
        let mut writer = Writer::default();
        self.put(&mut writer);
        8 * writer.finish().len() as u32
    }

    /// Appends the table.
    pub(super) fn put(&self, writer: &mut Writer) {
        writer.put(self.bits - LEAST_BITS, 2);
        writer.put(self.resolution, 2);
        writer.put(self.order, 2);
        writer.put(u32::from(self.negative.is_some()), 1);
        writer.put(u32::from(self.escape.is_some()), 1);
        writer.put_golomb(self.positive.len() as u32, 2);
        let mut levels = vec![0];
        for level in &self.positive {
            writer.put_signed(level - expected(&levels), self.order);
            levels.push(*level);
        }
        for (negative, positive) in self.negative.iter().flatten().zip(&self.positive) {
            writer.put_signed(negative - positive, 0);
        }
        if let Some((level, order)) = self.escape {
            writer.put_signed(level - levels.last().copied().unwrap_or(0), self.order);
            writer.put(order, 4);
        }
    }

    /// Reads a table that [`put`](Self::put) appended.
    pub(super) fn take(reader: &mut Reader) -> Result<Self, Invalid> {
        let bits = LEAST_BITS + reader.take(2)?;
        let resolution = reader.take(2)?;
        let order = reader.take(2)?;
        let (is_two_sided, has_escape) = (reader.take(1)? == 1, reader.take(1)? == 1);
        let most = reader.take_golomb(2)?;
        if most > u32::from(MOST) {
            return Err(Invalid(format!("{most} magnitudes have codes, expected at most {MOST}")));
        }
        let checked = |level: i32| match level.abs() <= OCTAVES << resolution {
            true => Ok(level),
            false => Err(Invalid(format!("found a frequency of level {level}, expected a smaller one"))),
        };
        let mut levels = vec![0];
        for _ in 0..most {
            levels.push(checked(expected(&levels) + reader.take_signed(order)?)?);
        }
        let negative = match is_two_sided {
            true => Some(levels[1..].iter().map(|level| checked(level + reader.take_signed(0)?)).collect()),
            false => None,
        };
        let escape = match has_escape {
            true => {
                let last = levels.last().copied().unwrap_or(0);
                Some((checked(last + reader.take_signed(order)?)?, reader.take(4)?))
            }
            false => None,
        };
        levels.remove(0);
        Ok(Self { bits, resolution, order, positive: levels, negative: negative.transpose()?, escape })
    }
}

/// The weight of a level.
fn weight(level: i32, resolution: u32) -> u64 {
    let eighths = level << (FINEST - resolution);
    EIGHTHS[(eighths & 7) as usize] << ((eighths >> 3).clamp(-OCTAVES, OCTAVES) + OCTAVES)
}
