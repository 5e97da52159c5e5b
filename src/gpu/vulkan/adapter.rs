//! Finds the adapters that the driver reports, and chooses one.

use crate::gpu::job::{Adapter, GpuError, Options};
use crate::gpu::vulkan::memory;

/// Features that kernels use where a device has them.
pub(super) fn wanted_features() -> wgpu::Features {
    wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
}

/// Returns every adapter that the driver reports, the best first.
pub fn adapters() -> Vec<Adapter> {
    enumerate().iter().map(describe).collect()
}

/// An instance of Vulkan alone: a search for other interfaces costs time.
fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    // The default flags validate indirect calls, which caps buffers at 4 GiB.
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let mut adapters = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::VULKAN));
    adapters.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    adapters
}

fn rank(kind: wgpu::DeviceType) -> usize {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// The adapter that the options name, or the best that is no software adapter.
pub(super) fn choose(options: &Options) -> Result<(wgpu::Adapter, Adapter), GpuError> {
    let found: Vec<(wgpu::Adapter, Adapter)> = enumerate()
        .into_iter()
        .map(|adapter| {
            let description = describe(&adapter);
            (adapter, description)
        })
        .collect();
    let names: Vec<String> = found.iter().map(|(_, adapter)| adapter.name.clone()).collect();
    match &options.adapter {
        Some(wanted) => {
            let named = |adapter: &Adapter| adapter.name.to_lowercase().contains(&wanted.to_lowercase());
            let chosen = found.into_iter().find(|(_, adapter)| named(adapter));
            chosen.ok_or_else(|| GpuError::NoSuchAdapter { wanted: wanted.clone(), found: names })
        }
        None => {
            let chosen = found.into_iter().find(|(_, adapter)| !adapter.is_software());
            chosen.ok_or(GpuError::NoAdapter { software: names })
        }
    }
}

fn describe(adapter: &wgpu::Adapter) -> Adapter {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    Adapter {
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        name: info.name,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        interface: info.backend.to_string(),
        subgroup: match features.contains(wgpu::Features::SUBGROUP) {
            true => (info.subgroup_min_size, info.subgroup_max_size),
            false => (0, 0),
        },
        memory: memory::local_bytes(adapter),
        limits: vec![
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
            ("max_buffer_size", limits.max_buffer_size),
            ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
            ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
            ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
            ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
        ],
        features: wanted_features()
            .iter_names()
            .filter(|(_, feature)| features.contains(*feature))
            .map(|(name, _)| name)
            .collect(),
    }
}
