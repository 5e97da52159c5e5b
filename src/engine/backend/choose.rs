//! Chooses the CPU or the GPU for a run.

use crate::engine::backend::calibration::{Calibration, Host};
use crate::engine::backend::forecast::{Work, forecast};
use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::gpu::Gpu;
use crate::gpu::job::GpuError;
use crate::telemetry::console;

/// The backend of a run, and the reason for it.
#[derive(Debug)]
pub struct Choice {
    /// The GPU, opened; `None` for the CPU.
    pub gpu: Option<Gpu>,
    /// The reason.
    pub why: String,
    /// Whether the CPU takes over when the GPU fails.
    pub falls_back: bool,
}

impl Choice {
    /// The choice of the CPU, for this reason.
    pub fn cpu(why: impl Into<String>) -> Self {
        Self { gpu: None, why: why.into(), falls_back: false }
    }
}

/// Chooses the backend for the work of a run. `has_gpu_work` is whether a GPU can do a part of it.
///
/// # Errors
///
/// When the operator asks for a GPU, and there is none or it can do no part of the work.
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

/// The calibration of this host, and why the cached one cannot be used; `None` if it can.
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

/// Opens the calibrated GPU. Falls back to the CPU, with the reason.
fn try_gpu(request: &BackendRequest, calibration: &Calibration, why: String) -> Choice {
    let opened = Gpu::open(&request.options).map_err(|why| why.to_string()).and_then(|gpu| {
        let measured = calibration.device.as_ref().map_or(Ok(()), |device| device.is_of(gpu.adapter()));
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
