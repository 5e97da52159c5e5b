//! Measures the most that a device can do: memory speed, multiply-adds, latency.

use crate::gpu::job::GpuError;
use crate::gpu::shaders::Variant;
use crate::gpu::variants::GROUP;
use crate::gpu::vulkan::device::VulkanDevice;
use std::time::{Duration, Instant};
use wgpu::{BufferUsages, CommandEncoder};

/// Shortest time of a measurement, so that the start of the work does not count.
const LEAST_DURATION: Duration = Duration::from_millis(60);

/// Most repeats in one submission. A device that needs more has no usable clock.
const MOST_REPEATS: u32 = 1 << 16;

/// Bytes that are copied from one buffer to another: more than caches hold.
const COPY_BYTES: usize = 256 << 20;

/// Bytes that a software adapter copies.
const SOFTWARE_COPY_BYTES: usize = 64 << 20;

/// Multiply-adds of an invocation in one round of `shaders/probes/peak.wgsl`.
const MULTIPLY_ADDS: u64 = 16;

/// Workgroups: enough to fill every device many times over.
const GROUPS: u32 = 4096;

/// Time from submitting almost no work until the host knows that it is done; the shortest of 20 runs.
pub(super) fn latency(gpu: &VulkanDevice) -> Result<Duration, GpuError> {
    let word = gpu.buffer("latency", 16, BufferUsages::COPY_DST, false)?;
    let runs: Result<Vec<Duration>, GpuError> =
        (0..20).map(|_| timed(gpu, |encoder| encoder.clear_buffer(&word, 0, None))).collect();
    Ok(runs?.into_iter().min().unwrap_or_default())
}

/// Bytes per second through the device's memory while it copies. A copied byte counts twice: read and written.
pub(super) fn copy_bytes_per_s(gpu: &VulkanDevice) -> Result<f64, GpuError> {
    let most = if gpu.adapter.is_software() { SOFTWARE_COPY_BYTES } else { COPY_BYTES };
    let bytes = most.min(gpu.binding_bytes());
    let usage = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let (from, to) =
        (gpu.buffer("copy from", bytes, usage, false)?, gpu.buffer("copy to", bytes, usage, false)?);
    let copies = rate(gpu, |encoder, repeats| {
        for _ in 0..repeats {
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes as u64);
        }
    })?;
    Ok(copies * 2.0 * bytes as f64)
}

/// Multiply-adds of f32 per second in registers.
pub(super) fn multiply_adds_per_s(gpu: &VulkanDevice) -> Result<f64, GpuError> {
    let pipeline = gpu.pipeline(&Variant::new("peak", &[]))?;
    let groups = if gpu.adapter.is_software() { GROUPS / 64 } else { GROUPS };
    let sums = gpu.constants("sums", &[0; GROUP])?;
    let plan = gpu.buffer("plan", 16, BufferUsages::UNIFORM | BufferUsages::COPY_DST, false)?;
    let layout = pipeline.get_bind_group_layout(0);
    let entries = [(0, &plan), (1, &sums)]
        .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() });
    let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
    let group = gpu.device.create_bind_group(&descriptor);
    let rounds = rate(gpu, |encoder, repeats| {
        gpu.queue.write_buffer(&plan, 0, bytemuck::bytes_of(&[repeats, 0, 0, 0]));
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
    })?;
    Ok(rounds * (MULTIPLY_ADDS * GROUP as u64 * u64::from(groups)) as f64)
}

/// Repeats per second, the best of three runs that each last at least [`LEAST_DURATION`].
fn rate(gpu: &VulkanDevice, encode: impl Fn(&mut CommandEncoder, u32)) -> Result<f64, GpuError> {
    let run = |repeats: u32| timed(gpu, |encoder| encode(encoder, repeats));
    let mut repeats = 1;
    while run(repeats)? < LEAST_DURATION && repeats < MOST_REPEATS {
        repeats *= 4;
    }
    let mut best = Duration::MAX;
    for _ in 0..3 {
        best = best.min(run(repeats)?);
    }
    Ok(f64::from(repeats) / best.as_secs_f64())
}

/// Time from submitting commands until they are done.
fn timed(gpu: &VulkanDevice, encode: impl FnOnce(&mut CommandEncoder)) -> Result<Duration, GpuError> {
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encode(&mut encoder);
    let commands = encoder.finish();
    let started = Instant::now();
    let submission = gpu.queue.submit([commands]);
    gpu.wait(&submission, || true)?;
    Ok(started.elapsed())
}
