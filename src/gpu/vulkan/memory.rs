//! The size of a device's own memory, from Vulkan: wgpu does not report it.

/// Bytes of the largest heap that is local to the device.
pub(super) fn local_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handle is used for one query and nothing is destroyed.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = vulkan.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to this instance, and both are alive while the guard is.
    let found = unsafe { instance.get_physical_device_memory_properties(vulkan.raw_physical_device()) };
    const DEVICE_LOCAL: u32 = 1;
    let heaps = &found.memory_heaps[..found.memory_heap_count as usize];
    heaps.iter().filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}
