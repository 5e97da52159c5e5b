//! A run over flat vectors: steps that are submitted together, and their outputs.

use crate::gpu::job::GpuError;
use crate::gpu::shaders::Variant;
use crate::gpu::shape::Shape;
use crate::gpu::vulkan::VulkanDevice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu::{Buffer, BufferUsages};

/// Words of the status in front of the outputs.
const STATUS_WORDS: usize = 4;

/// A run to which steps are added until it is submitted.
pub(super) struct Run<'g> {
    gpu: &'g VulkanDevice,
    encoder: wgpu::CommandEncoder,
    status: Buffer,
    started: u32,
}

impl<'g> Run<'g> {
    /// A run without steps.
    pub(super) fn new(gpu: &'g VulkanDevice) -> Result<Self, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let status = gpu.buffer("status", size_of::<[u32; STATUS_WORDS]>(), usage, false)?;
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.clear_buffer(&status, 0, None);
        if gpu.options.spoils {
            gpu.spoil_workgroups()?;
        }
        Ok(Self { gpu, encoder, status, started: 0 })
    }

    /// Memory that holds these words, for steps to read.
    pub(super) fn input(&self, label: &str, words: &[u32]) -> Result<Buffer, GpuError> {
        self.gpu.constants(label, words)
    }

    /// Memory for words, every one of which a step writes.
    pub(super) fn output(&self, label: &str, words: usize) -> Result<Buffer, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let buffer = self.gpu.buffer(label, words * size_of::<u32>(), usage, false)?;
        if self.gpu.options.spoils {
            self.gpu.spoil(&buffer);
        }
        Ok(buffer)
    }

    /// Memory for words that start at zero, for steps to add to.
    pub(super) fn zeros(&mut self, label: &str, words: usize) -> Result<Buffer, GpuError> {
        let buffer = self.output(label, words)?;
        self.encoder.clear_buffer(&buffer, 0, None);
        Ok(buffer)
    }

    /// Adds a step. The buffers are the bindings of its kernel from 2 on.
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
        let sent = self.gpu.buffer("shape", size_of::<Shape>(), usage, false)?;
        self.gpu.queue.write_buffer(&sent, 0, bytemuck::bytes_of(&shape));
        let all = [&sent, &self.status].into_iter().chain(buffers.iter().copied());
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

    /// Submits the run and waits. Returns the first words of each buffer if all workgroups finished.
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
            let adapter = self.gpu.adapter.name.clone();
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
