//! Agents that are endpoints: what fedmill sends, what it takes, and what it refuses.
//!
//! `official` needs Python with the clients of `data/ollama/requirements.txt`. Without them it prints that it is skipped, or
//! fails if `FEDMILL_REQUIRE_ENDPOINTS` is set.

mod failures;
mod limits;
mod official;
mod replies;
pub(super) mod server;

use super::Workflow;
use serde_json::{Value, json};
use server::Server;

/// An HTTP endpoint with these settings beside its address.
fn http(server: &Server, settings: &Value) -> Value {
    agent(server, json!({"kind": "http"}), settings)
}

/// A model with these settings beside its address.
fn model(server: &Server, settings: &Value) -> Value {
    agent(server, json!({"kind": "ollama", "model": "m"}), settings)
}

fn agent(server: &Server, mut agent: Value, settings: &Value) -> Value {
    agent["url"] = json!(server.url());
    settings.as_object().unwrap().iter().for_each(|(key, value)| agent[key] = value.clone());
    agent
}

/// A plan whose agent `judge` may be called.
fn plan(server: &Server, judge: Value, stages: &Value) -> Workflow {
    Workflow::new(stages).with("agents.judge", judge).with("limits.hosts", json!([server.host()]))
}
