//! How long a run may still take, and which stage takes most, from the seconds of stages.

use crate::language::graph::Graph;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event, Outcome};
use crate::plan::run::state::{Group, State};
use crate::schema::Plan;
use serde::Serialize;
use std::collections::BTreeMap;

/// The state of a run after these events.
///
/// # Errors
///
/// When stages of the plan wait for each other.
pub fn replay<'e>(plan: &Plan, events: impl Iterator<Item = &'e Event>) -> Result<(Graph, State), RunError> {
    let graph = Graph::of(plan)?;
    let mut state = State::new(plan, &graph);
    for event in events {
        state.add(event, &graph, plan);
    }
    Ok((graph, state))
}

/// The seconds from the beginning to the end of each stage, over all iterations, by place.
pub fn spent(plan: &Plan, state: &State) -> Vec<f64> {
    let parallel = f64::from(parallel(plan, state));
    state.groups.iter().map(|groups| groups.iter().map(|group| elapsed(group, parallel)).sum()).collect()
}

/// The seconds from the beginning to the end of each stage, over all iterations, by name.
///
/// # Errors
///
/// When stages of the plan wait for each other.
pub fn seconds(plan: &Plan, events: &[Event]) -> Result<BTreeMap<String, f64>, RunError> {
    let (_, state) = replay(plan, events.iter())?;
    Ok(plan.stages.iter().map(|stage| stage.id.to_string()).zip(spent(plan, &state)).collect())
}

/// The seconds of a stage from its beginning to its end: the instances of a fan-out share the attempts that run at a
/// time.
fn elapsed(group: &Group, parallel: f64) -> f64 {
    let longest = group.instances.iter().map(|instance| instance.seconds).fold(0.0, f64::max);
    longest.max(group.seconds() / parallel)
}

/// The seconds from the beginning to the end of each stage that succeeded, by name: the mean of its iterations.
pub fn durations(plan: &Plan, state: &State) -> BTreeMap<String, f64> {
    let parallel = f64::from(parallel(plan, state));
    let mut found = BTreeMap::new();
    for (stage, groups) in plan.stages.iter().zip(&state.groups) {
        let done: Vec<f64> = groups
            .iter()
            .filter(|group| group.outcome == Some(Outcome::Ok))
            .map(|group| elapsed(group, parallel))
            .collect();
        if !done.is_empty() {
            found.insert(stage.id.to_string(), done.iter().sum::<f64>() / done.len() as f64);
        }
    }
    found
}

/// Attempts at a time.
pub fn parallel(plan: &Plan, state: &State) -> u32 {
    // Without a limit in the plan, `auto` shards are as many as attempts at a time.
    plan.limits.max_parallel.unwrap_or(state.shards).max(1)
}

/// An estimate of the time that a run still takes.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Rest {
    /// Seconds along the longest chain of stages that are not over; `None` if no stage of them has a past time.
    pub seconds: Option<f64>,
    /// Stages that are not over and that have no past time: they count as 0 seconds.
    pub unknown: usize,
}

impl Rest {
    /// The estimate for a run: `past` has the seconds of stages by name, `running` those since stages began. Counts no
    /// further iterations of loops.
    pub fn of(
        plan: &Plan,
        graph: &Graph,
        state: &State,
        past: &BTreeMap<String, f64>,
        running: &BTreeMap<usize, f64>,
    ) -> Self {
        let is_open = |stage: usize| state.group(state.current(stage)).outcome.is_none();
        let known = |stage: usize| past.get(plan.stages[stage].id.as_str()).copied();
        let cost = |stage: usize| match known(stage).filter(|_| is_open(stage)) {
            Some(seconds) => (seconds - running.get(&stage).copied().unwrap_or(0.0)).max(0.0),
            None => 0.0,
        };
        let open: Vec<usize> = (0..plan.stages.len()).filter(|stage| is_open(*stage)).collect();
        let works = |stage: &&usize| plan.stages[**stage].works();
        let unknown = open.iter().filter(works).filter(|stage| known(**stage).is_none()).count();
        let chain = graph.remaining(cost).into_iter().fold(0.0, f64::max);
        let has_any = open.is_empty() || open.iter().any(|stage| known(*stage).is_some());
        Self { seconds: has_any.then_some(chain), unknown }
    }
}

/// The stage that takes most of a run's time.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Bottleneck {
    /// The stage.
    pub stage: String,
    /// Its seconds, over all iterations.
    pub seconds: f64,
    /// Its share of the seconds of the critical path, from 0 to 1.
    pub share: f64,
}

impl Bottleneck {
    /// The bottleneck of a run: `running` has the seconds since stages began that run. `None` before any attempt took time.
    pub fn of(plan: &Plan, graph: &Graph, state: &State, running: &BTreeMap<usize, f64>) -> Option<Self> {
        let mut costs = spent(plan, state);
        running.iter().for_each(|(stage, seconds)| costs[*stage] += seconds.max(0.0));
        let path = graph.critical_path(|stage| costs[stage]);
        let total: f64 = path.iter().map(|stage| costs[*stage]).sum();
        let stage =
            path.into_iter().max_by(|a, b| costs[*a].total_cmp(&costs[*b])).filter(|_| total > 0.0)?;
        Some(Self {
            stage: plan.stages[stage].id.to_string(),
            seconds: costs[stage],
            share: costs[stage] / total,
        })
    }
}

/// The part of a run that is done, from 0 to 1: seconds that are over by all seconds, along the longest chain of stages.
///
/// A stage without a past time counts as the mean of those that have one; if none has one, each stage counts as 1 s. Counts
/// no further iterations of loops.
pub fn progress(
    plan: &Plan,
    graph: &Graph,
    state: &State,
    past: &BTreeMap<String, f64>,
    running: &BTreeMap<usize, f64>,
) -> f64 {
    if state.ending == Some(Ending::Succeeded) {
        return 1.0;
    }
    // A stage of the end may never run, and does so when all is done.
    let is_last = |id| plan.on.stages().any(|last| last == id);
    let works: Vec<bool> = plan.stages.iter().map(|stage| stage.works()).collect();
    let known: Vec<Option<f64>> =
        plan.stages.iter().map(|stage| past.get(stage.id.as_str()).copied()).collect();
    let times: Vec<f64> = known.iter().flatten().copied().collect();
    let mean = if times.is_empty() { 1.0 } else { times.iter().sum::<f64>() / times.len() as f64 };
    let cost = |stage: usize| match known[stage] {
        _ if is_last(&plan.stages[stage].id) => 0.0,
        Some(seconds) => seconds,
        None if works[stage] => mean,
        None => 0.0,
    };
    let left = |stage: usize| match state.group(state.current(stage)).outcome {
        Some(_) => 0.0,
        None => (cost(stage) - running.get(&stage).copied().unwrap_or(0.0)).max(0.0),
    };
    let longest = |chains: Vec<f64>| chains.into_iter().fold(0.0, f64::max);
    let all = longest(graph.remaining(cost));
    if all > 0.0 { (1.0 - longest(graph.remaining(left)) / all).clamp(0.0, 1.0) } else { 1.0 }
}
