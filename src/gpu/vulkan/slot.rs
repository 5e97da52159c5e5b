//! One slot of the ring: a tile in staging memory, its copy on the device, results.
//!
//! A thread owns a slot: it fills the staging memory, submits, and waits for the results, while the threads of other
//! slots fill theirs. So files are read while the device works, in the memory of a few slots.

use crate::gpu::device::{self, ResidentTile, TileDevice};
use crate::gpu::integers::IntegerSums;
use crate::gpu::job::{Combined, DeviceTime, GpuError, PairSums, TileShape};
use crate::gpu::shape::Shape;
use crate::gpu::vulkan::device::VulkanDevice;
use crate::gpu::vulkan::program::{NoiseProgram, Place, Program, Words};
use crate::gpu::vulkan::stamps::{Moment, Stamps};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use wgpu::BufferUsages;

/// Words of the status in front of the outputs.
const STATUS_WORDS: usize = 4;

/// Host memory that a tile is written to; a run copies it to the device.
#[derive(Default)]
struct Staging {
    memory: Option<wgpu::Buffer>,
    is_mapped: Arc<AtomicBool>,
    /// Whether it holds a tile that is not on the device yet.
    is_fresh: bool,
}

/// Memory for the tiles of one program.
pub(super) struct VulkanSlot<'g> {
    gpu: &'g VulkanDevice,
    shape: TileShape,
    staging: Staging,
    input: ResidentTile,
    scratch: Vec<wgpu::Buffer>,
    outputs: Vec<wgpu::Buffer>,
    status: wgpu::Buffer,
    shapes: Vec<wgpu::Buffer>,
    read_back: wgpu::Buffer,
    stamps: Option<Stamps>,
    time: DeviceTime,
}

impl<'g> VulkanSlot<'g> {
    /// A slot for the tiles of a program.
    pub(super) fn new(gpu: &'g VulkanDevice, program: &Program) -> Result<Self, GpuError> {
        let shape = program.shape;
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let sized = |words: usize| words * size_of::<u32>();
        let output_words: usize = program.outputs.iter().map(|words| words(&shape)).sum();
        let read_back = sized(STATUS_WORDS + output_words) + 8 * program.outputs.len() + 8 + Stamps::BYTES;
        let buffers = |words: &[Words], label, usage| -> Result<Vec<wgpu::Buffer>, GpuError> {
            words.iter().map(|words| gpu.buffer(label, sized(words(&shape)), usage, false)).collect()
        };
        let uniform = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let host = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        Ok(Self {
            staging: Staging::default(),
            input: ResidentTile {
                memory: gpu.buffer("input", 0, storage, false)?,
                tile: TileShape { columns: 0, ..shape },
            },
            scratch: buffers(&program.scratch, "scratch", storage)?,
            outputs: buffers(&program.outputs, "output", storage | BufferUsages::COPY_SRC)?,
            status: gpu.buffer("status", sized(STATUS_WORDS), storage | BufferUsages::COPY_SRC, false)?,
            shapes: program
                .steps
                .iter()
                .map(|_| gpu.buffer("shape", size_of::<Shape>(), uniform, false))
                .collect::<Result<_, _>>()?,
            read_back: gpu.buffer("read back", read_back, host, false)?,
            stamps: if gpu.timestamps { Some(Stamps::new(gpu)?) } else { None },
            time: DeviceTime::default(),
            gpu,
            shape,
        })
    }

    /// The staging memory, mapped.
    fn staging(&mut self) -> Result<wgpu::Buffer, GpuError> {
        if let Some(staging) = &self.staging.memory {
            if !self.staging.is_mapped.load(Ordering::Acquire) {
                self.gpu.check()?;
                return Err(self.gpu.lost(&"staging memory was not handed back"));
            }
            return Ok(staging.clone());
        }
        let bytes = self.shape.bytes();
        let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
        let staging = self.gpu.buffer("staging", bytes, usage, true)?;
        self.staging.is_mapped.store(true, Ordering::Release);
        self.staging.memory = Some(staging.clone());
        self.input.memory = self.input_memory()?;
        Ok(staging)
    }

    /// Device memory for the rows of a whole tile.
    fn input_memory(&self) -> Result<wgpu::Buffer, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        self.gpu.buffer("input", self.shape.bytes(), usage, false)
    }

    /// Fills what a run writes with a pattern: no result may depend on fresh memory.
    fn spoil(&self) -> Result<(), GpuError> {
        for buffer in self.scratch.iter().chain(&self.outputs) {
            self.gpu.spoil(buffer);
        }
        self.gpu.spoil_workgroups()
    }

    /// Submits a run and waits until its results are mapped. Returns the shape of the tile.
    fn run(&mut self, program: &Program, kept: Option<&ResidentTile>) -> Result<TileShape, GpuError> {
        let started = Instant::now();
        self.gpu.begin_run();
        if self.gpu.options.spoils {
            self.spoil()?;
        }
        let uploads = kept.is_none() && std::mem::take(&mut self.staging.is_fresh);
        let tile = kept.map_or(self.input.tile, |input| input.tile);
        let commands = self.encode(program, kept.unwrap_or(&self.input), uploads);
        let submission = self.gpu.queue.submit([commands]);
        let read = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&read);
        self.read_back
            .map_async(wgpu::MapMode::Read, .., move |mapped| flag.store(mapped.is_ok(), Ordering::Release));
        if let Some(staging) = self.staging.memory.as_ref().filter(|_| uploads) {
            let flag = Arc::clone(&self.staging.is_mapped);
            staging.map_async(wgpu::MapMode::Write, .., move |mapped| {
                flag.store(mapped.is_ok(), Ordering::Release)
            });
        }
        let written = Arc::clone(&self.staging.is_mapped);
        let is_done = || read.load(Ordering::Acquire) && (!uploads || written.load(Ordering::Acquire));
        self.gpu.wait(&submission, is_done)?;
        self.time = DeviceTime { waited: started.elapsed(), ..DeviceTime::default() };
        Ok(tile)
    }

    /// The commands of a run: the upload, the kernels, the copy to memory that the host reads.
    fn encode(&self, program: &Program, input: &ResidentTile, uploads: bool) -> wgpu::CommandBuffer {
        let descriptor = wgpu::CommandEncoderDescriptor::default();
        let mut encoder = self.gpu.device.create_command_encoder(&descriptor);
        self.stamp(&mut encoder, Moment::Start);
        if let Some(staging) = self.staging.memory.as_ref().filter(|_| uploads) {
            staging.unmap();
            self.staging.is_mapped.store(false, Ordering::Release);
            let bytes = (self.input.tile.bytes() as u64).next_multiple_of(4);
            encoder.copy_buffer_to_buffer(staging, 0, &self.input.memory, 0, bytes);
        }
        self.stamp(&mut encoder, Moment::Uploaded);
        encoder.clear_buffer(&self.status, 0, None);
        // The first output holds maxima, which start at zero.
        encoder.clear_buffer(&self.outputs[0], 0, None);
        self.dispatch(program, input, &mut encoder);
        self.stamp(&mut encoder, Moment::Computed);
        self.copy_back(program, &input.tile, &mut encoder);
        encoder.finish()
    }

    fn stamp(&self, encoder: &mut wgpu::CommandEncoder, moment: Moment) {
        if let Some(stamps) = &self.stamps {
            stamps.write(encoder, moment);
        }
    }

    fn dispatch(&self, program: &Program, input: &ResidentTile, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for (step, shape) in program.steps.iter().zip(&self.shapes) {
            self.gpu.queue.write_buffer(shape, 0, bytemuck::bytes_of(&(step.shape)(&input.tile)));
            let resources = step.places.iter().map(|place| self.resource(program, input, *place));
            let fixed = [shape.as_entire_binding(), self.status.as_entire_binding()];
            let entries: Vec<wgpu::BindGroupEntry> = (0..)
                .zip(fixed.into_iter().chain(resources))
                .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
                .collect();
            let group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &step.pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            pass.set_pipeline(&step.pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y] = (step.groups)(&input.tile);
            pass.dispatch_workgroups(x, y, 1);
        }
    }

    fn resource<'a>(
        &'a self,
        program: &'a Program,
        input: &'a ResidentTile,
        place: Place,
    ) -> wgpu::BindingResource<'a> {
        let start = input.tile.references_start() as u64;
        let window = |offset, size| {
            let size = wgpu::BufferSize::new(size);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &input.memory, offset, size })
        };
        match place {
            Place::Rows => window(0, start.max(16)),
            // A tile without references needs something to bind; no kernel reads it.
            Place::References if input.tile.references == 0 => self.input.memory.as_entire_binding(),
            Place::References => window(start, input.tile.bytes() as u64 - start),
            Place::Constant(number) => program.constants[number].as_entire_binding(),
            Place::Scratch(number) => self.scratch[number].as_entire_binding(),
            Place::Output(number) => self.outputs[number].as_entire_binding(),
        }
    }

    /// Copies the status, the outputs and the timestamps to memory that the host reads, one behind the other.
    fn copy_back(&self, program: &Program, tile: &TileShape, encoder: &mut wgpu::CommandEncoder) {
        let mut offset = (STATUS_WORDS * size_of::<u32>()) as u64;
        encoder.copy_buffer_to_buffer(&self.status, 0, &self.read_back, 0, offset);
        for (buffer, words) in self.outputs.iter().zip(&program.outputs) {
            let bytes = (words(tile) * size_of::<u32>()) as u64;
            if bytes > 0 {
                encoder.copy_buffer_to_buffer(buffer, 0, &self.read_back, offset, bytes);
            }
            offset += bytes;
        }
        if let Some(stamps) = &self.stamps {
            stamps.copy_to(&self.read_back, offset.next_multiple_of(8), encoder);
        }
    }

    /// Hands the outputs of the last run to `take` if all workgroups finished.
    fn read<T>(
        &mut self,
        program: &Program,
        tile: &TileShape,
        take: impl FnOnce(&[&[u32]], u32) -> T,
    ) -> Result<T, GpuError> {
        let view = self.read_back.get_mapped_range(..).map_err(|why| self.gpu.lost(&why))?;
        let words: &[u32] = bytemuck::cast_slice(&view);
        let (finished, largest) = (words[0], words[1]);
        let mut rest = &words[STATUS_WORDS..];
        let mut outputs = Vec::new();
        for count in &program.outputs {
            let (output, behind) = rest.split_at(count(tile));
            outputs.push(output);
            rest = behind;
        }
        let started = program.groups(tile);
        let found = (finished == started).then(|| take(&outputs, largest));
        if self.stamps.is_some() {
            let start = (words.len() - rest.len()).next_multiple_of(2);
            let stamps = &words[start..][..Stamps::BYTES / size_of::<u32>()];
            Stamps::times(stamps, self.gpu.queue.get_timestamp_period(), &mut self.time);
        }
        drop(view);
        self.read_back.unmap();
        let adapter = self.gpu.adapter.name.clone();
        found.ok_or(GpuError::Unfinished { adapter, finished, started })
    }
}

impl TileDevice for VulkanSlot<'_> {
    fn fill(
        &mut self,
        columns: usize,
        write: &mut dyn FnMut(usize, &mut [u8]) -> bool,
    ) -> Result<(), GpuError> {
        let tile = TileShape { columns, ..self.shape };
        // Until all rows are there the slot is empty: it holds neither half a tile nor the tile before.
        self.staging.is_fresh = false;
        self.input.tile.columns = 0;
        let staging = self.staging()?;
        let mut view = staging
            .get_mapped_range_mut(..(tile.bytes().next_multiple_of(4) as u64))
            .map_err(|why| self.gpu.lost(&why))?;
        let len = view.len();
        // SAFETY: the range is mapped, initialised (wgpu clears it when it is first mapped) and borrowed by `view`
        // alone, which outlives the slice.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(view.slice(..).as_raw_ptr().as_ptr().cast::<u8>(), len) };
        let rows = (0..tile.rows).map(|row| (row * tile.row_bytes(), columns * tile.stored.bytes()));
        let reference_bytes = columns * size_of::<f32>();
        let references = (0..tile.references)
            .map(|number| (tile.references_start() + number * reference_bytes, reference_bytes));
        let mut places = rows.chain(references).enumerate();
        let is_full = places.all(|(row, (start, len))| write(row, &mut bytes[start..start + len]));
        drop(view);
        if is_full {
            self.input.tile = tile;
            self.staging.is_fresh = true;
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<ResidentTile, GpuError> {
        let empty = self.input_memory()?;
        let memory = std::mem::replace(&mut self.input.memory, empty);
        let tile = self.input.tile;
        self.input.tile.columns = 0;
        Ok(ResidentTile { memory, tile })
    }

    fn combine(
        &mut self,
        program: &device::CombineProgram,
        kept: Option<&ResidentTile>,
        merged: &mut Vec<f64>,
    ) -> Result<Combined, GpuError> {
        let job = &program.0;
        let tile = self.run(&job.program, kept)?;
        self.read(&job.program, &tile, |outputs, largest| job.read(&tile, outputs, largest, merged))
    }

    fn pairs(
        &mut self,
        program: &device::PairsProgram,
        kept: Option<&ResidentTile>,
    ) -> Result<PairSums, GpuError> {
        let job = &program.0;
        let tile = self.run(&job.program, kept)?;
        self.read(&job.program, &tile, |outputs, largest| job.read(outputs, largest))
    }

    fn integers(
        &mut self,
        program: &device::IntegersProgram,
        kept: Option<&ResidentTile>,
    ) -> Result<IntegerSums, GpuError> {
        let job = &program.0;
        let tile = self.run(&job.program, kept)?;
        self.read(&job.program, &tile, |outputs, _| job.read(&tile, outputs))
    }

    fn noise(
        &mut self,
        program: &device::NoiseProgram,
        kept: Option<&ResidentTile>,
    ) -> Result<Vec<i64>, GpuError> {
        let program = &program.0.program;
        let tile = self.run(program, kept)?;
        self.read(program, &tile, |outputs, _| NoiseProgram::read(outputs))
    }

    fn time(&self) -> DeviceTime {
        self.time
    }
}
