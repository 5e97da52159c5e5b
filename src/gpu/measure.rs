//! What a device can do at most: how fast it copies its own memory, how many multiply-adds it does, and how long it
//! takes to do nothing. What kernels are measured against.

use crate::gpu::device::Gpu;
use crate::gpu::job::GpuError;
use crate::gpu::shaders::Variant;
use std::time::{Duration, Instant};
use wgpu::BufferUsages;

/// A measurement takes at least so long, so that starting it does not count.
const LEAST_DURATION: Duration = Duration::from_millis(60);

/// The most that a measurement is repeated: a device for which that is too short has no clock to speak of.
const MOST_REPEATS: u32 = 1 << 16;

/// Bytes that are copied from one buffer to another: more than caches hold.
const COPY_BYTES: usize = 256 << 20;

/// The same for the processor in disguise, which has less of everything.
const SOFTWARE_COPY_BYTES: usize = 64 << 20;

/// Invocations of a workgroup, and multiply-adds of a round of one of them; as in `shaders/probes/peak.wgsl`.
const GROUP: u32 = 256;
const MULTIPLY_ADDS: u64 = 16;

/// Workgroups: enough for every device to be full many times over.
const GROUPS: u32 = 4096;

impl Gpu {
    /// Seconds from submitting work that is next to nothing until it is known to be done; the least of a few.
    ///
    /// # Errors
    ///
    /// When the device fails.
    pub fn latency(&self) -> Result<Duration, GpuError> {
        let word = self.buffer("latency", 16, BufferUsages::COPY_DST, false)?;
        let runs: Result<Vec<Duration>, GpuError> =
            (0..20).map(|_| self.timed(|encoder| encoder.clear_buffer(&word, 0, None))).collect();
        Ok(runs?.into_iter().min().unwrap_or_default())
    }

    /// Bytes a second that go through the device's memory when it copies: each is read and written, and counts twice.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn copy_bytes_per_s(&self) -> Result<f64, GpuError> {
        let most = if self.adapter().is_software() { SOFTWARE_COPY_BYTES } else { COPY_BYTES };
        let bytes = most.min(self.binding_bytes());
        let usage = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let (from, to) =
            (self.buffer("copy from", bytes, usage, false)?, self.buffer("copy to", bytes, usage, false)?);
        let copies = self.rate(|encoder, repeats| {
            for _ in 0..repeats {
                encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes as u64);
            }
        })?;
        Ok(copies * 2.0 * bytes as f64)
    }

    /// Multiply-adds of f32 that the device does a second, in registers.
    ///
    /// # Errors
    ///
    /// When the device fails.
    pub fn multiply_adds_per_s(&self) -> Result<f64, GpuError> {
        let pipeline = self.pipeline(&Variant::new("peak", &[]))?;
        let groups = if self.adapter().is_software() { GROUPS / 64 } else { GROUPS };
        let sums = self.constants("sums", &[0; GROUP as usize])?;
        let plan = self.buffer("plan", 16, BufferUsages::UNIFORM | BufferUsages::COPY_DST, false)?;
        let layout = pipeline.get_bind_group_layout(0);
        let entries = [(0, &plan), (1, &sums)]
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() });
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
        let group = self.device.create_bind_group(&descriptor);
        let rounds = self.rate(|encoder, repeats| {
            self.queue.write_buffer(&plan, 0, bytemuck::bytes_of(&[repeats, 0, 0, 0]));
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(groups, 1, 1);
        })?;
        Ok(rounds * (MULTIPLY_ADDS * u64::from(GROUP) * u64::from(groups)) as f64)
    }

    /// Repeats a second: as many at once as take long enough to be measured, the best of three.
    fn rate(&self, encode: impl Fn(&mut wgpu::CommandEncoder, u32)) -> Result<f64, GpuError> {
        let timed = |repeats: u32| self.timed(|encoder| encode(encoder, repeats));
        let mut repeats = 1;
        while timed(repeats)? < LEAST_DURATION && repeats < MOST_REPEATS {
            repeats *= 4;
        }
        let mut best = Duration::MAX;
        for _ in 0..3 {
            best = best.min(timed(repeats)?);
        }
        Ok(f64::from(repeats) / best.as_secs_f64())
    }

    fn timed(&self, encode: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<Duration, GpuError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(&mut encoder);
        let commands = encoder.finish();
        let started = Instant::now();
        let submission = self.queue.submit([commands]);
        self.wait(&submission, || true)?;
        Ok(started.elapsed())
    }
}
