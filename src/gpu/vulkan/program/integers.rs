//! Sums of integers on a grid as steps: the sum of every column, and the squares of every row.

use super::{Place, Program, integers_of, shape};
use crate::gpu::integers::{INTEGER_WORDS, IntegerSums, IntegersJob};
use crate::gpu::job::{GpuError, TileShape};
use crate::gpu::shape::{column_groups, words};
use crate::gpu::variants::{self, GROUP, NORM_CHUNK};
use crate::gpu::vulkan::device::VulkanDevice;
use crate::kernels::clip_integers::Scale;

/// Words of a sum of squares.
const SQUARE_WORDS: usize = 4;

/// An [`IntegersJob`], compiled.
pub(in crate::gpu) struct IntegersProgram {
    pub(in crate::gpu::vulkan) program: Program,
    rows: usize,
}

/// Chunks of a row whose squares are added up.
fn chunks(tile: &TileShape) -> usize {
    tile.columns.div_ceil(NORM_CHUNK).max(1)
}

impl IntegersProgram {
    /// Compiles a job.
    pub(in crate::gpu::vulkan) fn new(gpu: &VulkanDevice, job: &IntegersJob) -> Result<Self, GpuError> {
        let mut program = Program::new(job.shape);
        let (rows, references) = (job.shape.rows, job.shape.references);
        let all: Vec<u32> = (0..words(rows)).collect();
        let source = program.rows(gpu, &all)?;
        let row = |(scale, less): (&Scale, &bool)| {
            // The scale zero has the smallest exponent, which no shift may count from.
            let exponent = if *scale == Scale::ZERO { 0 } else { scale.exponent().cast_unsigned() };
            [scale.multiplier(), exponent, u32::from(*less), 0]
        };
        let grid: Vec<u32> = job.scales.iter().zip(&job.less_base).flat_map(row).collect();
        let grid = program.constant(gpu, "grid", &grid).map(Place::Constant)?;
        let places =
            |output| vec![source.place, Place::Constant(source.chosen), Place::References, grid, output];
        let sums = program.output(|tile| INTEGER_WORDS * tile.columns);
        program.step(
            gpu,
            &variants::integer_sum(source.stored, references),
            places(sums),
            move |tile| shape(&source, tile, 0),
            |tile| column_groups(tile.columns, GROUP),
        )?;
        let squares = program.output(move |tile| SQUARE_WORDS * rows * chunks(tile));
        program.step(
            gpu,
            &variants::integer_squares(source.stored, references),
            places(squares),
            move |tile| shape(&source, tile, chunks(tile)),
            move |tile| [words(chunks(tile)), words(rows)],
        )?;
        Ok(Self { program, rows })
    }

    /// Turns the outputs of a run into sums.
    pub(in crate::gpu::vulkan) fn read(&self, tile: &TileShape, outputs: &[&[u32]]) -> IntegerSums {
        let square = |words: &[u32; SQUARE_WORDS]| {
            words.iter().rev().fold(0, |square, word| square << 32 | u128::from(*word))
        };
        let row = |words: &[u32]| words.as_chunks().0.iter().map(square).fold(0, u128::saturating_add);
        let squares = outputs[1].chunks(SQUARE_WORDS * chunks(tile)).take(self.rows).map(row);
        IntegerSums { sums: integers_of(outputs[0]), squares: squares.collect() }
    }
}
