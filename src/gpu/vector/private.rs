//! The kernels of private sums over flat vectors: noise, and sums of integers.

use super::Vectors;
use crate::gpu::job::GpuError;
use crate::gpu::program::{Shape, column_groups, words};
use crate::gpu::variants::{self, GROUP};
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::Scale;
use crate::kernels::discrete_gaussian::{Level, THRESHOLDS};

/// Words of an integer.
const INTEGER_WORDS: usize = 2;

impl Vectors<'_> {
    /// The noise of `count` coordinates from `first` on, as [`noise`](crate::kernels::discrete_gaussian::noise) makes it.
    /// The key goes to the device's memory.
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
        let mut run = self.run()?;
        let thresholds = run.input("thresholds", bytemuck::cast_slice(&THRESHOLDS))?;
        let numbers = run.input("numbers", &numbers)?;
        let noise = run.output("noise", INTEGER_WORDS * count)?;
        let shape = Shape { rows: 1, columns: words(count), stride: 0, parameter: 0 };
        let variant = variants::discrete_gaussian(level);
        run.step(&variant, shape, &[&thresholds, &numbers, &noise], column_groups(count, GROUP))?;
        Ok(integers_of(&run.read(&[(&noise, INTEGER_WORDS * count)])?[0]))
    }

    /// The sums over rows of their integers, each row's at its scale, as [`quantize`](crate::kernels::clip_integers::quantize)
    /// makes them. `values` are rows of `columns` values, one behind the other, a row for each scale.
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
        let scales: Vec<[u32; 2]> =
            scales.iter().map(|scale| [scale.multiplier(), scale.exponent().cast_unsigned()]).collect();
        let mut run = self.run()?;
        let sent = run.input("values", bytemuck::cast_slice(&values[..rows * columns]))?;
        let scales = run.input("scales", scales.as_flattened())?;
        let sums = run.output("sums", INTEGER_WORDS * columns)?;
        let stride = words(columns);
        let shape = Shape { rows: words(rows), columns: stride, stride, parameter: 0 };
        let groups = column_groups(columns, GROUP);
        run.step(&variants::integer_sum(), shape, &[&sent, &scales, &sums], groups)?;
        Ok(integers_of(&run.read(&[(&sums, INTEGER_WORDS * columns)])?[0]))
    }
}

fn integers_of(words: &[u32]) -> Vec<i64> {
    let integer =
        |[low, high]: &[u32; INTEGER_WORDS]| (u64::from(*high) << 32 | u64::from(*low)).cast_signed();
    words.as_chunks().0.iter().map(integer).collect()
}
