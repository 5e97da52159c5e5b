//! Devices through Vulkan: [`open`] opens one, and it does what [`ComputeDevice`] says.
//!
//! `adapter` finds devices, `memory` asks for the size of their memory. `device` is an open one. `program` turns a job
//! into steps, `slot` runs them on tiles and `stamps` times them. `secret` is memory that is wiped. `measure` finds the most that a device can do.

mod adapter;
mod device;
mod measure;
mod memory;
mod program;
mod secret;
mod slot;
mod stamps;

use crate::gpu::device::{self as opened, ComputeDevice, TileDevice};
use crate::gpu::integers::{IntegersJob, NoiseJob};
use crate::gpu::job::{Adapter, CombineJob, GpuError, Options, PairsJob};
use crate::gpu::run::{BufferId, Run};
use device::VulkanDevice;
use slot::VulkanSlot;
use std::time::Duration;

pub use adapter::adapters;
pub(super) use program::{CombineProgram, IntegersProgram, NoiseProgram, PairsProgram};

/// Rows in device memory.
pub(super) type Memory = wgpu::Buffer;

/// Opens the device that the options choose.
///
/// # Errors
///
/// When no adapter fits, or the driver does not open it.
pub(super) fn open(options: &Options) -> Result<Box<dyn ComputeDevice>, GpuError> {
    Ok(Box::new(VulkanDevice::open(options)?))
}

impl ComputeDevice for VulkanDevice {
    fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn lose(&self) {
        self.device.destroy();
    }

    fn binding_bytes(&self) -> usize {
        self.binding_bytes()
    }

    fn resident_bytes(&self) -> u64 {
        // The memory that a software adapter reports is the host's, which holds no more than the slots.
        let own = self.adapter.memory.filter(|_| !self.adapter.is_software()).unwrap_or(0);
        self.options.resident_bytes.unwrap_or(own / 10 * 7)
    }

    fn latency(&self) -> Result<Duration, GpuError> {
        measure::latency(self)
    }

    fn copy_bytes_per_s(&self) -> Result<f64, GpuError> {
        measure::copy_bytes_per_s(self)
    }

    fn multiply_adds_per_s(&self) -> Result<f64, GpuError> {
        measure::multiply_adds_per_s(self)
    }

    fn compile_combine(&self, job: &CombineJob) -> Result<opened::CombineProgram, GpuError> {
        CombineProgram::new(self, job).map(opened::CombineProgram)
    }

    fn compile_pairs(&self, job: &PairsJob) -> Result<opened::PairsProgram, GpuError> {
        PairsProgram::new(self, job).map(opened::PairsProgram)
    }

    fn compile_integers(&self, job: &IntegersJob) -> Result<opened::IntegersProgram, GpuError> {
        IntegersProgram::new(self, job).map(opened::IntegersProgram)
    }

    fn compile_noise(&self, job: &NoiseJob) -> Result<opened::NoiseProgram, GpuError> {
        NoiseProgram::new(self, job).map(opened::NoiseProgram)
    }

    fn keys(&self, program: &opened::NoiseProgram) -> Result<Vec<u32>, GpuError> {
        program.0.keys.read(self)
    }

    fn wipe(&self, program: &opened::NoiseProgram) -> Result<(), GpuError> {
        program.0.keys.wipe(self)
    }

    fn pairs_columns(&self, points: usize) -> usize {
        PairsProgram::most_columns(self, points)
    }

    fn run(&self, run: &Run, outputs: &[BufferId]) -> Result<Vec<Vec<u32>>, GpuError> {
        self.submit(run, outputs)
    }

    fn combine_slot(&self, program: &opened::CombineProgram) -> Result<Box<dyn TileDevice + '_>, GpuError> {
        Ok(Box::new(VulkanSlot::new(self, &program.0.program)?))
    }

    fn pairs_slot(&self, program: &opened::PairsProgram) -> Result<Box<dyn TileDevice + '_>, GpuError> {
        Ok(Box::new(VulkanSlot::new(self, &program.0.program)?))
    }
    fn integers_slot(&self, program: &opened::IntegersProgram) -> Result<Box<dyn TileDevice + '_>, GpuError> {
        Ok(Box::new(VulkanSlot::new(self, &program.0.program)?))
    }

    fn noise_slot(&self, program: &opened::NoiseProgram) -> Result<Box<dyn TileDevice + '_>, GpuError> {
        Ok(Box::new(VulkanSlot::new(self, &program.0.program)?))
    }
}
