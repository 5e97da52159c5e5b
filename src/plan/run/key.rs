//! Names of the instances of stages.
//!
//! `gram` is a stage alone, `gram@2` in an iteration, `gram.3` in a fan-out, and `gram@2.3` in both.

use crate::plan::schema::Plan;
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
}

impl Key {
    /// The name of the instance, which is also that of its files.
    pub fn name(&self, plan: &Plan) -> String {
        let mut name = plan.stages[self.stage].id.to_string();
        if self.iteration > 0 {
            name.push_str(&format!("@{}", self.iteration));
        }
        if let Some(index) = self.index {
            name.push_str(&format!(".{index}"));
        }
        name
    }
}
