//! The kernels of secure aggregation on vectors in memory: masks from seeds, sums modulo a prime.
//!
//! Vectors and numbers of seeds have any length: runs are cut to the memory and the time that a device has.

use super::Gpu;
use crate::gpu::job::GpuError;
use crate::gpu::run::Run;
use crate::gpu::selftest::compare::{DeviceKernel, Difference, other};
use crate::gpu::shaders::{Value, Variant};
use crate::gpu::shape::{Shape, column_groups, words};
use crate::gpu::variants::GROUP;
use crate::kernels::chacha20::WORDS;
use crate::kernels::field::{self, P};
use crate::kernels::lanes::Isa;
use crate::kernels::masks;
use std::ops::Range;
use zeroize::Zeroizing;

/// Kernels, their variants and their self-tests.
pub(in crate::gpu) const KERNELS: &[DeviceKernel] = &[
    DeviceKernel {
        kernel: "field",
        variants: || vec![sums(false), sums(true)],
        cases: &[("sum of 5 rows", test_sum), ("5 multiples", test_multiples)],
    },
    DeviceKernel {
        kernel: "masks",
        variants: || vec![Variant::new("masks", &[])],
        cases: &[("3 seeds", test_masks), ("a replaced word", test_replaced)],
    },
];

/// Lanes of a seed: those of 2^32 blocks.
const MOST_LANES: u64 = 1 << 36;
/// Most blocks of a run. The device adds up the masks of many seeds, so that few results come back.
const RUN_BLOCKS: usize = 1 << 19;
/// Most blocks of a run, counted for every seed: a slow device takes seconds for them.
const RUN_WORK: usize = 1 << 25;
/// Elements that an invocation adds up.
const VECTOR: usize = 4;
/// Most columns of a run: the host holds a copy of their elements.
const RUN_COLUMNS: usize = 1 << 22;

/// Adds up rows, times factors if `multiples`.
fn sums(multiples: bool) -> Variant {
    Variant::new("field", &[("MULTIPLES", Value::Flag(multiples))])
}

impl Gpu {
    /// The sums of the masks of all seeds, as [`add_masks`](masks::add_masks) makes them: `count` lanes from `first`
    /// on. The seeds are in the device's memory meanwhile; they and the sums are overwritten there afterwards.
    ///
    /// # Errors
    ///
    /// When the lanes go beyond those of a seed, and when the device fails or has no memory for it.
    pub fn masks(&self, seeds: &[[u8; 32]], first: u64, count: usize) -> Result<Vec<u32>, GpuError> {
        let end = first.saturating_add(count as u64);
        if end > MOST_LANES {
            let (found, most) = (usize::try_from(end).unwrap_or(usize::MAX), MOST_LANES as usize);
            let adapter = self.adapter().name.clone();
            return Err(GpuError::TooMany { adapter, what: "lanes of a seed", found, most });
        }
        let mut sums = vec![0; count];
        let most = (self.binding_bytes() / (WORDS * size_of::<u32>())).clamp(1, RUN_BLOCKS);
        let most_seeds = self.binding_bytes() / size_of::<[u8; 32]>();
        let (mut at, mut rest) = (first, &mut sums[..]);
        while !rest.is_empty() {
            let skipped = (at % WORDS as u64) as usize;
            let (part, behind) = rest.split_at_mut(rest.len().min(most * WORDS - skipped));
            let blocks = (skipped + part.len()).div_ceil(WORDS);
            for seeds in seeds.chunks((RUN_WORK / blocks).min(most_seeds).max(1)) {
                let found = Zeroizing::new(self.masks_of_blocks(seeds, at / WORDS as u64, blocks)?);
                field::add_elements(Isa::detect(), &found[skipped..][..part.len()], part);
            }
            at += part.len() as u64;
            rest = behind;
        }
        Ok(sums)
    }

    /// The sums of the masks of whole blocks.
    fn masks_of_blocks(&self, seeds: &[[u8; 32]], first: u64, blocks: usize) -> Result<Vec<u32>, GpuError> {
        let keys = seeds.as_flattened().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        let keys = Zeroizing::new(keys.collect::<Vec<u32>>());
        let mut run = Run::default();
        let keys = run.secret("seeds", &keys);
        let sums = run.output("sums", blocks * WORDS);
        let shape = Shape {
            rows: words(seeds.len()),
            columns: words(blocks),
            stride: 0,
            // Below 2^32, as the lanes are below 2^36.
            parameter: first as u32,
        };
        run.step(Variant::new("masks", &[]), shape, &[keys, sums], column_groups(blocks, GROUP));
        Ok(self.run(&run, &[sums])?.swap_remove(0))
    }

    /// The sum of rows modulo the prime of [`field`]. The rows are equally long, and all elements below the prime.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn sum_elements(&self, rows: &[&[u32]]) -> Result<Vec<u32>, GpuError> {
        self.combined(None, rows)
    }

    /// The sum of rows, each times its factor, modulo the prime of [`field`]. The rows are equally long, and all
    /// elements and factors below the prime.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn sum_multiples(&self, factors: &[u32], rows: &[&[u32]]) -> Result<Vec<u32>, GpuError> {
        self.combined(Some(factors), rows)
    }

    fn combined(&self, factors: Option<&[u32]>, rows: &[&[u32]]) -> Result<Vec<u32>, GpuError> {
        let len = rows.first().map_or(0, |row| row.len());
        let mut sums = vec![0; len];
        let most_rows = (self.binding_bytes() / (VECTOR * size_of::<u32>())).max(1);
        for (place, rows) in rows.chunks(most_rows).enumerate() {
            let factors = factors.map(|factors| &factors[place * most_rows..][..rows.len()]);
            let fitting = self.binding_bytes() / (rows.len() * size_of::<u32>());
            let most = (fitting.min(RUN_COLUMNS) / VECTOR).max(1) * VECTOR;
            for start in (0..len).step_by(most) {
                let end = len.min(start + most);
                let found = self.combined_at_once(factors, rows, start..end)?;
                field::add_elements(Isa::detect(), &found[..end - start], &mut sums[start..end]);
            }
        }
        Ok(sums)
    }

    /// The sums of some columns of rows that fit a binding.
    fn combined_at_once(
        &self,
        factors: Option<&[u32]>,
        rows: &[&[u32]],
        columns: Range<usize>,
    ) -> Result<Vec<u32>, GpuError> {
        let vectors = columns.len().div_ceil(VECTOR);
        let mut elements = Vec::with_capacity(rows.len() * vectors * VECTOR);
        for (row, end) in rows.iter().zip(1..) {
            elements.extend_from_slice(&row[columns.clone()]);
            elements.resize(end * vectors * VECTOR, 0);
        }
        let mut run = Run::default();
        let elements = run.input("elements", elements);
        let held = run.input("factors", factors.map_or_else(|| vec![1; rows.len()], <[u32]>::to_vec));
        let out = run.output("sums", vectors * VECTOR);
        let shape =
            Shape { rows: words(rows.len()), columns: words(vectors), stride: words(vectors), parameter: 0 };
        let groups = column_groups(vectors, GROUP);
        run.step(sums(factors.is_some()), shape, &[elements, held, out], groups);
        Ok(self.run(&run, &[out])?.swap_remove(0))
    }
}

/// Lanes of a test.
const LEN: usize = 5_001;

/// Rows of elements: masks, and the largest and smallest elements in front.
fn rows() -> [Vec<u32>; 5] {
    std::array::from_fn(|row| {
        let mut elements = vec![0; LEN];
        masks::add_masks(Isa::detect(), &[[row as u8; 32]], 0, &mut elements);
        elements[..4].copy_from_slice(&[P - 1, 0, 1, P - 1 - row as u32]);
        elements
    })
}

fn test_sum(gpu: &Gpu) -> Result<Difference, GpuError> {
    let rows = rows();
    let found = gpu.sum_elements(&rows.each_ref().map(|row| &row[..]))?;
    let mut expected = vec![0; LEN];
    for row in &rows {
        field::add_elements(Isa::detect(), row, &mut expected);
    }
    Ok(other("column", &found, &expected))
}

fn test_multiples(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (rows, factors) = (rows(), [P - 1, 0x7fff_fff7, 1, 0, 0x1_0001]);
    let found = gpu.sum_multiples(&factors, &rows.each_ref().map(|row| &row[..]))?;
    let mut expected = vec![0; LEN];
    for (factor, row) in factors.into_iter().zip(&rows) {
        field::add_multiple(Isa::detect(), factor, row, &mut expected);
    }
    Ok(other("column", &found, &expected))
}

/// The first lane whose word is the prime itself, under the seed of bytes 27.
const REPLACED: u64 = 21_018_699;

fn test_masks(gpu: &Gpu) -> Result<Difference, GpuError> {
    masks_differ(gpu, &[[1; 32], [2; 32], [3; 32]], 77)
}

fn test_replaced(gpu: &Gpu) -> Result<Difference, GpuError> {
    masks_differ(gpu, &[[27; 32]], REPLACED - 100)
}

fn masks_differ(gpu: &Gpu, seeds: &[[u8; 32]], first: u64) -> Result<Difference, GpuError> {
    let found = gpu.masks(seeds, first, LEN)?;
    let mut expected = vec![0; LEN];
    masks::add_masks(Isa::detect(), seeds, first, &mut expected);
    Ok(other("lane", &found, &expected))
}
