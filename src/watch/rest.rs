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

/// What is known of the time of a run. Further iterations of loops count nowhere.
pub struct Times<'r> {
    /// The plan.
    pub plan: &'r Plan,
    /// Which stages wait for which.
    pub graph: &'r Graph,
    /// The state of the run.
    pub state: &'r State,
    /// The seconds that stages took before, by name.
    pub past: &'r BTreeMap<String, f64>,
    /// The seconds since stages began that run.
    pub running: BTreeMap<usize, f64>,
}

impl Times<'_> {
    /// The estimate of the rest.
    pub fn rest(&self) -> Rest {
        let counts = |stage: &usize| self.is_open(*stage) && !self.is_last(*stage);
        let open: Vec<usize> = (0..self.plan.stages.len()).filter(counts).collect();
        let works = |stage: &&usize| self.plan.stages[**stage].works();
        let unknown = open.iter().filter(works).filter(|stage| self.known(**stage).is_none()).count();
        let chain = self.longest(|stage| self.left(stage, self.known(stage).unwrap_or(0.0)));
        let has_any = open.is_empty() || open.iter().any(|stage| self.known(*stage).is_some());
        Rest { seconds: has_any.then_some(chain), unknown }
    }

    /// The part of the run that is done, from 0 to 1: each stage counts alike, except those of `on.failure`.
    ///
    /// A fan-out is done by its instances, and a stage of a loop by the iterations up to `max_iters`. Times count
    /// nowhere: what is known of them changes while the run goes on, and the part that is done must not fall.
    pub fn progress(&self) -> f64 {
        if self.state.ending == Some(Ending::Succeeded) {
            return 1.0;
        }
        let on = &self.plan.on;
        let counts = |stage: &usize| {
            let name = &self.plan.stages[*stage].id;
            on.exit.contains(name) || !on.failure.contains(name)
        };
        let parts: Vec<f64> =
            (0..self.plan.stages.len()).filter(counts).map(|stage| self.done(stage)).collect();
        parts.iter().fold(0.0, |sum, part| sum + part) / parts.len().max(1) as f64
    }

    /// The part of a stage that is done, from 0 to 1.
    fn done(&self, stage: usize) -> f64 {
        let groups = &self.state.groups[stage];
        let over = |group: &Group| match group.outcome {
            Some(outcome) => f64::from(u8::from(outcome.is_fine())),
            None if self.plan.stages[stage].for_each.is_some() => {
                let made = group.instances.iter().filter(|instance| instance.made.is_some()).count();
                made as f64 / group.instances.len().max(1) as f64
            }
            None => 0.0,
        };
        let all = groups.iter().map(over).fold(0.0, |sum, part| sum + part);
        match self.state.loop_of(stage) {
            Some(looped) if self.state.loops[looped].is_over => groups.last().map_or(0.0, over),
            Some(looped) => (all / f64::from(self.plan.loops[looped].max_iters.max(1))).min(1.0),
            None => all,
        }
    }

    /// The stage that takes most of the time; `None` before any attempt took time.
    pub fn bottleneck(&self) -> Option<Bottleneck> {
        let mut costs = spent(self.plan, self.state);
        self.running.iter().for_each(|(stage, seconds)| costs[*stage] += seconds.max(0.0));
        let path = self.graph.critical_path(|stage| costs[stage]);
        let total: f64 = path.iter().map(|stage| costs[*stage]).sum();
        let stage =
            path.into_iter().max_by(|a, b| costs[*a].total_cmp(&costs[*b])).filter(|_| total > 0.0)?;
        let (name, seconds) = (self.plan.stages[stage].id.to_string(), costs[stage]);
        Some(Bottleneck { stage: name, seconds, share: seconds / total })
    }

    /// Whether a stage belongs to the end of the run: it may never run, and does so when all is done.
    fn is_last(&self, stage: usize) -> bool {
        self.plan.on.stages().any(|last| *last == self.plan.stages[stage].id)
    }

    fn is_open(&self, stage: usize) -> bool {
        self.state.group(self.state.current(stage)).outcome.is_none()
    }

    fn known(&self, stage: usize) -> Option<f64> {
        self.past.get(self.plan.stages[stage].id.as_str()).copied()
    }

    /// The seconds that are left of those that a stage takes.
    fn left(&self, stage: usize, seconds: f64) -> f64 {
        let running = self.running.get(&stage).copied().unwrap_or(0.0);
        if self.is_open(stage) { (seconds - running).max(0.0) } else { 0.0 }
    }

    /// The longest chain of stages that take these seconds.
    fn longest(&self, seconds: impl Fn(usize) -> f64) -> f64 {
        self.graph.remaining(seconds).into_iter().fold(0.0, f64::max)
    }
}
