//! One place of the ring: staging memory that a tile is read into, its copy on the device, and what a run leaves.
//!
//! A thread owns a slot: it fills the staging memory, submits, and waits for the results, while the threads of other
//! slots fill theirs. So files are read while the device works, in memory of a few slots.

use crate::gpu::device::Gpu;
use crate::gpu::job::{Combined, DeviceTime, GpuError, PairSums, TileShape};
use crate::gpu::program::{CombineProgram, PairsProgram, Place, Program, Words};
use crate::gpu::shaders::Variant;
use crate::gpu::variants::GROUP;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wgpu::BufferUsages;

/// Words of the status in front of the outputs.
const STATUS_WORDS: usize = 4;
/// Timestamps of a run: before and after the upload, after the kernels.
const STAMPS: u32 = 3;

/// A tile's rows on the device.
pub struct ResidentTile {
    buffer: wgpu::Buffer,
    tile: TileShape,
}

impl ResidentTile {
    /// The tile.
    pub fn tile(&self) -> &TileShape {
        &self.tile
    }
}

/// One place of the ring, with memory for the tiles of one program.
pub struct RingSlot<'g> {
    gpu: &'g Gpu,
    shape: TileShape,
    staging: Option<wgpu::Buffer>,
    is_staging_mapped: Arc<AtomicBool>,
    input: ResidentTile,
    /// Whether what was filled in is still to be copied to the device.
    is_fresh: bool,
    scratch: Vec<wgpu::Buffer>,
    outputs: Vec<wgpu::Buffer>,
    status: wgpu::Buffer,
    shapes: Vec<wgpu::Buffer>,
    read_back: wgpu::Buffer,
    stamps: Option<Stamps>,
    time: DeviceTime,
}

/// The device's clock.
struct Stamps {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl<'g> RingSlot<'g> {
    /// A slot for a program that merges.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn for_combine(gpu: &'g Gpu, program: &CombineProgram) -> Result<Self, GpuError> {
        Self::new(gpu, &program.program)
    }

    /// A slot for a program that looks at pairs.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn for_pairs(gpu: &'g Gpu, program: &PairsProgram) -> Result<Self, GpuError> {
        Self::new(gpu, &program.program)
    }

    fn new(gpu: &'g Gpu, program: &Program) -> Result<Self, GpuError> {
        let shape = program.shape;
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let sized = |words: usize| words * size_of::<u32>();
        let output_words: usize = program.outputs.iter().map(|words| words(&shape)).sum();
        let stamp_bytes = STAMPS as usize * size_of::<u64>();
        let read_back = sized(STATUS_WORDS + output_words) + 8 * program.outputs.len() + 8 + stamp_bytes;
        let buffers = |words: &[Words], label, usage| {
            words.iter().map(|words| gpu.buffer(label, sized(words(&shape)), usage, false)).collect()
        };
        Ok(Self {
            staging: None,
            is_staging_mapped: Arc::new(AtomicBool::new(false)),
            input: ResidentTile {
                buffer: gpu.buffer("input", 0, storage, false)?,
                tile: TileShape { columns: 0, ..shape },
            },
            is_fresh: false,
            scratch: {
                let scratch: Result<Vec<_>, _> = buffers(&program.scratch, "scratch", storage);
                scratch?
            },
            outputs: {
                let outputs: Result<Vec<_>, _> =
                    buffers(&program.outputs, "output", storage | BufferUsages::COPY_SRC);
                outputs?
            },
            status: gpu.buffer("status", sized(STATUS_WORDS), storage | BufferUsages::COPY_SRC, false)?,
            shapes: program
                .steps
                .iter()
                .map(|_| gpu.buffer("shape", 16, BufferUsages::UNIFORM | BufferUsages::COPY_DST, false))
                .collect::<Result<_, _>>()?,
            read_back: gpu.buffer(
                "read back",
                read_back,
                BufferUsages::MAP_READ | BufferUsages::COPY_DST,
                false,
            )?,
            stamps: if gpu.timestamps { Some(Stamps::new(gpu, stamp_bytes)?) } else { None },
            time: DeviceTime::default(),
            gpu,
            shape,
        })
    }

    /// Fills the slot: `write` is given each row in turn, clients' first, then references, and writes the values of
    /// `columns` columns into it. Memory of the device may be behind it: to be written in order, not read.
    ///
    /// # Errors
    ///
    /// Those of `write`, and when the device has no memory.
    pub fn fill<E: From<GpuError>>(
        &mut self,
        columns: usize,
        mut write: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let tile = TileShape { columns, ..self.shape };
        // Until all rows are there the slot holds nothing: neither half a tile nor the one before.
        self.is_fresh = false;
        self.input.tile.columns = 0;
        let staging = self.staging()?;
        let mut view = staging
            .get_mapped_range_mut(..(tile.bytes().next_multiple_of(4) as u64))
            .map_err(|why| self.gpu.lost(&why))?;
        let bytes = view.len();
        // SAFETY: the range is mapped, initialised (wgpu clears it when it is first mapped) and borrowed by `view`
        // alone, which outlives the slice.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(view.slice(..).as_raw_ptr().as_ptr().cast::<u8>(), bytes)
        };
        for row in 0..tile.rows {
            let start = row * tile.row_bytes();
            write(row, &mut bytes[start..start + columns * tile.stored.bytes()])?;
        }
        for reference in 0..tile.references {
            let start = tile.references_start() + reference * columns * size_of::<f32>();
            write(tile.rows + reference, &mut bytes[start..start + columns * size_of::<f32>()])?;
        }
        drop(view);
        self.input.tile = tile;
        self.is_fresh = true;
        Ok(())
    }

    /// The staging memory, mapped.
    fn staging(&mut self) -> Result<wgpu::Buffer, GpuError> {
        if let Some(staging) = &self.staging {
            if !self.is_staging_mapped.load(Ordering::Acquire) {
                self.gpu.check()?;
                return Err(self.gpu.lost(&"staging memory was not handed back"));
            }
            return Ok(staging.clone());
        }
        let bytes = self.shape.bytes();
        let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
        let staging = self.gpu.buffer("staging", bytes, usage, true)?;
        self.is_staging_mapped.store(true, Ordering::Release);
        self.staging = Some(staging.clone());
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        self.input.buffer = self.gpu.buffer("input", bytes, usage, false)?;
        Ok(staging)
    }

    /// Takes the rows of the last run out of the slot, to stay on the device; memory of their own size is put in their
    /// place.
    ///
    /// # Errors
    ///
    /// When the device has no more memory; the rows stay in the slot then.
    pub fn keep(&mut self) -> Result<ResidentTile, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let empty = self.gpu.buffer("input", self.shape.bytes(), usage, false)?;
        let buffer = std::mem::replace(&mut self.input.buffer, empty);
        let tile = self.input.tile;
        self.input.tile.columns = 0;
        Ok(ResidentTile { buffer, tile })
    }

    /// Merges the tile that was filled in, or one that stayed on the device. `merged` is as long as the tile after.
    ///
    /// # Errors
    ///
    /// When the device fails, or did not do all of it.
    pub fn combine(
        &mut self,
        program: &CombineProgram,
        kept: Option<&ResidentTile>,
        merged: &mut Vec<f64>,
    ) -> Result<Combined, GpuError> {
        let tile = kept.map_or(self.input.tile, |input| input.tile);
        self.run(&program.program, kept)?;
        self.read(&program.program, &tile, |outputs, largest| program.read(&tile, outputs, largest, merged))
    }

    /// Looks at the pairs of the tile that was filled in, or of one that stayed on the device.
    ///
    /// # Errors
    ///
    /// When the device fails, or did not do all of it.
    pub fn pairs(
        &mut self,
        program: &PairsProgram,
        kept: Option<&ResidentTile>,
    ) -> Result<PairSums, GpuError> {
        let tile = kept.map_or(self.input.tile, |input| input.tile);
        self.run(&program.program, kept)?;
        self.read(&program.program, &tile, |outputs, largest| program.read(outputs, largest))
    }

    /// Where the time of the last run went.
    pub fn time(&self) -> DeviceTime {
        self.time
    }

    /// Fills everything that a run writes with a pattern, and workgroup memory with it. For tests: nothing may rely on
    /// fresh memory.
    ///
    /// # Errors
    ///
    /// When the device fails.
    pub fn poison(&self) -> Result<(), GpuError> {
        for buffer in self.scratch.iter().chain(&self.outputs) {
            self.gpu.queue.write_buffer(buffer, 0, &vec![0xa5; usize::try_from(buffer.size()).unwrap_or(0)]);
        }
        self.gpu.spoil_workgroups()
    }

    /// Submits a run and waits for its results to be mapped.
    fn run(&mut self, program: &Program, kept: Option<&ResidentTile>) -> Result<(), GpuError> {
        let started = Instant::now();
        self.gpu.begin_run();
        let device = &self.gpu.device;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.stamp(&mut encoder, 0);
        let uploads = kept.is_none() && std::mem::take(&mut self.is_fresh);
        if let Some(staging) = self.staging.as_ref().filter(|_| uploads) {
            staging.unmap();
            self.is_staging_mapped.store(false, Ordering::Release);
            let bytes = (self.input.tile.bytes() as u64).next_multiple_of(4);
            encoder.copy_buffer_to_buffer(staging, 0, &self.input.buffer, 0, bytes);
        }
        self.stamp(&mut encoder, 1);
        encoder.clear_buffer(&self.status, 0, None);
        // Maxima are kept in the first output.
        encoder.clear_buffer(&self.outputs[0], 0, None);
        let tile = kept.map_or(self.input.tile, |input| input.tile);
        self.dispatch(program, kept.unwrap_or(&self.input), &tile, &mut encoder);
        self.stamp(&mut encoder, 2);
        self.copy_back(program, &tile, &mut encoder);
        let submission = self.gpu.queue.submit([encoder.finish()]);
        let read = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&read);
        self.read_back
            .map_async(wgpu::MapMode::Read, .., move |mapped| flag.store(mapped.is_ok(), Ordering::Release));
        if let Some(staging) = self.staging.as_ref().filter(|_| uploads) {
            let flag = Arc::clone(&self.is_staging_mapped);
            staging.map_async(wgpu::MapMode::Write, .., move |mapped| {
                flag.store(mapped.is_ok(), Ordering::Release)
            });
        }
        let written = Arc::clone(&self.is_staging_mapped);
        let is_done = || read.load(Ordering::Acquire) && (!uploads || written.load(Ordering::Acquire));
        self.gpu.wait(&submission, is_done)?;
        self.time = DeviceTime { waited: started.elapsed(), ..DeviceTime::default() };
        Ok(())
    }

    fn stamp(&self, encoder: &mut wgpu::CommandEncoder, number: u32) {
        if let Some(stamps) = &self.stamps {
            encoder.write_timestamp(&stamps.set, number);
        }
    }

    fn dispatch(
        &self,
        program: &Program,
        input: &ResidentTile,
        tile: &TileShape,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        let device = &self.gpu.device;
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for (step, shape) in program.steps.iter().zip(&self.shapes) {
            self.gpu.queue.write_buffer(shape, 0, bytemuck::bytes_of(&(step.shape)(tile)));
            let resources = step.places.iter().map(|place| self.resource(program, input, *place));
            let fixed = [shape.as_entire_binding(), self.status.as_entire_binding()];
            let entries: Vec<wgpu::BindGroupEntry> = (0..)
                .zip(fixed.into_iter().chain(resources))
                .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
                .collect();
            let layout = step.pipeline.get_bind_group_layout(0);
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &layout,
                entries: &entries,
            });
            pass.set_pipeline(&step.pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y] = (step.groups)(tile);
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
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &input.buffer, offset, size })
        };
        match place {
            Place::Rows => window(0, start.max(16)),
            Place::References if input.tile.references == 0 => self.status_stand_in(),
            Place::References => window(start, input.tile.bytes() as u64 - start),
            Place::Constant(number) => program.constants[number].as_entire_binding(),
            Place::Scratch(number) => self.scratch[number].as_entire_binding(),
            Place::Output(number) => self.outputs[number].as_entire_binding(),
        }
    }

    /// Something to bind where a tile has no references; nothing reads it.
    fn status_stand_in(&self) -> wgpu::BindingResource<'_> {
        self.input.buffer.as_entire_binding()
    }

    /// The status, the outputs and the timestamps, one behind the other.
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
            let bytes = u64::from(STAMPS) * size_of::<u64>() as u64;
            encoder.resolve_query_set(&stamps.set, 0..STAMPS, &stamps.resolved, 0);
            encoder.copy_buffer_to_buffer(
                &stamps.resolved,
                0,
                &self.read_back,
                offset.next_multiple_of(8),
                bytes,
            );
        }
    }

    /// Hands the outputs of the last run to `take`, if all workgroups finished.
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
        let place = (words.len() - rest.len()).next_multiple_of(2);
        let stamps: Vec<u64> = words[place..][..2 * STAMPS as usize]
            .chunks(2)
            .map(|half| u64::from(half[0]) | u64::from(half[1]) << 32)
            .collect();
        drop(view);
        self.read_back.unmap();
        if self.stamps.is_some() {
            let period = f64::from(self.gpu.queue.get_timestamp_period());
            let between = |from: usize, to: usize| {
                Duration::from_nanos((stamps[to].saturating_sub(stamps[from]) as f64 * period) as u64)
            };
            (self.time.upload, self.time.kernels) = (Some(between(0, 1)), Some(between(1, 2)));
        }
        let adapter = self.gpu.adapter().name.clone();
        found.ok_or(GpuError::Unfinished { adapter, finished, started })
    }
}

impl Gpu {
    /// Fills workgroup memory with a pattern. For tests.
    pub(super) fn spoil_workgroups(&self) -> Result<(), GpuError> {
        let pipeline = self.pipeline(&Variant::new("poison", &[]))?;
        let seen = self.constants("seen", &[0; GROUP])?;
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: seen.as_entire_binding() }],
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        // More workgroups than any device runs at once.
        pass.dispatch_workgroups(1024, 1, 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
        Ok(())
    }
}

impl Stamps {
    fn new(gpu: &Gpu, bytes: usize) -> Result<Self, GpuError> {
        let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("stamps"),
            ty: wgpu::QueryType::Timestamp,
            count: STAMPS,
        });
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        Ok(Self { set, resolved: gpu.buffer("stamps", bytes, usage, false)? })
    }
}
