//! An encoded update that is measured but not published.

use crate::compress::encode::{Outcome, PartEncoder};
use crate::compress::goal::Cost;
use crate::compress::quality::Quality;
use crate::compress::residual::writer::ResidualWriter;
use crate::compress::writer::FinishedFile;

/// One file that a plan led to, and what it leaves for the next round.
pub(crate) struct Attempt {
    pub(crate) file: FinishedFile,
    pub(crate) parts: Vec<PartEncoder>,
    pub(crate) outcome: Outcome,
    pub(crate) residual: Option<ResidualWriter>,
}

impl Attempt {
    /// The bytes of the file, and its error.
    pub(crate) fn cost(&self) -> Cost {
        Cost { bytes: self.file.bytes, nmse: self.quality().measures().nmse }
    }

    /// The error of the whole update.
    pub(crate) fn quality(&self) -> Quality {
        let mut quality = Quality::default();
        self.outcome.quality.iter().for_each(|part| quality.add(part));
        quality
    }

    /// The bytes of the encoded vectors.
    pub(crate) fn vector_bytes(&self) -> u64 {
        let vectors =
            self.parts.iter().zip(&self.outcome.chunks).filter(|(part, _)| part.plan.codec.is_some());
        vectors.map(|(part, chunks)| part.bytes(chunks)).sum()
    }
}
