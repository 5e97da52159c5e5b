//! Submits a run over flat vectors and reads its outputs.

use super::VulkanDevice;
use crate::gpu::job::GpuError;
use crate::gpu::run::{Buffer, BufferId, Contents, Run, Step};
use crate::gpu::shape::Shape;
use crate::gpu::vulkan::secret::SecretWords;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu::{BufferUsages, CommandEncoder};

/// Words of the status in front of the outputs.
const STATUS_WORDS: usize = 4;

impl VulkanDevice {
    /// Submits a run and waits. Returns the words of each output if all workgroups finished. Overwrites the memory of a
    /// secret run with zeros.
    pub(in crate::gpu::vulkan) fn submit(
        &self,
        run: &Run,
        outputs: &[BufferId],
    ) -> Result<Vec<Vec<u32>>, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let status = self.buffer("status", size_of::<[u32; STATUS_WORDS]>(), usage, false)?;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.clear_buffer(&status, 0, None);
        if self.options.spoils {
            self.spoil_workgroups()?;
        }
        let mut secrets = Vec::new();
        let buffers = run.buffers.iter().map(|buffer| self.run_buffer(buffer, &mut encoder, &mut secrets));
        let buffers: Vec<wgpu::Buffer> = buffers.collect::<Result<_, _>>()?;
        for step in &run.steps {
            self.encode_step(step, &status, &buffers, &mut encoder)?;
        }
        let started = run.steps.iter().map(|step| step.groups[0] * step.groups[1]).sum();
        let outputs = outputs.iter().map(|output| (&buffers[output.0], run.buffers[output.0].words()));
        let words =
            self.read_back(encoder, &status, &outputs.collect::<Vec<_>>(), started, !secrets.is_empty());
        if !secrets.is_empty() {
            self.overwrite(run.buffers.iter().zip(&buffers))?;
        }
        for secret in secrets {
            secret.wipe(self)?;
        }
        words
    }

    /// Overwrites the memory that the steps of a run wrote.
    fn overwrite<'b>(
        &self,
        buffers: impl Iterator<Item = (&'b Buffer<'b>, &'b wgpu::Buffer)>,
    ) -> Result<(), GpuError> {
        let is_written =
            |buffer: &Buffer| matches!(buffer.contents, Contents::Unwritten(_) | Contents::Zeros(_));
        self.finish(|encoder| {
            for (_, memory) in buffers.filter(|(buffer, _)| is_written(buffer)) {
                encoder.clear_buffer(memory, 0, None);
            }
        })
    }

    fn run_buffer(
        &self,
        buffer: &Buffer,
        encoder: &mut CommandEncoder,
        secrets: &mut Vec<SecretWords>,
    ) -> Result<wgpu::Buffer, GpuError> {
        match &buffer.contents {
            Contents::Words(words) => return self.constants(buffer.label, words),
            Contents::Secret(words) => {
                let secret = SecretWords::new(self, buffer.label, words)?;
                let memory = secret.memory().clone();
                secrets.push(secret);
                return Ok(memory);
            }
            Contents::Unwritten(_) | Contents::Zeros(_) => {}
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let memory = self.buffer(buffer.label, buffer.words() * size_of::<u32>(), usage, false)?;
        if self.options.spoils {
            self.spoil(&memory);
        }
        if matches!(buffer.contents, Contents::Zeros(_)) {
            encoder.clear_buffer(&memory, 0, None);
        }
        Ok(memory)
    }

    fn encode_step(
        &self,
        step: &Step,
        status: &wgpu::Buffer,
        buffers: &[wgpu::Buffer],
        encoder: &mut CommandEncoder,
    ) -> Result<(), GpuError> {
        let pipeline = self.pipeline(&step.variant)?;
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let shape = self.buffer("shape", size_of::<Shape>(), usage, false)?;
        self.queue.write_buffer(&shape, 0, bytemuck::bytes_of(&step.shape));
        let bound = step.buffers.iter().map(|buffer| &buffers[buffer.0]);
        let entries: Vec<wgpu::BindGroupEntry> = (0..)
            .zip([&shape, status].into_iter().chain(bound))
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(step.groups[0], step.groups[1], 1);
        Ok(())
    }

    /// Submits the commands and waits. Reads the given number of words of each output if `started` workgroups finished.
    fn read_back(
        &self,
        mut encoder: CommandEncoder,
        status: &wgpu::Buffer,
        outputs: &[(&wgpu::Buffer, usize)],
        started: u32,
        is_secret: bool,
    ) -> Result<Vec<Vec<u32>>, GpuError> {
        self.begin_run();
        let copied = [(status, STATUS_WORDS)].into_iter().chain(outputs.iter().copied());
        let copied: Vec<(&wgpu::Buffer, usize)> = copied.filter(|(_, words)| *words > 0).collect();
        let words: usize = copied.iter().map(|(_, words)| words).sum();
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let results = self.buffer("read back", words * size_of::<u32>(), usage, false)?;
        let mut offset = 0;
        for (buffer, words) in copied {
            let bytes = (words * size_of::<u32>()) as u64;
            encoder.copy_buffer_to_buffer(buffer, 0, &results, offset, bytes);
            offset += bytes;
        }
        let submission = self.queue.submit([encoder.finish()]);
        let is_mapped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_mapped);
        results
            .map_async(wgpu::MapMode::Read, .., move |mapped| flag.store(mapped.is_ok(), Ordering::Release));
        self.wait(&submission, || is_mapped.load(Ordering::Acquire))?;
        let view = results.get_mapped_range(..).map_err(|why| self.lost(&why))?;
        let all: &[u32] = bytemuck::cast_slice(&view);
        let mut rest = &all[STATUS_WORDS..];
        let mut take = |words: usize| {
            let (taken, behind) = rest.split_at(words);
            rest = behind;
            taken.to_vec()
        };
        let found = if all[0] == started {
            Ok(outputs.iter().map(|(_, words)| take(*words)).collect())
        } else {
            let adapter = self.adapter.name.clone();
            Err(GpuError::Unfinished { adapter, finished: all[0], started })
        };
        drop(view);
        results.unmap();
        if is_secret {
            self.finish(|encoder| encoder.clear_buffer(&results, 0, None))?;
        }
        found
    }
}
