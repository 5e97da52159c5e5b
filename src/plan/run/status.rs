//! The stages of a run, for people and programs.

use super::error::RunError;
use super::event::{Ending, Event, Made};
use super::fill::members;
use super::key::Key;
use super::state::{Group, Instance, State};
use super::tune::Step;
use crate::plan::graph::Graph;
use crate::plan::schema::Plan;
use crate::plan::schema::name::Name;
use serde::Serialize;
use std::collections::BTreeMap;

/// A run.
#[derive(Serialize, Debug)]
pub struct Status {
    /// The name of the plan.
    pub plan: String,
    /// `running`, `succeeded`, `failed` or `refused`.
    pub state: String,
    /// Why no stage starts any more.
    pub why: Option<String>,
    /// Its stages, one row for each iteration.
    pub stages: Vec<StageRow>,
    /// The loops that tune a parameter.
    pub tuning: Vec<TuningRow>,
}

/// A loop that tunes a parameter.
#[derive(Serialize, Debug)]
pub struct TuningRow {
    /// The name of the loop.
    pub r#loop: String,
    /// The parameter, as a JSON pointer.
    pub param: String,
    /// The value in use.
    pub value: f64,
    /// What was tried, and what came of it.
    pub steps: Vec<StepRow>,
}

/// A step of tuning.
#[derive(Serialize, Debug)]
pub struct StepRow {
    /// The iteration after which it happened.
    pub iteration: u32,
    /// What happened.
    #[serde(flatten)]
    pub step: Step,
}

/// A stage in an iteration.
#[derive(Serialize, Debug)]
pub struct StageRow {
    /// The name of the instance.
    pub name: String,
    /// How it ended, or `waiting`, `running` or `gate`.
    pub state: String,
    /// Attempts of all instances.
    pub attempts: u32,
    /// Seconds of all attempts.
    pub seconds: f64,
    /// Why it ended so.
    pub why: String,
    /// The case or option that it chose.
    pub choice: Option<String>,
    /// The paths of its outputs.
    pub outputs: Vec<String>,
    /// What each voter answered, if the stage votes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ballots: Vec<Ballot>,
}

/// What came from a voter.
#[derive(Serialize, Debug)]
pub struct Ballot {
    /// The agent.
    pub agent: String,
    /// The option that it chose; `None` if it abstained, or has not answered yet.
    pub option: Option<String>,
    /// Why it abstained.
    pub why: Option<String>,
}

impl Status {
    /// The status of a run after these events.
    ///
    /// # Errors
    ///
    /// When stages of the plan wait for each other.
    pub fn of(plan: &Plan, events: &[Event]) -> Result<Self, RunError> {
        let graph = Graph::of(plan)?;
        let mut state = State::new(plan, &graph);
        for event in events {
            state.add(event, &graph, plan);
        }
        let word = match &state.ending {
            None => "not over",
            Some(Ending::Succeeded) => "succeeded",
            Some(Ending::Failed) => "failed",
            Some(Ending::Refused(_)) => "refused",
        };
        let rows = state.groups.iter().enumerate().flat_map(|(stage, groups)| {
            let looped = state.loop_of(stage).is_some();
            (1..=groups.len() as u32).map(move |iteration| Key {
                stage,
                iteration: if looped { iteration } else { 0 },
                index: None,
                shadow: None,
            })
        });
        let stages = rows.map(|key| row(plan, &state, key)).collect();
        let why = state.stop.as_ref().map(|(why, _)| why.clone());
        let tuning = tuning(plan, &state);
        Ok(Self { plan: plan.id.to_string(), state: word.to_owned(), why, stages, tuning })
    }
}

fn tuning(plan: &Plan, state: &State) -> Vec<TuningRow> {
    let loops = state.tuned.loops.iter().filter_map(|(looped, tuning)| {
        let settings = plan.loops.get(*looped)?;
        let steps = tuning.history.iter();
        Some(TuningRow {
            r#loop: settings.id.to_string(),
            param: settings.tune.as_ref()?.param.clone(),
            value: tuning.value,
            steps: steps
                .map(|(iteration, step)| StepRow { iteration: *iteration, step: step.clone() })
                .collect(),
        })
    });
    loops.collect()
}

/// The seconds of all attempts of each stage, over all iterations, by name.
///
/// # Errors
///
/// When stages of the plan wait for each other.
pub fn seconds(plan: &Plan, events: &[Event]) -> Result<BTreeMap<String, f64>, RunError> {
    let graph = Graph::of(plan)?;
    let mut state = State::new(plan, &graph);
    for event in events {
        state.add(event, &graph, plan);
    }
    let of_stage = |groups: &Vec<Group>| groups.iter().map(Group::seconds).sum();
    Ok(plan.stages.iter().map(|stage| stage.id.to_string()).zip(state.groups.iter().map(of_stage)).collect())
}

/// The metrics that stages of loops measured, by name: a number for each iteration that measured it, the mean of a
/// fan-out, the oldest first.
///
/// # Errors
///
/// When stages of the plan wait for each other.
pub fn series(plan: &Plan, events: &[Event]) -> Result<BTreeMap<String, Vec<f64>>, RunError> {
    let graph = Graph::of(plan)?;
    let mut state = State::new(plan, &graph);
    for event in events {
        state.add(event, &graph, plan);
    }
    let mut series: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (stage, groups) in
        state.groups.iter().enumerate().filter(|(stage, _)| state.loop_of(*stage).is_some())
    {
        for group in groups {
            let made: Vec<&Made> =
                group.instances.iter().filter_map(|instance| instance.made.as_ref()).collect();
            for metric in plan.stages[stage].metrics.iter().map(|metric| metric.as_str()) {
                let values: Vec<f64> =
                    made.iter().filter_map(|made| made.metrics.get(metric).copied()).collect();
                if !values.is_empty() {
                    let mean = values.iter().sum::<f64>() / values.len() as f64;
                    series.entry(metric.to_owned()).or_default().push(mean);
                }
            }
        }
    }
    Ok(series)
}

fn ballots(plan: &Plan, state: &State, key: Key) -> Vec<Ballot> {
    let Some(vote) = &plan.stages[key.stage].consensus else { return Vec::new() };
    let voters = members(plan, &vote.capability, None).into_iter().zip(&state.group(key).instances);
    let ballot = |(name, instance): (&Name, &Instance)| Ballot {
        agent: name.to_string(),
        option: instance.made.as_ref().and_then(|made| made.option.clone()),
        why: instance.failure.as_ref().map(ToString::to_string),
    };
    voters.map(ballot).collect()
}

fn row(plan: &Plan, state: &State, key: Key) -> StageRow {
    let group = state.group(key);
    let running = group.instances.iter().any(|instance| instance.running);
    let word = match group.outcome {
        Some(outcome) => outcome.word(),
        None if running => "running",
        None if group.gate_until.is_some() && group.answer.is_none() => "gate",
        None => "waiting",
    };
    let made = group.instances.iter().filter_map(|instance| instance.made.as_ref());
    StageRow {
        name: key.name(plan),
        state: word.to_owned(),
        attempts: group.instances.iter().map(|instance| instance.attempts).sum(),
        seconds: group.seconds(),
        why: group.why.clone(),
        choice: group.choice.clone(),
        ballots: ballots(plan, state, key),
        outputs: made.flat_map(|made| made.outputs.values()).map(|artifact| artifact.path.clone()).collect(),
    }
}
