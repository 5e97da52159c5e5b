//! Names of the instances of stages.
//!
//! `gram` is a stage alone, `gram@2` in an iteration, `gram.3` in a fan-out, and `gram@2.3` in both. `gram@2~5-new` is a
//! shadow run of trial 5 with the candidate, and `gram@2~5-now` one with the value in use.

use crate::schema::Plan;
use serde::{Deserialize, Serialize};

/// An instance of a stage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Key {
    /// The place of the stage in the plan.
    pub stage: usize,
    /// The iteration, from 1 on; 0 outside of loops.
    pub iteration: u32,
    /// The place in the fan-out, from 0 on; `None` without one.
    pub index: Option<u32>,
    /// The shadow run that it belongs to; `None` for the run itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

/// A shadow run: an iteration that is repeated to judge a candidate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Shadow {
    /// The trial, from 1 on.
    pub trial: u32,
    /// Whether it runs with the candidate, not with the value in use.
    pub candidate: bool,
}

impl Key {
    /// The name of the instance, which is also that of its files.
    pub fn name(&self, plan: &Plan) -> String {
        let mut name = plan.stages[self.stage].id.to_string();
        if self.iteration > 0 {
            name.push_str(&format!("@{}", self.iteration));
        }
        if let Some(Shadow { trial, candidate }) = self.shadow {
            name.push_str(&format!("~{trial}-{}", if candidate { "new" } else { "now" }));
        }
        if let Some(index) = self.index {
            name.push_str(&format!(".{index}"));
        }
        name
    }
}

/// The most instances that a text names.
const MOST_NAMED: usize = 8;

/// The instances of a fan-out that failed, the first with its reason: `3 of 40 instances failed: s.2 (exited with status
/// 3), s.17, s.31`. Leaves names out after some.
pub fn some_failed(names: &[String], all: usize, why: &str) -> String {
    let (failed, others) = (names.len(), names.len().saturating_sub(MOST_NAMED));
    let (first, rest) = names.split_first().map_or(("", names), |(first, rest)| (first.as_str(), rest));
    let rest: String = rest.iter().take(MOST_NAMED - 1).map(|name| format!(", {name}")).collect();
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    format!("{failed} of {all} instances failed: {first} ({why}){rest}{others}")
}
