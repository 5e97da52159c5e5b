//! Tiles for tests of kernels.

use fedmill::gpu::RingSlot;
use fedmill::gpu::job::{GpuError, TileShape};
use fedmill::kernels::coordinate_median::coordinate_median;
use fedmill::kernels::element::Element;
use fedmill::kernels::lanes::Isa;
use fedmill::model::dtype::Working;
use fedmill::model::tile::TileBuffer;
use half::{bf16, f16};

/// Kinds of values that a column may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Smooth,
    /// Few distinct values.
    Ties,
    AllEqual,
    SignedZeros,
    Subnormals,
    /// The largest values that a device adds up.
    Huge,
    /// The largest values of the dtype.
    Extremes,
}

/// The kinds whose sums are finite.
pub(crate) const ADDED: [Kind; 6] =
    [Kind::Smooth, Kind::Ties, Kind::AllEqual, Kind::SignedZeros, Kind::Subnormals, Kind::Huge];

/// The floats in which rows are stored.
pub(crate) const STORED: [Working; 3] = [Working::F32, Working::BF16, Working::F16];

/// A small deterministic generator (xorshift64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A tile: rows of clients, then references.
pub(crate) struct Sample {
    pub(crate) stored: Working,
    pub(crate) columns: usize,
    /// The values as stored, widened.
    pub(crate) rows: Vec<Vec<f32>>,
    pub(crate) references: Vec<Vec<f32>>,
}

/// The largest finite value of the dtype, and the smallest above zero.
fn ends(stored: Working) -> (f32, f32) {
    match stored {
        Working::BF16 => (bf16::MAX.to_f32(), bf16::MIN_POSITIVE_SUBNORMAL.to_f32()),
        Working::F16 => (f16::MAX.to_f32(), f16::MIN_POSITIVE_SUBNORMAL.to_f32()),
        _ => (f32::MAX, f32::from_bits(1)),
    }
}

/// The value rounded to the stored dtype.
pub(crate) fn rounded(stored: Working, x: f32) -> f32 {
    match stored {
        Working::BF16 => bf16::from_f32(x).to_f32(),
        Working::F16 => f16::from_f32(x).to_f32(),
        _ => x,
    }
}

fn value(stored: Working, kind: Kind, random: &mut Random) -> f32 {
    let r = random.next() >> 11;
    let unit = r as f32 / (1u64 << 53) as f32 - 0.5;
    let (largest, smallest) = ends(stored);
    let huge = largest.min(1e30);
    rounded(
        stored,
        match kind {
            Kind::Smooth => unit,
            Kind::Ties => (r % 5) as f32 - 2.0,
            Kind::AllEqual => -0.75,
            Kind::SignedZeros => [0.0, -0.0][(r % 2) as usize],
            Kind::Subnormals => ((r % 9) as f32 - 4.0) * smallest,
            Kind::Huge => [huge, -huge, 0.75 * huge, 1.0, 0.0][(r % 5) as usize] * (1.0 - unit.abs() / 64.0),
            Kind::Extremes => [largest, -largest, 1.0, 0.0][(r % 4) as usize],
        },
    )
}

impl Sample {
    pub(crate) fn new(stored: Working, kind: Kind, rows: usize, columns: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ ((rows * 7919 + columns) as u64) << 8 | 1);
        let mut row = || (0..columns).map(|_| value(stored, kind, &mut random)).collect();
        Self { stored, columns, rows: (0..rows).map(|_| row()).collect(), references: Vec::new() }
    }

    /// This sample with references of smooth values near zero, like a base.
    pub(crate) fn with_references(mut self, count: usize) -> Self {
        let mut random = Random(0xdead_beef);
        let mut row = || (0..self.columns).map(|_| value(Working::F32, Kind::Smooth, &mut random)).collect();
        self.references = (0..count).map(|_| row()).collect();
        self
    }

    /// The shape of tiles up to this size.
    pub(crate) fn shape(&self) -> TileShape {
        TileShape {
            rows: self.rows.len(),
            stored: self.stored,
            references: self.references.len(),
            columns: self.columns,
        }
    }

    pub(crate) fn fill(&self, slot: &mut RingSlot) {
        let filled: Result<(), GpuError> = self.try_fill(slot);
        filled.unwrap();
    }

    pub(crate) fn try_fill(&self, slot: &mut RingSlot) -> Result<(), GpuError> {
        slot.fill(self.columns, |row, out| {
            match self.rows.get(row) {
                Some(values) => out.copy_from_slice(&self.bytes(values)),
                None => out.copy_from_slice(bytemuck::cast_slice(&self.references[row - self.rows.len()])),
            }
            Ok(())
        })
    }

    fn bytes(&self, values: &[f32]) -> Vec<u8> {
        let bits: Vec<u16> = match self.stored {
            Working::BF16 => values.iter().map(|x| bf16::from_f32(*x).to_bits()).collect(),
            Working::F16 => values.iter().map(|x| f16::from_f32(*x).to_bits()).collect(),
            _ => return bytemuck::cast_slice(values).to_vec(),
        };
        bytemuck::cast_slice(&bits).to_vec()
    }

    /// A column of the chosen rows.
    pub(crate) fn column(&self, chosen: &[u32], j: usize) -> Vec<f64> {
        chosen.iter().map(|i| f64::from(self.rows[*i as usize][j])).collect()
    }

    /// The largest magnitude among the chosen rows.
    pub(crate) fn largest(&self, chosen: &[u32]) -> f32 {
        let rows = chosen.iter().flat_map(|i| &self.rows[*i as usize]);
        rows.fold(0.0, |most, x| most.max(x.abs()))
    }

    /// The median of the chosen rows by the CPU's kernel.
    pub(crate) fn median(&self, chosen: &[u32]) -> Vec<f64> {
        match self.stored {
            Working::BF16 => self.median_of::<bf16>(chosen),
            Working::F16 => self.median_of::<f16>(chosen),
            _ => self.median_of::<f32>(chosen),
        }
    }

    fn median_of<E: Element>(&self, chosen: &[u32]) -> Vec<f64> {
        let bytes = self.columns * self.stored.bytes();
        let mut tile = TileBuffer::new(chosen.len(), bytes);
        for (place, i) in chosen.iter().enumerate() {
            tile.row_mut(place)[..bytes].copy_from_slice(&self.bytes(&self.rows[*i as usize]));
        }
        let mut medians = vec![f64::NAN; self.columns];
        let isa = *Isa::available().last().unwrap();
        assert!(coordinate_median(isa, &tile.rows::<E>(chosen.len(), self.columns), &mut medians));
        medians
    }
}
