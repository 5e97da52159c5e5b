//! A vote among agents.

use super::name::{Id, Name};
use super::value::is_default;
use crate::settings::duration::Friendly;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A vote among agents. The share of an option is the weight of its voters by the weight of all; an option wins if its
/// share reaches the threshold and those who answered carry the quorum. This is no Byzantine consensus: the runner counts.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Consensus {
    /// All agents with this capability vote.
    pub capability: Name,
    /// The options. A ballot for anything else is an abstention.
    pub options: Vec<Id>,
    /// What options stand for, by option: a text with references, such as `{draft.text}`. An option whose text has no
    /// value is left out of the vote.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub candidates: BTreeMap<Id, String>,
    /// The fewest options that must be left, 2 by default; with fewer the stage failed, and no agent is asked.
    #[serde(default = "two", skip_serializing_if = "is_two")]
    pub min_options: u32,
    /// The share of all weight that wins; `limits.consensus_threshold` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub threshold: Option<f64>,
    /// The share of all weight whose voters must answer.
    #[serde(default = "half")]
    #[schemars(range(min = 0, max = 1))]
    pub quorum: f64,
    /// What a voter's weight is.
    #[serde(default)]
    pub weight: Weight,
    /// The most that one voter may have of all weight, from 0 to 1.
    #[serde(default = "third")]
    #[schemars(range(min = 0, max = 1))]
    pub weight_cap: f64,
    /// How long a voter may take. A ballot that is late is an abstention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Friendly>,
    /// What happens if no option wins.
    #[serde(default)]
    pub on_no_consensus: NoConsensus,
    /// The option that holds with `on_no_consensus: fallback`; the first that is left if this one is left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fallback: Option<Id>,
}

fn two() -> u32 {
    2
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_two(least: &u32) -> bool {
    *least == 2
}

fn half() -> f64 {
    0.5
}

fn third() -> f64 {
    1.0 / 3.0
}

/// What the weight of a voter is, before the cap.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The agent's score.
    #[default]
    Score,
    /// 1 for each.
    Equal,
    /// `ln(p / (1 - p))` of the score p, at least 0: the best weight if voters err independently.
    LogOdds,
}

/// What happens if no option wins.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum NoConsensus {
    /// The stage fails.
    #[default]
    Fail,
    /// The option `fallback` holds.
    Fallback,
    /// The gate of the stage asks a person.
    Gate,
}
