//! The backend as the operator asked for it.

use crate::engine::backend::calibration::Calibration;
use crate::gpu::job::Options;

/// The backend by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendName {
    /// The one that is predicted to be faster.
    Auto,
    /// The processor.
    Cpu,
    /// A GPU, or none at all.
    Gpu,
}

/// The backend, and how a GPU is opened.
#[derive(Clone, Debug)]
pub struct BackendRequest {
    /// The backend.
    pub name: BackendName,
    /// Which GPU, and how.
    pub options: Options,
    /// What was measured of this host; `None` for what the cache holds.
    pub calibration: Option<Calibration>,
    /// Whether the prediction is printed.
    pub explain: bool,
}

impl BackendRequest {
    /// A backend with the default options.
    pub fn new(name: BackendName) -> Self {
        Self { name, options: Options::default(), calibration: None, explain: false }
    }
}
