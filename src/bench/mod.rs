//! Measures kernels and whole merges on the CPU and on every GPU, side by side in one run.
//!
//! [`grid`] runs all cases: [`kernel`] lists the kernels, `host` and `device` run them, [`aggregate`] merges files to
//! file, [`private`] under a budget; [`command`] runs other commands on files. [`sampling`] repeats a case and keeps
//! percentiles. [`limits`] measures the most that the machine can do, and [`results`] compares every row with it.
//! [`plot`] draws results, [`table`] lists them, [`rates`] draws codecs and [`curves`] epsilon, on a [`picture`] that is
//! an SVG or a `raster`. [`angles`] draws the updates of a round and [`verdicts`] who was merged, as a
//! `scatter` whose `labels` do not overlap. [`calibrate`] measures the rates behind forecasts. Nothing here decides
//! anything about a round.

pub mod aggregate;
pub mod angles;
pub mod calibrate;
pub mod command;
pub mod curves;
mod device;
pub mod grid;
mod host;
pub mod kernel;
mod labels;
pub mod limits;
pub mod picture;
pub mod plot;
pub mod private;
mod raster;
pub mod rates;
pub mod results;
pub mod sampling;
mod scatter;
pub mod table;
pub mod verdicts;

use crate::budget::error::BudgetError;
use crate::engine::aggregate::error::Error;
use crate::gpu::job::GpuError;
use crate::io::interrupt::Interrupted;
use crate::settings::SpecError;
use crate::telemetry::explain::Explain;

/// An error of a measurement.
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
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Rule(#[from] SpecError),
    #[error("{0}")]
    Command(Box<dyn Explain>),
    #[error("synthetic updates could not be written")]
    NotWritten(#[source] std::io::Error),
    #[error("synthetic updates could not be read")]
    NotRead(#[source] std::io::Error),
    #[error("the plot could not be drawn: {0}")]
    NotDrawn(String),
}

impl BenchError {
    /// The signal that ended the run, if a signal did.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Interrupted(interrupted) => Some(interrupted.signal),
            Self::Merge(error) => error.signal(),
            Self::Command(error) => error.signal(),
            _ => None,
        }
    }

    /// The remedy, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Gpu(error) => error.hint().map(str::to_owned),
            Self::Merge(error) => error.hint(),
            Self::Command(error) => error.hint(),
            _ => None,
        }
    }
}
