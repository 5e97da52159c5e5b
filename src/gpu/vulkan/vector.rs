//! Runs kernels on flat vectors: sends the input, waits for the output.

use super::VulkanDevice;
use super::program::column_groups;
use super::run::Run;
use crate::gpu::device::VectorDevice;
use crate::gpu::job::GpuError;
use crate::gpu::shape::{Shape, words};
use crate::gpu::variants::{self, CODES_AT_ONCE, GROUP, VECTOR_CHUNK};
use crate::kernels::block_quantize::Draw;
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::Scale;
use crate::kernels::discrete_gaussian::{Level, THRESHOLDS};
use crate::kernels::philox;
use wgpu::Buffer;

/// Bins of one digit in a radix select.
const BINS: usize = 2048;

/// Words of an integer.
const INTEGER_WORDS: usize = 2;

/// A vector on the device in blocks, and what a kernel over it is told.
struct Blocks {
    len: usize,
    block: usize,
}

impl Blocks {
    fn count(&self) -> usize {
        self.len.div_ceil(self.block)
    }

    /// Words that codes of all values are.
    fn code_words(&self) -> usize {
        self.len.div_ceil(CODES_AT_ONCE)
    }

    fn of_codes(&self) -> Shape {
        Shape {
            rows: words(self.len),
            columns: words(self.code_words()),
            stride: 0,
            parameter: words(self.block),
        }
    }

    fn code_groups(&self) -> [u32; 2] {
        column_groups(self.code_words(), GROUP)
    }
}

impl VectorDevice for VulkanDevice {
    fn block_ends(&self, values: &[f32], block: usize) -> Result<Vec<[f32; 2]>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let blocks = Blocks { len: values.len(), block };
        let mut run = Run::new(self)?;
        let sent = run.input("values", bytemuck::cast_slice(values))?;
        let ends = run.output("ends", 2 * blocks.count())?;
        // Each invocation takes a few values.
        let lanes = (block / 8).next_power_of_two().clamp(1, GROUP);
        let shape = Shape {
            rows: words(values.len()),
            columns: words(blocks.count()),
            stride: words(lanes),
            parameter: words(block),
        };
        let groups = column_groups(blocks.count(), GROUP / lanes);
        run.step(&variants::block_ends(), shape, &[&sent, &ends], groups)?;
        let found = run.read(&[(&ends, 2 * blocks.count())])?;
        Ok(found[0].as_chunks().0.iter().map(|ends| ends.map(f32::from_bits)).collect())
    }

    fn quantize(
        &self,
        values: &[f32],
        block: usize,
        grids: &[[f32; 2]],
        top: u8,
        draw: Draw,
    ) -> Result<Vec<u8>, GpuError> {
        self.codes(values, block, grids, top, draw, false)
    }

    fn quantize_symmetric(
        &self,
        values: &[f32],
        block: usize,
        inverses: &[f32],
        top: i8,
        draw: Draw,
    ) -> Result<Vec<i8>, GpuError> {
        let grids: Vec<[f32; 2]> = inverses.iter().map(|inverse| [0.0, *inverse]).collect();
        let codes = self.codes(values, block, &grids, top.unsigned_abs(), draw, true)?;
        Ok(bytemuck::allocation::cast_vec(codes))
    }

    fn dequantize(&self, codes: &[u8], block: usize, grids: &[[f32; 2]]) -> Result<Vec<f32>, GpuError> {
        self.values(codes, block, grids, false)
    }

    fn dequantize_symmetric(&self, codes: &[i8], block: usize, steps: &[f32]) -> Result<Vec<f32>, GpuError> {
        let grids: Vec<[f32; 2]> = steps.iter().map(|step| [0.0, *step]).collect();
        self.values(bytemuck::cast_slice(codes), block, &grids, true)
    }

    fn rotate(&self, values: &[f32], flips: &[&[u32]]) -> Result<Vec<f32>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let mut run = Run::new(self)?;
        let rotated = rotated(&mut run, values, flips)?;
        Ok(floats_of(&run.read(&[(&rotated, values.len())])?[0]))
    }

    fn bucketize(
        &self,
        values: &[f32],
        block: usize,
        factors: &[f32],
        thresholds: &[f32],
    ) -> Result<Vec<u8>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let blocks = Blocks { len: values.len(), block };
        let mut run = Run::new(self)?;
        let sent = run.input("values", bytemuck::cast_slice(values))?;
        let codes = bucketized(&mut run, &blocks, &sent, factors, thresholds)?;
        let found = run.read(&[(&codes, blocks.code_words())])?;
        Ok(bytes_of(&found[0], values.len()))
    }

    fn rotate_and_bucketize(
        &self,
        values: &[f32],
        flips: &[&[u32]],
        factors: &[f32],
        thresholds: &[f32],
    ) -> Result<(Vec<u8>, Vec<f32>), GpuError> {
        if values.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let blocks = Blocks { len: values.len(), block: VECTOR_CHUNK };
        let mut run = Run::new(self)?;
        let rotated = rotated(&mut run, values, flips)?;
        let codes = bucketized(&mut run, &blocks, &rotated, factors, thresholds)?;
        let found = run.read(&[(&codes, blocks.code_words()), (&rotated, values.len())])?;
        Ok((bytes_of(&found[0], values.len()), floats_of(&found[1])))
    }

    fn histogram(&self, values: &[f32], digit: [u32; 4]) -> Result<Vec<u64>, GpuError> {
        let mut run = Run::new(self)?;
        let sent = run.input("values", bytemuck::cast_slice(values))?;
        let digit = run.input("digit", &digit)?;
        let counts = run.zeros("counts", BINS)?;
        let groups = column_groups(values.len(), VECTOR_CHUNK);
        let variant = variants::select_histogram();
        run.step(&variant, flat(values.len()), &[&sent, &digit, &counts], groups)?;
        let found = run.read(&[(&counts, BINS)])?;
        Ok(found[0].iter().map(|count| u64::from(*count)).collect())
    }

    fn take(&self, values: &[f32], key: u32, ties: u64) -> Result<Vec<u32>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let chosen = [key, u32::try_from(ties).unwrap_or(u32::MAX)];
        let mut before = self.select(values, chosen, &[], 2 * values.len().div_ceil(VECTOR_CHUNK))?;
        // From how many a workgroup has to how many are before its own.
        let mut sums = [0u32; 2];
        for (place, word) in before.iter_mut().enumerate() {
            let own = std::mem::replace(word, sums[place % 2]);
            sums[place % 2] += own;
        }
        let count = sums[0] + sums[1].min(chosen[1]);
        self.select(values, chosen, &before, count as usize)
    }

    fn noise(&self, stream: Stream, level: Level, first: u64, count: usize) -> Result<Vec<i64>, GpuError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let block = first.wrapping_mul(level.blocks() as u64);
        let mut numbers: Vec<u32> = bytemuck::pod_collect_to_vec(stream.key);
        numbers.extend([block as u32, (block >> 32) as u32, stream.domain, stream.segment]);
        let mut run = Run::new(self)?;
        let thresholds = run.input("thresholds", bytemuck::cast_slice(&THRESHOLDS))?;
        let numbers = run.input("numbers", &numbers)?;
        let noise = run.output("noise", INTEGER_WORDS * count)?;
        let shape = Shape { rows: 1, columns: words(count), stride: 0, parameter: 0 };
        let variant = variants::discrete_gaussian(level);
        run.step(&variant, shape, &[&thresholds, &numbers, &noise], column_groups(count, GROUP))?;
        Ok(integers_of(&run.read(&[(&noise, INTEGER_WORDS * count)])?[0]))
    }

    fn integer_sums(&self, values: &[f32], columns: usize, scales: &[Scale]) -> Result<Vec<i64>, GpuError> {
        if columns == 0 || scales.is_empty() {
            return Ok(vec![0; columns]);
        }
        let rows = scales.len();
        let scales: Vec<[u32; 2]> =
            scales.iter().map(|scale| [scale.multiplier(), scale.exponent().cast_unsigned()]).collect();
        let mut run = Run::new(self)?;
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

impl VulkanDevice {
    fn codes(
        &self,
        values: &[f32],
        block: usize,
        grids: &[[f32; 2]],
        top: u8,
        draw: Draw,
        signed: bool,
    ) -> Result<Vec<u8>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let blocks = Blocks { len: values.len(), block };
        let (mut seed, mut purpose, mut first) = (0, 0, 0);
        if let Draw::Stochastic { seed: own, purpose: of, first: word } = draw {
            (seed, purpose, first) = (own, of, word / philox::WORDS as u64);
        }
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        let ([seed, seed_high], [first, first_high]) = (halves(seed), halves(first));
        let top = f32::from(top).to_bits();
        let mut run = Run::new(self)?;
        let sent = run.input("values", bytemuck::cast_slice(values))?;
        let grids = run.input("grids", bytemuck::cast_slice(grids))?;
        let numbers = run.input("numbers", &[seed, seed_high, first, first_high, purpose, top, 0, 0])?;
        let codes = run.output("codes", blocks.code_words())?;
        let variant = variants::block_quantize(signed, matches!(draw, Draw::Stochastic { .. }));
        let buffers = [&sent, &grids, &numbers, &codes];
        run.step(&variant, blocks.of_codes(), &buffers, blocks.code_groups())?;
        let found = run.read(&[(&codes, blocks.code_words())])?;
        Ok(bytes_of(&found[0], values.len()))
    }

    fn values(
        &self,
        codes: &[u8],
        block: usize,
        grids: &[[f32; 2]],
        signed: bool,
    ) -> Result<Vec<f32>, GpuError> {
        if codes.is_empty() {
            return Ok(Vec::new());
        }
        let blocks = Blocks { len: codes.len(), block };
        let mut packed = codes.to_vec();
        packed.resize(codes.len().next_multiple_of(CODES_AT_ONCE), 0);
        let mut run = Run::new(self)?;
        let sent = run.input("codes", &bytemuck::pod_collect_to_vec::<u8, u32>(&packed))?;
        let grids = run.input("grids", bytemuck::cast_slice(grids))?;
        let values = run.output("values", codes.len())?;
        let variant = variants::block_dequantize(signed);
        run.step(&variant, blocks.of_codes(), &[&sent, &grids, &values], blocks.code_groups())?;
        Ok(floats_of(&run.read(&[(&values, codes.len())])?[0]))
    }

    /// What each workgroup counts, or with what is before each, the indices.
    fn select(
        &self,
        values: &[f32],
        chosen: [u32; 2],
        before: &[u32],
        written: usize,
    ) -> Result<Vec<u32>, GpuError> {
        let mut run = Run::new(self)?;
        let sent = run.input("values", bytemuck::cast_slice(values))?;
        let (chosen, earlier) = (run.input("chosen", &chosen)?, run.input("before", before)?);
        let out = run.output("indices", written)?;
        let variant = variants::select_output(before.is_empty());
        let groups = column_groups(values.len(), VECTOR_CHUNK);
        run.step(&variant, flat(values.len()), &[&sent, &chosen, &earlier, &out], groups)?;
        Ok(run.read(&[(&out, written)])?.swap_remove(0))
    }
}

/// A vector that is no blocks.
fn flat(len: usize) -> Shape {
    Shape { rows: 1, columns: words(len), stride: 0, parameter: 0 }
}

/// Values, their signs flipped and transformed by each stream in turn.
fn rotated(run: &mut Run, values: &[f32], flips: &[&[u32]]) -> Result<Buffer, GpuError> {
    let mut last = run.input("values", bytemuck::cast_slice(values))?;
    for flips in flips {
        let (flips, next) = (run.input("flips", flips)?, run.output("rotated", values.len())?);
        let groups = column_groups(values.len(), VECTOR_CHUNK);
        run.step(&variants::hadamard(), flat(values.len()), &[&last, &flips, &next], groups)?;
        last = next;
    }
    Ok(last)
}

fn bucketized(
    run: &mut Run,
    blocks: &Blocks,
    values: &Buffer,
    factors: &[f32],
    thresholds: &[f32],
) -> Result<Buffer, GpuError> {
    let factors = run.input("factors", bytemuck::cast_slice(factors))?;
    let sent = run.input("thresholds", bytemuck::cast_slice(thresholds))?;
    let codes = run.output("codes", blocks.code_words())?;
    let shape = Shape { stride: words(thresholds.len()), ..blocks.of_codes() };
    run.step(&variants::bucketize(), shape, &[values, &factors, &sent, &codes], blocks.code_groups())?;
    Ok(codes)
}

/// The first bytes of words.
fn bytes_of(words: &[u32], len: usize) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).take(len).collect()
}

fn floats_of(words: &[u32]) -> Vec<f32> {
    words.iter().map(|word| f32::from_bits(*word)).collect()
}

fn integers_of(words: &[u32]) -> Vec<i64> {
    let integer =
        |[low, high]: &[u32; INTEGER_WORDS]| (u64::from(*high) << 32 | u64::from(*low)).cast_signed();
    words.as_chunks().0.iter().map(integer).collect()
}
