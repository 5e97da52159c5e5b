//! A merge as steps: the reduction, norms of the clients' deltas, the server's step.

mod server_step;

use super::{Place, Program, Source, float, magnitude, shape};
use crate::gpu::job::{CombineJob, Combined, GpuError, Reduction, TileShape};
use crate::gpu::shape::{column_groups, words};
use crate::gpu::variants::{self, GROUP, MEAN_NEAR_MEDIAN, NORM_CHUNK, TRIMMED_MEAN};
use crate::gpu::vulkan::device::VulkanDevice;
use crate::kernels::element::Merged;

/// A [`CombineJob`], compiled.
pub(in crate::gpu) struct CombineProgram {
    pub(in crate::gpu::vulkan) program: Program,
    reduction: Reduction,
    rows: usize,
    /// The divisor of the weights of a weighted sum.
    scale: f64,
    /// Number of rows whose norms are measured.
    norms: Option<usize>,
    /// Number of rows that the server's step writes.
    stepped: usize,
}

impl CombineProgram {
    /// Compiles a job.
    pub(in crate::gpu::vulkan) fn new(gpu: &VulkanDevice, job: &CombineJob) -> Result<Self, GpuError> {
        let mut program = Program::new(job.shape);
        let sent = program.rows(gpu, &job.chosen)?;
        let source = program.mixed(gpu, sent, job.mixing.as_ref())?;
        let scale = program.add_reduction(gpu, source, job)?;
        let norms = match &job.norms {
            Some(less_base) => Some(program.add_norms(gpu, sent, less_base)?),
            None => None,
        };
        let (reduction, rows) = (job.reduction, source.rows);
        let mut compiled = Self { program, reduction, rows, scale, norms, stepped: 0 };
        if let Some(step) = &job.step {
            compiled.stepped = compiled.add_step(gpu, step)?;
        }
        Ok(compiled)
    }

    /// Turns the outputs of a run into merged values.
    pub(in crate::gpu::vulkan) fn read(
        &self,
        tile: &TileShape,
        outputs: &[&[u32]],
        largest: u32,
        merged: &mut Vec<f64>,
    ) -> Combined {
        self.read_merged(tile, outputs[0], merged);
        let norms = self.norms.map(|rows| {
            let chunks = tile.columns.div_ceil(NORM_CHUNK).max(1);
            // The kernel marks sums that vanish in f32 by a negative number.
            let sum = |sum: &u32| Some(float(*sum)).filter(|sum| *sum >= 0.0).unwrap_or(f64::NAN);
            let row = |row: &[u32]| row.iter().map(sum).sum();
            let mut norms: Vec<f64> = outputs[1].chunks(chunks).take(rows).map(row).collect();
            // A tile of no columns has no chunks.
            norms.resize(rows, 0.0);
            norms
        });
        let stepped = outputs.last().copied().unwrap_or_default();
        let row = |row: usize| {
            let words = &stepped[row * tile.columns..][..tile.columns];
            words.iter().map(|word| f32::from_bits(*word)).collect()
        };
        let stepped = (0..self.stepped).map(row).collect();
        Combined { largest: magnitude(largest), squared_norms: norms.unwrap_or_default(), stepped }
    }

    fn read_merged(&self, tile: &TileShape, output: &[u32], merged: &mut Vec<f64>) {
        merged.clear();
        match self.reduction {
            Reduction::WeightedSum => merged.extend(output.iter().map(|sum| float(*sum) * self.scale)),
            Reduction::Median => {
                let (lower, upper) = output.split_at(tile.columns);
                let midpoint =
                    |(a, b): (&u32, &u32)| <f64 as Merged>::midpoint(f32::from_bits(*a), f32::from_bits(*b));
                merged.extend(lower.iter().zip(upper).map(midpoint));
            }
            Reduction::TrimmedMean { cut } => {
                merged.extend(output.iter().map(|sum| float(*sum) / (self.rows - 2 * cut) as f64));
            }
            Reduction::MeanNearMedian { kept } => {
                merged.extend(output.iter().map(|sum| float(*sum) / kept as f64));
            }
        }
    }
}

impl Program {
    /// Reduces the rows. Returns the divisor of the weights of a weighted sum.
    fn add_reduction(
        &mut self,
        gpu: &VulkanDevice,
        source: Source,
        job: &CombineJob,
    ) -> Result<f64, GpuError> {
        match job.reduction {
            Reduction::WeightedSum => return self.add_weighted_sum(gpu, source, &job.weights),
            Reduction::Median => {
                let middle = self.output(|tile| 2 * tile.columns);
                self.median(gpu, source, middle)?;
            }
            Reduction::TrimmedMean { cut } => {
                let sums = self.output(|tile| tile.columns);
                self.order_statistic(gpu, &TRIMMED_MEAN, source, sums, cut)?;
            }
            Reduction::MeanNearMedian { kept } => {
                let sums = self.output(|tile| tile.columns);
                self.order_statistic(gpu, &MEAN_NEAR_MEDIAN, source, sums, kept)?;
            }
        }
        Ok(1.0)
    }

    fn add_weighted_sum(
        &mut self,
        gpu: &VulkanDevice,
        source: Source,
        weights: &[f64],
    ) -> Result<f64, GpuError> {
        let total: f64 = weights.iter().map(|weight| weight.abs()).sum();
        // A power of two: example counts stay exact, and no sum is larger than the largest value.
        let scale = if total > 0.0 { total.log2().ceil().exp2() } else { 1.0 };
        let bits: Vec<u32> = weights.iter().map(|weight| ((weight / scale) as f32).to_bits()).collect();
        let weights = self.constant(gpu, "weights", &bits)?;
        let sums = self.output(|tile| tile.columns);
        self.step(
            gpu,
            &variants::weighted_sum(source.stored),
            vec![source.place, Place::Constant(source.chosen), Place::Constant(weights), sums],
            move |tile| shape(&source, tile, 0),
            |tile| column_groups(tile.columns, GROUP),
        )?;
        Ok(scale)
    }

    /// Measures squared norms of rows. Returns the number of rows.
    fn add_norms(
        &mut self,
        gpu: &VulkanDevice,
        source: Source,
        less_base: &[bool],
    ) -> Result<usize, GpuError> {
        let less_base = self.less_base(gpu, less_base)?;
        let rows = source.rows;
        let sums = self.output(move |tile| rows * tile.columns.div_ceil(NORM_CHUNK));
        let chunks = |tile: &TileShape| tile.columns.div_ceil(NORM_CHUNK).max(1);
        self.step(
            gpu,
            &variants::norms(source.stored, self.shape.references),
            vec![source.place, Place::Constant(source.chosen), Place::References, less_base, sums],
            move |tile| shape(&source, tile, chunks(tile)),
            move |tile| [words(chunks(tile)), words(rows)],
        )?;
        Ok(rows)
    }
}
