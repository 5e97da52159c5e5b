//! The values that conditions read, from the state of a run.
//!
//! - `params.NAME`: a parameter. `inputs.NAME`: the number of files of an input.
//! - `metrics.NAME`: the metric, from the stage that measures it; a list where that stage fans out.
//! - `history.NAME`: the metric in all iterations before this one, the oldest first.
//! - `stages.NAME.ok`, `.failed`, `.error`, `.skipped`, `.timeout`, `.blocked`, `.seconds`, `.attempts`: how a stage
//!   ended.
//! - `choices.NAME`: the case that a decision chose, or the option that won a vote.
//! - `iteration.k` and `iteration.max`: the iteration, from 1 on, and the most.
//! - `run.calls` and `run.tokens`: requests and tokens so far.

use super::event::Outcome;
use super::key::Key;
use super::state::{Group, State};
use crate::language::condition::{Condition, ConditionError, Outcome as Evaluated, Value};
use crate::schema::Plan;
use std::collections::BTreeMap;

/// The names of the values of a stage.
pub const OF_A_STAGE: [&str; 8] =
    ["ok", "failed", "error", "skipped", "timeout", "blocked", "seconds", "attempts"];

/// The places of stages by name, and of the stages that measure a metric.
#[derive(Clone, Default, Debug)]
pub struct Names {
    stages: BTreeMap<String, usize>,
    metrics: BTreeMap<String, Vec<usize>>,
}

impl Names {
    /// The names of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut names = Self::default();
        for (place, stage) in plan.stages.iter().enumerate() {
            names.stages.insert(stage.id.to_string(), place);
            // A decision lists the metrics that it reads.
            for metric in stage.metrics.iter().filter(|_| !stage.decides()) {
                names.metrics.entry(metric.to_string()).or_default().push(place);
            }
        }
        names
    }

    /// The place of a stage.
    pub fn stage(&self, name: &str) -> Option<usize> {
        self.stages.get(name).copied()
    }

    /// The places of the stages that measure a metric.
    pub fn measuring(&self, metric: &str) -> &[usize] {
        self.metrics.get(metric).map_or(&[], Vec::as_slice)
    }
}

/// Where a condition is evaluated.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its names.
    pub names: &'a Names,
    /// The state of the run.
    pub state: &'a State,
    /// The stage that the condition belongs to, in its iteration; the last stage for that of a loop.
    pub viewer: Key,
}

fn empty() -> Value {
    Value::Map(BTreeMap::new())
}

fn insert(values: &mut BTreeMap<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            values.entry(name.clone()).or_insert(value);
        }
        [name, rest @ ..] => {
            let inner = values.entry(name.clone()).or_insert_with(empty);
            if let Value::Map(map) = inner {
                insert(map, rest, value);
            }
        }
    }
}

impl Scope<'_> {
    /// Evaluates a condition.
    ///
    /// # Errors
    ///
    /// When it is no condition, or a value is missing.
    pub fn evaluate(&self, text: &str) -> Result<Evaluated, ConditionError> {
        let condition = Condition::parse(text)?;
        let mut values = BTreeMap::new();
        for path in condition.reads() {
            match self.value(&path) {
                Some(value) => insert(&mut values, &path, value),
                // So that `has` can look for the value.
                None if path.len() > 1 => insert(&mut values, &path[..path.len() - 1], empty()),
                None => {}
            }
        }
        condition.evaluate(&Value::Map(values))
    }

    fn value(&self, path: &[String]) -> Option<Value> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["params", name] => self.state.params(self.viewer).get(*name).cloned(),
            ["inputs", name] => Some(Value::Int(self.state.inputs.get(*name)?.len() as i64)),
            ["metrics", name] => {
                let key = self.state.seen_from(self.measures(name)?, self.viewer);
                metric(self.state.group(key), name)
            }
            ["history", name] => self.history(name),
            ["choices", name] => self.group(name)?.choice.clone().map(Value::Text),
            ["stages", name, what] => of_stage(self.group(name)?, what),
            ["iteration", "k"] => Some(Value::Int(self.viewer.iteration.into())),
            ["iteration", "max"] => {
                let looped = self.state.loop_of(self.viewer.stage)?;
                Some(Value::Int(self.plan.loops[looped].max_iters.into()))
            }
            ["run", "calls"] => Some(count(self.state.calls)),
            ["run", "tokens"] => Some(count(self.state.tokens)),
            _ => None,
        }
    }

    fn group(&self, stage: &str) -> Option<&Group> {
        Some(self.state.group(self.state.seen_from(self.names.stage(stage)?, self.viewer)))
    }

    /// The stage that measures a metric: of several, as in the branches of a decision, the first that did.
    fn measures(&self, name: &str) -> Option<usize> {
        let stages = self.names.measuring(name);
        let did = |stage: &&usize| {
            metric(self.state.group(self.state.seen_from(**stage, self.viewer)), name).is_some()
        };
        stages.iter().find(did).or(stages.first()).copied()
    }

    fn history(&self, name: &str) -> Option<Value> {
        let stage = self.measures(name)?;
        let before = (self.viewer.iteration as usize).saturating_sub(1);
        let groups = self.state.groups[stage].iter().take(before);
        Some(Value::List(groups.filter_map(|group| metric(group, name)).collect()))
    }
}

/// A metric of a stage: a number, or a list of those of its instances.
fn metric(group: &Group, name: &str) -> Option<Value> {
    // Conditions compare whole and real numbers with each other, so that a metric may stay real.
    let found = group.metric(name)?.into_iter().map(Value::Real);
    match group.instances.len() {
        1 => found.into_iter().next(),
        _ => Some(Value::List(found.collect())),
    }
}

/// A count; the largest whole number of conditions for a larger one.
fn count(count: u64) -> Value {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn of_stage(group: &Group, what: &str) -> Option<Value> {
    let outcome = group.outcome;
    let is = |expected: Outcome| Some(Value::Bool(outcome == Some(expected)));
    match what {
        "ok" => is(Outcome::Ok),
        "failed" => is(Outcome::Failed),
        "error" => is(Outcome::Error),
        "skipped" => is(Outcome::Skipped),
        "timeout" => is(Outcome::Timeout),
        "blocked" => is(Outcome::Blocked),
        "seconds" => outcome.map(|_| Value::Real(group.seconds())),
        "attempts" => {
            let attempts = group.instances.iter().map(|instance| i64::from(instance.attempts)).sum();
            outcome.map(|_| Value::Int(attempts))
        }
        _ => None,
    }
}

/// A value as an argument of a command.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Real(value) => value.to_string(),
        Value::Text(value) => value.clone(),
        Value::List(_) | Value::Map(_) => serde_json::to_string(value).unwrap_or_default(),
    }
}
