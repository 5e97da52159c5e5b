//! A pass over pairs as steps: centred points, sums over their pairs, counts of signs.

use super::{Place, Program, Source, float, magnitude, shape};
use crate::gpu::job::{GpuError, PairSums, PairsJob, TileShape};
use crate::gpu::shape::{Shape, column_groups, words};
use crate::gpu::variants::{self, GROUP, Square};
use crate::gpu::vulkan::device::VulkanDevice;

/// Most chunks of a tile. Their sums are added in f32, and the bound on the error counts them.
const MOST_CHUNKS: usize = 64;

/// A [`PairsJob`], compiled.
pub(in crate::gpu) struct PairsProgram {
    pub(in crate::gpu::vulkan) program: Program,
    points: usize,
    rows: usize,
    differences: bool,
    signs: bool,
}

impl PairsProgram {
    /// Compiles a job.
    pub(in crate::gpu::vulkan) fn new(gpu: &VulkanDevice, job: &PairsJob) -> Result<Self, GpuError> {
        let mut program = Program::new(job.shape);
        let all: Vec<u32> = (0..words(job.shape.rows)).collect();
        let sent = program.rows(gpu, &all)?;
        let source = program.mixed(gpu, sent, job.mixing.as_ref())?;
        let points = source.rows + 1 + usize::from(job.with_median) + usize::from(job.with_centre);
        let largest = program.output(move |_| points);
        let middle = program.scratch(|tile| 2 * tile.columns);
        program.median(gpu, source, middle)?;
        let panel = program.scratch(move |tile| points * tile.columns);
        let variant =
            variants::centre(source.stored, job.shape.references, job.origin_is_base, job.with_median);
        program.step(
            gpu,
            &variant,
            vec![source.place, Place::Constant(source.chosen), Place::References, middle, panel, largest],
            move |tile| shape(&source, tile, 0),
            move |tile| [words(tile.columns.div_ceil(GROUP).max(1)), words(points)],
        )?;
        program.add_pairs(gpu, panel, points, false)?;
        if job.differences {
            program.add_pairs(gpu, panel, source.rows, true)?;
        }
        if let Some(less_base) = &job.signs {
            program.add_signs(gpu, sent, less_base)?;
        }
        let (differences, signs) = (job.differences, job.signs.is_some());
        Ok(Self { program, points, rows: source.rows, differences, signs })
    }

    /// Turns the outputs of a run into sums.
    pub(in crate::gpu::vulkan) fn read(&self, outputs: &[&[u32]], largest: u32) -> PairSums {
        let mut outputs = outputs.iter();
        let mut next = || outputs.next().copied().unwrap_or_default();
        let floats = |words: &[u32]| words.iter().map(|word| float(*word)).collect();
        PairSums {
            largest_of_point: next().iter().map(|bits| magnitude(*bits)).collect(),
            products: floats(&next()[..self.points * self.points]),
            squares: if self.differences { floats(&next()[..self.rows * self.rows]) } else { Vec::new() },
            signs: if self.signs { next().iter().map(|count| u64::from(*count)).sum() } else { 0 },
            largest: magnitude(largest),
        }
    }

    /// Most columns of a tile of `points` points.
    pub(in crate::gpu::vulkan) fn most_columns(gpu: &VulkanDevice, points: usize) -> usize {
        let chunk = square_of(points, gpu).chunk();
        let chunk_bytes = points * points * size_of::<f32>();
        (gpu.binding_bytes() / chunk_bytes).min(MOST_CHUNKS) * chunk
    }
}

fn square_of(points: usize, gpu: &VulkanDevice) -> Square {
    Square::of(points, gpu.limits.max_compute_workgroup_storage_size)
}

impl Program {
    /// Sums over pairs of the first `points` rows of a panel: squared differences, or products.
    fn add_pairs(
        &mut self,
        gpu: &VulkanDevice,
        panel: Place,
        points: usize,
        differences: bool,
    ) -> Result<(), GpuError> {
        let square = square_of(points, gpu);
        let chunks = move |tile: &TileShape| tile.columns.div_ceil(square.chunk()).max(1);
        let chunk_sums = self.scratch(move |tile| chunks(tile) * points * points);
        let squares = points.div_ceil(square.side * 8);
        self.step(
            gpu,
            &variants::gram(square, differences),
            vec![panel, chunk_sums],
            move |tile| Shape {
                rows: words(points),
                columns: words(tile.columns),
                stride: words(tile.columns),
                parameter: 0,
            },
            move |tile| [words(squares * (squares + 1) / 2), words(chunks(tile))],
        )?;
        let sums = self.output(move |_| points * points);
        self.step(
            gpu,
            &variants::gram_reduce(),
            vec![chunk_sums, sums],
            move |tile| Shape {
                rows: words(chunks(tile)),
                columns: words(points * points),
                stride: 0,
                parameter: 0,
            },
            move |_| column_groups(points * points, GROUP),
        )
    }

    /// Counts the signs of rows less the base.
    fn add_signs(&mut self, gpu: &VulkanDevice, source: Source, less_base: &[bool]) -> Result<(), GpuError> {
        let less_base = self.less_base(gpu, less_base)?;
        let groups = |tile: &TileShape| column_groups(tile.columns, GROUP);
        let counts = self.output(move |tile| groups(tile).iter().product::<u32>() as usize);
        self.step(
            gpu,
            &variants::signs(source.stored, self.shape.references),
            vec![source.place, Place::Constant(source.chosen), Place::References, less_base, counts],
            move |tile| shape(&source, tile, 0),
            groups,
        )
    }
}
