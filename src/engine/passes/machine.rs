//! The machine that a run computes on: threads, instruction set, and the GPU's ring.

use crate::engine::passes::drive::{Clock, drive};
use crate::engine::passes::error::PassError;
use crate::engine::passes::gpu_ring::GpuRing;
use crate::engine::passes::pass::TilePass;
use crate::gpu::job::GpuError;
use crate::io::interrupt::{self, Interrupted};
use crate::kernels::lanes::Isa;
use crate::parallel;
use crate::telemetry::progress::Progress;
use rayon::ThreadPool;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The time of passes since the last reading of the meter.
#[derive(Clone, Copy, Default, Debug)]
pub struct Meter {
    /// The added times of all threads.
    pub clock: Clock,
    /// Wall-clock time.
    pub elapsed: Duration,
}

/// The machine that a run computes on.
pub struct Machine<'m> {
    /// The instruction set of the CPU.
    pub isa: Isa,
    /// The worker threads.
    pub pool: &'m ThreadPool,
    /// Shows the progress of every pass.
    pub progress: &'m Progress,
    gpu: Mutex<Option<Arc<GpuRing>>>,
    gpu_failure: Mutex<Option<GpuError>>,
    meter: Mutex<Meter>,
}

impl<'m> Machine<'m> {
    /// A machine without a GPU.
    pub fn new(isa: Isa, pool: &'m ThreadPool, progress: &'m Progress) -> Self {
        let (gpu, gpu_failure, meter) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { isa, pool, progress, gpu, gpu_failure, meter }
    }

    /// Uses a GPU from now on.
    pub fn use_gpu(&self, ring: GpuRing) {
        *locked(&self.gpu) = Some(Arc::new(ring));
    }

    /// The ring of the GPU; `None` if the run uses the CPU only.
    pub fn gpu(&self) -> Option<Arc<GpuRing>> {
        locked(&self.gpu).clone()
    }

    /// Forgets the tiles that stayed on the GPU, before passes over other updates.
    pub fn forget_tiles(&self) {
        if let Some(ring) = self.gpu() {
            ring.forget();
        }
    }

    /// Stops using the GPU after a failure, with a warning.
    pub fn give_up_gpu(&self, why: GpuError) {
        tracing::warn!("{why}; the CPU takes over");
        *locked(&self.gpu) = None;
        *locked(&self.gpu_failure) = Some(why);
    }

    /// Why the run stopped using the GPU; `None` if it did not.
    pub fn gpu_failure(&self) -> Option<String> {
        locked(&self.gpu_failure).as_ref().map(ToString::to_string)
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Decides on the worker threads. A signal ends the loops of rules, which never see it.
    ///
    /// # Errors
    ///
    /// When a signal came.
    pub fn decide<T: Send>(&self, decision: impl FnOnce() -> T + Send) -> Result<T, PassError> {
        let stop = || interrupt::check().err().map(|interrupted| interrupted.signal);
        let decided = self.pool.install(|| parallel::until(stop, decision));
        decided.map_err(|signal| PassError::Interrupted(Interrupted { signal }))
    }

    /// Runs a pass on the worker threads. Returns the sum of all tiles.
    ///
    /// # Errors
    ///
    /// The error of the failed tile with the lowest number.
    pub fn run<P: TilePass>(&self, pass: &P) -> Result<P::Sum, PassError> {
        self.run_on(self.pool, pass)
    }

    /// Runs a pass on other threads, such as those of the GPU's ring.
    ///
    /// # Errors
    ///
    /// The error of the failed tile with the lowest number.
    pub fn run_on<P: TilePass>(&self, pool: &ThreadPool, pass: &P) -> Result<P::Sum, PassError> {
        let (sum, clock) = drive(pool, pass)?;
        self.add_clock(clock);
        Ok(sum)
    }

    /// Adds the times of threads to the meter.
    pub fn add_clock(&self, clock: Clock) {
        let mut meter = locked(&self.meter);
        meter.clock = meter.clock.and(clock);
    }

    /// Adds wall-clock time to the meter.
    pub fn add_elapsed(&self, elapsed: Duration) {
        locked(&self.meter).elapsed += elapsed;
    }

    /// Reads the meter and sets it to zero.
    pub fn take_meter(&self) -> Meter {
        mem::take(&mut *locked(&self.meter))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
