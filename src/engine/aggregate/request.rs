//! The request for an aggregate run.

use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::engine::decide::method::{Method, Reporting};
use crate::engine::intake::policy::Policy;
use crate::telemetry::report::Report;
use std::path::{Path, PathBuf};

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

/// Who may read the report of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readers {
    /// Everyone whom the process's file mode admits.
    All,
    /// The owner of the file alone, since the budget of a private round does not cover it.
    Owner {
        /// Whether the report tells of single clients.
        of_clients: bool,
    },
}

impl Readers {
    /// Whether only the owner may read the report.
    pub fn are_few(self) -> bool {
        self != Self::All
    }

    /// Whether the report tells of single clients.
    pub fn may_see_clients(self) -> bool {
        self != Self::Owner { of_clients: false }
    }
}

/// A picture of the report.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Its file.
    pub path: PathBuf,
    /// Draws the report for a file of this name, or says why it cannot.
    pub draw: fn(&Report, &Path) -> Result<Vec<u8>, String>,
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
    /// The picture of the report.
    pub plot: Option<Plot>,
    /// Who may read the report.
    pub readers: Readers,
    /// The state file: the run reads it first and replaces it at the end. `None` without `--state`.
    pub state: Option<PathBuf>,
}

impl Outputs {
    /// Whether an output says something about each client.
    pub fn describe_clients(&self) -> bool {
        self.report.is_some() || self.plot.is_some()
    }
}

impl Request {
    /// The fewest clients of a run.
    pub fn least_clients(&self) -> usize {
        self.policy.least_clients().max(self.method.strategy.least_clients())
    }

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
                plot: None,
                readers: Readers::All,
                state: None,
            },
            backend: BackendRequest::new(BackendName::Cpu),
        }
    }
}
