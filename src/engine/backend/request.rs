//! The backend that the operator asks for.

use crate::engine::backend::calibration::Calibration;
use crate::gpu::job::Options;

/// The backend by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendName {
    /// The backend with the shorter forecast.
    Auto,
    /// The processor.
    Cpu,
    /// A GPU; an error if there is none.
    Gpu,
}

/// The backend, and the options to open a GPU.
#[derive(Clone, Debug)]
pub struct BackendRequest {
    /// The backend.
    pub name: BackendName,
    /// Options to open the GPU.
    pub options: Options,
    /// The calibration of this host; `None` to load it from the cache.
    pub calibration: Option<Calibration>,
    /// Whether the run prints the forecast.
    pub explain: bool,
}

impl BackendRequest {
    /// A backend with the default options.
    pub fn new(name: BackendName) -> Self {
        Self { name, options: Options::default(), calibration: None, explain: false }
    }
}
