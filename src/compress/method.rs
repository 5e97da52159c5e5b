//! How an update is compressed: by one codec, or by the codecs that meet targets.

use crate::codecs::Codec;
use crate::compress::goal::Goal;
use std::sync::Arc;

/// How an update is compressed.
#[derive(Clone, Debug)]
pub enum CompressionMethod {
    /// By one codec, wherever a tensor is worth it.
    Codec(Arc<dyn Codec>),
    /// By the codecs and steps that meet targets.
    Targets(Targets),
}

/// What a compressed update must meet.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Targets {
    /// Input bytes over output bytes, at least.
    pub ratio: Option<f64>,
    /// Output bytes, at most.
    pub bytes: Option<u64>,
    /// NMSE, at most.
    pub nmse: Option<f64>,
    /// Whether to publish the best file even if it misses the targets.
    pub best_effort: bool,
}

impl Targets {
    /// The targets as bytes and error, for an input of `input_bytes`.
    pub(crate) fn goal(&self, input_bytes: u64) -> Goal {
        let of_ratio = self.ratio.map(|ratio| (input_bytes as f64 / ratio) as u64);
        let bytes = [of_ratio, self.bytes].into_iter().flatten().min();
        Goal { bytes, nmse: self.nmse }
    }
}

impl CompressionMethod {
    /// Whether a file that misses its targets is published all the same.
    pub(crate) fn is_best_effort(&self) -> bool {
        matches!(self, Self::Targets(targets) if targets.best_effort)
    }
}
