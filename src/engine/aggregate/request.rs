//! The request for an aggregate run.

use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::engine::decide::method::{Method, Reporting};
use crate::engine::intake::policy::Policy;
use std::path::PathBuf;

/// The request for an aggregate run. A mode has further options beside it.
#[derive(Debug)]
pub struct Request {
    /// The files to read.
    pub inputs: Inputs,
    /// Which updates take part, and the weight of each.
    pub policy: Policy,
    /// The rule, the steps before it, and the server's step.
    pub method: Method,
    /// Optional parts of the report.
    pub reporting: Reporting,
    /// The files to write.
    pub outputs: Outputs,
    /// The backend that the operator asks for.
    pub backend: BackendRequest,
}

/// The files that a run reads.
#[derive(Clone, Default, Debug)]
pub struct Inputs {
    /// Update files and directories of them.
    pub updates: Vec<PathBuf>,
    /// Partials of a tree and directories of them. No other input is read as a partial.
    pub partials: Vec<PathBuf>,
    /// The model that the updates started from.
    pub base: Option<PathBuf>,
    /// Other files that the run reads. No output may replace them.
    pub others: Vec<PathBuf>,
    /// Whether the run accepts zero updates.
    pub may_be_empty: bool,
    /// Whether the run may start a new state from a base that earlier steps made.
    pub starts_state: bool,
}

/// The files that a run writes.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The merged model.
    pub model: PathBuf,
    /// The most bytes of data in one file of the model; `None` for a single file.
    pub max_shard_bytes: Option<u64>,
    /// The report.
    pub report: Option<PathBuf>,
    /// Whether only its owner may read the report.
    pub report_is_private: bool,
    /// The state file: the run reads it first and replaces it at the end. `None` without `--state`.
    pub state: Option<PathBuf>,
}

impl Request {
    /// A request to merge updates into a model on the CPU, with defaults for all other options.
    pub fn new(updates: Vec<PathBuf>, method: Method, model: PathBuf) -> Self {
        Self {
            inputs: Inputs { updates, ..Inputs::default() },
            policy: Policy::default(),
            method,
            reporting: Reporting::default(),
            outputs: Outputs {
                model,
                max_shard_bytes: None,
                report: None,
                report_is_private: false,
                state: None,
            },
            backend: BackendRequest::new(BackendName::Cpu),
        }
    }
}
