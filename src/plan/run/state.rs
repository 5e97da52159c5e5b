//! What the events of a run add up to.
//!
//! [`shadows`] has the part of trials, and `reconsidered` opens stages again whose cause is open again.

mod reconsidered;
pub mod shadows;

use super::event::{Artifact, Ending, Event, Failure, Made, Outcome};
use super::key::Key;
use crate::language::graph::Graph;
use crate::schema::Plan;
use crate::schema::policy::{Answer, SideEffects};
use shadows::Tuned;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// An instance of a stage: where its attempts stand.
#[derive(Clone, Default, Debug)]
pub struct Instance {
    /// Attempts that began and came to an end.
    pub attempts: u32,
    /// Attempts that the runner ended before their time: they say nothing about the work.
    pub cut_short: u32,
    /// Whether an attempt began and did not end.
    pub running: bool,
    /// Whether an attempt began whose work may have happened: it neither succeeded nor is known not to have started.
    pub may_have_happened: bool,
    /// Whether the operator said that its work is done.
    pub attested: bool,
    /// The key of the work of the attempt that began last.
    pub work: String,
    /// The agent of that attempt.
    pub agent: String,
    /// The agents whose attempts failed, once for each attempt.
    pub failed: Vec<String>,
    /// What the attempt that succeeded made.
    pub made: Option<Made>,
    /// Why the last attempt failed, once no other follows.
    pub failure: Option<Failure>,
    /// Seconds of all attempts.
    pub seconds: f64,
}

impl Instance {
    /// Whether no attempt follows.
    pub fn is_over(&self) -> bool {
        self.made.is_some() || self.failure.is_some()
    }
}

/// A stage in one iteration.
#[derive(Clone, Default, Debug)]
pub struct Group {
    /// Its instances; none before they are known.
    pub instances: Vec<Instance>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it ended so.
    pub why: String,
    /// The case or option that it chose.
    pub choice: Option<String>,
    /// The time until which it waits for a person, in seconds since 1970.
    pub gate_until: Option<f64>,
    /// The answer of the person.
    pub answer: Option<Answer>,
    /// Whether it is the default, since no answer came in time.
    pub by_default: bool,
    /// Answers of persons so far, in all attempts at the run.
    pub answers: u32,
    /// Stages that it needs and that did not end.
    pub left: usize,
    /// Instances after which no attempt follows.
    pub over: u32,
}

impl Group {
    /// Whether it ended badly, or one of its instances did.
    fn fell_short(&self) -> bool {
        match self.outcome {
            Some(outcome) => !outcome.is_fine(),
            None => self.instances.iter().any(|instance| instance.failure.is_some()),
        }
    }

    /// A metric of the instances that succeeded, in order; `None` if none of them measured it, or one is not over.
    pub fn metric(&self, name: &str) -> Option<Vec<f64>> {
        let leaves_out = self.outcome.is_none_or(Outcome::is_fine);
        let counted = self.instances.iter().filter(|instance| !leaves_out || instance.failure.is_none());
        let values = counted.map(|instance| instance.made.as_ref()?.metrics.get(name).copied());
        values.collect::<Option<Vec<f64>>>().filter(|values| !values.is_empty())
    }

    fn answer(&mut self, answer: Answer, by_default: bool) {
        (self.answer, self.by_default) = (Some(answer), by_default);
        self.answers += u32::from(!by_default);
    }

    /// Takes the word of the operator for what came of an instance. Returns whether it takes an earlier word back, and
    /// so opens the stage again.
    fn attest(&mut self, index: Option<u32>, done: bool) -> bool {
        let Some(instance) = self.instances.get_mut(index.unwrap_or(0) as usize) else { return false };
        let (was_over, takes_back) = (instance.is_over(), instance.attested && !done);
        (instance.running, instance.may_have_happened, instance.attested) = (false, false, done);
        if done {
            (instance.made, instance.failure) = (Some(Made::default()), None);
        } else if takes_back {
            instance.made = None;
            (self.outcome, self.choice) = (None, None);
        }
        self.over = self.over + u32::from(instance.is_over()) - u32::from(was_over);
        takes_back
    }

    /// Instances whose result is that of an earlier run.
    pub fn reused(&self) -> usize {
        let made = self.instances.iter().filter_map(|instance| instance.made.as_ref());
        made.filter(|made| !made.from.is_empty()).count()
    }

    /// Seconds of all attempts of all instances.
    pub fn seconds(&self) -> f64 {
        // The sum of no numbers is -0.
        self.instances.iter().fold(0.0, |sum, instance| sum + instance.seconds)
    }

    /// Gives a stage that did not succeed another chance; instances that did keep what they made.
    pub(super) fn open_again(&mut self) {
        if !self.fell_short() {
            return;
        }
        let instances: Vec<Instance> = self.instances.iter().map(Instance::open_again).collect();
        let over = instances.iter().filter(|instance| instance.is_over()).count() as u32;
        *self = Self { instances, over, answers: self.answers, ..Self::default() };
    }
}

/// A loop.
#[derive(Clone, Default, Debug)]
pub struct LoopState {
    /// The iteration that runs, or ran last; from 1 on.
    pub iteration: u32,
    /// Whether no other follows.
    pub is_over: bool,
    /// Whether the loop is over although its condition never held.
    pub exhausted: bool,
    /// Why the loop failed: what it did, as "ended without its condition". Empty if it did not fail.
    pub failed: String,
}

/// A stage of a shadow run before it begins.
static NOT_BEGUN: LazyLock<Group> = LazyLock::new(Group::default);

/// The state of a run.
#[derive(Clone, Debug)]
pub struct State {
    /// Each stage in each of its iterations; one outside of loops.
    pub groups: Vec<Vec<Group>>,
    /// The loops, in the order of the plan.
    pub loops: Vec<LoopState>,
    /// The files of the inputs.
    pub inputs: BTreeMap<String, Vec<Artifact>>,
    /// The number that `auto` shards stand for.
    pub shards: u32,
    /// Whether the run started.
    pub started: bool,
    /// Why no stage starts any more, and whether that is a refusal.
    pub stop: Option<(String, bool)>,
    /// How the run ended.
    pub ending: Option<Ending>,
    /// Requests to endpoints so far.
    pub calls: u64,
    /// Tokens of models so far.
    pub tokens: u64,
    /// What shadow runs add to it.
    pub tuned: Tuned,
    /// Epsilon and delta that ledgers of privacy budgets say, by their directories; `None` is infinite.
    pub ledgers: BTreeMap<String, (Option<f64>, f64)>,
    /// The loop of each stage.
    loop_of: Vec<Option<usize>>,
}

impl State {
    /// The state before the first event.
    pub fn new(plan: &Plan, graph: &Graph) -> Self {
        let loop_of: Vec<Option<usize>> = (0..plan.stages.len()).map(|stage| plan.loop_of(stage)).collect();
        let group = |stage: usize| Group { left: graph.needs[stage].len(), ..Group::default() };
        Self {
            groups: (0..plan.stages.len()).map(|stage| vec![group(stage)]).collect(),
            loops: vec![LoopState { iteration: 1, ..LoopState::default() }; plan.loops.len()],
            inputs: BTreeMap::new(),
            shards: 1,
            started: false,
            stop: None,
            ending: None,
            calls: 0,
            tokens: 0,
            tuned: Tuned::new(plan),
            ledgers: BTreeMap::new(),
            loop_of,
        }
    }

    /// The epsilon and delta that all ledgers say together, with those of `other` in place of what is known of it.
    pub fn spent(&self, other: Option<(&str, Option<f64>, f64)>) -> (f64, f64) {
        let known = self.ledgers.iter().map(|(name, (epsilon, delta))| (name.as_str(), *epsilon, *delta));
        let kept = known.filter(|(name, ..)| other.is_none_or(|(other, ..)| other != *name));
        kept.chain(other).fold((0.0, 0.0), |(epsilon, delta), (_, more, at)| {
            (epsilon + more.unwrap_or(f64::INFINITY), delta + at)
        })
    }

    /// The loop that a stage belongs to.
    pub fn loop_of(&self, stage: usize) -> Option<usize> {
        self.loop_of[stage]
    }

    /// The loops that failed, by their places in the plan.
    pub fn failed_loops(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.loops.len()).filter(|looped| !self.loops[*looped].failed.is_empty())
    }

    /// The key of a stage in the iteration that runs, without a place in a fan-out.
    pub fn current(&self, stage: usize) -> Key {
        let iteration = self.loop_of(stage).map_or(0, |looped| self.loops[looped].iteration);
        Key { stage, iteration, index: None, shadow: None }
    }

    /// The stage in the iteration of a key.
    pub fn group(&self, key: Key) -> &Group {
        if key.shadow.is_some() {
            return self.tuned.group(key).unwrap_or(&NOT_BEGUN);
        }
        &self.groups[key.stage][key.iteration.saturating_sub(1) as usize]
    }

    /// The stage in the iteration of a key, to change it.
    pub fn group_mut(&mut self, key: Key) -> &mut Group {
        if key.shadow.is_some() {
            return self.tuned.group_mut(key);
        }
        &mut self.groups[key.stage][key.iteration.saturating_sub(1) as usize]
    }

    /// The stage as another stage sees it: in the same iteration within a loop, else in the last one.
    pub fn seen_from(&self, stage: usize, viewer: Key) -> Key {
        match self.loop_of(stage) {
            Some(looped) if self.loop_of(viewer.stage) == Some(looped) => {
                let shadow = viewer.shadow.filter(|_| self.tuned.repeats(looped, stage));
                Key { stage, iteration: viewer.iteration, index: None, shadow }
            }
            _ => self.current(stage),
        }
    }

    /// The instance of a key.
    pub fn instance_mut(&mut self, key: Key) -> &mut Instance {
        let index = key.index.unwrap_or(0) as usize;
        let instances = &mut self.group_mut(key).instances;
        if instances.len() <= index {
            instances.resize_with(index + 1, Instance::default);
        }
        &mut instances[index]
    }

    /// The instance of a key, if its stage has it.
    pub fn instance(&self, key: Key) -> Option<&Instance> {
        self.group(key).instances.get(key.index.unwrap_or(0) as usize)
    }

    /// Adds an event. Returns the stages that nothing holds back any more.
    pub fn add(&mut self, event: &Event, graph: &Graph, plan: &Plan) -> Vec<Key> {
        match event {
            Event::Start { inputs, shards, .. } => {
                self.inputs.clone_from(inputs);
                (self.shards, self.started) = (*shards, true);
                let free = (0..self.groups.len()).filter(|stage| self.groups[*stage][0].left == 0);
                return free.map(|stage| self.current(stage)).collect();
            }
            Event::Resume => return self.resume(graph, plan),
            Event::Begin { key, work, calls, agent, .. } => {
                self.calls = self.calls.saturating_add(*calls);
                let instance = self.instance_mut(*key);
                (instance.running, instance.may_have_happened) = (true, true);
                (instance.work, instance.agent) = (work.clone(), agent.clone());
            }
            Event::Attested { key, done } => {
                if self.group_mut(*key).attest(key.index, *done) {
                    // A run that goes on after an end comes to another one.
                    self.ending = self.ending.take().map(|_| Ending::Failed);
                }
            }
            Event::Made { key, made, seconds, .. } => {
                self.tokens = self.tokens.saturating_add(made.tokens);
                self.instance_mut(*key).succeed(made, *seconds);
                self.group_mut(*key).over += 1;
            }
            Event::Failed { key, failure, seconds, again, tokens } => {
                self.tokens = self.tokens.saturating_add(*tokens);
                let instance = self.instance_mut(*key);
                instance.failure = (!again).then(|| failure.clone());
                if *failure != Failure::Cancelled {
                    instance.failed.push(instance.agent.clone());
                }
                instance.may_have_happened &= failure.may_have_started();
                instance.end(*seconds, *failure != Failure::Cancelled);
                self.group_mut(*key).over += u32::from(!again);
            }
            Event::Ledger { directory, epsilon, delta } => {
                self.ledgers.insert(directory.clone(), (*epsilon, *delta));
            }
            Event::Settled { key, outcome, why, choice, .. } => {
                let group = self.group_mut(*key);
                (group.outcome, group.why, group.choice) = (Some(*outcome), why.clone(), choice.clone());
                return match key.shadow {
                    Some(_) => self.next_of_shadow(*key).into_iter().collect(),
                    None => self.release(*key, graph),
                };
            }
            Event::Gate { key, until, .. } => self.group_mut(*key).gate_until = Some(*until),
            Event::Answered { key, answer, by_default } => self.group_mut(*key).answer(*answer, *by_default),
            Event::Iterated { looped, again, exhausted, failed, .. } => {
                (self.loops[*looped].exhausted, self.loops[*looped].failed) = (*exhausted, failed.clone());
                return self.iterate(*looped, *again, graph, plan);
            }
            Event::Tuned { looped, iteration, step } => return self.tune(*looped, *iteration, step, plan),
            Event::Stop { why, refused } => self.stop = Some((why.clone(), *refused)),
            Event::End { ending } => self.ending = Some(ending.clone()),
        }
        Vec::new()
    }

    /// Lets the stages go on that waited for this one in its iteration.
    fn release(&mut self, key: Key, graph: &Graph) -> Vec<Key> {
        let looped = self.loop_of(key.stage);
        let mut free = Vec::new();
        for next in &graph.needed_by[key.stage] {
            // A stage behind a loop waits until the loop is over.
            if looped.is_some() && self.loop_of(*next) != looped {
                continue;
            }
            // A loop that has not come to this stage is in its first iteration.
            let next = self.current(*next);
            let group = self.group_mut(next);
            group.left -= 1;
            if group.left == 0 {
                free.push(next);
            }
        }
        free
    }

    /// Makes the run go on: what failed, or never began, has another chance.
    fn resume(&mut self, graph: &Graph, plan: &Plan) -> Vec<Key> {
        if self.stop.is_none() && self.ending.is_none() {
            return self.count_again(graph);
        }
        (self.stop, self.ending) = (None, None);
        let last = plan.on.stages();
        for stage in last.filter_map(|id| plan.stages.iter().position(|stage| stage.id == *id)) {
            // The stages of the end run at each end.
            let answers = self.groups[stage][0].answers;
            let is_once = plan.stages[stage].side_effects == SideEffects::Once;
            let instances = self.groups[stage].iter().flat_map(|group| &group.instances);
            let unclear: Vec<Instance> = instances.map(Instance::open_again).collect();
            let keeps =
                is_once && unclear.iter().any(|instance| instance.may_have_happened || instance.attested);
            let instances = if keeps { unclear } else { Vec::new() };
            let over = instances.iter().filter(|instance| instance.is_over()).count() as u32;
            self.groups[stage] = vec![Group { instances, over, answers, ..Group::default() }];
        }
        for (stage, groups) in self.groups.iter_mut().enumerate() {
            let is_result = graph.failure_is_a_result(plan, stage);
            let is_kept = |group: &&mut Group| is_result && group.outcome.is_some_and(Outcome::is_failure);
            // What an earlier iteration came to stays: it does not run again.
            groups.last_mut().filter(|group| !is_kept(group)).into_iter().for_each(Group::open_again);
        }
        self.tuned.open_again();
        self.reconsider(graph, plan);
        self.count_again(graph)
    }

    /// Counts again what each stage of the iteration that runs waits for. Returns the stages that nothing holds back.
    fn count_again(&mut self, graph: &Graph) -> Vec<Key> {
        let mut free = Vec::new();
        for (stage, needs) in graph.needs.iter().enumerate() {
            let key = self.current(stage);
            let left = needs.iter().filter(|need| self.waits_for(key, **need)).count();
            let group = self.group_mut(key);
            group.left = left;
            if left == 0 && group.outcome.is_none() {
                free.push(key);
            }
        }
        let loops = 0..self.loops.len();
        free.extend(loops.flat_map(|looped| self.open_shadows(looped)));
        free
    }

    fn iterate(&mut self, looped: usize, again: bool, graph: &Graph, plan: &Plan) -> Vec<Key> {
        let members = plan.members(&plan.loops[looped]).into_iter().flatten();
        let members: Vec<usize> = members.collect();
        if again {
            self.loops[looped].iteration += 1;
            for stage in &members {
                self.groups[*stage].push(Group::default());
            }
            let free = self.count_again(graph);
            return free.into_iter().filter(|key| members.contains(&key.stage)).collect();
        }
        self.loops[looped].is_over = true;
        let mut free = Vec::new();
        for stage in &members {
            for next in graph.needed_by[*stage].iter().filter(|next| !members.contains(next)) {
                let next = self.current(*next);
                let group = self.group_mut(next);
                group.left -= 1;
                if group.left == 0 {
                    free.push(next);
                }
            }
        }
        free
    }
}

impl Instance {
    /// The instance with another chance, if it did not succeed. What may have happened stays known.
    fn open_again(&self) -> Self {
        if self.made.is_some() {
            return self.clone();
        }
        let (work, agent) = (self.work.clone(), self.agent.clone());
        Self { may_have_happened: self.may_have_happened, work, agent, ..Self::default() }
    }

    fn succeed(&mut self, made: &Made, seconds: f64) {
        (self.made, self.may_have_happened) = (Some(made.clone()), false);
        self.end(seconds, true);
    }

    fn end(&mut self, seconds: f64, counts: bool) {
        self.running = false;
        self.attempts += u32::from(counts);
        self.cut_short += u32::from(!counts);
        self.seconds += seconds;
    }
}
