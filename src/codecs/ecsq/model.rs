//! The model that travels with the codes: the step, the centres of codes, their frequencies.

use super::fit::{Counts, fit};
use super::table::Table;
use crate::codecs::packing::bit_stream::{Reader, Writer};
use crate::codecs::wire::Bits;
use crate::codecs::{CHUNK, Invalid};
use crate::kernels::dead_zone::{Deviations, ESCAPE, MOST};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A step of nine significant bits, from 2^-125 to 2^125, so that its inverse is a normal number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step(u16);

/// Low bits of a float that a step does not have.
const STEP_SHIFT: u32 = 15;

impl Step {
    /// The step nearest to a number.
    pub fn nearest(step: f32) -> Self {
        let least = f32::MIN_POSITIVE * 2.0;
        let step = if step > least { step.min(1.0 / least) } else { least };
        Self(((step.to_bits() + (1 << (STEP_SHIFT - 1))) >> STEP_SHIFT) as u16)
    }

    /// The step.
    pub fn value(self) -> f32 {
        f32::from_bits(u32::from(self.0) << STEP_SHIFT)
    }

    /// The step, if [`nearest`](Self::nearest) can make it.
    fn checked(step: f32) -> Option<Self> {
        Some(Self::nearest(step)).filter(|nearest| nearest.value() == step)
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => Bits(self.value()).serialize(serializer),
            false => self.0.to_le_bytes().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = match deserializer.is_human_readable() {
            true => Bits::deserialize(deserializer)?.0,
            false => Self(u16::from_le_bytes(<[u8; 2]>::deserialize(deserializer)?)).value(),
        };
        Self::checked(value).ok_or_else(|| de::Error::custom(format!("found {value}, expected a step")))
    }
}

/// Parts of a step that centres are multiples of.
const PARTS: f64 = 32.0;

/// Bits of a centre.
const CENTRE_BITS: u32 = 6;

/// The layout of the codes, and the values that they decode to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Model {
    /// Lanes of the entropy coder: 1, 2, 4 or 8.
    pub(super) lanes: u32,
    pub(super) table: Table,
    /// The mean distance of values above their code, in 32nds of a step, for the magnitudes 1, 2, and above.
    centres: [i8; 3],
}

/// A model fitted to counted codes, and its cost.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) model: Model,
    /// An estimate of the bytes of all chunks.
    pub(super) chunk_bytes: f64,
    /// The squared error, in squared steps.
    pub(super) error: f64,
}

impl Model {
    /// The model with the fewest bytes for counted codes.
    pub(super) fn fit(counts: &Counts, deviations: &Deviations) -> Fitted {
        let (table, bits) = fit(counts);
        let len: u64 = counts.codes.iter().sum();
        let chunks = len.div_ceil(CHUNK as u64) as f64;
        let payload = (bits - f64::from(table.own_bits())) / 8.0;
        // A lane costs two bytes, and saves time only for many codes.
        let lanes = match payload / chunks {
            bytes if bytes < 1024.0 => 1,
            bytes if bytes < 2048.0 => 2,
            _ => 4,
        };
        let lengths = if table.escape.is_some() { 1.5 } else { 0.0 };
        let overhead = chunks * (lengths + if lanes == 1 { 2.0 } else { 2.5 * f64::from(lanes) });
        let mut model = Self { lanes, table, centres: [0; 3] };
        let mut error = deviations.squares[0];
        for group in 1..4 {
            let members: u64 = match group {
                1 | 2 => counts.of(group as u8),
                _ => (3..=MOST).map(|m| counts.of(m)).sum::<u64>() + counts.codes[usize::from(ESCAPE)],
            };
            let (members, sum) = (members as f64, deviations.sums[group]);
            let centre = (sum / members.max(1.0) * PARTS).round().clamp(-32.0, 31.0);
            model.centres[group - 1] = centre as i8;
            let centre = centre / PARTS;
            error += (deviations.squares[group] - 2.0 * centre * sum + centre * centre * members).max(0.0);
        }
        Fitted { model, chunk_bytes: payload + overhead, error }
    }

    /// The number of centres that a table needs.
    fn centres_needed(table: &Table) -> usize {
        if table.escape.is_some() { 3 } else { usize::from(table.most()).min(3) }
    }

    /// The value of a magnitude.
    pub(super) fn value(&self, magnitude: u32, step: f32) -> f32 {
        let group = magnitude.min(3) as usize;
        let centre = if group == 0 { 0.0 } else { f32::from(self.centres[group - 1]) / PARTS as f32 };
        ((magnitude as f32 + centre) * step).min(f32::MAX)
    }

    /// The packed model.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.put(self.lanes.ilog2(), 2);
        self.table.put(&mut writer);
        for centre in &self.centres[..Self::centres_needed(&self.table)] {
            writer.put(*centre as u32, CENTRE_BITS);
        }
        writer.finish()
    }

    /// Reads the bytes of [`to_bytes`](Self::to_bytes).
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(bytes);
        let lanes = 1 << reader.take(2)?;
        let table = Table::take(&mut reader)?;
        let mut centres = [0; 3];
        for centre in &mut centres[..Self::centres_needed(&table)] {
            let bits = reader.take(CENTRE_BITS)? as i8;
            *centre = bits << 2 >> 2;
        }
        reader.finish()?;
        Ok(Self { lanes, table, centres })
    }
}
