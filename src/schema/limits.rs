//! What a run may use, and what no part of it may change.

use super::policy::{FailureMode, Timeout};
use super::value::{is_default, whole, whole_bytes};
use crate::settings::duration::Friendly;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a run may use.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Attempts at a time; by default the number of processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_parallel: Option<u32>,
    /// Attempts of agents at a time, over all agents.
    #[schemars(range(min = 1))]
    pub agent_pool_size: u32,
    /// Runs at a time in one folder of runs.
    #[schemars(range(min = 1))]
    pub max_parallel_workflows: u32,
    /// How long one ballot may take. A decision waits for nothing, and takes a limited number of steps.
    pub decision_timeout: Friendly,
    /// The share of all weight that wins a vote.
    #[schemars(range(min = 0, max = 1))]
    pub consensus_threshold: f64,
    /// The timeout of stages that state none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// Bytes of memory that attempts may declare together.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub mem_bytes: Option<u64>,
    /// The longest time of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall: Option<Friendly>,
    /// The most requests to endpoints.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub http_calls: Option<u64>,
    /// The most tokens of models.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub tokens: Option<u64>,
    /// The hosts that agents may call, as `HOST` or `HOST:PORT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The epsilon that the budgets of the run may have spent together, as their ledgers say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// The delta at which epsilon is stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// What the run does once a stage failed.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "finish_running"))]
    pub on_failure: FailureMode,
    /// With `keep_going`: failed stages at which the run stops, a number or a share of all such as 0.03.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failed: Option<f64>,
    /// Bytes that are kept of what an attempt prints to each of standard output and standard error.
    #[serde(deserialize_with = "whole_bytes")]
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_parallel: None,
            agent_pool_size: 100,
            max_parallel_workflows: 20,
            decision_timeout: Friendly::seconds(30),
            consensus_threshold: 0.7,
            timeout: None,
            mem_bytes: None,
            wall: None,
            http_calls: None,
            tokens: None,
            hosts: Vec::new(),
            eps: None,
            delta: None,
            on_failure: FailureMode::FinishRunning,
            max_failed: None,
            log_bytes: 1 << 20,
        }
    }
}

/// What no part of a run may change, and what must hold all the time.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Safety {
    /// Values of the plan that no tuning changes, as JSON pointers such as `/params/f`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Conditions that must hold before each stage; the run stops where one does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invariants: Vec<String>,
    /// The run ends once this file is in its directory.
    pub kill_file: String,
}

impl Default for Safety {
    fn default() -> Self {
        Self { frozen: Vec::new(), invariants: Vec::new(), kill_file: "STOP".to_owned() }
    }
}
