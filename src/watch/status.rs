//! Where a run is: its stages, what runs, what waits for what, and what it used of its limits.

use super::gates::{OpenGate, gate, inner_gates};
use super::rest::{Bottleneck, Rest, Times, durations, replay};
use super::tuning::{TuningRow, tuning};
use crate::io::folder;
use crate::language::graph::Graph;
use crate::plan::run::claim::read_run;
use crate::plan::run::disk;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event, Outcome};
use crate::plan::run::fill::{instances, members};
use crate::plan::run::journal::Journal;
use crate::plan::run::key::Key;
use crate::plan::run::machine::killed_by;
use crate::plan::run::state::{Group, Instance, State};
use crate::plan::run::vote::weights;
use crate::schema::Plan;
use crate::schema::name::Name;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A run.
#[derive(Serialize, Debug)]
pub struct Status {
    /// The name of the plan.
    pub plan: String,
    /// `running`, `interrupted` (not over, and no runner works on it), `succeeded`, `failed` or `refused`.
    pub state: String,
    /// Why no stage starts any more.
    pub why: Option<String>,
    /// The process that works on the run.
    pub runner: Option<String>,
    /// When it started, in RFC 3339.
    pub started: Option<String>,
    /// Seconds from its start to now, or to its last event if no runner works on it.
    pub seconds: f64,
    /// Stages that are over.
    pub over: usize,
    /// Stages with a result of an earlier run.
    pub reused: usize,
    /// How long it may still take.
    pub rest: Rest,
    /// The part that is done, from 0 to 1, where each stage counts alike.
    pub progress: f64,
    /// The stage that takes most of the time.
    pub bottleneck: Option<Bottleneck>,
    /// What it used of its limits.
    pub limits: Vec<Used>,
    /// Its stages, one row for each iteration.
    pub stages: Vec<StageRow>,
    /// The loops that ended without their condition.
    pub exhausted: Vec<String>,
    /// The loops that failed, with what they did.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failed_loops: BTreeMap<String, String>,
    /// The loops that tune a parameter.
    pub tuning: Vec<TuningRow>,
}

impl Status {
    /// Whether the run came to its end.
    pub fn is_ended(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "refused")
    }
}

/// A limit of the plan.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Used {
    /// Its name in `limits`.
    pub limit: &'static str,
    /// What the run used; of `eps` and `delta` what the ledgers said when the run last read them.
    pub used: f64,
    /// The most that it may use.
    pub bound: f64,
    /// The unit.
    pub unit: &'static str,
}

/// A stage in an iteration.
#[derive(Serialize, Debug)]
pub struct StageRow {
    /// The name of the stage, with its iteration.
    pub name: String,
    /// How it ended, or `waiting`, `running`, `interrupted`, `gate`, or `not run` in a run that is over.
    pub state: String,
    /// Whether the iteration is the last so far, or the stage is in no loop.
    pub is_current: bool,
    /// Attempts of all instances, those that run included.
    pub attempts: u32,
    /// Seconds of all attempts that are over.
    pub seconds: f64,
    /// Why it ended so.
    pub why: String,
    /// The case or option that it chose.
    pub choice: Option<String>,
    /// What a person should look at, while the stage waits for the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The gates of the plan that it runs, while they wait for an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<OpenGate>,
    /// The number of its instances, as far as it is known.
    pub instances: usize,
    /// Instances after which no attempt follows.
    pub instances_over: u32,
    /// Instances whose result is that of an earlier run.
    pub reused: usize,
    /// The instances of a fan-out that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedInstance>,
    /// The instances with an attempt that runs.
    pub running: Vec<String>,
    /// The stages, or other things, that it waits for.
    pub waits_for: Vec<String>,
    /// The paths of its outputs.
    pub outputs: Vec<String>,
    /// What it measured, a value for each instance that did.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Vec<f64>>,
    /// What each voter answered, if the stage votes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ballots: Vec<Ballot>,
}

/// An instance of a fan-out that failed.
#[derive(Serialize, Debug)]
pub struct FailedInstance {
    /// Its name.
    pub instance: String,
    /// Why its last attempt failed.
    pub why: String,
}

/// What came from a voter.
#[derive(Serialize, Debug)]
pub struct Ballot {
    /// The agent.
    pub agent: String,
    /// Its share of all weight, after the cap.
    pub weight: f64,
    /// The option that it chose; `None` if it abstained, or has not answered yet.
    pub option: Option<String>,
    /// Why it abstained.
    pub why: Option<String>,
}

/// A run as its directory shows it.
pub struct Watched {
    /// The plan.
    pub plan: Plan,
    /// The journal.
    pub journal: Journal,
    /// The process that works on it.
    pub runner: Option<String>,
    graph: Graph,
    /// What the events add up to.
    pub state: State,
    pub(super) root: PathBuf,
}

/// The time of a line of the journal, in seconds since 1970.
pub fn at(time: &str) -> f64 {
    time.parse::<Timestamp>().map_or(0.0, |time| time.as_duration().as_secs_f64())
}

impl Watched {
    /// Reads the directory of a run.
    ///
    /// # Errors
    ///
    /// When it holds no run, or its plan or journal cannot be read.
    pub fn read(root: &Path) -> Result<Self, RunError> {
        if folder::is_plain_file(root) {
            return Err(RunError::NoRun { path: root.to_owned() });
        }
        let runner = disk::holder(root)?;
        let (plan, _, journal) = read_run(root)?;
        let (graph, state) = replay(&plan, journal.lines.iter().map(|line| &line.entry.data))?;
        Ok(Self { plan, journal, runner, graph, state, root: root.to_owned() })
    }

    /// BLAKE3 of the first event, in hex: a name that no other run has.
    pub fn id(&self) -> String {
        self.journal.digest()
    }

    /// The word for the state of the run.
    pub fn word(&self) -> &'static str {
        match (&self.state.ending, &self.runner) {
            (Some(Ending::Succeeded), _) => "succeeded",
            (Some(Ending::Failed), _) => "failed",
            (Some(Ending::Refused(_)), _) => "refused",
            (None, Some(_)) => "running",
            (None, None) => "interrupted",
        }
    }

    /// Why the run was refused, or why no stage starts any more. The journal says that there is a kill file; it may be
    /// gone since.
    pub fn why(&self) -> Option<String> {
        let why = match &self.state.ending {
            Some(Ending::Refused(why)) => why,
            _ => &self.state.stop.as_ref()?.0,
        };
        let kill_file = &self.plan.safety.kill_file;
        let is_gone = *why == killed_by(kill_file) && !folder::exists(&self.root.join(kill_file));
        Some(if is_gone { "the kill file ended the run, and is gone".to_owned() } else { why.clone() })
    }

    /// The time of the first line.
    pub fn started(&self) -> Option<&str> {
        self.journal.lines.first().map(|line| line.entry.time.as_str())
    }

    /// Now, or the time of the last line if no runner works on the run.
    pub fn until(&self) -> f64 {
        match (&self.runner, self.journal.lines.last()) {
            (None, Some(last)) => at(&last.entry.time),
            _ => Timestamp::now().as_duration().as_secs_f64(),
        }
    }

    /// Seconds from the first line to now, or to the last line.
    pub fn seconds(&self) -> f64 {
        self.started().map_or(0.0, |started| (self.until() - at(started)).max(0.0))
    }

    /// Stages that are over, in the iteration that runs.
    pub fn over(&self) -> usize {
        let is_over = |stage: &usize| self.state.group(self.state.current(*stage)).outcome.is_some();
        (0..self.plan.stages.len()).filter(is_over).count()
    }

    /// Stages with a result of an earlier run, in the iteration that runs.
    fn reused(&self) -> usize {
        let stages = 0..self.plan.stages.len();
        stages.filter(|stage| self.state.group(self.state.current(*stage)).reused() > 0).count()
    }

    /// The seconds of stages in this run, by name, and of the others in the run of another directory.
    ///
    /// # Errors
    ///
    /// When the other directory holds no run, or it cannot be read.
    pub fn past(&self, other: Option<&Path>) -> Result<BTreeMap<String, f64>, RunError> {
        let mut past = match other {
            Some(root) => {
                let other = Self::read(root)?;
                durations(&other.plan, &other.state)
            }
            None => BTreeMap::new(),
        };
        past.extend(durations(&self.plan, &self.state));
        Ok(past)
    }

    /// The status of the run; `past` has the seconds of stages, by name.
    pub fn status(&self, past: &BTreeMap<String, f64>) -> Status {
        let rows = self.state.groups.iter().enumerate().flat_map(|(stage, groups)| {
            let looped = self.state.loop_of(stage).is_some();
            (1..=groups.len() as u32).map(move |iteration| Key {
                stage,
                iteration: if looped { iteration } else { 0 },
                index: None,
                shadow: None,
            })
        });
        let began = self.began();
        let until = self.until();
        let running =
            began.iter().filter(|(key, _)| self.is_running(**key)).map(|(key, at)| (key.stage, until - at));
        let running: BTreeMap<usize, f64> = running.collect();
        let times = Times { plan: &self.plan, graph: &self.graph, state: &self.state, past, running };
        Status {
            plan: self.plan.id.to_string(),
            state: self.word().to_owned(),
            why: self.why(),
            runner: self.runner.clone(),
            started: self.started().map(str::to_owned),
            seconds: self.seconds(),
            over: self.over(),
            reused: self.reused(),
            rest: times.rest(),
            progress: times.progress(),
            bottleneck: times.bottleneck(),
            limits: self.limits(),
            stages: rows.map(|key| self.row(key)).collect(),
            exhausted: self.exhausted(),
            failed_loops: self.failed_loops(),
            tuning: tuning(&self.plan, &self.state),
        }
    }

    /// The loops that ended without their condition.
    fn exhausted(&self) -> Vec<String> {
        let loops = self.plan.loops.iter().zip(&self.state.loops);
        loops.filter(|(_, state)| state.exhausted).map(|(looped, _)| looped.id.to_string()).collect()
    }

    /// The loops that failed, with what they did.
    fn failed_loops(&self) -> BTreeMap<String, String> {
        let name = |looped: usize| self.plan.loops[looped].id.to_string();
        let failed = self.state.failed_loops();
        failed.map(|looped| (name(looped), self.state.loops[looped].failed.clone())).collect()
    }

    /// The time at which the last attempt of each instance began.
    fn began(&self) -> BTreeMap<Key, f64> {
        let begin = |entry: &crate::plan::run::event::Line| match entry.data {
            Event::Begin { key, .. } => Some((key, at(&entry.time))),
            _ => None,
        };
        self.journal.lines.iter().filter_map(|line| begin(&line.entry)).collect()
    }

    fn is_running(&self, key: Key) -> bool {
        self.runner.is_some() && self.state.instance(key).is_some_and(|instance| instance.running)
    }

    /// What the run used of the limits that the plan states.
    fn limits(&self) -> Vec<Used> {
        let limits = &self.plan.limits;
        let taken_up = |data: &Event| matches!(data, Event::Start { .. } | Event::Resume);
        let began = self.journal.lines.iter().rev().find(|line| taken_up(&line.entry.data));
        let wall = began.map_or(0.0, |line| (self.until() - at(&line.entry.time)).max(0.0));
        let current =
            (0..self.plan.stages.len()).map(|stage| (stage, self.state.group(self.state.current(stage))));
        let failed =
            current.clone().filter(|(_, group)| group.outcome.is_some_and(Outcome::is_failure)).count()
                + self.state.failed_loops().count();
        let running =
            |group: &Group| group.instances.iter().filter(|instance| instance.running).count() as u64;
        let live = |count: u64| if self.runner.is_some() { count } else { 0 };
        let attempts = live(current.clone().map(|(_, group)| running(group)).sum());
        let memory = current.map(|(stage, group)| {
            self.plan.stages[stage].mem_bytes.unwrap_or(0).saturating_mul(running(group))
        });
        let count = self.plan.stages.len() as f64;
        let most_failed = limits.max_failed.map(|most| if most < 1.0 { most * count } else { most });
        let whole = |most: Option<u64>| most.map(|most| most as f64);
        let (epsilon, delta) = self.state.spent(None);
        let rows = [
            ("wall", wall, limits.wall.map(|wall| wall.as_seconds()), "s"),
            ("max_parallel", attempts as f64, limits.max_parallel.map(f64::from), "attempts"),
            ("mem_bytes", live(memory.fold(0, u64::saturating_add)) as f64, whole(limits.mem_bytes), "bytes"),
            ("http_calls", self.state.calls as f64, whole(limits.http_calls), "requests"),
            ("tokens", self.state.tokens as f64, whole(limits.tokens), "tokens"),
            ("max_failed", failed as f64, most_failed, "stages"),
            ("eps", epsilon, limits.eps, ""),
            ("delta", delta, limits.delta, ""),
        ];
        let stated = rows
            .into_iter()
            .filter_map(|(limit, used, bound, unit)| Some(Used { limit, used, bound: bound?, unit }));
        stated.collect()
    }

    fn row(&self, key: Key) -> StageRow {
        let group = self.state.group(key);
        let fans_out = self.plan.stages[key.stage].for_each.is_some();
        let instance = |place: usize| Key { index: fans_out.then_some(place as u32), ..key }.name(&self.plan);
        let open = group.instances.iter().enumerate().filter(|(_, instance)| instance.running);
        let open: Vec<String> = open.map(|(place, _)| instance(place)).collect();
        let word = match (group.outcome, &self.runner) {
            (Some(outcome), _) => outcome.word(),
            (None, Some(_)) if !open.is_empty() => "running",
            (None, None) if !open.is_empty() => "interrupted",
            (None, _) if self.state.ending.is_some() => "not run",
            (None, _) if gate(&self.plan, &self.state, key).is_some() => "gate",
            (None, _) => "waiting",
        };
        let failed = group.instances.iter().enumerate().filter(|_| fans_out);
        let failed = failed.filter_map(|(place, found)| {
            Some(FailedInstance { instance: instance(place), why: found.failure.as_ref()?.to_string() })
        });
        let made = group.instances.iter().filter_map(|instance| instance.made.as_ref());
        let ended: u32 = group.instances.iter().map(|instance| instance.attempts + instance.cut_short).sum();
        let known = instances(&self.plan, &self.state, &self.plan.stages[key.stage]);
        let known = known.filter(|_| group.outcome.is_none()).unwrap_or(0) as usize;
        let gate = gate(&self.plan, &self.state, key);
        StageRow {
            name: key.name(&self.plan),
            state: word.to_owned(),
            is_current: self.state.current(key.stage) == key,
            attempts: ended + open.len() as u32,
            seconds: group.seconds(),
            why: group.why.clone(),
            choice: group.choice.clone(),
            question: gate.map(|gate| gate.question).filter(|question| !question.is_empty()),
            gates: inner_gates(self, key),
            instances: group.instances.len().max(known),
            instances_over: group.over,
            waits_for: if word == "waiting" || word == "gate" {
                self.waits_for(key, group)
            } else {
                Vec::new()
            },
            reused: group.reused(),
            failed: failed.collect(),
            running: open,
            ballots: ballots(&self.plan, &self.state, key),
            metrics: metrics(group),
            outputs: made
                .flat_map(|made| made.outputs.values())
                .map(|artifact| artifact.path.clone())
                .collect(),
        }
    }

    /// What a stage waits for that is not over.
    fn waits_for(&self, key: Key, group: &Group) -> Vec<String> {
        if let Some(gate) = gate(&self.plan, &self.state, key) {
            return vec![gate.awaited()];
        }
        let is_open = |need: &&usize| {
            let behind =
                self.state.loop_of(**need).filter(|looped| self.state.loop_of(key.stage) != Some(*looped));
            match behind {
                Some(looped) => !self.state.loops[looped].is_over,
                None => self.state.group(self.state.seen_from(**need, key)).outcome.is_none(),
            }
        };
        let needs: BTreeSet<usize> = self.graph.needs[key.stage].iter().filter(is_open).copied().collect();
        let needs: Vec<String> =
            needs.into_iter().map(|need| self.state.seen_from(need, key).name(&self.plan)).collect();
        if !needs.is_empty() || group.instances.iter().any(|instance| instance.running) {
            return needs;
        }
        let id = &self.plan.stages[key.stage].id;
        let is_handler = self.plan.on.stages().any(|handler| handler == id);
        let other = match (&self.runner, &self.state.stop) {
            _ if is_handler => "the end of the run",
            (_, Some(_)) => return Vec::new(),
            (Some(_), None) if group.instances.iter().any(|instance| instance.attempts > 0) => {
                "the pause before the next attempt, or a free place"
            }
            (Some(_), None) => "a free place",
            (None, None) => "a runner",
        };
        vec![other.to_owned()]
    }
}

/// What the instances of a stage measured, by the names of metrics.
fn metrics(group: &Group) -> BTreeMap<String, Vec<f64>> {
    let mut metrics: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let made = group.instances.iter().filter_map(|instance| instance.made.as_ref());
    for (name, value) in made.flat_map(|made| &made.metrics) {
        metrics.entry(name.clone()).or_default().push(*value);
    }
    metrics
}

fn ballots(plan: &Plan, state: &State, key: Key) -> Vec<Ballot> {
    let Some(vote) = &plan.stages[key.stage].consensus else { return Vec::new() };
    let names = members(plan, &vote.capability, None);
    let score = |name: &&Name| plan.agents.get(*name).map_or(0.0, |agent| agent.skills().score);
    let weights = weights(vote, &names.iter().map(score).collect::<Vec<_>>());
    let voters = names.into_iter().zip(weights).zip(&state.group(key).instances);
    let ballot = |((name, weight), instance): ((&Name, f64), &Instance)| Ballot {
        agent: name.to_string(),
        weight,
        option: instance.made.as_ref().and_then(|made| made.option.clone()),
        why: instance.failure.as_ref().map(ToString::to_string),
    };
    voters.map(ballot).collect()
}
