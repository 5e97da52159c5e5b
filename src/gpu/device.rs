//! An open device: its queue, its compiled kernels, and what went wrong with it.

use crate::gpu::adapter;
use crate::gpu::job::{Adapter, GpuError, Options};
use crate::gpu::shaders::Variant;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a run may take: a device that needs longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// An open device. Shared by the slots that use it.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    /// Invocations in every subgroup, if subgroups are used and all of one size.
    pub(super) subgroup: Option<u32>,
    pub(super) timestamps: bool,
    options: Options,
    adapter: Adapter,
    pipelines: Mutex<HashMap<Variant, Arc<wgpu::ComputePipeline>>>,
    trouble: Arc<Mutex<Option<String>>>,
    runs: AtomicUsize,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("adapter", &self.adapter).field("options", &self.options).finish()
    }
}

impl Gpu {
    /// Opens the device that the options choose.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be opened.
    pub fn open(options: &Options) -> Result<Self, GpuError> {
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
        let trouble = Arc::new(Mutex::new(None));
        let first = Arc::clone(&trouble);
        device.on_uncaptured_error(Arc::new(move |why| note(&first, why.to_string())));
        let first = Arc::clone(&trouble);
        device.set_device_lost_callback(move |reason, why| note(&first, format!("{reason:?}: {why}")));
        let (least, most) = adapter.subgroup;
        // A size that varies cannot be built on, nor one that does not divide a workgroup into subgroups.
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
            trouble,
            runs: AtomicUsize::new(0),
        })
    }

    /// The device as its driver describes it.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Destroys the device under everything that uses it, as a driver that crashes would.
    pub fn lose(&self) {
        self.device.destroy();
    }

    /// Counts a run that begins.
    pub(super) fn begin_run(&self) {
        if self.options.lose_after == Some(self.runs.fetch_add(1, Ordering::Relaxed)) {
            self.lose();
        }
    }

    /// Bytes that may be bound at once.
    pub fn binding_bytes(&self) -> usize {
        usize::try_from(self.limits.max_storage_buffer_binding_size).unwrap_or(usize::MAX)
    }

    /// Bytes of the device's memory that updates may stay in between passes.
    pub fn resident_bytes(&self) -> u64 {
        // What a software adapter calls its own is the host's, which holds no more than the slots.
        let own = self.adapter.memory.filter(|_| !self.adapter.is_software()).unwrap_or(0);
        self.options.resident_bytes.unwrap_or(own / 10 * 7)
    }

    /// A compiled kernel.
    ///
    /// # Errors
    ///
    /// When the driver refuses it.
    pub(super) fn pipeline(&self, variant: &Variant) -> Result<Arc<wgpu::ComputePipeline>, GpuError> {
        if let Some(known) = locked(&self.pipelines).get(variant) {
            return Ok(Arc::clone(known));
        }
        let compiled = Arc::new(self.compile(variant)?);
        locked(&self.pipelines).insert(variant.clone(), Arc::clone(&compiled));
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
            // the kernel suite runs all of it with the checks on as well.
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

    /// Memory on the device.
    ///
    /// # Errors
    ///
    /// When there is not enough.
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

    /// Constant data on the device.
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

    /// Waits until a submission is done and `is_done` says so: what it maps is mapped by callbacks, which another
    /// thread that waits may be about to run.
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

    /// The same, after asking the device: one that was lost makes things that cannot be used, and says so only then.
    fn check_now(&self) -> Result<(), GpuError> {
        if let Err(why) = self.device.poll(wgpu::PollType::Poll) {
            note(&self.trouble, why.to_string());
        }
        self.check()
    }

    /// The first thing that went wrong, if something did.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        match &*locked(&self.trouble) {
            Some(why) => Err(self.lost(why)),
            None => Ok(()),
        }
    }

    pub(super) fn lost(&self, why: &dyn fmt::Display) -> GpuError {
        GpuError::Lost { adapter: self.adapter.name.clone(), why: why.to_string() }
    }
}

fn note(trouble: &Mutex<Option<String>>, why: String) {
    locked(trouble).get_or_insert(why);
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
