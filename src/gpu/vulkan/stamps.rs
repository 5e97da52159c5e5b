//! The device's clock: timestamps around the upload and the kernels of a run.

use crate::gpu::job::{DeviceTime, GpuError};
use crate::gpu::vulkan::device::VulkanDevice;
use std::time::Duration;
use wgpu::BufferUsages;

/// Moments of a run that the device notes.
#[derive(Clone, Copy)]
pub(super) enum Moment {
    /// Before the upload.
    Start,
    /// Between the upload and the kernels.
    Uploaded,
    /// After the kernels.
    Computed,
}

/// Timestamps of a run.
const COUNT: u32 = 3;

/// Memory for the timestamps of a slot's runs.
pub(super) struct Stamps {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl Stamps {
    /// Bytes of the timestamps of a run.
    pub(super) const BYTES: usize = COUNT as usize * size_of::<u64>();

    pub(super) fn new(gpu: &VulkanDevice) -> Result<Self, GpuError> {
        let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("stamps"),
            ty: wgpu::QueryType::Timestamp,
            count: COUNT,
        });
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        Ok(Self { set, resolved: gpu.buffer("stamps", Self::BYTES, usage, false)? })
    }

    /// Notes the time at which the device reaches this place of the commands.
    pub(super) fn write(&self, encoder: &mut wgpu::CommandEncoder, moment: Moment) {
        encoder.write_timestamp(&self.set, moment as u32);
    }

    /// Copies the timestamps into a buffer at an offset that 8 divides.
    pub(super) fn copy_to(&self, buffer: &wgpu::Buffer, offset: u64, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.set, 0..COUNT, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, buffer, offset, Self::BYTES as u64);
    }

    /// Turns the words of the timestamps into times; `period_ns` is the length of the device's tick.
    pub(super) fn times(words: &[u32], period_ns: f32, time: &mut DeviceTime) {
        let (pairs, _) = words.as_chunks();
        let ticks: Vec<u64> =
            pairs.iter().map(|[low, high]| u64::from(*low) | u64::from(*high) << 32).collect();
        let between = |from: Moment, to: Moment| {
            let passed = ticks[to as usize].saturating_sub(ticks[from as usize]);
            Some(Duration::from_nanos((passed as f64 * f64::from(period_ns)) as u64))
        };
        time.upload = between(Moment::Start, Moment::Uploaded);
        time.kernels = between(Moment::Uploaded, Moment::Computed);
    }
}
