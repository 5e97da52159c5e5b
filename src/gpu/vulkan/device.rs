//! A device that Vulkan opened: its queue, its memory, its compiled kernels, its first failure.
//!
//! `run` submits runs over flat vectors.

mod run;

use crate::gpu::job::{Adapter, GpuError, Options};
use crate::gpu::shaders::Variant;
use crate::gpu::variants::GROUP;
use crate::gpu::vulkan::adapter;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest time of a run. A device that needs longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The byte that memory is filled with where [`Options::spoils`] asks for it.
const SPOILED: u8 = 0xa5;

/// An open device.
pub(super) struct VulkanDevice {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    /// Invocations in a subgroup, if subgroups are used and have one size.
    pub(super) subgroup: Option<u32>,
    pub(super) timestamps: bool,
    pub(super) options: Options,
    pub(super) adapter: Adapter,
    pipelines: Mutex<HashMap<Variant, Arc<wgpu::ComputePipeline>>>,
    /// The first failure of the device.
    failure: Arc<Mutex<Option<String>>>,
    runs: AtomicUsize,
}

impl fmt::Debug for VulkanDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VulkanDevice")
            .field("adapter", &self.adapter)
            .field("options", &self.options)
            .finish()
    }
}

impl VulkanDevice {
    /// Opens the device that the options choose.
    pub(super) fn open(options: &Options) -> Result<Self, GpuError> {
        let (chosen, adapter) = adapter::choose(options)?;
        let features = adapter::wanted_features() & chosen.features();
        let mut limits = chosen.limits();
        if let Some(most) = options.binding_bytes {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(most);
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("fedmill"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        };
        let opened = pollster::block_on(chosen.request_device(&descriptor));
        let (device, queue) = opened
            .map_err(|why| GpuError::NotOpened { adapter: adapter.name.clone(), why: why.to_string() })?;
        let failure = Arc::new(Mutex::new(None));
        let first = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |why| note(&first, why.to_string())));
        let first = Arc::clone(&failure);
        device.set_device_lost_callback(move |reason, why| note(&first, format!("{reason:?}: {why}")));
        let (least, most) = adapter.subgroup;
        // Kernels need one size that divides a workgroup.
        let steady = least == most && least.is_power_of_two() && (4..=64).contains(&least);
        let subgroup = (options.subgroups && steady).then_some(least);
        Ok(Self {
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS),
            device,
            queue,
            limits,
            subgroup,
            options: options.clone(),
            adapter,
            pipelines: Mutex::default(),
            failure,
            runs: AtomicUsize::new(0),
        })
    }

    /// Most bytes that a kernel can bind as one buffer.
    pub(super) fn binding_bytes(&self) -> usize {
        usize::try_from(self.limits.max_storage_buffer_binding_size).unwrap_or(usize::MAX)
    }

    /// Counts a run that begins.
    pub(super) fn begin_run(&self) {
        if self.options.lose_after == Some(self.runs.fetch_add(1, Ordering::Relaxed)) {
            self.device.destroy();
        }
    }

    /// Returns a compiled kernel; compiles it on the first call.
    pub(super) fn pipeline(&self, variant: &Variant) -> Result<Arc<wgpu::ComputePipeline>, GpuError> {
        if let Some(known) = lock(&self.pipelines).get(variant) {
            return Ok(Arc::clone(known));
        }
        let compiled = Arc::new(self.compile(variant)?);
        lock(&self.pipelines).insert(variant.clone(), Arc::clone(&compiled));
        Ok(compiled)
    }

    fn compile(&self, variant: &Variant) -> Result<wgpu::ComputePipeline, GpuError> {
        let failed = |why: String| GpuError::NotCompiled {
            adapter: self.adapter.name.clone(),
            kernel: variant.kernel.to_owned(),
            why,
        };
        let source = variant.source().map_err(failed)?;
        let label = format!("fedmill.{}", variant.kernel);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let module = if self.options.checked {
            self.device.create_shader_module(descriptor)
        } else {
            // SAFETY: the text is embedded in this program. Its loops end, its indices stay inside their buffers, and
            // the kernel suite also runs all of it with the checks on.
            unsafe {
                self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            }
        };
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes workgroup memory before it reads it.
                zero_initialize_workgroup_memory: self.options.checked,
                ..Default::default()
            },
            cache: None,
        });
        let errors = [pollster::block_on(internal.pop()), pollster::block_on(scope.pop())];
        match errors.into_iter().flatten().next() {
            Some(why) => Err(failed(why.to_string())),
            None => self.check_now().map(|()| pipeline),
        }
    }

    /// Device memory of at least `bytes` bytes.
    pub(super) fn buffer(
        &self,
        label: &str,
        bytes: usize,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<wgpu::Buffer, GpuError> {
        let size = bytes.next_multiple_of(16).max(16) as u64;
        let failed =
            |why: String| GpuError::OutOfMemory { adapter: self.adapter.name.clone(), bytes: size, why };
        if usage.contains(wgpu::BufferUsages::STORAGE) && size > self.limits.max_storage_buffer_binding_size {
            let most = self.limits.max_storage_buffer_binding_size;
            return Err(failed(format!("`{label}` would be larger than a binding, {most} bytes")));
        }
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: mapped,
        });
        let errors = [pollster::block_on(validation.pop()), pollster::block_on(memory.pop())];
        match errors.into_iter().flatten().next() {
            Some(why) => Err(failed(why.to_string())),
            None => self.check_now().map(|()| buffer),
        }
    }

    /// Device memory that holds these words.
    pub(super) fn constants(&self, label: &str, words: &[u32]) -> Result<wgpu::Buffer, GpuError> {
        let buffer = self.buffer(label, size_of_val(words), wgpu::BufferUsages::STORAGE, true)?;
        if !words.is_empty() {
            let bytes: &[u8] = bytemuck::cast_slice(words);
            let mut view =
                buffer.get_mapped_range_mut(..bytes.len() as u64).map_err(|why| self.lost(&why))?;
            view.copy_from_slice(bytes);
        }
        buffer.unmap();
        Ok(buffer)
    }

    /// Submits commands and waits until they are done.
    pub(super) fn finish(&self, encode: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<(), GpuError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(&mut encoder);
        let submission = self.queue.submit([encoder.finish()]);
        self.wait(&submission, || true)
    }

    /// Fills a buffer with a pattern. For tests.
    pub(super) fn spoil(&self, buffer: &wgpu::Buffer) {
        let bytes = usize::try_from(buffer.size()).unwrap_or(0);
        self.queue.write_buffer(buffer, 0, &vec![SPOILED; bytes]);
    }

    /// Fills workgroup memory with a pattern. For tests.
    pub(super) fn spoil_workgroups(&self) -> Result<(), GpuError> {
        let pipeline = self.pipeline(&Variant::new("poison", &[]))?;
        let seen = self.constants("seen", &[0; GROUP])?;
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: seen.as_entire_binding() }],
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        // More workgroups than a device runs at once.
        pass.dispatch_workgroups(1024, 1, 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// Waits until a submission is done and `is_done` returns `true`. Callbacks map memory, and another waiting thread
    /// may be about to run them.
    pub(super) fn wait(
        &self,
        submission: &wgpu::SubmissionIndex,
        is_done: impl Fn() -> bool,
    ) -> Result<(), GpuError> {
        let started = Instant::now();
        loop {
            let poll = wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(Duration::from_secs(1)),
            };
            let polled = self.device.poll(poll);
            self.check()?;
            match polled {
                Ok(_) if is_done() => return Ok(()),
                Ok(_) => std::thread::yield_now(),
                Err(wgpu::PollError::Timeout) => {}
                Err(why) => return Err(self.lost(&why)),
            }
            if started.elapsed() > PATIENCE {
                return Err(self.lost(&"a run did not end"));
            }
        }
    }

    /// Polls the device, then returns its first failure. A lost device makes unusable objects and reports its loss only
    /// when polled.
    fn check_now(&self) -> Result<(), GpuError> {
        if let Err(why) = self.device.poll(wgpu::PollType::Poll) {
            note(&self.failure, why.to_string());
        }
        self.check()
    }

    /// Returns the first failure of the device.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        match &*lock(&self.failure) {
            Some(why) => Err(self.lost(why)),
            None => Ok(()),
        }
    }

    pub(super) fn lost(&self, why: &dyn fmt::Display) -> GpuError {
        GpuError::Lost { adapter: self.adapter.name.clone(), why: why.to_string() }
    }
}

fn note(failure: &Mutex<Option<String>>, why: String) {
    lock(failure).get_or_insert(why);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
