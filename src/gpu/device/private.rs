//! The kernels of private sums over flat vectors: noise, and sums of integers.

use super::Gpu;
use crate::gpu::job::GpuError;
use crate::gpu::run::Run;
use crate::gpu::selftest::compare::{DeviceKernel, Difference, other, values};
use crate::gpu::shaders::{Value, Variant};
use crate::gpu::shape::{Shape, column_groups, words};
use crate::gpu::variants::GROUP;
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::{Scale, quantize};
use crate::kernels::discrete_gaussian::{self, Level, THRESHOLDS};
use crate::kernels::integer_sum::add_integers;
use crate::kernels::lanes::Isa;

/// Kernels, their variants and their self-tests.
pub(in crate::gpu) const KERNELS: &[DeviceKernel] = &[
    DeviceKernel {
        kernel: "discrete_gaussian",
        variants: || [Level::L2, Level::L3].map(noise).into(),
        cases: &[
            ("of four draws", |gpu| test_noise(gpu, Level::L2)),
            ("of eight draws", |gpu| test_noise(gpu, Level::L3)),
        ],
    },
    DeviceKernel {
        kernel: "integer_sum",
        variants: || vec![Variant::new("integer_sum", &[])],
        cases: &[("5 rows", test_integer_sums)],
    },
];

/// Words of an integer.
const INTEGER_WORDS: usize = 2;

/// Noise of a level.
fn noise(level: Level) -> Variant {
    Variant::new("discrete_gaussian", &[("BLOCKS", Value::Number(words(level.blocks())))])
}

impl Gpu {
    /// The noise of `count` coordinates from `first` on, as [`noise`](crate::kernels::discrete_gaussian::noise) makes
    /// it. The key goes into the device's memory.
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
        if count == 0 {
            return Ok(Vec::new());
        }
        let block = first.wrapping_mul(level.blocks() as u64);
        let mut numbers: Vec<u32> = bytemuck::pod_collect_to_vec(stream.key);
        numbers.extend([block as u32, (block >> 32) as u32, stream.domain, stream.segment]);
        let mut run = Run::default();
        let thresholds = run.input("thresholds", bytemuck::cast_slice(&THRESHOLDS));
        let numbers = run.input("numbers", numbers);
        let sums = run.output("noise", INTEGER_WORDS * count);
        let groups = column_groups(count, GROUP);
        run.step(noise(level), Shape::flat(count), &[thresholds, numbers, sums], groups);
        Ok(integers_of(&self.run(&run, &[sums])?[0]))
    }

    /// Rounds rows to integers, each row at its scale, as [`quantize`] does, and sums each column. `values` holds a row
    /// of `columns` values for each scale, one behind the other.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn integer_sums(
        &self,
        values: &[f32],
        columns: usize,
        scales: &[Scale],
    ) -> Result<Vec<i64>, GpuError> {
        if columns == 0 || scales.is_empty() {
            return Ok(vec![0; columns]);
        }
        let rows = scales.len();
        let scale = |scale: &Scale| [scale.multiplier(), scale.exponent().cast_unsigned()];
        let scales: Vec<u32> = scales.iter().flat_map(scale).collect();
        let mut run = Run::default();
        let sent = run.input("values", bytemuck::cast_slice(&values[..rows * columns]));
        let scales = run.input("scales", scales);
        let sums = run.output("sums", INTEGER_WORDS * columns);
        let stride = words(columns);
        let shape = Shape { rows: words(rows), columns: stride, stride, parameter: 0 };
        let groups = column_groups(columns, GROUP);
        run.step(Variant::new("integer_sum", &[]), shape, &[sent, scales, sums], groups);
        Ok(integers_of(&self.run(&run, &[sums])?[0]))
    }
}

fn integers_of(words: &[u32]) -> Vec<i64> {
    let integer =
        |[low, high]: &[u32; INTEGER_WORDS]| (u64::from(*high) << 32 | u64::from(*low)).cast_signed();
    words.as_chunks().0.iter().map(integer).collect()
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

fn test_integer_sums(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (rows, columns) = (5, LEN / 5);
    let values = values(LEN);
    let scales: Vec<Scale> = (0..rows).map(|row| Scale::rounded_down(1.3, 15 + row)).collect();
    let found = gpu.integer_sums(&values, columns, &scales)?;
    let (mut expected, mut row) = (vec![0; columns], vec![0; columns]);
    for (values, scale) in values.chunks(columns).zip(scales) {
        quantize(Isa::detect(), values, &[], scale, &mut row);
        add_integers(Isa::detect(), &row, &mut expected);
    }
    Ok(other("sum", &found, &expected))
}
