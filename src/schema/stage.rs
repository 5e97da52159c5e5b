//! A stage: one piece of work, or one decision, and what must hold before and after it.

use super::agent::Pool;
use super::name::{Id, Name};
use super::nested::Nested;
use super::policy::{Cache, Gate, Retry, SideEffects, Timeout};
use super::reduce::Reduce;
use super::value::{Scalar, is_default};
use super::vote::{Consensus, NoConsensus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One piece of work, one decision, one vote or one gate.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The name.
    pub id: Id,
    /// `decide` chooses one of the cases, `plan` runs another plan, and `reduce` makes one file of several. Any other stage has no kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,

    /// The agent that does the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// What the agent must be able to do, where no agent is named: the agent of the plan with the highest score takes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_capability: Vec<Name>,
    /// Arguments of a command, behind those of its agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Variables of a command's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Standard input of a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// The prompt for a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The JSON body of a request; its texts are templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The plan that a stage of kind `plan` runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Nested>,
    /// The files that a stage of kind `reduce` makes one of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<Reduce>,
    /// Bytes of memory that an attempt needs.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::value::whole")]
    pub mem_bytes: Option<u64>,

    /// Stages that must have succeeded, or been skipped, before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Id>,
    /// In place of `needs`: a condition over how other stages ended, such as `stages.a.ok || stages.b.failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends: Option<String>,
    /// The stage is skipped unless this condition holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The stage is skipped unless a decision that it needs chose this case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Id>,
    /// Runs the stage once for each of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<ForEach>,

    /// Files that the stage makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub out: Vec<Out>,
    /// Numbers that the stage measures, or that a decision reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Id>,
    /// The stage failed unless this condition holds after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_when: Option<String>,

    /// The cases of a decision, in order; the first whose condition holds is chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<Case>,
    /// The case of a decision if no condition holds.
    #[serde(default, rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Id>,
    /// A vote among agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consensus: Option<Consensus>,
    /// The stage waits for a person before it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,

    /// The fewest instances that must succeed; all by default. The files and metrics of those that failed are left out.
    /// With 0, stages that need this one go on even if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_succeeded: Option<u32>,
    /// How often the stage is tried; once by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long an attempt may take; a stage with an agent must say so, here or in `limits.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// What an attempt does outside of its folder.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "none"))]
    pub side_effects: SideEffects,
    /// Whether the result of equal work is used again.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "off"))]
    pub cache: Cache,
}

/// What a stage does without an agent.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It chooses one of its cases.
    Decide,
    /// It runs another plan.
    Plan,
    /// It makes one file of several.
    Reduce,
}

/// A case of a decision.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The condition.
    #[serde(rename = "if")]
    pub condition: String,
    /// The name of the case: stages with this `branch` run.
    pub to: Id,
}

/// What a stage runs once for.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ForEach {
    /// Each of these values, as `{item}`.
    Values(Vec<Scalar>),
    /// Each number from 0 up to this one, which is left out, as `{item}`.
    Range(u32),
    /// Each file of an input, as `{item}`.
    Input(Id),
    /// Each shard, as `{shard}` from 1 to `{shards}`.
    Shards(Shards),
    /// Each agent of a pool, which does the work of its instance; its name is `{item}`.
    Agents(Pool),
}

/// The most instances that the stages of a plan may have together.
pub const MOST_INSTANCES: u64 = 100_000;

/// A number of shards.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(untagged, expecting = "expected a number of shards from 0 to 4294967295, or \"auto\"")]
pub enum Shards {
    /// This many.
    Count(u32),
    /// As many as attempts run at a time.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// The runner chooses.
    Auto,
}

/// A file that a stage makes.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Out {
    /// The name of the output.
    pub name: Id,
    /// Its path in the folder of the attempt; `-` is what a command prints to standard output.
    pub path: String,
    /// Whether the file is JSON whose numbers are metrics of the stage. The numbers stand in the object itself or, in
    /// a report of fedmill, in its `metrics`.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = false))]
    pub metrics: bool,
    /// Whether the stage may leave the file out.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = false))]
    pub optional: bool,
}

/// Pairs of outputs, by their places in a list of names and paths, whose files would be one, or one the folder of the
/// other. Case makes no difference, since some file systems know none.
pub fn clashes<'o>(outputs: impl Iterator<Item = (&'o str, &'o str)>) -> Vec<[usize; 2]> {
    let parts = |text: &str| text.split('/').filter(|part| !part.is_empty()).map(str::to_lowercase).collect();
    let kept = outputs.map(|(name, path)| if path == "-" { name } else { path });
    let mut files: Vec<(Vec<String>, usize)> =
        kept.enumerate().map(|(place, file)| (parts(file), place)).collect();
    files.sort();
    let mut found = Vec::new();
    // All files below a folder follow it at once.
    let mut above = 0;
    for at in 1..files.len() {
        if files[at].0.starts_with(&files[above].0) {
            let (one, other) = (files[above].1, files[at].1);
            found.push([one.min(other), one.max(other)]);
        } else {
            above = at;
        }
    }
    found
}

impl Stage {
    /// Whether the stage chooses a case.
    pub fn decides(&self) -> bool {
        self.kind == Some(Kind::Decide)
    }

    /// Whether the runner itself does the work of the stage.
    pub fn is_built_in(&self) -> bool {
        matches!(self.kind, Some(Kind::Plan | Kind::Reduce))
    }

    /// Whether attempts do the work of the stage: those of an agent, of several, or of the runner itself.
    pub fn works(&self) -> bool {
        self.is_built_in()
            || self.agent.is_some()
            || !self.needs_capability.is_empty()
            || matches!(self.for_each, Some(ForEach::Agents(_)))
            || self.consensus.is_some()
    }

    /// The capability of the agents that each do the work of an instance, and the most of them: those of a pool, or the
    /// voters.
    pub fn pool(&self) -> Option<(&Name, Option<u32>)> {
        match (&self.consensus, &self.for_each) {
            (Some(vote), _) => Some((&vote.capability, None)),
            (None, Some(ForEach::Agents(pool))) => Some((&pool.capability, pool.most)),
            (None, _) => None,
        }
    }

    /// The texts with references of work that the runner itself does, with their places in the stage.
    pub fn texts_of_built_in(&self) -> Vec<(String, &str)> {
        let files = self.reduce.iter().flat_map(|reduce| &reduce.files).enumerate();
        let reduced = files.map(|(place, text)| (format!("reduce.files[{place}]"), text.as_str()));
        let inputs = self.plan.iter().flat_map(|nested| &nested.inputs);
        let inputs = inputs.flat_map(|(name, files)| {
            let files = files.iter().enumerate();
            files.map(move |(place, text)| (format!("plan.inputs.{name}[{place}]"), text.as_str()))
        });
        reduced.chain(inputs).collect()
    }

    /// Whether the stage has several instances: one for each value, or for each voter.
    pub fn fans_out(&self) -> bool {
        self.for_each.is_some() || self.consensus.is_some()
    }

    /// The number of instances, if the plan alone tells it; 1 for a stage that does not fan out.
    pub fn known_instances(&self) -> Option<u32> {
        match &self.for_each {
            None => self.consensus.is_none().then_some(1),
            Some(ForEach::Values(values)) => u32::try_from(values.len()).ok(),
            Some(ForEach::Range(count) | ForEach::Shards(Shards::Count(count))) => Some(*count),
            Some(ForEach::Shards(Shards::Auto(_)) | ForEach::Input(_) | ForEach::Agents(_)) => None,
        }
    }

    /// Whether the run goes on if the stage fails.
    pub fn may_fail(&self) -> bool {
        self.min_succeeded == Some(0)
    }

    /// Whether a person is asked only if a vote has no winner.
    pub fn asks_without_consensus(&self) -> bool {
        self.consensus.as_ref().is_some_and(|vote| vote.on_no_consensus == NoConsensus::Gate)
    }

    /// The most attempts.
    pub fn max_attempts(&self) -> u32 {
        self.retry.as_ref().map_or(1, |retry| retry.max_attempts.max(1))
    }
}
