//! An aggregate run as it was asked for.

use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::engine::decide::method::{Method, Reporting};
use crate::engine::intake::policy::Policy;
use std::path::PathBuf;

/// An aggregate run to be done. A mode adds its own options beside it.
#[derive(Debug)]
pub struct Request {
    /// The files that are read.
    pub inputs: Inputs,
    /// Which updates take part, and how much each counts.
    pub policy: Policy,
    /// How they are judged and combined.
    pub method: Method,
    /// What the report holds beyond that.
    pub reporting: Reporting,
    /// The files that are written.
    pub outputs: Outputs,
    /// The CPU or the GPU.
    pub backend: BackendRequest,
}

/// The files that a run reads.
#[derive(Clone, Default, Debug)]
pub struct Inputs {
    /// Update files and directories of them.
    pub updates: Vec<PathBuf>,
    /// The model that the updates started from.
    pub base: Option<PathBuf>,
    /// Other files that are read, which no output may replace.
    pub others: Vec<PathBuf>,
    /// Whether a run without any update is no error.
    pub may_be_empty: bool,
}

/// The files that a run writes.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The merged model.
    pub model: PathBuf,
    /// The most bytes of data in one file of it.
    pub max_shard_bytes: Option<u64>,
    /// The report.
    pub report: Option<PathBuf>,
    /// The state file: read before the run, replaced by it.
    pub state: Option<PathBuf>,
}

impl Request {
    /// Merges updates by a method into a model, on the CPU, with defaults for everything else.
    pub fn new(updates: Vec<PathBuf>, method: Method, model: PathBuf) -> Self {
        Self {
            inputs: Inputs { updates, ..Inputs::default() },
            policy: Policy::default(),
            method,
            reporting: Reporting::default(),
            outputs: Outputs { model, max_shard_bytes: None, report: None, state: None },
            backend: BackendRequest::new(BackendName::Cpu),
        }
    }
}
