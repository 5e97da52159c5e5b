//! How long a run may still take, from the seconds that stages took before.

use crate::plan::graph::Graph;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Event, Outcome};
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

/// The seconds of all attempts of each stage, over all iterations, by name.
///
/// # Errors
///
/// When stages of the plan wait for each other.
pub fn seconds(plan: &Plan, events: &[Event]) -> Result<BTreeMap<String, f64>, RunError> {
    let (_, state) = replay(plan, events.iter())?;
    let of_stage = |groups: &Vec<Group>| groups.iter().map(Group::seconds).sum();
    Ok(plan.stages.iter().map(|stage| stage.id.to_string()).zip(state.groups.iter().map(of_stage)).collect())
}

/// The seconds from the beginning to the end of each stage that succeeded, by name: the mean of its iterations. The
/// instances of a fan-out share the attempts that run at a time.
pub fn durations(plan: &Plan, state: &State) -> BTreeMap<String, f64> {
    let parallel = f64::from(parallel(plan, state));
    let of_group = |group: &&Group| {
        let longest = group.instances.iter().map(|instance| instance.seconds).fold(0.0, f64::max);
        longest.max(group.seconds() / parallel)
    };
    let mut found = BTreeMap::new();
    for (stage, groups) in plan.stages.iter().zip(&state.groups) {
        let done: Vec<f64> = groups
            .iter()
            .filter(|group| group.outcome == Some(Outcome::Ok))
            .map(|group| of_group(&group))
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
