//! What a target does in another way than `fedmill plan run`, and what it cannot do.

use super::needs::agents;
use crate::language::condition::Condition;
use crate::schema::Plan;
use crate::schema::agent::Agent;
use crate::schema::limits::Limits;
use crate::schema::policy::{Cache, FailureMode};
use crate::schema::stage::Stage;
use crate::tasks::units::Units;
use serde::Serialize;
use std::fmt;

/// A program that runs the tasks of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Slurm.
    Slurm,
    /// Snakemake.
    Snakemake,
}

/// How far a target keeps to a value of the plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The target does not do it.
    Lost,
    /// The target does it by other means.
    Replaced,
    /// fedmill does it, inside of one job.
    Inside,
}

/// A value of the plan that a target does not take as it stands.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Loss {
    /// Its place in the plan.
    pub at: String,
    /// How far the target keeps to it.
    pub level: Level,
    /// What happens.
    pub what: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slurm => "Slurm",
            Self::Snakemake => "Snakemake",
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Replaced => "replaced",
            Self::Inside => "inside one job",
        })
    }
}

/// The report, for programs.
#[derive(Serialize, Debug)]
pub struct Report<'a> {
    /// `fedmill.render/1`.
    pub schema: &'static str,
    /// BLAKE3 of the plan.
    pub plan: &'a str,
    /// The target.
    pub target: Target,
    /// The number of tasks.
    pub tasks: u64,
    /// What the target does not take as it stands.
    pub losses: &'a [Loss],
}

/// The report, for people.
pub fn text(target: Target, tasks: u64, losses: &[Loss]) -> String {
    let tasks = if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") };
    let mut text = format!("{target}: {tasks}\n");
    for loss in losses {
        text += &format!("{}: {}: {}\n", loss.level, loss.at, loss.what);
    }
    if losses.is_empty() {
        text += &format!("{target} takes all of the plan as it stands\n");
    }
    text
}

/// What a target does not take as it stands, in the order of the plan; what is lost comes first.
pub fn losses(plan: &Plan, units: &Units, target: Target) -> Vec<Loss> {
    let mut found = Found(Vec::new());
    limits(plan, target, &mut found);
    agents_of(plan, units, target, &mut found);
    conditions(plan, &mut found);
    for (place, stage) in plan.stages.iter().enumerate() {
        of_stage(plan, stage, &format!("$.stages[{place}]"), target, &mut found);
    }
    for (place, looped) in plan.loops.iter().enumerate() {
        let at = format!("$.loops[{place}]");
        let what = "one job runs all stages of the loop, one machine for all of its iterations";
        found.add(at.clone(), Level::Inside, what);
        if looped.tune.is_some() {
            found.add(format!("{at}.tune"), Level::Inside, "the job of the loop tunes the parameter");
        }
    }
    if target == Target::Snakemake {
        let handlers =
            [("failure", &plan.on.failure, "onerror"), ("exit", &plan.on.exit, "onerror and onsuccess")];
        for (key, _, by) in handlers.into_iter().filter(|(_, named, _)| !named.is_empty()) {
            found.add(format!("$.on.{key}"), Level::Replaced, &format!("Snakemake runs the stages by {by}"));
        }
    }
    found.0.sort_by_key(|loss| loss.level);
    found.0
}

struct Found(Vec<Loss>);

impl Found {
    fn add(&mut self, at: impl Into<String>, level: Level, what: &str) {
        self.0.push(Loss { at: at.into(), level, what: what.to_owned() });
    }
}

fn limits(plan: &Plan, target: Target, found: &mut Found) {
    let limits = &plan.limits;
    let default = Limits::default();
    let mut lost = |is_set: bool, key: &str, what: &str| {
        if is_set {
            found.add(format!("$.limits.{key}"), Level::Lost, what);
        }
    };
    lost(limits.wall.is_some(), "wall", "the limit holds for each task alone, not for the run");
    let alone = "each task counts alone: the run may use as much for each of its tasks";
    lost(limits.http_calls.is_some(), "http_calls", alone);
    lost(limits.tokens.is_some(), "tokens", alone);
    let workflows = limits.max_parallel_workflows != default.max_parallel_workflows;
    lost(workflows, "max_parallel_workflows", &format!("{target} does not count runs"));
    let fails_fast = limits.on_failure == FailureMode::FailFast;
    lost(fails_fast, "on_failure", "tasks that run when another one fails go on to their end");
    let mut replaced = |is_set: bool, key: &str, what: &str| {
        if is_set {
            found.add(format!("$.limits.{key}"), Level::Replaced, what);
        }
    };
    if target == Target::Slurm {
        let arrays =
            "it is the most tasks of one array at a time; Slurm decides how many arrays run together";
        replaced(limits.max_parallel.is_some(), "max_parallel", arrays);
        let pool = limits.agent_pool_size != default.agent_pool_size;
        replaced(pool, "agent_pool_size", "Slurm decides how many tasks run at a time");
        let memory = "Slurm places jobs by `mem_bytes` of their stages and the memory of its machines";
        replaced(limits.mem_bytes.is_some(), "mem_bytes", memory);
    }
}

fn agents_of(plan: &Plan, units: &Units, target: Target, found: &mut Found) {
    for (name, agent) in &plan.agents {
        let at = format!("$.agents.{name}");
        let users =
            units.all.iter().filter(|unit| agents(plan, unit).iter().any(|(used, _)| *used == name.as_str()));
        if target == Target::Slurm && agent.skills().max_parallel.is_some() && users.count() > 1 {
            let what = "the limit holds for each array alone, and several use the agent";
            found.add(format!("{at}.max_parallel"), Level::Lost, what);
        }
        if matches!(agent, Agent::Ollama(agent) if agent.cache == Cache::Content) {
            found.add(format!("{at}.cache"), Level::Replaced, "each task has a separate cache");
        }
    }
}

/// Conditions that read what the whole run used.
fn conditions(plan: &Plan, found: &mut Found) {
    let mut look = |at: String, text: &str| {
        let reads = Condition::parse(text).map(|condition| condition.reads()).unwrap_or_default();
        if reads.iter().any(|path| path.first().is_some_and(|root| root == "run")) {
            found.add(at, Level::Lost, "`run.calls` and `run.tokens` count one task alone");
        }
    };
    for (place, text) in plan.safety.invariants.iter().enumerate() {
        look(format!("$.safety.invariants[{place}]"), text);
    }
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        for (number, case) in stage.cases.iter().enumerate() {
            look(format!("{at}.cases[{number}].if"), &case.condition);
        }
        let texts =
            [("when", &stage.when), ("depends", &stage.depends), ("success_when", &stage.success_when)];
        for (key, text) in texts {
            text.iter().for_each(|text| look(format!("{at}.{key}"), text));
        }
    }
    for (place, looped) in plan.loops.iter().enumerate() {
        looped.until.iter().for_each(|text| look(format!("$.loops[{place}].until"), text));
    }
}

fn of_stage(plan: &Plan, stage: &Stage, at: &str, target: Target, found: &mut Found) {
    if stage.decides() {
        found.add(format!("{at}.kind"), Level::Inside, "a job chooses the case; stages behind it look it up");
    }
    if stage.plan.is_some() {
        found.add(format!("{at}.plan"), Level::Inside, "one job runs the whole plan of the file");
    }
    if stage.consensus.is_some() {
        found.add(format!("{at}.consensus"), Level::Inside, "one job asks all voters and counts");
    }
    if stage.gate.is_some() {
        let what =
            "the job waits for the answer, in the directory of the task, and holds its place meanwhile";
        found.add(format!("{at}.gate"), Level::Inside, what);
    }
    if stage.gate.is_some() && stage.for_each.is_some() {
        found.add(format!("{at}.for_each"), Level::Inside, "one job runs all instances behind the gate");
    }
    if stage.cache == Cache::Content {
        found.add(format!("{at}.cache"), Level::Replaced, "each task has a separate cache");
    }
    if stage.fans_out() && stage.min_succeeded.is_some_and(|least| least > 0) {
        let what = "a task that fails holds up the stages behind the fan-out";
        found.add(format!("{at}.min_succeeded"), Level::Lost, what);
    }
    let keeps_going = plan.limits.on_failure == FailureMode::KeepGoing;
    if target == Target::Snakemake && stage.depends.is_some() && keeps_going {
        let what =
            "Snakemake does not run a stage once one that it names was blocked, whatever the condition says";
        found.add(format!("{at}.depends"), Level::Lost, what);
    }
}
