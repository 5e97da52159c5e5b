//! Stands in for `vulkan` in a build without the `gpu` feature: no adapter, no device.

use crate::gpu::device::ComputeDevice;
use crate::gpu::job::{Adapter, GpuError, Options};

/// Returns no adapter.
pub fn adapters() -> Vec<Adapter> {
    Vec::new()
}

/// Fails: this build has no GPU support.
pub(super) fn open(_: &Options) -> Result<Box<dyn ComputeDevice>, GpuError> {
    Err(GpuError::NotBuilt)
}

/// Stands for compiled jobs and device memory, which do not exist here.
#[derive(Debug)]
pub(super) enum Never {}

pub(super) type CombineProgram = Never;
pub(super) type PairsProgram = Never;
pub(super) type IntegersProgram = Never;
pub(super) type NoiseProgram = Never;
pub(super) type Memory = Never;
