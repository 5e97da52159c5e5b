//! Device memory that holds a secret and is overwritten after use.
//!
//! The words reach the device through memory of our own, which is overwritten as soon as they have arrived: wgpu's own
//! staging memory would keep a copy.

use crate::gpu::job::GpuError;
use crate::gpu::vulkan::device::VulkanDevice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu::{BufferUsages, CommandEncoder};

/// Words in device memory, overwritten with zeros at the latest when they are dropped.
pub(super) struct SecretWords {
    memory: wgpu::Buffer,
    bytes: usize,
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl SecretWords {
    /// Sends words to the device.
    pub(super) fn new(gpu: &VulkanDevice, label: &str, words: &[u32]) -> Result<Self, GpuError> {
        let bytes = size_of_val(words);
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let memory = gpu.buffer(label, bytes, usage, false)?;
        let secret = Self { memory, bytes, device: gpu.device.clone(), queue: gpu.queue.clone() };
        let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
        let staging = gpu.buffer(label, bytes, usage, true)?;
        write(gpu, &staging, bytemuck::cast_slice(words))?;
        let size = staging.size();
        let sent = gpu.finish(|encoder| encoder.copy_buffer_to_buffer(&staging, 0, &secret.memory, 0, size));
        map(gpu, &staging, wgpu::MapMode::Write)?;
        write(gpu, &staging, &vec![0; bytes])?;
        sent.map(|()| secret)
    }

    /// The memory.
    pub(super) fn memory(&self) -> &wgpu::Buffer {
        &self.memory
    }

    /// The words in the memory.
    pub(super) fn read(&self, gpu: &VulkanDevice) -> Result<Vec<u32>, GpuError> {
        let host = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let read_back = gpu.buffer("read back", self.bytes, host, false)?;
        let size = self.memory.size();
        gpu.finish(|encoder| encoder.copy_buffer_to_buffer(&self.memory, 0, &read_back, 0, size))?;
        map(gpu, &read_back, wgpu::MapMode::Read)?;
        let view = read_back.get_mapped_range(..self.bytes as u64).map_err(|why| gpu.lost(&why))?;
        Ok(bytemuck::pod_collect_to_vec(&view))
    }

    /// Overwrites the words with zeros, and checks that none is left.
    pub(super) fn wipe(&self, gpu: &VulkanDevice) -> Result<(), GpuError> {
        gpu.finish(|encoder| self.clear(encoder))?;
        match self.read(gpu)?.iter().all(|word| *word == 0) {
            true => Ok(()),
            false => Err(gpu.lost(&"a key could not be overwritten")),
        }
    }

    fn clear(&self, encoder: &mut CommandEncoder) {
        encoder.clear_buffer(&self.memory, 0, None);
    }
}

impl Drop for SecretWords {
    fn drop(&mut self) {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.clear(&mut encoder);
        self.queue.submit([encoder.finish()]);
        // A lost device has no memory left to wipe.
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
    }
}

/// Writes bytes to mapped memory and hands it to the device.
fn write(gpu: &VulkanDevice, staging: &wgpu::Buffer, bytes: &[u8]) -> Result<(), GpuError> {
    if !bytes.is_empty() {
        let range = ..bytes.len() as u64;
        let mut view = staging.get_mapped_range_mut(range).map_err(|why| gpu.lost(&why))?;
        view.copy_from_slice(bytes);
    }
    staging.unmap();
    Ok(())
}

/// Maps memory, and waits until it is mapped.
fn map(gpu: &VulkanDevice, buffer: &wgpu::Buffer, mode: wgpu::MapMode) -> Result<(), GpuError> {
    let is_mapped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_mapped);
    buffer.map_async(mode, .., move |mapped| flag.store(mapped.is_ok(), Ordering::Release));
    let submission = gpu.queue.submit([]);
    gpu.wait(&submission, || is_mapped.load(Ordering::Acquire))
}
