//! Measures kernels and whole merges, on the CPU and on every GPU, side by side in one run.
//!
//! [`grid`] goes through the cases of a run: [`kernel`] says which kernels, `host` and `device` run them, [`aggregate`]
//! merges files to file. [`sampling`] repeats a case and keeps percentiles. [`limits`] finds what the machine can do at
//! most, which [`results`] holds every row against; [`plot`] draws them, [`rates`] what codecs make of an update. [`calibrate`] measures what forecasts are made
//! from. Nothing here decides anything about a round.

pub mod aggregate;
pub mod calibrate;
pub mod curves;
mod device;
pub mod grid;
mod host;
pub mod kernel;
pub mod limits;
pub mod picture;
pub mod plot;
mod raster;
pub mod rates;
pub mod results;
pub mod sampling;

use crate::engine::aggregate::error::Error;
use crate::gpu::job::GpuError;
use crate::io::interrupt::Interrupted;
use crate::settings::SpecError;
use crate::telemetry::explain::Explain;

/// Why something could not be measured.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum BenchError {
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    #[error(transparent)]
    Merge(#[from] Error),
    #[error(transparent)]
    Rule(#[from] SpecError),
    #[error("synthetic updates could not be written")]
    NotWritten(#[source] std::io::Error),
    #[error("synthetic updates could not be read")]
    NotRead(#[source] std::io::Error),
    #[error("the plot could not be drawn: {0}")]
    NotDrawn(String),
}

impl BenchError {
    /// The signal that ended the run, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Interrupted(interrupted) => Some(interrupted.signal),
            Self::Merge(error) => error.signal(),
            _ => None,
        }
    }

    /// What the user may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Gpu(error) => error.hint().map(str::to_owned),
            Self::Merge(error) => error.hint(),
            _ => None,
        }
    }
}
