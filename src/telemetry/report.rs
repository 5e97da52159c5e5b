//! The report of a merge as JSON, schema `fedmill.report/1`: clients, verdicts, settings, times.

use crate::telemetry::warnings;
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
    /// Whether a model was published; if not, `error` says why.
    pub published: bool,
    /// Why nothing was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same, if the operator's policy refused valid input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The settings of the run, those of the rule resolved.
    pub settings: Settings,
    /// The backend of the run, and why it was chosen.
    pub backend: BackendChoice,
    /// The clients that took part, in order of their ids.
    pub clients: Vec<ClientRow>,
    /// The updates that did not take part, in order of their files.
    pub rejected: Vec<RejectedRow>,
    /// The classes of the model's tensors.
    pub tensors: Vec<TensorClassRow>,
    /// The strategy and the step that it took.
    pub strategy: StrategyRow,
    /// The tiers of clients, in order of their names.
    pub tiers: Vec<TierRow>,
    /// The steps of pre-aggregation, in order.
    pub pre: Vec<StepRow>,
    /// The decisions of other rules on the same updates.
    pub shadow: Vec<ShadowRow>,
    /// Numbers of the round as a whole.
    pub metrics: Option<MetricsRow>,
    /// The tensors that some clients lack.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<GapRow>,
    /// Every warning of the run.
    pub warnings: Vec<String>,
    /// Protection that the operator asked for, and that the merged model does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unprotected: Vec<String>,
    /// The merged model.
    pub output: Option<Output>,
    /// Bytes moved.
    pub bytes: Bytes,
    /// Times of the run.
    pub timings: Timings,
    /// Peak resident memory in bytes.
    pub peak_resident_bytes: Option<u64>,
}

impl Report {
    /// One line about a merge: the updates in the model, the rule, the seconds, and the updates that were rejected. A
    /// report that names no client counts none.
    pub fn summary(&self, has_report: bool) -> String {
        let all = self.clients.len() + self.rejected.len();
        let kept = self.clients.iter().filter(|client| client.kept).count();
        let counted = if all == 0 { String::new() } else { format!(" {kept} of {all} updates") };
        let seconds = self.timings.total_s;
        let rejected = match (self.rejected.len(), has_report) {
            (0, _) => String::new(),
            (count, false) => format!("; {count} rejected"),
            (count, true) => format!("; {count} rejected, see report"),
        };
        format!("merged{counted} by {} in {seconds:.2} s{rejected}", self.settings.rule)
    }
}

/// A tensor that some clients lack.
#[derive(Serialize, Clone, Debug)]
pub struct GapRow {
    /// Its name.
    pub tensor: String,
    /// The number of clients that have it.
    pub clients: usize,
    /// Whether it keeps the base's values because these clients are too few for the rule.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keeps_base: bool,
}

/// The report of a run that failed before it took updates.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "as in a report")]
pub struct FailureReport {
    pub schema: &'static str,
    pub tool: Tool,
    pub published: bool,
    pub error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    pub clients: Vec<ClientRow>,
    pub rejected: Vec<RejectedRow>,
    pub warnings: Vec<String>,
}

impl FailureReport {
    /// The report of this error, with the warnings that were printed: those about single clients if it `names_clients`.
    pub fn new(error: String, refused: Option<String>, names_clients: bool) -> Self {
        Self {
            schema: SCHEMA,
            tool: Tool::FEDMILL,
            published: false,
            error,
            refused,
            clients: Vec::new(),
            rejected: Vec::new(),
            warnings: warnings::with_printed(Vec::new(), names_clients),
        }
    }
}

/// The tool that made a report.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
}

impl Tool {
    /// This program.
    pub const FEDMILL: Self = Self { name: "fedmill", version: env!("CARGO_PKG_VERSION") };
}

/// The settings of a run.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "named as on the command line")]
pub struct Settings {
    pub rule: String,
    /// The definition of the rule: the paper's, or a library's.
    pub definition: String,
    pub pre: Vec<String>,
    pub byzantine: Option<usize>,
    pub seed: u64,
    /// The method for distances between clients, if the run measured them.
    pub distances: Option<&'static str>,
    pub weights: &'static str,
    pub base: Option<String>,
    pub min_clients: usize,
    pub on_bad_update: &'static str,
    pub round: Option<u64>,
    pub kind: String,
    pub client_id_from: String,
    pub on_duplicate_content: &'static str,
    pub max_examples: Option<f64>,
    pub personal: Vec<String>,
    pub statistics: Vec<String>,
    pub opaque: Vec<String>,
    pub max_shard_size: Option<u64>,
    pub threads: usize,
}

/// The strategy and the step that it took.
#[derive(Serialize, Clone, Debug)]
pub struct StrategyRow {
    /// The strategy with its settings.
    pub strategy: String,
    /// The definition of the strategy: the paper's, or a library's.
    pub definition: String,
    /// Number of clients in total, if the operator gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub population: Option<usize>,
    /// The file of the tensors that the strategy keeps between rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Number of earlier rounds in that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// The server's step with its numbers.
    pub server_step: Option<String>,
    /// L2 norm of the merged delta, floats only; `None` if the server takes no step, or the GPU took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_norm: Option<f64>,
    /// L2 norm of the change of the model by the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_norm: Option<f64>,
    /// Further inputs by name: normalisation of weights, effective steps.
    #[serde(flatten)]
    pub found: BTreeMap<&'static str, String>,
}

/// The backend that computed the numbers, and the reason for the choice.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct BackendChoice {
    pub name: &'static str,
    pub instruction_set: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    pub why: String,
}

/// A client that took part.
#[derive(Serialize, Clone, Debug)]
pub struct ClientRow {
    /// Its id.
    pub id: String,
    /// What named it: `metadata`, `stem`, `parent` or `path`. `None` for a client of a partial.
    pub id_from: Option<&'static str>,
    /// Its tier, if the run has tiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Its file.
    pub file: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// The number of training examples that it claims.
    pub examples: Option<f64>,
    /// Its share of the merged model, if the rule assigns shares.
    pub weight: Option<f64>,
    /// L2 norm of its delta (with a base), else of its values. Floats only.
    pub norm: Option<f64>,
    /// The rule's score of it.
    pub score: Option<f64>,
    /// The change of the weighted mean of all clients without it.
    pub influence: Option<InfluenceRow>,
    /// Its cluster, from 1 on; docs/metrics.md says how clusters are found.
    pub cluster: Option<usize>,
    /// Whether the merged model contains it.
    pub kept: bool,
    /// The reason for the rule's verdict.
    pub reason: String,
}

/// The change of the weighted mean when one client is left out.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct InfluenceRow {
    /// The distance between the means with and without the client.
    pub distance: Option<f64>,
    /// One minus the cosine between the means with and without the client.
    pub angle: Option<f64>,
}

/// The tensors of one class: docs/aggregate.md says how the server merges each.
#[derive(Serialize, Clone, Debug)]
pub struct TensorClassRow {
    /// The class: parameter, statistic or opaque.
    pub class: String,
    /// The number of tensors.
    pub tensors: usize,
    /// The number of their values.
    pub values: usize,
    /// The names of the first few; empty for parameters.
    pub names: Vec<String>,
}

/// A tier of clients.
#[derive(Serialize, Clone, Debug)]
pub struct TierRow {
    /// Its name.
    pub name: String,
    /// Its rule.
    pub rule: String,
    /// Its steps of pre-aggregation.
    pub pre: Vec<String>,
    /// The assumed number of hostile clients.
    pub byzantine: Option<usize>,
    /// Number of clients.
    pub clients: usize,
    /// Its share of the merged model.
    pub weight: f64,
    /// Why its clients are not merged; `None` if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

/// A step of pre-aggregation.
#[derive(Serialize, Clone, Debug)]
pub struct StepRow {
    /// The step.
    pub step: String,
    /// Number of updates after the step.
    pub updates: usize,
    /// A row for each client before the step.
    pub clients: Vec<StepClientRow>,
}

/// The findings of a step about a client.
#[derive(Serialize, Clone, Debug)]
pub struct StepClientRow {
    /// Its id.
    pub id: String,
    /// Whether the step left it out.
    pub left_out: bool,
    /// Numbers by name.
    #[serde(flatten)]
    pub found: BTreeMap<&'static str, f64>,
}

/// The decision of another rule on the same updates.
#[derive(Serialize, Clone, Debug)]
pub struct ShadowRow {
    /// The rule.
    pub rule: String,
    /// Ids of the clients it would have kept.
    pub kept: Option<Vec<String>>,
    /// Its score of each client, in their order.
    pub scores: Option<Vec<Option<f64>>>,
    /// Warnings about it.
    pub warnings: Vec<String>,
    /// The reason why it could not decide.
    pub error: Option<String>,
}

/// Numbers of a round as a whole; docs/metrics.md has their formulas.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "docs/metrics.md says what they are")]
pub struct MetricsRow {
    pub coherence: Option<f64>,
    pub alignment: Option<f64>,
    pub signal_fraction: Option<f64>,
    pub noise_scale: Option<f64>,
    pub effective_rank: Option<f64>,
    pub clusters: Option<usize>,
    pub cluster_silhouette: Option<f64>,
    pub cosine_inside: Option<f64>,
    pub cosine_between: Option<f64>,
    pub sign_agreement: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub support_overlap: Option<f64>,
}

/// An update that did not take part.
#[derive(Serialize, Clone, Debug)]
pub struct RejectedRow {
    /// The client id that it claims.
    pub id: String,
    /// Its file.
    pub file: String,
    /// Its first fault.
    pub error: String,
    /// All its faults.
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
    /// The norm of what rounding to narrow floats lost, as a share of the merged delta's norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_to_rounding: Option<f64>,
}

/// Bytes moved.
#[derive(Serialize, Clone, Copy, Default, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Bytes {
    pub read: u64,
    pub written: u64,
}

/// Times in seconds. The parts of a pass are averages over its threads.
#[derive(Serialize, Clone, Copy, Default, Debug)]
pub struct Timings {
    /// Finding files and checking headers.
    pub open_s: f64,
    /// The first pass, which measures the geometry, if there was one.
    pub first_pass_s: f64,
    /// In the first pass: reading.
    pub first_read_s: f64,
    /// In the first pass: everything else.
    pub first_compute_s: f64,
    /// The merging pass as a whole.
    pub pass_s: f64,
    /// In the merging pass: reading.
    pub read_s: f64,
    /// In the merging pass: decoding, screening, merging, encoding.
    pub compute_s: f64,
    /// In the merging pass: writing the merged model.
    pub write_s: f64,
    /// Flushing the merged model to disk.
    pub sync_s: f64,
    /// The whole run until the model has its name.
    pub total_s: f64,
}
