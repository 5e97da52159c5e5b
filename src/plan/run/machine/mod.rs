//! Decides what a run does next. It writes each step to the journal before it acts.
//!
//! `consider` looks at a stage that nothing holds back, `attempts` begins and ends attempts at its work, and `settle`
//! ends stages, iterations and the run. `attest` takes the word of the operator. `budget` keeps the limits of privacy.
//! `votes` has the stages that vote, `trial` tunes the parameters of loops between iterations, and `turns` gives work to
//! new agents.

use super::bound::check_instances;
use super::error::RunError;
use super::event::{Artifact, Ending, Event, Failure};
use super::fill::{Filler, Folders};
use super::key::Key;
use super::scope::{Names, Scope};
use super::state::State;
use super::world::{Woken, World};
use crate::io::interrupt::Interrupted;
use crate::language::graph::Graph;
use crate::schema::Plan;
use crate::schema::stage::Stage;
use crate::tuning::guard;
use std::collections::{BTreeMap, BTreeSet};
use turns::Turns;

/// Seconds between two looks at gates and the kill file.
const LOOK_EVERY: f64 = 0.2;

/// Stages that the machine considers before it looks at signals, the kill file and the limits again.
const MOST_IN_ONE_TURN: u32 = 250;

mod attempts;
mod attest;
mod budget;
mod consider;
mod settle;
mod trial;
mod turns;
mod votes;

/// Why a run ends that the kill file ends.
pub fn killed_by(kill_file: &str) -> String {
    format!("the file {kill_file} exists")
}

/// What of a run does not change.
struct Workflow<'p> {
    plan: &'p Plan,
    digest: String,
    graph: Graph,
    names: Names,
    folders: Folders,
    /// The place of each stage in the order in which stages start.
    rank: Vec<usize>,
    /// Stages of `on.failure` and `on.exit`.
    handlers: BTreeSet<usize>,
    /// Attempts at a time.
    parallel: u32,
    /// The time at which this runner began.
    began: f64,
    /// What of the plan this runner does; all where there is none.
    part: Option<Part>,
}

/// What waits, and for what.
#[derive(Default)]
struct Queues {
    /// Stages that nothing holds back, and that are not looked at yet.
    free: BTreeSet<Key>,
    /// Instances that may begin.
    ready: BTreeSet<(usize, Key)>,
    /// Instances that begin again at a time.
    sleeping: BTreeMap<Key, f64>,
    /// Instances with an attempt that runs: the agent, and the bytes of memory.
    running: BTreeMap<Key, (String, u64)>,
    /// Instances with an attempt that charges a privacy budget: the directory of its ledger.
    charging: BTreeMap<Key, String>,
    /// Stages that wait for a person.
    gates: BTreeSet<Key>,
}

/// A run, as far as it got.
pub struct Machine<'p> {
    flow: Workflow<'p>,
    queues: Queues,
    /// What the events so far add up to.
    pub state: State,
    /// The handlers that are still to come, in order; `None` before the end of the run.
    closing: Option<Vec<usize>>,
    /// Events that are not in the journal yet: nothing was done because of them.
    pending: Vec<Event>,
    /// Who got work so far.
    turns: Turns,
}

/// A run that is about to start, or to go on.
pub struct Setup<'p> {
    /// The plan.
    pub plan: &'p Plan,
    /// Its digest.
    pub digest: String,
    /// Where files lie.
    pub folders: Folders,
    /// Attempts at a time, where the plan does not say.
    pub parallel: u32,
    /// What of the plan this runner does; all where there is none.
    pub part: Option<Part>,
}

/// The part of a plan that one of several runners does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The places of its stages.
    pub stages: BTreeSet<usize>,
    /// The one instance of a fan-out; all instances where there is none.
    pub index: Option<u32>,
}

impl<'p> Machine<'p> {
    /// A run after the events of its journal.
    ///
    /// # Errors
    ///
    /// When stages of the plan wait for each other, or it tunes what may not be tuned.
    pub fn new(setup: Setup<'p>, events: &[Event], world: &mut impl World) -> Result<Self, RunError> {
        let Setup { plan, digest, folders, parallel, part } = setup;
        if let Some((at, why)) = guard::fault(plan) {
            return Err(RunError::Plan { at, why });
        }
        let graph = Graph::of(plan)?;
        let mut state = State::new(plan, &graph);
        let mut free = BTreeSet::new();
        let mut turns = Turns::default();
        for event in events {
            turns.add(event, plan);
            if *event == Event::Resume {
                // It says anew which stages nothing holds back.
                free.clear();
            }
            free.extend(state.add(event, &graph, plan));
        }
        let handlers: BTreeSet<usize> = {
            let named = plan.on.stages();
            named.filter_map(|id| plan.stages.iter().position(|stage| stage.id == *id)).collect()
        };
        let remaining = graph.remaining(|_| 1.0);
        let mut order: Vec<usize> = (0..plan.stages.len()).collect();
        order.sort_by(|a, b| remaining[*b].total_cmp(&remaining[*a]).then(a.cmp(b)));
        let mut rank = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, stage)| rank[*stage] = place);
        let flow = Workflow {
            names: Names::of(plan),
            parallel: plan.limits.max_parallel.unwrap_or(parallel).max(1),
            began: world.now(),
            plan,
            digest,
            graph,
            folders,
            rank,
            handlers,
            part,
        };
        let queues = Queues { free, ..Queues::default() };
        Ok(Self { flow, queues, state, closing: None, pending: Vec::new(), turns })
    }

    /// Attempts at a time.
    pub fn parallel(&self) -> u32 {
        self.flow.parallel
    }

    /// Takes events into the state. They come into the journal before the runner acts on them, with others.
    fn record(&mut self, events: &[Event]) {
        for event in events {
            self.turns.add(event, self.flow.plan);
            let freed = self.state.add(event, &self.flow.graph, self.flow.plan);
            self.queues.free.extend(freed);
        }
        self.pending.extend_from_slice(events);
    }

    /// Writes the events to the journal that are not in it.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn flush(&mut self, world: &mut impl World) -> Result<(), RunError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        world.append(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Starts the run, or takes it up again.
    ///
    /// # Errors
    ///
    /// As [`advance`](Self::advance).
    pub fn open(
        &mut self,
        inputs: BTreeMap<String, Vec<Artifact>>,
        world: &mut impl World,
    ) -> Result<(), RunError> {
        if self.state.started {
            if self.state.ending != Some(Ending::Succeeded) {
                self.queues.free.clear();
                // The runner may have ended between an answer and its file.
                for stage in 0..self.flow.plan.stages.len() {
                    self.put_answer_aside(self.state.current(stage), world)?;
                }
                self.record(&[Event::Resume]);
                // The runner may have ended between the last stage of an iteration and its end.
                for looped in 0..self.flow.plan.loops.len() {
                    self.iterate(looped, world)?;
                }
            }
        } else {
            let (plan, shards) = (self.flow.digest.clone(), self.flow.parallel);
            self.record(&[Event::Start { plan, inputs, shards }]);
        }
        check_instances(self.flow.plan, &self.state)
    }

    /// Starts a part of a run whose other stages ended elsewhere, as these events say.
    ///
    /// # Errors
    ///
    /// As [`advance`](Self::advance).
    pub fn take_over(&mut self, before: &[Event], world: &mut impl World) -> Result<(), RunError> {
        self.record(before);
        for stage in self.flow.graph.order.clone() {
            let key = self.state.current(stage);
            if !self.state.group(key).instances.is_empty() {
                self.settle_if_over(key, world)?;
            }
        }
        self.flush(world)
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        self.state.ending.is_some()
    }

    /// The time at which the machine has to look again, if nothing happens before.
    pub fn wakes(&self, now: f64) -> Option<f64> {
        let has_more =
            !self.queues.free.is_empty() || self.queues.running.is_empty() && !self.queues.ready.is_empty();
        if has_more {
            return Some(now);
        }
        let polls = !self.queues.gates.is_empty()
            || !self.queues.running.is_empty()
            || !self.queues.sleeping.is_empty();
        let next_try = self.queues.sleeping.values().copied().reduce(f64::min);
        let look = polls.then_some(now + LOOK_EVERY);
        next_try.into_iter().chain(look).reduce(f64::min)
    }

    /// Does all that the state allows now.
    ///
    /// # Errors
    ///
    /// When the journal or a receipt cannot be written, or an attempt may have happened that must not happen twice.
    pub fn advance(&mut self, world: &mut impl World) -> Result<(), RunError> {
        self.look(world)?;
        // A loop of stages that are skipped or cached waits for nothing: signals, the kill file and the limits come
        // between its iterations.
        let mut left = MOST_IN_ONE_TURN;
        loop {
            while left > 0
                && let Some(key) = self.queues.free.pop_first()
            {
                if self.may_start(key) {
                    self.consider(key, world)?;
                }
                left -= 1;
            }
            let some_are_over = self.begin(world)?;
            left = left.saturating_sub(1);
            let goes_on = !self.queues.free.is_empty() || some_are_over || self.close();
            if !goes_on || left == 0 {
                return Ok(());
            }
        }
    }

    /// Takes what happened while the machine waited.
    ///
    /// # Errors
    ///
    /// As [`advance`](Self::advance); or the signal that ends the runner.
    pub fn take(&mut self, woken: Woken, world: &mut impl World) -> Result<(), RunError> {
        match woken {
            Woken::Time => Ok(()),
            Woken::Ended(ended) => self.end(ended, world),
            Woken::Signal(signal) => self.interrupt(signal, world),
        }
    }

    /// Ends all attempts, and the runner. The run is not over: `resume` goes on with it.
    fn interrupt(&mut self, signal: i32, world: &mut impl World) -> Result<(), RunError> {
        self.queues.running.keys().for_each(|key| world.stop(*key));
        while !self.queues.running.is_empty() {
            if let Woken::Ended(ended) = world.wait(None)? {
                self.queues.running.remove(&ended.key);
                let (key, seconds, tokens) = (ended.key, ended.seconds, ended.spent.tokens);
                let event = Event::Failed { key, failure: Failure::Cancelled, seconds, again: true, tokens };
                self.record(&[event]);
            }
        }
        self.flush(world)?;
        Err(Interrupted { signal }.into())
    }

    fn scope(&self, viewer: Key) -> Scope<'_> {
        Scope { plan: self.flow.plan, names: &self.flow.names, state: &self.state, viewer }
    }

    fn filler(&self) -> Filler<'_> {
        Filler {
            plan: self.flow.plan,
            names: &self.flow.names,
            state: &self.state,
            folders: &self.flow.folders,
        }
    }

    fn stage(&self, key: Key) -> &'p Stage {
        &self.flow.plan.stages[key.stage]
    }

    /// Looks at the kill file, the limits, the gates and the pauses.
    fn look(&mut self, world: &mut impl World) -> Result<(), RunError> {
        if self.state.stop.is_none() {
            if world.is_killed() {
                self.stop(killed_by(&self.flow.plan.safety.kill_file), true, true, world)?;
            } else if let Some(why) = self.passed_limit(world.now()) {
                self.stop(why, true, true, world)?;
            }
        }
        self.give_up_late_trials(world)?;
        for key in self.queues.gates.clone() {
            self.ask(key, world)?;
        }
        let now = world.now();
        let due: Vec<Key> =
            self.queues.sleeping.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
        for key in due {
            self.queues.sleeping.remove(&key);
            self.queues.ready.insert((self.flow.rank[key.stage], key));
        }
        Ok(())
    }

    /// The limit that the run has passed.
    fn passed_limit(&self, now: f64) -> Option<String> {
        let limits = &self.flow.plan.limits;
        let state = &self.state;
        if let Some(most) = limits.wall.filter(|most| now - self.flow.began > most.as_seconds()) {
            return Some(format!("the run took longer than limits.wall, {most}"));
        }
        if let Some(most) = limits.http_calls.filter(|most| state.calls > *most) {
            return Some(format!("{} requests passed limits.http_calls, {most}", state.calls));
        }
        let most = limits.tokens.filter(|most| state.tokens > *most)?;
        Some(format!("{} tokens passed limits.tokens, {most}", state.tokens))
    }

    /// Lets nothing start any more; with `ends_attempts`, ends those that run.
    fn stop(
        &mut self,
        why: String,
        refused: bool,
        ends_attempts: bool,
        world: &mut impl World,
    ) -> Result<(), RunError> {
        if self.state.stop.is_none() {
            self.record(&[Event::Stop { why, refused }]);
        }
        self.queues.ready.clear();
        self.queues.gates.clear();
        self.queues.sleeping.clear();
        if ends_attempts {
            self.queues.running.keys().for_each(|key| world.stop(*key));
        }
        Ok(())
    }
}
