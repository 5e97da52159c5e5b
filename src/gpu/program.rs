//! A job turned into steps: which kernels run over which buffers, and how what they leave is read.

mod order_statistic;
mod server_step;

use crate::gpu::device::Gpu;
use crate::gpu::job::{CombineJob, Combined, GpuError, PairSums, PairsJob, Reduction, TileShape};
use crate::gpu::shaders::Variant;
use crate::gpu::variants::{
    self, GROUP, MEAN_NEAR_MEDIAN, MIXTURES_AT_ONCE, NORM_CHUNK, Square, TRIMMED_MEAN,
};
use crate::kernels::element::Merged;
use crate::model::dtype::Working;
use std::sync::Arc;

/// What every kernel is told of its tile; `Shape` of `shaders/shared/shape.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Shape {
    /// Rows that the kernel takes.
    pub rows: u32,
    /// Columns of the tile.
    pub columns: u32,
    /// Words from one row to the next.
    pub stride: u32,
    /// What the kernel says it is.
    pub parameter: u32,
}

/// Where a binding of a step lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The clients' rows.
    Rows,
    /// The rows behind them.
    References,
    /// Data that is the same for all tiles.
    Constant(usize),
    /// What one step leaves to another.
    Scratch(usize),
    /// What the host reads.
    Output(usize),
}

/// What follows from a tile's shape.
type OfTile<T> = Box<dyn Fn(&TileShape) -> T + Send + Sync>;
/// Words of a buffer.
pub(super) type Words = OfTile<usize>;

/// One dispatch.
pub(super) struct Step {
    pub(super) pipeline: Arc<wgpu::ComputePipeline>,
    /// Bindings from 2 on; 0 is the shape, 1 the status.
    pub(super) places: Vec<Place>,
    pub(super) shape: OfTile<Shape>,
    pub(super) groups: OfTile<[u32; 2]>,
}

/// The steps of a job and the memory they need.
pub(super) struct Program {
    pub(super) shape: TileShape,
    pub(super) steps: Vec<Step>,
    pub(super) constants: Vec<wgpu::Buffer>,
    pub(super) scratch: Vec<Words>,
    pub(super) outputs: Vec<Words>,
}

/// Rows that a step takes: where they lie, as what, and which.
#[derive(Clone, Copy)]
struct Source {
    place: Place,
    stored: Working,
    chosen: usize,
    rows: usize,
}

impl Source {
    fn stride(&self, tile: &TileShape) -> u32 {
        match self.place {
            Place::Rows => words(tile.row_bytes() / 4),
            _ => words(tile.columns),
        }
    }
}

/// A number of rows, columns or words as shaders hold it. Tiles are cut so that it fits.
pub(super) fn words(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Most workgroups in one dimension.
const MOST_GROUPS: u32 = 65_535;

/// Workgroups of `size` columns each.
pub(super) fn column_groups(columns: usize, size: usize) -> [u32; 2] {
    let groups = words(columns.div_ceil(size).max(1));
    [groups.min(MOST_GROUPS), groups.div_ceil(MOST_GROUPS)]
}

impl Program {
    fn new(shape: TileShape) -> Self {
        Self { shape, steps: Vec::new(), constants: Vec::new(), scratch: Vec::new(), outputs: Vec::new() }
    }

    fn constant(&mut self, gpu: &Gpu, label: &str, words: &[u32]) -> Result<usize, GpuError> {
        self.constants.push(gpu.constants(label, words)?);
        Ok(self.constants.len() - 1)
    }

    fn scratch(&mut self, words: impl Fn(&TileShape) -> usize + Send + Sync + 'static) -> Place {
        self.scratch.push(Box::new(words));
        Place::Scratch(self.scratch.len() - 1)
    }

    fn output(&mut self, words: impl Fn(&TileShape) -> usize + Send + Sync + 'static) -> Place {
        self.outputs.push(Box::new(words));
        Place::Output(self.outputs.len() - 1)
    }

    fn step(
        &mut self,
        gpu: &Gpu,
        variant: &Variant,
        places: Vec<Place>,
        shape: impl Fn(&TileShape) -> Shape + Send + Sync + 'static,
        groups: impl Fn(&TileShape) -> [u32; 2] + Send + Sync + 'static,
    ) -> Result<(), GpuError> {
        let pipeline = gpu.pipeline(variant)?;
        self.steps.push(Step { pipeline, places, shape: Box::new(shape), groups: Box::new(groups) });
        Ok(())
    }

    /// The rows of the tile of which `chosen` are taken.
    fn rows(&mut self, gpu: &Gpu, chosen: &[u32]) -> Result<Source, GpuError> {
        let rows = self.constant(gpu, "chosen", chosen)?;
        Ok(Source { place: Place::Rows, stored: self.shape.stored, chosen: rows, rows: chosen.len() })
    }

    /// Mixes rows; the mixtures are rows to the steps behind.
    fn mix(&mut self, gpu: &Gpu, source: Source, matrix: &[Vec<f64>]) -> Result<Source, GpuError> {
        let coefficients: Vec<u32> = matrix.iter().flatten().map(|x| (*x as f32).to_bits()).collect();
        let coefficients = self.constant(gpu, "coefficients", &coefficients)?;
        let all: Vec<u32> = (0..words(matrix.len())).collect();
        let (chosen, mixtures) = (self.constant(gpu, "chosen", &all)?, matrix.len());
        let place = self.scratch(move |tile| mixtures * tile.columns);
        let variant = variants::mixing(source.stored, self.shape.references);
        let places = vec![
            source.place,
            Place::Constant(source.chosen),
            Place::References,
            Place::Constant(coefficients),
            place,
        ];
        let groups = move |tile: &TileShape| {
            [words(tile.columns.div_ceil(GROUP).max(1)), words(mixtures.div_ceil(MIXTURES_AT_ONCE))]
        };
        self.step(gpu, &variant, places, move |tile| shape(&source, tile, mixtures), groups)?;
        Ok(Source { place, stored: Working::F32, chosen, rows: mixtures })
    }

    /// How many workgroups run over a tile.
    pub(super) fn groups(&self, tile: &TileShape) -> u32 {
        self.steps.iter().map(|step| (step.groups)(tile)).map(|[x, y]| x * y).sum()
    }
}

fn shape(source: &Source, tile: &TileShape, parameter: usize) -> Shape {
    Shape {
        rows: words(source.rows),
        columns: words(tile.columns),
        stride: source.stride(tile),
        parameter: words(parameter),
    }
}

fn float(word: u32) -> f64 {
    f64::from(f32::from_bits(word))
}

/// A [`CombineJob`], compiled.
pub struct CombineProgram {
    pub(super) program: Program,
    reduction: Reduction,
    rows: usize,
    /// What a weighted sum was scaled down by.
    scale: f64,
    norms: Option<usize>,
    /// Rows that the server's step leaves.
    stepped: usize,
}

impl CombineProgram {
    /// Compiles a job.
    ///
    /// # Errors
    ///
    /// When the driver refuses a kernel, or there is no memory for its constants.
    pub fn new(gpu: &Gpu, job: &CombineJob) -> Result<Self, GpuError> {
        let mut program = Program::new(job.shape);
        let sent = program.rows(gpu, &job.chosen)?;
        let source = match &job.mixing {
            Some(matrix) => program.mix(gpu, sent, matrix)?,
            None => sent,
        };
        let mut scale = 1.0;
        match job.reduction {
            Reduction::WeightedSum => {
                let total: f64 = job.weights.iter().map(|weight| weight.abs()).sum();
                // A power of two: example counts stay exact, and no sum is larger than the largest value.
                scale = if total > 0.0 { total.log2().ceil().exp2() } else { 1.0 };
                let weights: Vec<u32> =
                    job.weights.iter().map(|weight| ((weight / scale) as f32).to_bits()).collect();
                let weights = program.constant(gpu, "weights", &weights)?;
                let sums = program.output(|tile| tile.columns);
                let variant = variants::weighted_sum(source.stored);
                let places =
                    vec![source.place, Place::Constant(source.chosen), Place::Constant(weights), sums];
                program.step(
                    gpu,
                    &variant,
                    places,
                    move |tile| shape(&source, tile, 0),
                    |tile| column_groups(tile.columns, GROUP),
                )?;
            }
            Reduction::Median => {
                let middle = program.output(|tile| 2 * tile.columns);
                program.median(gpu, source, middle)?;
            }
            Reduction::TrimmedMean { cut } => {
                let sums = program.output(|tile| tile.columns);
                program.order_statistic(gpu, &TRIMMED_MEAN, source, sums, cut)?;
            }
            Reduction::MeanNearMedian { kept } => {
                let sums = program.output(|tile| tile.columns);
                program.order_statistic(gpu, &MEAN_NEAR_MEDIAN, source, sums, kept)?;
            }
        }
        let norms = match &job.norms {
            Some(less_base) => Some(program.add_norms(gpu, sent, less_base)?),
            None => None,
        };
        let (reduction, rows) = (job.reduction, source.rows);
        let mut made = Self { program, reduction, rows, scale, norms, stepped: 0 };
        if let Some(step) = &job.step {
            made.stepped = made.add_step(gpu, step)?;
        }
        Ok(made)
    }

    /// Turns what a run left into merged values.
    pub(super) fn read(
        &self,
        tile: &TileShape,
        outputs: &[&[u32]],
        largest: u32,
        merged: &mut Vec<f64>,
    ) -> Combined {
        let found = outputs[0];
        merged.clear();
        match self.reduction {
            Reduction::WeightedSum => merged.extend(found.iter().map(|sum| float(*sum) * self.scale)),
            Reduction::Median => {
                let (lower, upper) = found.split_at(tile.columns);
                let midpoint =
                    |(a, b): (&u32, &u32)| <f64 as Merged>::midpoint(f32::from_bits(*a), f32::from_bits(*b));
                merged.extend(lower.iter().zip(upper).map(midpoint));
            }
            Reduction::TrimmedMean { cut } => {
                merged.extend(found.iter().map(|sum| float(*sum) / (self.rows - 2 * cut) as f64));
            }
            Reduction::MeanNearMedian { kept } => {
                merged.extend(found.iter().map(|sum| float(*sum) / kept as f64));
            }
        }
        let norms = self.norms.map(|rows| {
            let chunks = tile.columns.div_ceil(NORM_CHUNK).max(1);
            let row = |row: &[u32]| row.iter().map(|sum| float(*sum)).sum();
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
}

/// The magnitude of these bits; infinite if they are not those of a finite number.
fn magnitude(bits: u32) -> f32 {
    if bits >= f32::INFINITY.to_bits() { f32::INFINITY } else { f32::from_bits(bits) }
}

impl Program {
    /// Squared norms of rows; returns of how many.
    fn add_norms(&mut self, gpu: &Gpu, source: Source, less_base: &[bool]) -> Result<usize, GpuError> {
        let less_base: Vec<u32> = less_base.iter().map(|less| u32::from(*less)).collect();
        let less_base = self.constant(gpu, "less_base", &less_base)?;
        let rows = source.rows;
        let sums = self.output(move |tile| rows * tile.columns.div_ceil(NORM_CHUNK));
        let variant = variants::norms(source.stored, self.shape.references);
        let places = vec![
            source.place,
            Place::Constant(source.chosen),
            Place::References,
            Place::Constant(less_base),
            sums,
        ];
        let chunks = |tile: &TileShape| tile.columns.div_ceil(NORM_CHUNK).max(1);
        self.step(
            gpu,
            &variant,
            places,
            move |tile| shape(&source, tile, chunks(tile)),
            move |tile| [words(chunks(tile)), words(rows)],
        )?;
        Ok(rows)
    }
}

fn square_of(points: usize, gpu: &Gpu) -> Square {
    Square::of(points, gpu.limits.max_compute_workgroup_storage_size)
}

/// Chunks of a tile, whose sums are added in f32: the bound counts on it.
const MOST_CHUNKS: usize = 64;

/// A [`PairsJob`], compiled.
pub struct PairsProgram {
    pub(super) program: Program,
    points: usize,
    rows: usize,
    differences: bool,
    signs: bool,
}

impl PairsProgram {
    /// Compiles a job.
    ///
    /// # Errors
    ///
    /// When the driver refuses a kernel, or there is no memory for its constants.
    pub fn new(gpu: &Gpu, job: &PairsJob) -> Result<Self, GpuError> {
        let mut program = Program::new(job.shape);
        let all: Vec<u32> = (0..words(job.shape.rows)).collect();
        let sent = program.rows(gpu, &all)?;
        let source = match &job.mixing {
            Some(matrix) => program.mix(gpu, sent, matrix)?,
            None => sent,
        };
        let points = source.rows + 1 + usize::from(job.with_median) + usize::from(job.with_centre);
        let largest = program.output(move |_| points);
        let middle = program.scratch(|tile| 2 * tile.columns);
        program.median(gpu, source, middle)?;
        let panel = program.scratch(move |tile| points * tile.columns);
        let variant =
            variants::centre(source.stored, job.shape.references, job.origin_is_base, job.with_median);
        let places =
            vec![source.place, Place::Constant(source.chosen), Place::References, middle, panel, largest];
        program.step(
            gpu,
            &variant,
            places,
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
        Ok(Self {
            program,
            points,
            rows: source.rows,
            differences: job.differences,
            signs: job.signs.is_some(),
        })
    }

    /// Turns what a run left into sums.
    pub(super) fn read(&self, outputs: &[&[u32]], largest: u32) -> PairSums {
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

    /// The most columns of a tile of so many points.
    pub fn most_columns(gpu: &Gpu, points: usize) -> usize {
        let chunk = square_of(points, gpu).chunk();
        let chunk_bytes = points * points * size_of::<f32>();
        (gpu.binding_bytes() / chunk_bytes).min(MOST_CHUNKS) * chunk
    }
}

impl Program {
    /// Sums over pairs of the first `points` rows of a panel.
    fn add_pairs(
        &mut self,
        gpu: &Gpu,
        panel: Place,
        points: usize,
        differences: bool,
    ) -> Result<(), GpuError> {
        let square = square_of(points, gpu);
        let chunks = move |tile: &TileShape| tile.columns.div_ceil(square.chunk()).max(1);
        let chunk_sums = self.scratch(move |tile| chunks(tile) * points * points);
        let variant = variants::gram(square, differences);
        let squares = points.div_ceil(square.side * 8);
        self.step(
            gpu,
            &variant,
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

    /// Counts signs of rows less the base.
    fn add_signs(&mut self, gpu: &Gpu, source: Source, less_base: &[bool]) -> Result<(), GpuError> {
        let less_base: Vec<u32> = less_base.iter().map(|less| u32::from(*less)).collect();
        let less_base = self.constant(gpu, "less_base", &less_base)?;
        let groups = |tile: &TileShape| column_groups(tile.columns, GROUP);
        let counts = self.output(move |tile| groups(tile).iter().product::<u32>() as usize);
        let variant = variants::signs(source.stored, self.shape.references);
        let places = vec![
            source.place,
            Place::Constant(source.chosen),
            Place::References,
            Place::Constant(less_base),
            counts,
        ];
        self.step(gpu, &variant, places, move |tile| shape(&source, tile, 0), groups)
    }
}
