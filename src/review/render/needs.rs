//! What the job of a task asks of a machine: time and memory.

use crate::schema::Plan;
use crate::schema::agent::Agent;
use crate::schema::stage::Stage;
use crate::tasks::units::Unit;

/// Minutes that a job has beyond the timeouts of its stages, to start and to write what it made.
const SPARE_MINUTES: f64 = 2.0;

/// The longest time that a job asks for, a year, in minutes.
const MOST_MINUTES: f64 = 525_600.0;

/// Minutes after which each attempt of a task has timed out; `None` if a stage has no timeout.
pub fn minutes(plan: &Plan, unit: &Unit) -> Option<u64> {
    let mut seconds = 0.0;
    for place in &unit.stages {
        let stage = &plan.stages[*place];
        let times = plan.loop_of(*place).map_or(1, |looped| plan.loops[looped].max_iters);
        seconds += of_stage(plan, stage)? * f64::from(times);
    }
    let minutes = (seconds / 60.0 + SPARE_MINUTES).ceil();
    (minutes <= MOST_MINUTES).then_some(minutes as u64)
}

fn of_stage(plan: &Plan, stage: &Stage) -> Option<f64> {
    let gate = stage.gate.as_ref().map_or(0.0, |gate| gate.timeout.as_seconds());
    if !stage.works() {
        return Some(gate);
    }
    let timeout = stage.timeout.as_ref().or(plan.limits.timeout.as_ref())?;
    let attempts = stage.max_attempts();
    let pauses =
        (1..attempts).map(|done| stage.retry.as_ref().map_or(0.0, |retry| retry.backoff.after(done)));
    let end = timeout.kill_after.as_seconds();
    let instances = if stage.for_each.is_some() && stage.gate.is_some() { None } else { Some(1.0) };
    Some(gate + (timeout.run.as_seconds() + end) * f64::from(attempts) * instances? + pauses.sum::<f64>())
}

/// MiB of memory that the largest stage of a task needs; `None` if none says so.
pub fn mebibytes(plan: &Plan, unit: &Unit) -> Option<u64> {
    let bytes = unit.stages.iter().filter_map(|stage| plan.stages[*stage].mem_bytes).max()?;
    Some(bytes.div_ceil(1 << 20))
}

/// The tasks of a unit that may run at a time by the limits of the plan and of its agents; `None` where none is set.
pub fn at_a_time(plan: &Plan, unit: &Unit) -> Option<u32> {
    let agents = agents(plan, unit).into_iter().filter_map(|(_, agent)| agent.skills().max_parallel);
    agents.chain(plan.limits.max_parallel).min()
}

/// The agents that work for the stages of a unit, by name.
pub fn agents<'p>(plan: &'p Plan, unit: &Unit) -> Vec<(&'p str, &'p Agent)> {
    let uses = |stage: &Stage, name: &str, agent: &Agent| match &stage.agent {
        Some(named) => named.as_str() == name,
        None => stage.works() && !stage.is_built_in() && agent.can(&stage.needs_capability),
    };
    let used = plan.agents.iter().filter(|(name, agent)| {
        unit.stages.iter().any(|stage| uses(&plan.stages[*stage], name.as_str(), agent))
    });
    used.map(|(name, agent)| (name.as_str(), agent)).collect()
}
