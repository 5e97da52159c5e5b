//! The plan file: `fedmill.plan/1`, as its types.
//!
//! [`name`] has the words that name its parts, [`stage`] the work, [`agent`] who does it, [`address`] where endpoints are,
//! [`policy`] failures, time and effects, [`vote`] votes, [`reduce`] reducers, [`nested`] plans inside of plans, [`looped`]
//! loops and their tuning, [`limits`] what a run may use, [`value`] plain values, and [`publish`] the JSON Schema that is
//! made from these types. [`json`] reads JSON that others wrote. [`faults`] finds all that is wrong with a plan, and
//! [`words`] says it in plain words.

pub mod address;
pub mod agent;
pub mod faults;
pub mod json;
pub mod limits;
pub mod looped;
pub mod name;
pub mod nested;
pub mod policy;
pub mod publish;
pub mod reduce;
pub mod stage;
pub mod value;
pub mod vote;
pub mod words;

use agent::Agent;
use limits::{Limits, Safety};
use looped::Loop;
use name::{Id, Name};
use policy::Handlers;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stage::Stage;
use std::collections::BTreeMap;
use value::{Scalar, is_default};

/// The schema of the plan files that this version reads and writes.
pub const SCHEMA: &str = "fedmill.plan/1";

/// A workflow: stages, the agents that do their work, and the bounds of a run.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `fedmill.plan/1`.
    pub schema: Version,
    /// The name of the plan.
    pub id: Name,
    /// What the plan is for, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub goal: String,
    /// Values that stages and conditions read, as `{params.NAME}` and `params.NAME`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Id, Scalar>,
    /// Files that the run reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// Who does the work.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<Name, Agent>,
    /// What the run may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// What no part of the run may change.
    #[serde(default, skip_serializing_if = "is_default")]
    pub safety: Safety,
    /// The work.
    pub stages: Vec<Stage>,
    /// Stages that run again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loops: Vec<Loop>,
    /// Stages that run at the end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on: Handlers,
}

/// The version of the schema.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
pub enum Version {
    /// The first.
    #[serde(rename = "fedmill.plan/1")]
    One,
}

/// Files that a run reads, in the directory of the plan.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The name: stages read the files as `{in.NAME}`, conditions their number as `inputs.NAME`.
    pub name: Id,
    /// One file or folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// All files whose path matches a pattern, such as `in/*.safetensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glob: Option<String>,
    /// The fewest files.
    #[serde(default = "Input::one", skip_serializing_if = "Input::is_one")]
    pub min: u64,
    /// The most files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// How files are pinned: `blake3` when the run starts, or the digest of each file, by its path.
    #[serde(default)]
    pub pin: Pin,
}

impl Input {
    fn one() -> u64 {
        1
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_one(least: &u64) -> bool {
        *least == 1
    }
}

/// How the files of an input are pinned.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(
    untagged,
    expecting = "expected \"blake3\", \"sha256\", or an object with the digest of each file, such as {\"in/a\": \"blake3:HEX\"}"
)]
pub enum Pin {
    /// The digests are taken when the run starts, and hold until it ends.
    Start(Algorithm),
    /// The digest of each file, by its path: `blake3:HEX` or `sha256:HEX`. A run refuses any other file.
    Files(BTreeMap<String, String>),
}

impl Default for Pin {
    fn default() -> Self {
        Self::Start(Algorithm::Blake3)
    }
}

/// A digest.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// BLAKE3.
    Blake3,
    /// SHA-256.
    Sha256,
}

impl Plan {
    /// The stage with this name.
    pub fn stage(&self, id: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.id.as_str() == id)
    }

    /// The input with this name.
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name.as_str() == name)
    }

    /// The places of the stages of a loop, in the order of the plan; `None` if its ends are no stages in that order.
    pub fn members(&self, looped: &Loop) -> Option<std::ops::RangeInclusive<usize>> {
        let place = |id: &Id| self.stages.iter().position(|stage| stage.id == *id);
        let (first, last) = (place(looped.over.first()?)?, place(looped.over.last()?)?);
        (first <= last).then_some(first..=last)
    }

    /// The loop that a stage belongs to.
    pub fn loop_of(&self, stage: usize) -> Option<usize> {
        self.loops
            .iter()
            .position(|looped| self.members(looped).is_some_and(|places| places.contains(&stage)))
    }
}
