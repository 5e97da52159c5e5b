//! The sections of `fedmill.toml`: a struct per section, a field per key.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who takes part in a round, and how long it waits.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Coordination {
    /// The least number of clients of a round: fewer selectable clients, or fewer sound updates, refuse it.
    pub min_clients: u64,
    /// The most clients that a round selects.
    pub max_clients: u64,
    /// The number of clients whose updates a round wants; between `min_clients` and `max_clients`.
    pub clients: u64,
    /// How clients are selected: a strategy with settings, as `clients select --strategy` takes it.
    pub selection: String,
    /// The share of selected clients that is expected to drop out: the round selects as many more.
    pub dropout: f64,
    /// No client waits longer than this number of rounds; `None` for no floor.
    pub max_wait: Option<u64>,
    /// Select clients of these tiers only; empty for all.
    pub tiers: Vec<String>,
    /// The share of `clients` whose updates close the round before its deadline.
    pub quorum: f64,
    /// The time after which a round closes with the updates that came.
    pub round_timeout: SignedDuration,
    /// How rounds close: `sync` waits for the quorum of its clients, `async` for `buffer` updates of any round.
    pub mode: Mode,
    /// The number of updates that an async round merges.
    pub buffer: u64,
    /// The rounds to run; `None` for no end.
    pub rounds: Option<u64>,
    /// The seed of selections and of all that is random.
    pub seed: u64,
    /// The number of rounds after which a late update is too old to be merged.
    pub max_staleness: u64,
}

/// How rounds close.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// At the quorum or the deadline.
    #[default]
    Sync,
    /// At a number of buffered updates.
    Async,
}

impl Default for Coordination {
    fn default() -> Self {
        Self {
            min_clients: 10,
            max_clients: 1000,
            clients: 10,
            selection: "weighted".to_owned(),
            dropout: 0.0,
            max_wait: None,
            tiers: Vec::new(),
            quorum: 1.0,
            round_timeout: SignedDuration::from_secs(300),
            mode: Mode::Sync,
            buffer: 10,
            rounds: None,
            seed: 0,
            max_staleness: 10,
        }
    }
}

/// The first model.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Model {
    /// The path of the first model, from the state directory; `round init` puts it into the store.
    pub initial: Option<PathBuf>,
}

/// The rule and the checks against hostile clients.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Robustness {
    /// The rule that combines updates, as `aggregate --rule` takes it.
    pub rule: String,
    /// Steps before the rule, in order, as `aggregate --pre` takes them.
    pub pre: Vec<String>,
    /// The share of clients to assume hostile; 0 for none.
    pub byzantine_tolerance: f64,
    /// What a round does with a bad update: `skip` moves it to quarantine, `fail` refuses the round.
    pub on_bad_update: OnBad,
    /// The source of weights: `examples`, `uniform`, `metadata:KEY`, or a file of client ids and weights.
    pub weights: Option<String>,
    /// The most examples that a client counts with.
    pub max_examples: Option<f64>,
}

/// What a round does with a bad update.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum OnBad {
    /// Moves it to quarantine.
    #[default]
    Skip,
    /// Refuses the round.
    Fail,
}

impl Default for Robustness {
    fn default() -> Self {
        Self {
            rule: "mean".to_owned(),
            pre: Vec::new(),
            byzantine_tolerance: 0.0,
            on_bad_update: OnBad::Skip,
            weights: None,
            max_examples: None,
        }
    }
}

/// The server's step, and what clients train with.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Strategy {
    /// The server's step, as `aggregate --strategy` takes it.
    pub name: String,
    /// The weight of FedProx's proximal term, which clients use.
    pub mu: f64,
    /// Local steps of a client.
    pub local_steps: u64,
}

impl Default for Strategy {
    fn default() -> Self {
        Self { name: "fedavg".to_owned(), mu: 0.1, local_steps: 1 }
    }
}

/// The budget of differential privacy.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Privacy {
    /// Whether rounds are released under the budget.
    pub enabled: bool,
    /// The epsilon that all rounds may spend together.
    pub epsilon: f64,
    /// The delta of that epsilon.
    pub delta: f64,
    /// The standard deviation of the noise, divided by the clip bound.
    pub noise_multiplier: f64,
    /// The clip bound of an update.
    pub clip: f64,
    /// Whether the clip bound follows a quantile of the norms.
    pub adaptive_clip: bool,
}

impl Default for Privacy {
    fn default() -> Self {
        Self {
            enabled: false,
            epsilon: 10.0,
            delta: 1e-5,
            noise_multiplier: 1.0,
            clip: 1.0,
            adaptive_clip: false,
        }
    }
}

/// Sums that hide single updates.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct SecureAggregation {
    /// Whether updates come masked.
    pub enabled: bool,
    /// The share of clients whose shares unmask the sum.
    pub threshold: f64,
}

impl Default for SecureAggregation {
    fn default() -> Self {
        Self { enabled: false, threshold: 0.6 }
    }
}

/// Codecs and budgets of bytes.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Compression {
    /// The codecs that clients may use, as `compress --codec` takes them; empty for none.
    pub methods: Vec<String>,
    /// The size of an update relative to the model that clients aim at.
    pub target: f64,
    /// The most bytes of one update; `None` for no bound.
    pub bytes_per_update: Option<u64>,
    /// Whether clients that hold an earlier model are offered a delta.
    pub downlink_deltas: bool,
    /// The codec of these deltas. It must be exact.
    pub downlink_codec: Option<String>,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            methods: Vec::new(),
            target: 0.01,
            bytes_per_update: None,
            downlink_deltas: true,
            downlink_codec: None,
        }
    }
}

/// Classes of devices.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Tiers {
    /// A file of tiers as `clients tiers` writes it, from the state directory; `None` merges all clients as one tier.
    pub file: Option<PathBuf>,
}

/// Layers that stay with the clients.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Personalization {
    /// Layers that are not merged, as `aggregate --personal` takes them.
    pub layers: Vec<String>,
}

/// The operator's command that measures a model.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Evaluation {
    /// The program and its arguments; empty for no evaluation. It prints one JSON object of numbers.
    pub command: Vec<String>,
    /// The time after which the command is ended.
    pub timeout: SignedDuration,
    /// The metric that guards publishing; `None` for no guard.
    pub metric: Option<String>,
    /// Whether a larger value of the metric is better.
    pub higher_is_better: bool,
    /// How much worse than the last published model a model may be.
    pub max_regression: f64,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            timeout: SignedDuration::from_secs(600),
            metric: None,
            higher_is_better: true,
            max_regression: 0.0,
        }
    }
}

/// The models that are kept.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Publish {
    /// The number of the latest models that are kept.
    pub keep_last: u64,
    /// Of earlier models every this many is kept; 0 for none.
    pub keep_every: u64,
}

impl Default for Publish {
    fn default() -> Self {
        Self { keep_last: 5, keep_every: 0 }
    }
}

/// Settings that follow what the rounds show.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Adaptation {
    /// Bounds of the server's learning rate (FedExP).
    pub server_learning_rate: Option<[f64; 2]>,
    /// Bounds of the quorum, which follows how many clients come in time.
    pub quorum: Option<[f64; 2]>,
    /// Bounds of the deadline, which follows when updates come.
    pub round_timeout: Option<[SignedDuration; 2]>,
    /// Bounds of the compression target, which follows the bytes of a round.
    pub compression_target: Option<[f64; 2]>,
    /// Bounds of the number of selected clients, which follows dropouts.
    pub clients: Option<[u64; 2]>,
    /// Bounds of the local steps of a tier, which follow its arrival times.
    pub local_steps: Option<[u64; 2]>,
    /// The bytes that one round may cost, up and down; `None` for no budget.
    pub bytes_per_round: Option<u64>,
}

/// What is exported after every round.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Monitoring {
    /// Write `metrics/fedmill.prom` for node_exporter's textfile collector.
    pub prometheus: bool,
    /// Write event files for TensorBoard into `metrics/`.
    pub tensorboard: bool,
    /// Write `metrics/rounds.jsonl`.
    pub json_lines: bool,
    /// Write `report.html`.
    pub html: bool,
    /// Export figures of single clients under privacy too.
    pub clients_under_privacy: bool,
    /// The number of rounds that the convergence rate looks at.
    pub window: u64,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            prometheus: true,
            tensorboard: true,
            json_lines: true,
            html: true,
            clients_under_privacy: false,
            window: 10,
        }
    }
}
