//! The names of files in a state directory, relative to it.

use crate::model::client_id::nfc;

/// The configuration.
pub const CONFIG: &str = "fedmill.toml";
/// The registry of clients.
pub const REGISTRY: &str = "clients.db";
/// The lock that the one running command holds.
pub const LOCK: &str = "lock";
/// The link to the model that was published last.
pub const CURRENT: &str = "current.safetensors";
/// The plan of the next round, for `fedmill plan run`.
pub const NEXT_PLAN: &str = "next.plan.json";
/// The folder with a folder for each round.
pub const ROUNDS: &str = "rounds";
/// The folder where clients put updates, with a folder for each round.
pub const INBOX: &str = "inbox";
/// The folder of updates that came too late for their round, with a folder for each round.
pub const STALE: &str = "stale";
/// The folder of tasks for clients, with a folder for each round.
pub const TASKS: &str = "tasks";
/// The manifest of the round that is open.
pub const OPEN_ROUND: &str = "tasks/round.json";
/// The folder of sessions of secure aggregation, with a folder for each round.
pub const SESSIONS: &str = "secagg";
/// The folder of published models, each named by its digest.
pub const MODELS: &str = "models";
/// The folder of exported metrics.
pub const METRICS: &str = "metrics";
/// The metrics of every round, one line each.
pub const METRICS_LINES: &str = "metrics/rounds.jsonl";
/// The metrics of the last round, for node_exporter.
pub const METRICS_PROMETHEUS: &str = "metrics/fedmill.prom";
/// The metrics of every round, for TensorBoard.
pub const METRICS_TENSORBOARD: &str = "metrics/events.out.tfevents.0.fedmill";
/// The error of the last run.
pub const LAST_ERROR: &str = "rounds/last_error.json";
/// The report of all rounds.
pub const REPORT_PAGE: &str = "report.html";
/// The budget of differential privacy.
pub const BUDGET: &str = "privacy";

/// The ending of a model or an update.
pub const MODEL_ENDING: &str = ".safetensors";

/// A round as the name of a folder.
pub fn number(round: u64) -> String {
    format!("{round:06}")
}

/// The number of a folder of a round; `None` for another name.
pub fn round_of(name: &str) -> Option<u64> {
    name.parse().ok().filter(|round| number(*round) == name)
}

/// A file in the folder of a round.
pub fn of_round(round: u64, name: &str) -> String {
    format!("{ROUNDS}/{}/{name}", number(round))
}

/// The journal of a round.
pub fn journal(round: u64) -> String {
    of_round(round, "journal.jsonl")
}

/// The folder of a round in another folder.
pub fn folder(above: &str, round: u64) -> String {
    format!("{above}/{}", number(round))
}

/// The folder where clients put updates of a round.
pub fn inbox(round: u64) -> String {
    folder(INBOX, round)
}

/// The folder of late updates of a round.
pub fn stale(round: u64) -> String {
    folder(STALE, round)
}

/// The folder of tasks of a round.
pub fn tasks(round: u64) -> String {
    folder(TASKS, round)
}

/// The folder of the session of a secure round, which clients and helpers share.
pub fn session(round: u64) -> String {
    folder(SESSIONS, round)
}

/// A model in the store.
pub fn model(blake3: &str) -> String {
    format!("{MODELS}/{blake3}{MODEL_ENDING}")
}

/// The file of a client's update or task in a folder.
pub fn of_client(folder: &str, client: &str, ending: &str) -> String {
    format!("{folder}/{client}{ending}")
}

/// The client that a file of an update names, in NFC as the registry has it; `None` for a file that is no update.
pub fn client_of(name: &str) -> Option<String> {
    name.strip_suffix(MODEL_ENDING).filter(|id| !id.is_empty() && !id.starts_with('.')).map(nfc)
}

/// The patch from one model to another.
pub fn patch(from: &str, to: &str) -> String {
    format!("{MODELS}/{from}-{to}.patch{MODEL_ENDING}")
}
