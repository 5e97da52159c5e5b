//! The kernels of private sums on vectors in memory: noise, and sums of integers.

use super::{Gpu, RingSlot};
use crate::gpu::integers::{IntegerSums, IntegersJob, NoiseJob};
use crate::gpu::job::{GpuError, TileShape};
use crate::gpu::selftest::compare::{DeviceKernel, Difference, other, values};
use crate::gpu::variants;
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::{Scale, add_quantized};
use crate::kernels::discrete_gaussian::{self, Level};
use crate::kernels::lanes::Isa;
use crate::model::dtype::Working;
use std::ops::Range;

/// Kernels, their variants and their self-tests.
pub(in crate::gpu) const KERNELS: &[DeviceKernel] = &[
    DeviceKernel {
        kernel: "discrete_gaussian",
        variants: || [Level::L1, Level::L2, Level::L3].map(variants::noise).into(),
        cases: &[
            ("of three draws", |gpu| test_noise(gpu, Level::L1)),
            ("of four draws", |gpu| test_noise(gpu, Level::L2)),
            ("of eight draws", |gpu| test_noise(gpu, Level::L3)),
            ("of one stream of three", test_streams),
        ],
    },
    DeviceKernel {
        kernel: "integer_sum",
        variants: variants::integer_sums,
        cases: &[("5 rows", test_integers)],
    },
];

impl Gpu {
    /// The noise of `count` coordinates from `first` on, as [`noise`](crate::kernels::discrete_gaussian::noise) makes
    /// it. The key is in the device's memory meanwhile.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn noise(
        &self,
        stream: Stream,
        level: Level,
        first: u64,
        count: usize,
    ) -> Result<Vec<i64>, GpuError> {
        self.noise_of(&[(stream, false)], 0..1, level, first, count)
    }

    /// The noise of the chosen streams.
    fn noise_of(
        &self,
        streams: &[(Stream, bool)],
        chosen: Range<usize>,
        level: Level,
        first: u64,
        count: usize,
    ) -> Result<Vec<i64>, GpuError> {
        let program = self.compile_noise(&NoiseJob { level, streams, columns: count })?;
        let mut slot = RingSlot::for_noise(self, &program)?;
        slot.fill_integers(level, first, chosen, &vec![0; count])?;
        let found = slot.noise(&program, None)?;
        self.wipe(&program)?;
        Ok(found)
    }

    /// Adds up the integers of rows of f32, each row at its scale: `values` holds a row for each scale, one behind the
    /// other. `base` is as long as a row, and is subtracted from each; or it is empty.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn integers(&self, values: &[f32], base: &[f32], scales: &[Scale]) -> Result<IntegerSums, GpuError> {
        let (rows, references) = (scales.len(), usize::from(!base.is_empty()));
        let columns = values.len() / rows.max(1);
        if columns == 0 {
            return Ok(IntegerSums { sums: Vec::new(), squares: vec![0; rows] });
        }
        let shape = TileShape { rows, stored: Working::F32, references, columns };
        let less_base = vec![references > 0; rows];
        let program = self.compile_integers(&IntegersJob { shape, scales: scales.to_vec(), less_base })?;
        let mut slot = RingSlot::for_integers(self, &program)?;
        slot.fill::<GpuError>(columns, |row, out| {
            let row = if row < rows { &values[row * columns..][..columns] } else { base };
            out.copy_from_slice(bytemuck::cast_slice(row));
            Ok(())
        })?;
        slot.integers(&program, None)
    }
}

/// Coordinates of a test.
const LEN: usize = 5_000;

fn test_noise(gpu: &Gpu, level: Level) -> Result<Difference, GpuError> {
    let (stream, first) = (Stream { key: &[0x5a; 32], domain: 1, segment: 2 }, u64::from(u32::MAX) - 99);
    let found = gpu.noise(stream, level, first, LEN)?;
    let mut expected = vec![0; LEN];
    discrete_gaussian::noise(Isa::detect(), stream, level, first, &mut expected);
    Ok(other("coordinate", &found, &expected))
}

/// The noise of a series is that of the stream of a round, of which a device holds several.
fn test_streams(gpu: &Gpu) -> Result<Difference, GpuError> {
    let stream = |segment| Stream { key: &[0x5a; 32], domain: 3, segment };
    let streams = [1, 2, 3].map(|round| (stream(round), false));
    let found = gpu.noise_of(&streams, 1..2, Level::L2, 77, LEN)?;
    let mut expected = vec![0; LEN];
    discrete_gaussian::noise(Isa::detect(), stream(2), Level::L2, 77, &mut expected);
    Ok(other("coordinate", &found, &expected))
}

fn test_integers(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (rows, columns) = (5, LEN / 5);
    let (values, base) = (values(LEN), values(columns));
    let scales: Vec<Scale> = (0..rows).map(|row| Scale::rounded_down(1.3, 15 + row)).collect();
    let found = gpu.integers(&values, &base, &scales)?;
    let base: Vec<f64> = base.into_iter().map(f64::from).collect();
    let mut sums = vec![0; columns];
    let add =
        |(values, scale): (&[f32], Scale)| add_quantized(Isa::detect(), values, &base, scale, &mut sums);
    let squares: Vec<u128> = values.chunks(columns).zip(scales).map(add).collect();
    Ok(other("sum", &found.sums, &sums).or_else(|| other("row", &found.squares, &squares)))
}
