//! Attempts at the work of instances: which begin, and what came of them.

use super::Machine;
use crate::language::condition::{Outcome as Evaluated, Value};
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Event, Failure, Made, Outcome};
use crate::plan::run::fill::instances;
use crate::plan::run::key::Key;
use crate::plan::run::state::Instance;
use crate::plan::run::world::{Ended, Job, RECEIPT, Receipt, Spent, World};
use crate::schema::agent::Agent;
use crate::schema::name::Name;
use crate::schema::policy::SideEffects;
use std::collections::BTreeMap;
use std::path::PathBuf;

impl Machine<'_> {
    /// Makes the instances of a stage ready, or ends a stage without work.
    pub(super) fn expand(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        let stage = self.stage(key);
        let count = instances(self.flow.plan, &self.state, stage);
        if !stage.works() || count == Some(0) && stage.consensus.is_none() {
            return self.settle(key, Outcome::Ok, String::new(), None, BTreeMap::new(), world);
        }
        if let Some(why) = stage.consensus.as_ref().and_then(|vote| self.too_few_options(key, vote)) {
            return self.settle(key, Outcome::Failed, why, None, BTreeMap::new(), world);
        }
        let most = self.flow.plan.limits.mem_bytes.unwrap_or(u64::MAX);
        if let Some(needs) = stage.mem_bytes.filter(|needs| *needs > most) {
            let why = format!("needs {needs} bytes of memory, and limits.mem_bytes is {most}");
            return self.settle(key, Outcome::Error, why, None, BTreeMap::new(), world);
        }
        let total = count.unwrap_or(1);
        self.state.group_mut(key).instances.resize_with(total as usize, Instance::default);
        let only = self.flow.part.as_ref().and_then(|part| part.index);
        for place in (0..total).filter(|place| only.is_none_or(|only| only == *place)) {
            let key = Key { index: count.map(|_| place), ..key };
            let instance = self.state.instance(key);
            if instance.is_some_and(|instance| !instance.is_over()) && !self.take_up(key, world)? {
                self.queues.ready.insert((self.flow.rank[key.stage], key));
            }
        }
        self.settle_if_over(key, world)
    }

    /// Takes up an instance whose attempt began before this runner. Returns whether its work is done.
    fn take_up(&mut self, key: Key, world: &mut impl World) -> Result<bool, RunError> {
        let is_once = self.stage(key).side_effects == SideEffects::Once;
        let Some(instance) = self.state.instance(key) else { return Ok(false) };
        if !instance.running && !is_once {
            return Ok(false);
        }
        let (work, unclear) = (instance.work.clone(), instance.running || instance.may_have_happened);
        // The receipt of a `once` stage holds even if the journal lost the attempt.
        if let Some(receipt) = world.receipt(&key.name(self.flow.plan))?
            && (receipt.work == work || is_once)
            && receipt.plan == self.flow.digest
        {
            let (made, seconds) = (receipt.made, receipt.seconds);
            self.record(&[Event::Made { key, made, seconds, read: BTreeMap::new() }]);
            return Ok(true);
        }
        if is_once && unclear {
            let run = PathBuf::from(&self.flow.folders.run);
            return Err(RunError::Ambiguous {
                stage: key.name(self.flow.plan),
                run,
                is_task: self.flow.part.is_some(),
            });
        }
        self.state.instance_mut(key).running = false;
        Ok(false)
    }

    /// Begins attempts, as far as the limits allow. Returns whether some are over already, so that others may begin.
    pub(super) fn begin(&mut self, world: &mut impl World) -> Result<bool, RunError> {
        let mut chosen = Vec::new();
        let mut used: BTreeMap<String, u32> = BTreeMap::new();
        let mut memory: u64 = 0;
        for (agent, bytes) in self.queues.running.values() {
            *used.entry(agent.clone()).or_default() += 1;
            memory = memory.saturating_add(*bytes);
        }
        let limits = &self.flow.plan.limits;
        let most = self.flow.parallel.min(limits.agent_pool_size) as usize;
        let mut jobs = Vec::new();
        let mut turns = self.turns.clone();
        let mut charges = !self.queues.charging.is_empty();
        for (rank, key) in &self.queues.ready {
            let at_work = self.queues.running.len() + chosen.len();
            if at_work >= most || !world.admits(at_work) {
                break;
            }
            let filler = self.filler();
            let candidates = filler.candidates(*key);
            let is_idle = |(name, agent): &&(&Name, &Agent)| {
                let used = used.get(name.as_str()).copied().unwrap_or(0);
                agent.skills().max_parallel.is_none_or(|most| used < most)
            };
            let idle: Vec<(&Name, &Agent)> = candidates.iter().filter(is_idle).copied().collect();
            let failed = self.state.instance(*key).map_or(&[][..], |instance| &instance.failed);
            let idle = turns.choose(self.stage(*key), &idle, failed);
            let bytes = self.stage(*key).mem_bytes.unwrap_or(0);
            let fits = memory.saturating_add(bytes) <= limits.mem_bytes.unwrap_or(u64::MAX);
            if !fits || idle.is_none() && !candidates.is_empty() {
                continue;
            }
            let attempt = self.state.instance(*key).map_or(0, |instance| instance.attempts) + 1;
            let (agent, job) = match idle {
                Some((name, agent)) => (name.to_string(), filler.job(*key, Some(agent), attempt)),
                None => (String::new(), filler.job(*key, None, attempt)),
            };
            if self.ledger_of(&job).is_some() {
                // What one more release costs is known only once the one before is charged.
                if charges {
                    continue;
                }
                charges = true;
            }
            memory = memory.saturating_add(bytes);
            *used.entry(agent.clone()).or_default() += 1;
            turns.count(self.stage(*key), &agent);
            jobs.push((*key, agent, bytes, job));
            chosen.push((*rank, *key));
        }
        for place in &chosen {
            self.queues.ready.remove(place);
        }
        let chosen = jobs.len();
        let before = self.queues.running.len();
        self.start(jobs, world)?;
        Ok(self.queues.running.len() < before + chosen)
    }

    /// Begins attempts at jobs: one write to the journal for all.
    fn start(
        &mut self,
        jobs: Vec<(Key, String, u64, Result<Job, String>)>,
        world: &mut impl World,
    ) -> Result<(), RunError> {
        let mut events = Vec::new();
        let mut starting = Vec::new();
        let mut begun = 0;
        for (key, agent, bytes, job) in jobs {
            if let Some(why) = self.over_budget(key, &job, world) {
                self.stop(why, true, false, world)?;
                continue;
            }
            match job {
                Ok(job) => {
                    let calls = u64::from(job.task.calls() && self.done_before(&job, world)?.is_none());
                    if calls > 0
                        && let Some(why) = self.used_up(key, begun)
                    {
                        self.stop(why, true, false, world)?;
                        continue;
                    }
                    begun += calls;
                    let (attempt, work) = (job.attempt, job.work.clone());
                    events.push(Event::Begin { key, attempt, work, calls, agent: agent.clone() });
                    starting.push((agent, bytes, job));
                }
                Err(why) => {
                    let failure = Failure::Reference(why);
                    events.push(Event::Failed { key, failure, seconds: 0.0, again: false, tokens: 0 });
                }
            }
        }
        self.record(&events);
        self.flush(world)?;
        for event in events {
            if let Event::Failed { key, .. } = event {
                self.settle_if_over(key, world)?;
            }
        }
        for (agent, bytes, job) in starting {
            let key = job.key;
            match self.done_before(&job, world)? {
                Some(made) => {
                    let result = Ok(Made { cached: true, calls: 0, tokens: 0, ..made });
                    self.queues.running.insert(key, (agent, bytes));
                    let spent = Spent::default();
                    self.end(Ended { key, attempt: job.attempt, result, seconds: 0.0, spent }, world)?;
                }
                None => {
                    self.queues.running.insert(key, (agent, bytes));
                    world.start(job);
                }
            }
        }
        Ok(())
    }

    /// The result of equal work that stands in for a job: of this run, or of an earlier one.
    fn done_before(&self, job: &Job, world: &mut impl World) -> Result<Option<Made>, RunError> {
        let found = if job.cached { world.equal_work(job)? } else { None };
        match found {
            None if self.may_take_over(job.key) => world.earlier_work(job),
            found => Ok(found),
        }
    }

    /// Whether a result of an earlier run may stand in for the work of an instance: it is work alone, and says nothing
    /// about what a person, a vote or tuning came to in that run.
    fn may_take_over(&self, key: Key) -> bool {
        let stage = self.stage(key);
        let looped = self.state.loop_of(key.stage).map(|looped| &self.flow.plan.loops[looped]);
        let is_tuned = key.shadow.is_some() || looped.is_some_and(|looped| looped.tune.is_some());
        let asks = stage.consensus.is_some() || stage.gate.is_some();
        let is_plain = stage.side_effects == SideEffects::None && stage.plan.is_none();
        is_plain && !asks && !is_tuned && !self.flow.handlers.contains(&key.stage)
    }

    /// The limit that leaves no request for an instance, after these of attempts that begin with it.
    fn used_up(&self, key: Key, begun: u64) -> Option<String> {
        let limits = &self.flow.plan.limits;
        let name = key.name(self.flow.plan);
        let needs = |limit: &str, most: u64| {
            format!("limits.{limit}, {most}, is used up, and stage `{name}` needs another request")
        };
        if let Some(most) = limits.http_calls.filter(|most| self.state.calls + begun >= *most) {
            return Some(needs("http_calls", most));
        }
        limits.tokens.filter(|most| self.state.tokens >= *most).map(|most| needs("tokens", most))
    }

    /// Takes the end of an attempt.
    pub(super) fn end(&mut self, ended: Ended, world: &mut impl World) -> Result<(), RunError> {
        let Ended { key, result, seconds, spent, .. } = ended;
        self.queues.running.remove(&key);
        self.charged(key, world)?;
        let event = match result.and_then(|made| self.judge(key, made)) {
            Ok((made, read)) => {
                let work = self.state.instance(key).map(|instance| instance.work.clone()).unwrap_or_default();
                let receipt = Receipt {
                    schema: RECEIPT.to_owned(),
                    plan: self.flow.digest.clone(),
                    instance: key.name(self.flow.plan),
                    work,
                    made: made.clone(),
                    seconds,
                };
                let cached = self.filler().is_cached(key) && !made.cached;
                world.write_receipt(&receipt, cached)?;
                Event::Made { key, made, seconds, read }
            }
            Err(failure) => {
                let attempts = self.state.instance(key).map_or(0, |instance| instance.attempts) + 1;
                let retry = self.stage(key).retry.as_ref();
                let is_once = self.stage(key).side_effects == SideEffects::Once;
                let again = self.state.stop.is_none()
                    && !(is_once && failure.may_have_started())
                    && attempts < self.stage(key).max_attempts()
                    && retry.is_some_and(|retry| failure.is_covered(&retry.on));
                if again && let Some(retry) = retry {
                    let asked = spent.pause.unwrap_or(0.0).min(retry.backoff.max.as_seconds());
                    let pause = retry.backoff.after(attempts).max(asked);
                    self.queues.sleeping.insert(key, world.now() + pause);
                }
                Event::Failed { key, failure, seconds, again, tokens: spent.tokens }
            }
        };
        self.record(&[event]);
        self.settle_if_over(key, world)
    }

    /// Whether an attempt that made its outputs succeeded; with the values that its condition read.
    fn judge(&mut self, key: Key, made: Made) -> Result<(Made, BTreeMap<String, Value>), Failure> {
        let Some(text) = self.stage(key).success_when.as_ref().filter(|_| key.index.is_none()) else {
            return Ok((made, BTreeMap::new()));
        };
        self.state.instance_mut(key).made = Some(made.clone());
        let evaluated = self.scope(key).evaluate(text);
        self.state.instance_mut(key).made = None;
        match evaluated {
            Ok(Evaluated { holds: true, read }) => Ok((made, read)),
            Ok(Evaluated { read, .. }) => Err(Failure::Unsuccessful(read)),
            Err(why) => Err(Failure::Reference(why.to_string())),
        }
    }
}
