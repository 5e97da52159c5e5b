//! How far the server may take a merged delta.

use crate::kernels::server_step::ServerStep;
use crate::model::state::KeptTensor;

/// How far the server may take a merged delta.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The server's step.
    pub step: ServerStep,
    /// The state tensors of the step.
    pub keeps: Vec<KeptTensor>,
    /// How many times larger than the largest delta the merged delta can be.
    pub stretch: f64,
}

impl Reach {
    /// Whether the merged delta can be larger than every client's.
    pub fn is_stretched(&self) -> bool {
        // Rounded weights may add up to a little more than one.
        self.stretch > 1.0 + 1e-9
    }

    /// The same step on merged deltas that no factor stretches.
    #[must_use]
    pub fn unstretched(&self) -> Self {
        Self { stretch: 1.0, ..self.clone() }
    }
}
