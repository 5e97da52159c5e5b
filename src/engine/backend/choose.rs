//! Chooses the CPU or the GPU for a run.

use crate::engine::backend::calibration::{Calibration, Host};
use crate::engine::backend::forecast::{Work, forecast};
use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::gpu::Gpu;
use crate::gpu::job::GpuError;
use crate::telemetry::console;

/// The backend of a run, and why it was chosen.
#[derive(Debug)]
pub struct Choice {
    /// The GPU, opened; `None` for the CPU.
    pub gpu: Option<Gpu>,
    /// Why.
    pub why: String,
    /// Whether the CPU takes over when the GPU fails.
    pub falls_back: bool,
}

impl Choice {
    /// The CPU.
    pub fn cpu(why: impl Into<String>) -> Self {
        Self { gpu: None, why: why.into(), falls_back: false }
    }
}

/// Chooses the backend for some work. `has_gpu_work` is whether a GPU could do any of it.
///
/// # Errors
///
/// When the operator asked for a GPU, and there is none or none of the work is for it.
pub fn choose(
    request: &BackendRequest,
    work: &Work,
    host: &Host,
    has_gpu_work: bool,
) -> Result<Choice, GpuError> {
    if request.explain || request.name == BackendName::Auto {
        let (calibration, unusable) = calibration_of(request, host);
        let forecast = forecast(&calibration, work);
        if request.explain {
            console::tell(&forecast.to_string());
        }
        if request.name == BackendName::Auto {
            let why = unusable.unwrap_or_else(|| forecast.choice.why().to_owned());
            return Ok(match forecast.choice.is_gpu() && has_gpu_work {
                true => try_gpu(request, &calibration, why),
                false => Choice::cpu(why),
            });
        }
    }
    if request.name == BackendName::Cpu {
        return Ok(Choice::cpu("--backend cpu"));
    }
    let gpu = Gpu::open(&request.options)?;
    if !has_gpu_work {
        return Err(GpuError::NothingToDo { adapter: gpu.adapter().name.clone() });
    }
    Ok(Choice { gpu: Some(gpu), why: "--backend gpu".to_owned(), falls_back: false })
}

/// The calibration of this host, and why the cached one is of no use if it is not.
fn calibration_of(request: &BackendRequest, host: &Host) -> (Calibration, Option<String>) {
    let found = match &request.calibration {
        Some(known) => Ok(known.clone()),
        None => Calibration::load(host),
    };
    match found {
        Ok(known) => (known, None),
        Err(why) => (Calibration::default(), Some(why.to_string())),
    }
}

/// The GPU that a calibration was made with, or the CPU and the reason.
fn try_gpu(request: &BackendRequest, calibration: &Calibration, why: String) -> Choice {
    let opened = Gpu::open(&request.options).map_err(|why| why.to_string()).and_then(|gpu| {
        let measured = calibration.device.as_ref().map_or(Ok(()), |of| of.is_of(gpu.adapter()));
        measured.map(|()| gpu).map_err(|why| why.to_string())
    });
    match opened {
        Ok(gpu) => Choice { gpu: Some(gpu), why, falls_back: true },
        Err(why) => {
            tracing::warn!("{why}; the CPU is used");
            Choice::cpu(why)
        }
    }
}
