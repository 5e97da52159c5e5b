//! An open device as the rest of the program sees it, the same with and without the `gpu` feature.
//!
//! Three traits say what a device does: [`ComputeDevice`] compiles jobs and measures the hardware, [`TileDevice`] runs
//! compiled jobs on tiles, [`VectorDevice`] runs kernels on flat vectors. `vulkan` implements them. Without the feature
//! nothing does, and [`Gpu::open`] fails.

#[cfg(not(feature = "gpu"))]
use crate::gpu::disabled as backend;
use crate::gpu::job::{
    Adapter, CombineJob, Combined, DeviceTime, GpuError, Options, PairSums, PairsJob, TileShape,
};
#[cfg(feature = "gpu")]
use crate::gpu::vulkan as backend;
use crate::kernels::block_quantize::Draw;
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::Scale;
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::select_largest::Search;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Compiles jobs, makes the slots they run in, and measures the hardware. Calls fail when the device fails or has no
/// memory left.
pub trait ComputeDevice: VectorDevice + fmt::Debug + Send + Sync {
    /// The device as its driver describes it.
    fn adapter(&self) -> &Adapter;

    /// The options that the device was opened with.
    fn options(&self) -> &Options;

    /// Destroys the device while it is in use, as a driver crash would. For tests.
    fn lose(&self);

    /// Most bytes that a kernel can bind as one buffer.
    fn binding_bytes(&self) -> usize;

    /// Bytes of device memory in which updates may stay between passes.
    fn resident_bytes(&self) -> u64;

    /// Time from submitting almost no work until the host knows that it is done; the shortest of several runs.
    fn latency(&self) -> Result<Duration, GpuError>;

    /// Bytes per second through the device's memory while it copies. A copied byte counts twice: read and written.
    fn copy_bytes_per_s(&self) -> Result<f64, GpuError>;

    /// Multiply-adds of f32 per second in registers.
    fn multiply_adds_per_s(&self) -> Result<f64, GpuError>;

    /// Compiles a merge. Also fails when the driver refuses a kernel.
    fn compile_combine(&self, job: &CombineJob) -> Result<CombineProgram, GpuError>;

    /// Compiles a pass over pairs. Also fails when the driver refuses a kernel.
    fn compile_pairs(&self, job: &PairsJob) -> Result<PairsProgram, GpuError>;

    /// Most columns of a tile that a pass over pairs of `points` points takes.
    fn pairs_columns(&self, points: usize) -> usize;

    /// Makes a slot with memory for the tiles of a merge.
    fn combine_slot(&self, program: &CombineProgram) -> Result<Box<dyn TileDevice + '_>, GpuError>;

    /// Makes a slot with memory for the tiles of a pass over pairs.
    fn pairs_slot(&self, program: &PairsProgram) -> Result<Box<dyn TileDevice + '_>, GpuError>;
}

/// One place of the ring: takes a tile in, runs a compiled job on it and hands the results back. Calls fail when the
/// device fails or has no memory left.
pub trait TileDevice: Send {
    /// Fills the slot with a tile of `columns` columns. `write` gets the number of each row in turn, the clients' rows
    /// first and then the references, and writes the row's values into the bytes it gets. These bytes may be device
    /// memory: write them in order and do not read them. When `write` returns `false`, the slot stays empty.
    fn fill(
        &mut self,
        columns: usize,
        write: &mut dyn FnMut(usize, &mut [u8]) -> bool,
    ) -> Result<(), GpuError>;

    /// Takes the rows of the last run out of the slot, to stay on the device; the slot gets new memory. When the device
    /// has none left, the rows stay in the slot.
    fn keep(&mut self) -> Result<ResidentTile, GpuError>;

    /// Merges the tile in the slot, or a tile that stayed on the device. Afterwards `merged` has a value per column.
    fn combine(
        &mut self,
        program: &CombineProgram,
        kept: Option<&ResidentTile>,
        merged: &mut Vec<f64>,
    ) -> Result<Combined, GpuError>;

    /// Sums over the pairs of the tile in the slot, or of a tile that stayed on the device.
    fn pairs(&mut self, program: &PairsProgram, kept: Option<&ResidentTile>) -> Result<PairSums, GpuError>;

    /// Times of the last run.
    fn time(&self) -> DeviceTime;
}

/// Runs kernels on flat vectors: sends the input, waits for the output.
///
/// The host computes grids, factors and thresholds in f64. The device finds the codes, indices and integers that the
/// CPU's kernels find, to the bit. Calls fail when the device fails or has no memory left.
pub trait VectorDevice {
    /// The smallest and the largest value of each block of `block` values.
    fn block_ends(&self, values: &[f32], block: usize) -> Result<Vec<[f32; 2]>, GpuError>;

    /// The codes 0 to `top` of values. A block's grid is its start and the inverse of its step, at most 2^76.
    fn quantize(
        &self,
        values: &[f32],
        block: usize,
        grids: &[[f32; 2]],
        top: u8,
        draw: Draw,
    ) -> Result<Vec<u8>, GpuError>;

    /// The codes `-top` to `top` of values, given the inverse of each block's step, at most 2^76.
    fn quantize_symmetric(
        &self,
        values: &[f32],
        block: usize,
        inverses: &[f32],
        top: i8,
        draw: Draw,
    ) -> Result<Vec<i8>, GpuError>;

    /// The values that codes stand for. A block's grid is its start and its step.
    fn dequantize(&self, codes: &[u8], block: usize, grids: &[[f32; 2]]) -> Result<Vec<f32>, GpuError>;

    /// The values that signed codes stand for, given each block's step.
    fn dequantize_symmetric(&self, codes: &[i8], block: usize, steps: &[f32]) -> Result<Vec<f32>, GpuError>;

    /// Flips signs and transforms each block of 4096 values, once for each stream in `flips`. A stream has one bit per
    /// value; the lowest bit of its first word is that of the first value. `values` are whole blocks.
    fn rotate(&self, values: &[f32], flips: &[&[u32]]) -> Result<Vec<f32>, GpuError>;

    /// The codes of values among thresholds, as [`bucketize`](crate::kernels::bucketize::bucketize) defines them. Values
    /// of a block are multiplied by its factor first.
    fn bucketize(
        &self,
        values: &[f32],
        block: usize,
        factors: &[f32],
        thresholds: &[f32],
    ) -> Result<Vec<u8>, GpuError>;

    /// Rotates blocks of 4096 values as [`rotate`](Self::rotate) does; returns the codes of the rotated values, and
    /// these values.
    fn rotate_and_bucketize(
        &self,
        values: &[f32],
        flips: &[&[u32]],
        factors: &[f32],
        thresholds: &[f32],
    ) -> Result<(Vec<u8>, Vec<f32>), GpuError>;

    /// The number of values with each next digit, as [`Search::next_digit`] defines it.
    fn histogram(&self, values: &[f32], digit: [u32; 4]) -> Result<Vec<u64>, GpuError>;

    /// The ascending indices of values above the magnitude with this key, and of the first `ties` values equal to it.
    fn take(&self, values: &[f32], key: u32, ties: u64) -> Result<Vec<u32>, GpuError>;

    /// The ascending indices of the `count` values of largest magnitude, or of all if there are fewer. Among equal
    /// magnitudes the lowest indices win.
    fn select_largest(&self, values: &[f32], count: usize) -> Result<Vec<u32>, GpuError> {
        let count = count.min(values.len());
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut search = Search::new(count as u64);
        while let Some(digit) = search.next_digit() {
            search.narrow(&self.histogram(values, digit)?);
        }
        let Some(last) = search.threshold() else { return Ok(Vec::new()) };
        self.take(values, last.key, last.ties)
    }

    /// The noise of `count` coordinates from `first` on, as [`noise`](crate::kernels::discrete_gaussian::noise) makes
    /// it. The key goes into the device's memory.
    fn noise(&self, stream: Stream, level: Level, first: u64, count: usize) -> Result<Vec<i64>, GpuError>;

    /// Rounds rows to integers, each row at its scale, as [`quantize`](crate::kernels::clip_integers::quantize) does, and
    /// sums each column. `values` holds a row of `columns` values for each scale, one behind the other.
    fn integer_sums(&self, values: &[f32], columns: usize, scales: &[Scale]) -> Result<Vec<i64>, GpuError>;
}

/// An open device. Slots of many threads share it.
#[derive(Debug)]
pub struct Gpu(Box<dyn ComputeDevice>);

impl Gpu {
    /// Opens the device that the options choose.
    ///
    /// # Errors
    ///
    /// When no adapter fits, the driver does not open it, or this build has no GPU support.
    pub fn open(options: &Options) -> Result<Self, GpuError> {
        backend::open(options).map(Self)
    }
}

impl Deref for Gpu {
    type Target = dyn ComputeDevice;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// A [`CombineJob`], compiled.
pub struct CombineProgram(pub(super) backend::CombineProgram);

impl CombineProgram {
    /// Compiles a job.
    ///
    /// # Errors
    ///
    /// When the driver refuses a kernel, or the device has no memory for the job's constants.
    pub fn new(gpu: &Gpu, job: &CombineJob) -> Result<Self, GpuError> {
        gpu.compile_combine(job)
    }
}

/// A [`PairsJob`], compiled.
pub struct PairsProgram(pub(super) backend::PairsProgram);

impl PairsProgram {
    /// Compiles a job.
    ///
    /// # Errors
    ///
    /// When the driver refuses a kernel, or the device has no memory for the job's constants.
    pub fn new(gpu: &Gpu, job: &PairsJob) -> Result<Self, GpuError> {
        gpu.compile_pairs(job)
    }

    /// Most columns of a tile of `points` points.
    pub fn most_columns(gpu: &Gpu, points: usize) -> usize {
        gpu.pairs_columns(points)
    }
}

/// A tile's rows in the device's memory.
pub struct ResidentTile {
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "without a device nothing reads it"))]
    pub(super) memory: backend::Memory,
    pub(super) tile: TileShape,
}

impl ResidentTile {
    /// The shape of the tile.
    pub fn tile(&self) -> &TileShape {
        &self.tile
    }
}

/// One place of the ring, with memory for the tiles of one job. Each slot belongs to one thread.
pub struct RingSlot<'g>(Box<dyn TileDevice + 'g>);

impl<'g> RingSlot<'g> {
    /// A slot for a merge.
    ///
    /// # Errors
    ///
    /// When the device has no memory for it.
    pub fn for_combine(gpu: &'g Gpu, program: &CombineProgram) -> Result<Self, GpuError> {
        gpu.combine_slot(program).map(Self)
    }

    /// A slot for a pass over pairs.
    ///
    /// # Errors
    ///
    /// When the device has no memory for it.
    pub fn for_pairs(gpu: &'g Gpu, program: &PairsProgram) -> Result<Self, GpuError> {
        gpu.pairs_slot(program).map(Self)
    }

    /// Fills the slot as [`TileDevice::fill`] does, with a `write` that may fail.
    ///
    /// # Errors
    ///
    /// Those of `write`, and when the device has no memory.
    pub fn fill<E: From<GpuError>>(
        &mut self,
        columns: usize,
        mut write: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut failure = None;
        let filled = self.0.fill(columns, &mut |row, out| {
            failure = write(row, out).err();
            failure.is_none()
        });
        match failure {
            Some(failure) => Err(failure),
            None => Ok(filled?),
        }
    }
}

impl<'g> Deref for RingSlot<'g> {
    type Target = dyn TileDevice + 'g;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl DerefMut for RingSlot<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0
    }
}
