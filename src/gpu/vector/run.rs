//! Steps over buffers that are submitted together, and what they leave.

use crate::gpu::device::Gpu;
use crate::gpu::job::GpuError;
use crate::gpu::program::Shape;
use crate::gpu::shaders::Variant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu::{Buffer, BufferUsages};

/// Words of the status in front of the outputs.
const STATUS_WORDS: usize = 4;

/// A run that is being put together.
pub(super) struct Run<'g> {
    gpu: &'g Gpu,
    spoils: bool,
    encoder: wgpu::CommandEncoder,
    status: Buffer,
    started: u32,
}

impl<'g> Run<'g> {
    /// A run; with outputs and workgroup memory filled with a pattern before it, if it `spoils` them.
    pub(super) fn new(gpu: &'g Gpu, spoils: bool) -> Result<Self, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let status = gpu.buffer("status", size_of::<[u32; STATUS_WORDS]>(), usage, false)?;
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.clear_buffer(&status, 0, None);
        if spoils {
            gpu.spoil_workgroups()?;
        }
        Ok(Self { gpu, spoils, encoder, status, started: 0 })
    }

    /// Words that steps read.
    pub(super) fn input(&self, label: &str, words: &[u32]) -> Result<Buffer, GpuError> {
        self.gpu.constants(label, words)
    }

    /// Room for words that a step writes, every one of them.
    pub(super) fn output(&self, label: &str, words: usize) -> Result<Buffer, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let buffer = self.gpu.buffer(label, words * size_of::<u32>(), usage, false)?;
        if self.spoils {
            self.gpu.queue.write_buffer(&buffer, 0, &vec![0xa5; words * size_of::<u32>()]);
        }
        Ok(buffer)
    }

    /// Room for words that a step adds to.
    pub(super) fn zeros(&mut self, label: &str, words: usize) -> Result<Buffer, GpuError> {
        let buffer = self.output(label, words)?;
        self.encoder.clear_buffer(&buffer, 0, None);
        Ok(buffer)
    }

    /// A kernel over these buffers, which are its bindings from the second on, behind the steps before.
    pub(super) fn step(
        &mut self,
        variant: &Variant,
        shape: Shape,
        buffers: &[&Buffer],
        groups: [u32; 2],
    ) -> Result<(), GpuError> {
        let device = &self.gpu.device;
        let pipeline = self.gpu.pipeline(variant)?;
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let told = self.gpu.buffer("shape", size_of::<Shape>(), usage, false)?;
        self.gpu.queue.write_buffer(&told, 0, bytemuck::bytes_of(&shape));
        let all = [&told, &self.status].into_iter().chain(buffers.iter().copied());
        let entries: Vec<wgpu::BindGroupEntry> = (0..)
            .zip(all)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut pass = self.encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups[0], groups[1], 1);
        self.started += groups[0] * groups[1];
        Ok(())
    }

    /// Submits all of it and waits; the first words of each of the buffers, if all workgroups finished.
    pub(super) fn read(mut self, outputs: &[(&Buffer, usize)]) -> Result<Vec<Vec<u32>>, GpuError> {
        self.gpu.begin_run();
        let mut wanted = vec![(&self.status, STATUS_WORDS)];
        wanted.extend(outputs.iter().filter(|(_, words)| *words > 0));
        let words: usize = wanted.iter().map(|(_, words)| words).sum();
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let left = self.gpu.buffer("read back", words * size_of::<u32>(), usage, false)?;
        let mut offset = 0;
        for (buffer, words) in wanted {
            let bytes = (words * size_of::<u32>()) as u64;
            self.encoder.copy_buffer_to_buffer(buffer, 0, &left, offset, bytes);
            offset += bytes;
        }
        let submission = self.gpu.queue.submit([self.encoder.finish()]);
        let is_mapped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_mapped);
        left.map_async(wgpu::MapMode::Read, .., move |mapped| flag.store(mapped.is_ok(), Ordering::Release));
        self.gpu.wait(&submission, || is_mapped.load(Ordering::Acquire))?;
        let view = left.get_mapped_range(..).map_err(|why| self.gpu.lost(&why))?;
        let all: &[u32] = bytemuck::cast_slice(&view);
        if all[0] != self.started {
            let adapter = self.gpu.adapter().name.clone();
            return Err(GpuError::Unfinished { adapter, finished: all[0], started: self.started });
        }
        let mut rest = &all[STATUS_WORDS..];
        let mut take = |words: usize| {
            let (taken, behind) = rest.split_at(words);
            rest = behind;
            taken.to_vec()
        };
        Ok(outputs.iter().map(|(_, words)| take(*words)).collect())
    }
}
