//! An open device as the rest of the program sees it, the same with and without the `gpu` feature.
//!
//! Two traits say what a device does: [`ComputeDevice`] compiles jobs, runs kernels on flat vectors and measures the
//! hardware; [`TileDevice`] runs compiled jobs on tiles. `vulkan` implements them. Without the feature nothing does,
//! and [`Gpu::open`] fails. `codecs`, `selection`, `private` and `secure` state the runs over flat vectors as
//! data.

pub(super) mod codecs;
pub(super) mod private;
pub(super) mod secure;
pub(super) mod selection;

#[cfg(not(feature = "gpu"))]
use crate::gpu::disabled as backend;
use crate::gpu::integers::{INTEGER_WORDS, IntegerSums, IntegersJob, NOISE_HEAD, NoiseJob};
use crate::gpu::job::{
    Adapter, CombineJob, Combined, DeviceTime, GpuError, Options, PairSums, PairsJob, TileShape,
};
use crate::gpu::run::{BufferId, Run};
use crate::gpu::shape::words;
#[cfg(feature = "gpu")]
use crate::gpu::vulkan as backend;
use crate::kernels::discrete_gaussian::Level;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::time::Duration;

/// Compiles jobs, makes the slots they run in, and measures the hardware. Calls fail when the device fails or has no
/// memory left.
pub trait ComputeDevice: fmt::Debug + Send + Sync {
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

    /// Compiles sums of integers. Also fails when the driver refuses a kernel.
    fn compile_integers(&self, job: &IntegersJob) -> Result<IntegersProgram, GpuError>;

    /// Compiles noise and sends its keys to the device. Also fails when the driver refuses a kernel.
    fn compile_noise(&self, job: &NoiseJob) -> Result<NoiseProgram, GpuError>;

    /// The words of the keys in the device's memory: all zeros after [`wipe`](Self::wipe).
    fn keys(&self, program: &NoiseProgram) -> Result<Vec<u32>, GpuError>;

    /// Overwrites the keys in the device's memory with zeros, and reads them back to check that.
    fn wipe(&self, program: &NoiseProgram) -> Result<(), GpuError>;

    /// Most columns of a tile that a pass over pairs of `points` points takes.
    fn pairs_columns(&self, points: usize) -> usize;

    /// Runs kernels on flat vectors: sends the input, waits, and returns the words of each output.
    fn run(&self, run: &Run, outputs: &[BufferId]) -> Result<Vec<Vec<u32>>, GpuError>;

    /// Makes a slot with memory for the tiles of a merge.
    fn combine_slot(&self, program: &CombineProgram) -> Result<Box<dyn TileDevice + '_>, GpuError>;

    /// Makes a slot with memory for the tiles of a pass over pairs.
    fn pairs_slot(&self, program: &PairsProgram) -> Result<Box<dyn TileDevice + '_>, GpuError>;

    /// Makes a slot with memory for the tiles of sums of integers.
    fn integers_slot(&self, program: &IntegersProgram) -> Result<Box<dyn TileDevice + '_>, GpuError>;

    /// Makes a slot with memory for integers that get noise.
    fn noise_slot(&self, program: &NoiseProgram) -> Result<Box<dyn TileDevice + '_>, GpuError>;
}

/// One slot of the ring: takes a tile in, runs a compiled job on it and returns the results. Calls fail when the device
/// fails or has no memory left.
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

    /// Adds up the integers of the tile in the slot, or of a tile that stayed on the device.
    fn integers(
        &mut self,
        program: &IntegersProgram,
        kept: Option<&ResidentTile>,
    ) -> Result<IntegerSums, GpuError>;

    /// The integers in the slot plus their noise; or integers that stayed on the device.
    fn noise(&mut self, program: &NoiseProgram, kept: Option<&ResidentTile>) -> Result<Vec<i64>, GpuError>;

    /// Times of the last run.
    fn time(&self) -> DeviceTime;
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

/// An [`IntegersJob`], compiled.
pub struct IntegersProgram(pub(super) backend::IntegersProgram);

/// A [`NoiseJob`], compiled. Its keys leave the device's memory when it is dropped, or by [`ComputeDevice::wipe`].
pub struct NoiseProgram(pub(super) backend::NoiseProgram);

/// A tile's rows in the device's memory.
#[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "without a device nothing reads it"))]
pub struct ResidentTile {
    pub(super) memory: backend::Memory,
    pub(super) tile: TileShape,
}

/// One slot of the ring, with memory for the tiles of one job. Each slot belongs to one thread.
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

    /// A slot for sums of integers.
    ///
    /// # Errors
    ///
    /// When the device has no memory for it.
    pub fn for_integers(gpu: &'g Gpu, program: &IntegersProgram) -> Result<Self, GpuError> {
        gpu.integers_slot(program).map(Self)
    }

    /// A slot for integers that get noise.
    ///
    /// # Errors
    ///
    /// When the device has no memory for it.
    pub fn for_noise(gpu: &'g Gpu, program: &NoiseProgram) -> Result<Self, GpuError> {
        gpu.noise_slot(program).map(Self)
    }

    /// Fills the slot with integers, the number of the first one's coordinate, and the numbers of the streams of the
    /// job that make the noise.
    ///
    /// # Errors
    ///
    /// When the device has no memory.
    pub fn fill_integers(
        &mut self,
        level: Level,
        first: u64,
        streams: Range<usize>,
        integers: &[i64],
    ) -> Result<(), GpuError> {
        let block = first.wrapping_mul(level.blocks() as u64);
        let streams = [words(streams.start), words(streams.end)];
        self.fill(INTEGER_WORDS * (NOISE_HEAD + integers.len()), |_, out| {
            let (head, rest) = out.split_at_mut(NOISE_HEAD * size_of::<i64>());
            let (number, range) = head.split_at_mut(size_of::<i64>());
            number.copy_from_slice(&block.to_ne_bytes());
            range.copy_from_slice(bytemuck::cast_slice(&streams));
            rest.copy_from_slice(bytemuck::cast_slice(integers));
            Ok(())
        })
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
