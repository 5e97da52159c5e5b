//! Loops: stages that run again until a condition holds, and the parameter that a loop may tune.

use super::name::Id;
use super::value::{Scalar, is_default};
use crate::settings::duration::Friendly;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Stages that run again until a condition holds.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Loop {
    /// The name.
    pub id: Id,
    /// The first and the last stage of the loop, in the order of the plan; all between them belong to it. One name alone
    /// is a loop of one stage.
    #[schemars(length(min = 1, max = 2))]
    pub over: Vec<Id>,
    /// Files that an iteration takes from the one before, as `{carry.NAME}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carry: BTreeMap<Id, Carry>,
    /// The loop ends after an iteration in which this condition holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The most iterations.
    #[schemars(range(min = 1))]
    pub max_iters: u32,
    /// What it means that the condition never held. By default `fail` for a loop with `until`, else `continue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<Exhausted>,
    /// The parameter that the loop tunes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<Tune>,
}

impl Loop {
    /// What it means that the condition never held, where the plan does not say too.
    pub fn exhausted(&self) -> Exhausted {
        let usual = if self.until.is_some() { Exhausted::Fail } else { Exhausted::Continue };
        self.on_exhausted.unwrap_or(usual)
    }
}

/// A file that an iteration takes from the one before.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Carry {
    /// The output, as `STAGE.OUTPUT`.
    pub from: String,
    /// The input that the first iteration takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Id>,
}

/// What it means that the condition of a loop never held.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Exhausted {
    /// The run goes on with the last iteration.
    Continue,
    /// The run fails.
    Fail,
}

/// A numeric parameter that a loop changes, if stored rounds show that the change is better.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Tune {
    /// The parameter, as a JSON pointer: `/params/NAME`.
    pub param: String,
    /// How a candidate is made.
    #[serde(default)]
    pub policy: Policy,
    /// How often a candidate is drawn at random instead.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "exploit"))]
    pub preset: Preset,
    /// The least and the greatest value; required unless the policy is `ucb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<[f64; 2]>,
    /// With `ucb`: the values to choose among, such as the names of rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Scalar>,
    /// With `pbt`: the number of values that are judged together.
    #[serde(default = "Tune::members")]
    #[schemars(range(min = 5, max = 1000))]
    pub population: u32,
    /// By what a candidate may differ from the value in use: at most this factor, in either direction.
    #[serde(default = "Tune::ratio")]
    pub max_ratio: f64,
    /// A candidate is tried after each of this many iterations.
    #[serde(default = "Tune::each")]
    #[schemars(range(min = 1))]
    pub every: u32,
    /// Names of options, variables and fields that may take the value, beside well-known ones such as `--lr`. No name
    /// that protects clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sink: Vec<String>,
    /// What judges a candidate.
    pub validate: Validate,
    /// When a change is taken back.
    #[serde(default)]
    pub rollback: Rollback,
    /// The seed of candidates.
    #[serde(default)]
    pub seed: u64,
}

impl Tune {
    fn ratio() -> f64 {
        1.25
    }

    fn each() -> u32 {
        5
    }

    fn members() -> u32 {
        5
    }

    /// Whether a value may be in use: a number within the bounds, or one of the declared values.
    pub fn allows(&self, value: &Scalar) -> bool {
        match (self.policy, self.bounds, value.number()) {
            (Policy::Ucb, ..) => self.values.contains(value),
            (_, Some([least, most]), Some(number)) => (least..=most).contains(&number),
            _ => false,
        }
    }
}

/// How a candidate is made from the value in use.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The value by `max_ratio`, up and down in turns; the direction that was accepted last comes first.
    #[default]
    Climb,
    /// A value drawn within `max_ratio`, log-uniform.
    Random,
    /// The value that the metric `fedexp` proposes.
    Fedexp,
    /// Random values on few iterations; the best quarter goes on to four times as many, up to `replay_rounds`.
    Asha,
    /// A population of values; the worst fifth is replaced by the best fifth times 0.8 or 1.2.
    Pbt,
    /// The one of `values` with the largest upper confidence bound on how often it is better.
    Ucb,
}

/// How often a candidate is drawn at random, whatever the policy proposes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Never.
    #[default]
    Exploit,
    /// In three of ten trials.
    Explore,
}

/// A candidate is judged on iterations that are over: the shadow stages run on their files with the value in use and with
/// the candidate.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Validate {
    /// Stages of the loop that a shadow run repeats, in order; they may have no side effects.
    pub shadow: Vec<Id>,
    /// The metric that judges.
    pub metric: Id,
    /// Whether less is better.
    #[serde(default)]
    pub minimize: bool,
    /// How many of the last iterations are repeated.
    #[serde(default = "Validate::rounds")]
    #[schemars(range(min = 2))]
    pub replay_rounds: u32,
    /// The relative gain that a change needs.
    #[serde(default = "Validate::gain")]
    pub gain: f64,
    /// The confidence at which the interval of the gain must exclude 0.
    #[serde(default = "Validate::confidence")]
    pub ci: f64,
    /// Metrics that may not get worse, with the direction that is worse.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guard: BTreeMap<Id, Worse>,
    /// How long the shadow runs of one candidate may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Friendly>,
}

impl Validate {
    fn rounds() -> u32 {
        5
    }

    fn gain() -> f64 {
        0.15
    }

    fn confidence() -> f64 {
        0.95
    }
}

/// The direction in which a metric is worse.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Worse {
    /// A higher value.
    Higher,
    /// A lower value.
    Lower,
}

/// When a change is taken back, and for how long its value is not tried again.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Rollback {
    /// Iterations in a row that are worse than before the change.
    pub after_failures: u32,
    /// Trials for which a refused value is not tried again.
    pub tabu: u32,
}

impl Default for Rollback {
    fn default() -> Self {
        Self { after_failures: 2, tabu: 10 }
    }
}
