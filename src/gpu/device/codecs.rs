//! The kernels of codecs over flat vectors: grids of blocks, rotations, buckets; the way back.
//!
//! The host computes grids, factors and thresholds in f64. A device finds the codes and the values that the CPU's
//! kernels find, to the bit.

use super::Gpu;
use crate::gpu::job::GpuError;
use crate::gpu::run::{BufferId, Run};
use crate::gpu::selftest::compare::{DeviceKernel, Difference, other, values};
use crate::gpu::shaders::{Value, Variant};
use crate::gpu::shape::{Shape, column_groups, words};
use crate::gpu::variants::{CODES_AT_ONCE, GROUP, VECTOR_CHUNK};
use crate::kernels::block_quantize::{self, BlockRun, Draw, Rounding};
use crate::kernels::lanes::Isa;
use crate::kernels::levels::levels_of;
use crate::kernels::philox::{self, random_words};
use crate::kernels::{bucketize, hadamard};

/// Kernels, their variants and their self-tests.
pub(in crate::gpu) const KERNELS: &[DeviceKernel] = &[
    DeviceKernel {
        kernel: "block_quantize",
        variants: || {
            let flags = || [false, true].into_iter();
            let codes = flags().flat_map(|signed| flags().map(move |drawn| to_codes(signed, drawn)));
            codes.chain([Variant::new("block_ends", &[])]).chain(flags().map(of_codes)).collect()
        },
        cases: &[
            ("ends of blocks of 100", test_block_ends),
            ("to the nearest", |gpu| test_codes(gpu, Draw::Nearest)),
            ("by random words", |gpu| test_codes(gpu, Draw::Stochastic { seed: 3, purpose: 4, first: 8 })),
            ("back to values", test_values_of_codes),
        ],
    },
    DeviceKernel {
        kernel: "hadamard",
        variants: || vec![Variant::new("hadamard", &[]), Variant::new("hadamard_back", &[])],
        cases: &[("2 blocks", test_rotate), ("2 blocks of codes, back", test_rotate_back)],
    },
    DeviceKernel {
        kernel: "bucketize",
        variants: || vec![Variant::new("bucketize", &[])],
        cases: &[("7 thresholds", test_bucketize)],
    },
];

/// Codes of values, from minus the top code on if `signed`, rounded by random words if `drawn`.
fn to_codes(signed: bool, drawn: bool) -> Variant {
    Variant::new("block_quantize", &[("SIGNED", Value::Flag(signed)), ("STOCHASTIC", Value::Flag(drawn))])
}

/// Values of codes, of either sign if `signed`.
fn of_codes(signed: bool) -> Variant {
    Variant::new("block_dequantize", &[("SIGNED", Value::Flag(signed))])
}

/// The sizes of a vector in blocks.
struct Blocks {
    len: usize,
    block: usize,
}

impl Blocks {
    fn count(&self) -> usize {
        self.len.div_ceil(self.block)
    }

    /// Words that hold the codes of all values.
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

impl Gpu {
    /// The smallest and the largest value of each block of `block` values.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn block_ends(&self, values: &[f32], block: usize) -> Result<Vec<[f32; 2]>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let blocks = Blocks { len: values.len(), block };
        let mut run = Run::default();
        let sent = run.input("values", bytemuck::cast_slice(values));
        let ends = run.output("ends", 2 * blocks.count());
        // Each invocation reads about eight values.
        let lanes = (block / 8).next_power_of_two().clamp(1, GROUP);
        let shape = Shape {
            rows: words(values.len()),
            columns: words(blocks.count()),
            stride: words(lanes),
            parameter: words(block),
        };
        let groups = column_groups(blocks.count(), GROUP / lanes);
        run.step(Variant::new("block_ends", &[]), shape, &[sent, ends], groups);
        let found = self.run(&run, &[ends])?;
        Ok(found[0].as_chunks().0.iter().map(|ends| ends.map(f32::from_bits)).collect())
    }

    /// The codes 0 to `top` of values. A block's grid is its start and the inverse of its step, at most 2^76.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn quantize(
        &self,
        values: &[f32],
        run: impl Into<BlockRun>,
        grids: &[[f32; 2]],
        top: u8,
        draw: Draw,
    ) -> Result<Vec<u8>, GpuError> {
        self.codes(values, run.into(), grids, top, draw, false)
    }

    /// The codes `-top` to `top` of values, given the inverse of each block's step, at most 2^76.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn quantize_symmetric(
        &self,
        values: &[f32],
        run: impl Into<BlockRun>,
        inverses: &[f32],
        top: i8,
        draw: Draw,
    ) -> Result<Vec<i8>, GpuError> {
        let grids: Vec<[f32; 2]> = inverses.iter().map(|inverse| [0.0, *inverse]).collect();
        let codes = self.codes(values, run.into(), &grids, top.unsigned_abs(), draw, true)?;
        Ok(bytemuck::allocation::cast_vec(codes))
    }

    fn codes(
        &self,
        values: &[f32],
        of: BlockRun,
        grids: &[[f32; 2]],
        top: u8,
        draw: Draw,
        signed: bool,
    ) -> Result<Vec<u8>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let blocks = Blocks { len: values.len(), block: of.block };
        let (mut seed, mut purpose, mut first) = (0, 0, 0);
        if let Draw::Stochastic { seed: own, purpose: of, first: word } = draw {
            (seed, purpose, first) = (own, of, word / philox::WORDS as u64);
        }
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        let ([seed, seed_high], [first, first_high]) = (halves(seed), halves(first));
        let top = f32::from(top).to_bits();
        let mut run = Run::default();
        let sent = run.input("values", bytemuck::cast_slice(values));
        let grids = run.input("grids", bytemuck::cast_slice(grids));
        let numbers = run.input("numbers", vec![seed, seed_high, first, first_high, purpose, top, 0, 0]);
        let codes = run.output("codes", blocks.code_words());
        let variant = to_codes(signed, matches!(draw, Draw::Stochastic { .. }));
        let shape = Shape { stride: words(of.skipped), ..blocks.of_codes() };
        run.step(variant, shape, &[sent, grids, numbers, codes], blocks.code_groups());
        Ok(bytes_of(&self.run(&run, &[codes])?[0], values.len()))
    }

    /// Flips signs and transforms each block of 4096 values, once for each stream in `flips`. A stream has one bit per
    /// value; the lowest bit of its first word is that of the first value. `values` are whole blocks.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn rotate(&self, values: &[f32], flips: &[&[u32]]) -> Result<Vec<f32>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let mut run = Run::default();
        let rotated = rotate(&mut run, values, flips);
        self.floats(&run, rotated)
    }

    /// The codes of values among thresholds, as [`bucketize`](crate::kernels::bucketize::bucketize) defines them. The
    /// values of a block are multiplied by its factor first.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn bucketize(
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
        let mut run = Run::default();
        let sent = run.input("values", bytemuck::cast_slice(values));
        let codes = bucketize(&mut run, &blocks, sent, factors, thresholds);
        Ok(bytes_of(&self.run(&run, &[codes])?[0], values.len()))
    }

    /// Rotates blocks of 4096 values as [`rotate`](Self::rotate) does. Returns the codes of the rotated values, and
    /// these values.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn rotate_and_bucketize(
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
        let mut run = Run::default();
        let rotated = rotate(&mut run, values, flips);
        let codes = bucketize(&mut run, &blocks, rotated, factors, thresholds);
        let found = self.run(&run, &[codes, rotated])?;
        let [codes, rotated] = <[Vec<u32>; 2]>::try_from(found).unwrap_or_default();
        Ok((bytes_of(&codes, values.len()), floats_of(rotated)))
    }

    /// The values of codes. A block's grid is its start, which is not subnormal, and its step: zero, or at least 2^-76.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn dequantize(
        &self,
        codes: &[u8],
        run: impl Into<BlockRun>,
        grids: &[[f32; 2]],
    ) -> Result<Vec<f32>, GpuError> {
        self.values_of(codes, run.into(), grids, false)
    }

    /// The values of codes of either sign, given the step of each block: zero, or at least 2^-76.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn dequantize_symmetric(
        &self,
        codes: &[i8],
        run: impl Into<BlockRun>,
        steps: &[f32],
    ) -> Result<Vec<f32>, GpuError> {
        let grids: Vec<[f32; 2]> = steps.iter().map(|step| [0.0, *step]).collect();
        self.values_of(bytemuck::cast_slice(codes), run.into(), &grids, true)
    }

    fn values_of(
        &self,
        codes: &[u8],
        of: BlockRun,
        grids: &[[f32; 2]],
        signed: bool,
    ) -> Result<Vec<f32>, GpuError> {
        if codes.is_empty() {
            return Ok(Vec::new());
        }
        let blocks = Blocks { len: codes.len(), block: of.block };
        let mut run = Run::default();
        let sent = run.input("codes", bytemuck::pod_collect_to_vec::<u8, u32>(codes));
        let grids = run.input("grids", bytemuck::cast_slice(grids));
        let values = run.output("values", CODES_AT_ONCE * blocks.code_words());
        let shape = Shape { stride: words(of.skipped), ..blocks.of_codes() };
        run.step(of_codes(signed), shape, &[sent, grids, values], blocks.code_groups());
        let mut found = self.floats(&run, values)?;
        found.truncate(codes.len());
        Ok(found)
    }

    /// The values of blocks of 4096 codes: looks up the level of each code, transforms each block twice, flips signs
    /// after each transform by the next stream in `flips`, and multiplies by the block's scale over 4096. A scale is
    /// zero or at least 2^-76, a level at least 2^-14 in magnitude. There is a level for every code.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn rotate_back(
        &self,
        codes: &[u8],
        levels: &[f32],
        flips: [&[u32]; 2],
        scales: &[f32],
    ) -> Result<Vec<f32>, GpuError> {
        if codes.is_empty() {
            return Ok(Vec::new());
        }
        let mut run = Run::default();
        let sent = run.input("codes", bytemuck::pod_collect_to_vec::<u8, u32>(codes));
        let levels = run.input("levels", bytemuck::cast_slice(levels));
        let [first, last] = flips.map(|flips| run.input("flips", flips));
        let scales = run.input("scales", bytemuck::cast_slice(scales));
        let values = run.output("values", codes.len());
        let groups = column_groups(codes.len(), VECTOR_CHUNK);
        let bound = [sent, levels, first, last, scales, values];
        run.step(Variant::new("hadamard_back", &[]), Shape::flat(codes.len()), &bound, groups);
        self.floats(&run, values)
    }

    /// Runs, and returns the floats of one output.
    fn floats(&self, run: &Run, output: BufferId) -> Result<Vec<f32>, GpuError> {
        Ok(floats_of(self.run(run, &[output])?.pop().unwrap_or_default()))
    }
}

/// Adds a rotation of values by each stream in turn.
fn rotate<'a>(run: &mut Run<'a>, values: &'a [f32], flips: &[&'a [u32]]) -> BufferId {
    let mut last = run.input("values", bytemuck::cast_slice(values));
    for flips in flips {
        let (flips, next) = (run.input("flips", *flips), run.output("rotated", values.len()));
        let groups = column_groups(values.len(), VECTOR_CHUNK);
        run.step(Variant::new("hadamard", &[]), Shape::flat(values.len()), &[last, flips, next], groups);
        last = next;
    }
    last
}

fn bucketize<'a>(
    run: &mut Run<'a>,
    blocks: &Blocks,
    values: BufferId,
    factors: &'a [f32],
    thresholds: &'a [f32],
) -> BufferId {
    let factors = run.input("factors", bytemuck::cast_slice(factors));
    let sent = run.input("thresholds", bytemuck::cast_slice(thresholds));
    let codes = run.output("codes", blocks.code_words());
    let shape = Shape { stride: words(thresholds.len()), ..blocks.of_codes() };
    run.step(Variant::new("bucketize", &[]), shape, &[values, factors, sent, codes], blocks.code_groups());
    codes
}

/// The first bytes of words.
fn bytes_of(words: &[u32], len: usize) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).take(len).collect()
}

fn floats_of(words: Vec<u32>) -> Vec<f32> {
    bytemuck::allocation::cast_vec(words)
}

/// Values of a tested block: neither whole workgroups nor whole words.
const BLOCK: usize = 100;
/// Values of a test.
const LEN: usize = 5_000;

fn test_block_ends(gpu: &Gpu) -> Result<Difference, GpuError> {
    // The CPU takes zeros of both signs for equal.
    let values: Vec<f32> = values(LEN).iter().map(|x| x + 2.0).collect();
    let found = gpu.block_ends(&values, BLOCK)?;
    let mut expected = vec![[0.0; 2]; LEN / BLOCK];
    block_quantize::block_ends(Isa::detect(), &values, BLOCK, &mut expected);
    Ok(other("block", &found, &expected))
}

fn test_codes(gpu: &Gpu, draw: Draw) -> Result<Difference, GpuError> {
    let (isa, values, low, inverse) = (Isa::detect(), values(LEN), -0.9, 7.3);
    let mut words = vec![0; LEN];
    let rounding = match draw {
        Draw::Nearest => Rounding::Nearest,
        Draw::Stochastic { seed, purpose, first } => {
            random_words(isa, seed, purpose, first, &mut words);
            Rounding::Stochastic(&words)
        }
    };
    let blocks = LEN / BLOCK;
    let grids = vec![[low, inverse]; blocks];
    let found = gpu.quantize(&values, BLOCK, &grids, 15, draw)?;
    let mut expected = vec![0; LEN];
    block_quantize::quantize(isa, &values, BLOCK, &grids, 15, rounding, &mut expected);
    let unsigned = other("code", &found, &expected);
    let found = gpu.quantize_symmetric(&values, BLOCK, &vec![inverse; blocks], 7, draw)?;
    let mut expected = vec![0; LEN];
    block_quantize::quantize_symmetric(isa, &values, inverse, 7, rounding, &mut expected);
    Ok(unsigned.or_else(|| other("signed code", &found, &expected)))
}

fn test_values_of_codes(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (isa, low, step) = (Isa::detect(), -0.9, 0.0137);
    let codes: Vec<u8> = (0..LEN).map(|i| (i * 7_919 % 251) as u8).collect();
    let (grids, mut expected) = (vec![[low, step]; LEN / BLOCK], vec![0.0; LEN]);
    block_quantize::dequantize(isa, &codes, BLOCK, &grids, &mut expected);
    let unsigned = other("value", &gpu.dequantize(&codes, BLOCK, &grids)?, &expected);
    let codes: &[i8] = bytemuck::cast_slice(&codes);
    block_quantize::dequantize_symmetric(isa, codes, step, &mut expected);
    let found = gpu.dequantize_symmetric(codes, BLOCK, &[step; LEN / BLOCK])?;
    Ok(unsigned.or_else(|| other("value of either sign", &found, &expected)))
}

fn test_rotate_back(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (isa, len) = (Isa::detect(), 2 * VECTOR_CHUNK);
    let levels = [0.1, 0.4, 0.9, 1.6, -0.1, -0.4, -0.9, -1.6];
    let codes: Vec<u8> = (0..len).map(|i| (i * 7_919 % 997 % levels.len()) as u8).collect();
    let (scales, mut flips) = ([1.3, 0.7e-3], vec![0; len / 32]);
    random_words(isa, 3, 4, 0, &mut flips);
    let found = gpu.rotate_back(&codes, &levels, [&flips, &flips], &scales)?;
    let mut expected = vec![0.0; len];
    levels_of(isa, &codes, &levels, &mut expected);
    let signs = flips.chunks(VECTOR_CHUNK / 32);
    for ((block, signs), scale) in expected.chunks_mut(VECTOR_CHUNK).zip(signs).zip(scales) {
        hadamard::hadamard(isa, block);
        hadamard::flipped_hadamard(isa, signs, block);
        let transformed = block.to_vec();
        hadamard::flipped_products(isa, signs, &transformed, [1.0 / VECTOR_CHUNK as f32, scale], block);
    }
    Ok(other("value", &found, &expected))
}

fn test_rotate(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (isa, len) = (Isa::detect(), 2 * 4096);
    let (mut expected, mut flips) = (values(len), vec![0; len / 32]);
    random_words(isa, 3, 4, 0, &mut flips);
    let found = gpu.rotate(&expected, &[&flips, &flips])?;
    for _ in 0..2 {
        hadamard::flip_signs(isa, &flips, &mut expected);
        expected.chunks_mut(4096).for_each(|block| hadamard::hadamard(isa, block));
    }
    Ok(other("value", &found, &expected))
}

fn test_bucketize(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (values, thresholds) = (values(LEN), [0.1, 0.2, 0.4, 0.6, 0.8, 1.2, 3.0]);
    let found = gpu.bucketize(&values, BLOCK, &[1.3; LEN / BLOCK], &thresholds)?;
    let mut expected = vec![0; LEN];
    bucketize::bucketize(Isa::detect(), &values, 1.3, &thresholds, &mut expected);
    Ok(other("code", &found, &expected))
}
