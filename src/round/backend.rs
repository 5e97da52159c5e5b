//! Where a run computes: as asked for, and as it turned out.

use crate::gpu::Gpu;
use crate::gpu::job::{GpuError, Options};
use crate::kernels::lanes::Isa;
use crate::round::device::{self, Device};
use crate::round::roster::UpdateSet;

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Where it is predicted to be faster.
    Auto,
    /// On the processor.
    Cpu,
    /// On a GPU, or not at all.
    Gpu,
}

/// Where to compute, and how devices are opened.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where.
    pub asked: Asked,
    /// Which device, and how.
    pub options: Options,
    /// Tell what was predicted.
    pub explain: bool,
}

/// Where a run computes, and why.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) device: Option<Device>,
    pub(super) why: String,
    /// Why the device was given up, if it was.
    pub(super) failure: Option<GpuError>,
}

impl Chosen {
    /// The name of the backend, as a report has it.
    pub(super) fn name(&self) -> &'static str {
        if self.device.is_some() { "gpu" } else { "cpu" }
    }

    /// The backend for people.
    pub(super) fn description(&self, isa: Isa, threads: usize) -> String {
        match &self.device {
            Some(device) => {
                format!("gpu, {} ({})", device.gpu().adapter().name, device.gpu().adapter().driver)
            }
            None => format!("cpu with {isa} on {threads} threads"),
        }
    }

    /// Gives the device up.
    pub(super) fn give_up(&mut self, why: GpuError) {
        self.why = format!("{why}; the CPU took over");
        self.failure = Some(why);
        self.device = None;
    }
}

impl Backend {
    /// Opens what was asked for, for a set of updates.
    pub(super) fn choose(&self, set: &UpdateSet, threads: usize) -> Result<Chosen, GpuError> {
        let on_cpu = |why: &str| Chosen { device: None, why: why.to_owned(), failure: None };
        match self.asked {
            Asked::Cpu => Ok(on_cpu("--backend cpu")),
            Asked::Gpu => {
                let device = self.open(threads, false)?;
                if device::parts(set).is_empty() {
                    return Err(GpuError::NothingToDo { adapter: device.gpu().adapter().name.clone() });
                }
                Ok(Chosen { device: Some(device), why: "--backend gpu".to_owned(), failure: None })
            }
            Asked::Auto => Ok(on_cpu("no device was measured")),
        }
    }

    fn open(&self, threads: usize, falls_back: bool) -> Result<Device, GpuError> {
        let gpu = Gpu::open(&self.options)?;
        let adapter = gpu.adapter().name.clone();
        Device::new(gpu, threads, falls_back)
            .map_err(|why| GpuError::NotOpened { adapter, why: why.to_string() })
    }
}
