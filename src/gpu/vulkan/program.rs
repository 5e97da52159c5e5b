//! A job as steps: which kernels run on which buffers, and how their outputs are read.
//!
//! `combine` has the steps of a merge, `pairs` those of a pass over pairs, `order_statistic` those of a median or a
//! mean of some values. `integers` has the step of sums on a grid, `noise` that of their noise.

mod combine;
mod integers;
mod noise;
mod order_statistic;
mod pairs;

use crate::gpu::integers::INTEGER_WORDS;
use crate::gpu::job::{GpuError, TileShape};
use crate::gpu::shaders::Variant;
use crate::gpu::shape::{Shape, words};
use crate::gpu::variants::{self, GROUP, MIXTURES_AT_ONCE};
use crate::gpu::vulkan::device::VulkanDevice;
use crate::model::dtype::Working;
use std::sync::Arc;

pub(in crate::gpu) use {
    combine::CombineProgram, integers::IntegersProgram, noise::NoiseProgram, pairs::PairsProgram,
};

/// The buffer that a binding of a step refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The clients' rows.
    Rows,
    /// The reference rows behind them.
    References,
    /// Data that is the same for all tiles.
    Constant(usize),
    /// The output of one step that another step reads.
    Scratch(usize),
    /// An output that the host reads.
    Output(usize),
}

/// A function of a tile's shape.
type OfTile<T> = Box<dyn Fn(&TileShape) -> T + Send + Sync>;
/// Number of words of a buffer.
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
pub(in crate::gpu) struct Program {
    pub(super) shape: TileShape,
    pub(super) steps: Vec<Step>,
    pub(super) constants: Vec<wgpu::Buffer>,
    pub(super) scratch: Vec<Words>,
    pub(super) outputs: Vec<Words>,
}

/// The rows that a step reads: their buffer, their float, the list of their numbers.
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

impl Program {
    fn new(shape: TileShape) -> Self {
        Self { shape, steps: Vec::new(), constants: Vec::new(), scratch: Vec::new(), outputs: Vec::new() }
    }

    fn constant(&mut self, gpu: &VulkanDevice, label: &str, words: &[u32]) -> Result<usize, GpuError> {
        self.constants.push(gpu.constants(label, words)?);
        Ok(self.constants.len() - 1)
    }

    /// A flag for each row: whether the base is subtracted from it.
    fn less_base(&mut self, gpu: &VulkanDevice, flags: &[bool]) -> Result<Place, GpuError> {
        let words: Vec<u32> = flags.iter().map(|less| u32::from(*less)).collect();
        self.constant(gpu, "less_base", &words).map(Place::Constant)
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
        gpu: &VulkanDevice,
        variant: &Variant,
        places: Vec<Place>,
        shape: impl Fn(&TileShape) -> Shape + Send + Sync + 'static,
        groups: impl Fn(&TileShape) -> [u32; 2] + Send + Sync + 'static,
    ) -> Result<(), GpuError> {
        let pipeline = gpu.pipeline(variant)?;
        self.steps.push(Step { pipeline, places, shape: Box::new(shape), groups: Box::new(groups) });
        Ok(())
    }

    /// The rows of the tile whose numbers are in `chosen`.
    fn rows(&mut self, gpu: &VulkanDevice, chosen: &[u32]) -> Result<Source, GpuError> {
        let rows = self.constant(gpu, "chosen", chosen)?;
        Ok(Source { place: Place::Rows, stored: self.shape.stored, chosen: rows, rows: chosen.len() })
    }

    /// Rows that later steps read: the mixtures of `source`'s rows, or these rows if there is no matrix.
    fn mixed(
        &mut self,
        gpu: &VulkanDevice,
        source: Source,
        matrix: Option<&Vec<Vec<f64>>>,
    ) -> Result<Source, GpuError> {
        let Some(matrix) = matrix else { return Ok(source) };
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

    /// Number of workgroups that run on a tile.
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

/// The integers of words, the low word of each first.
fn integers_of(words: &[u32]) -> Vec<i64> {
    let integer =
        |[low, high]: &[u32; INTEGER_WORDS]| (u64::from(*high) << 32 | u64::from(*low)).cast_signed();
    words.as_chunks().0.iter().map(integer).collect()
}

/// The value of a word that holds an f32.
fn float(word: u32) -> f64 {
    f64::from(f32::from_bits(word))
}

/// The magnitude with these bits; infinite if they are not those of a finite number.
fn magnitude(bits: u32) -> f32 {
    if bits >= f32::INFINITY.to_bits() { f32::INFINITY } else { f32::from_bits(bits) }
}
