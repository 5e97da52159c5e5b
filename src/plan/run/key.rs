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
