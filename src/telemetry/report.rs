//! The report of a merge: who was kept and why, and where the time went. JSON, schema `fedmill.report/1`.

use serde::Serialize;
use std::collections::BTreeMap;

/// The schema that reports name.
pub const SCHEMA: &str = "fedmill.report/1";

/// A report.
#[derive(Serialize, Clone, Debug)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The tool and its version.
    pub tool: Tool,
    /// Whether a model was published; if not, `refused` says why.
    pub published: bool,
    /// Why policy refused to publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The settings of the run, those of the rule resolved.
    pub settings: Settings,
    /// Where the numbers were computed.
    pub backend: BackendChoice,
    /// Who took part, in order of client id.
    pub clients: Vec<ClientRow>,
    /// Who did not, in order of file.
    pub rejected: Vec<RejectedRow>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The merged model.
    pub output: Option<Output>,
    /// Bytes moved.
    pub bytes: Bytes,
    /// Where the time went.
    pub timings: Timings,
    /// The most memory that was resident, in bytes.
    pub peak_resident_bytes: Option<u64>,
}

/// The tool that made a report.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
}

/// The settings of a run.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "named as on the command line")]
pub struct Settings {
    pub rule: String,
    pub byzantine: Option<usize>,
    pub weights: &'static str,
    pub base: Option<String>,
    pub min_clients: usize,
    pub on_bad_update: &'static str,
    pub round: Option<u64>,
    pub max_shard_size: Option<u64>,
    pub threads: usize,
}

/// Where the numbers were computed, and why there.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct BackendChoice {
    pub name: &'static str,
    pub instruction_set: String,
    pub why: &'static str,
}

/// A client that took part.
#[derive(Serialize, Clone, Debug)]
pub struct ClientRow {
    /// Its id.
    pub id: String,
    /// Its file.
    pub file: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Examples it says it trained on.
    pub examples: Option<f64>,
    /// Its share of the merged model, where the rule gives each client one.
    pub weight: Option<f64>,
    /// L2 norm of its delta (with a base), else of its values. Floats only.
    pub norm: Option<f64>,
    /// What the rule judged it by.
    pub score: Option<f64>,
    /// Whether it has a part in the merged model.
    pub kept: bool,
    /// Why.
    pub reason: String,
}

/// An update that took no part.
#[derive(Serialize, Clone, Debug)]
pub struct RejectedRow {
    /// The client it says it is from.
    pub id: String,
    /// Its file.
    pub file: String,
    /// The first thing found wrong with it.
    pub error: String,
    /// Everything found wrong with it.
    pub errors: Vec<String>,
}

/// The merged model.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Output {
    pub path: String,
    pub files: Vec<String>,
    pub tensors: usize,
    pub parameters: usize,
    pub metadata: BTreeMap<String, String>,
}

/// Bytes moved.
#[derive(Serialize, Clone, Copy, Default, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Bytes {
    pub read: u64,
    pub written: u64,
}

/// Seconds. Those of the pass's parts are averages over its threads.
#[derive(Serialize, Clone, Copy, Default, Debug)]
pub struct Timings {
    /// Finding files and checking headers.
    pub open_s: f64,
    /// The pass as a whole.
    pub pass_s: f64,
    /// In the pass: reading.
    pub read_s: f64,
    /// In the pass: decoding, screening, merging, encoding.
    pub compute_s: f64,
    /// In the pass: writing the merged model.
    pub write_s: f64,
    /// Bringing the merged model to disk.
    pub sync_s: f64,
    /// All of it, up to giving the model its name.
    pub total_s: f64,
}
