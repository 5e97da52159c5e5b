//! Shadow runs: the stages of a trial, and the parameters that they see.

use super::{Group, State};
use crate::language::condition::Value;
use crate::language::tunable::parameter;
use crate::plan::run::event::Outcome;
use crate::plan::run::key::{Key, Shadow};
use crate::schema::Plan;
use crate::schema::looped::Tune;
use crate::schema::name::Id;
use crate::schema::value::Scalar;
use crate::tuning::{Step, Tuning};
use std::collections::{BTreeMap, BTreeSet};

/// The tuning of a run's loops.
#[derive(Clone, Default, Debug)]
pub struct Tuned {
    /// The tuning of each loop that has one, by its place in the plan.
    pub loops: BTreeMap<usize, Tuning>,
    /// The parameters, with the values in use.
    params: BTreeMap<String, Value>,
    /// The parameters of trials that are under way, by the place of their loops.
    candidates: BTreeMap<usize, BTreeMap<String, Value>>,
    /// The stages of shadow runs.
    shadows: BTreeMap<Key, Group>,
    /// The stages that shadow runs repeat, by the place of their loop, in order.
    repeated: BTreeMap<usize, Vec<usize>>,
}

impl Tuned {
    /// The tuning before the first event.
    pub fn new(plan: &Plan) -> Self {
        let mut tuned = Self {
            params: plan.params.iter().map(|(name, value)| (name.to_string(), value.into())).collect(),
            ..Self::default()
        };
        for (looped, tune) in
            plan.loops.iter().enumerate().filter_map(|(place, looped)| Some((place, looped.tune.as_ref()?)))
        {
            let value = parameter(tune).and_then(|name| plan.params.get(name)).cloned();
            let place = |id: &Id| plan.stages.iter().position(|stage| stage.id == *id);
            tuned.loops.insert(looped, Tuning::new(tune, value.unwrap_or(Scalar::Real(f64::NAN))));
            tuned.repeated.insert(looped, tune.validate.shadow.iter().filter_map(place).collect());
        }
        tuned
    }

    /// The stage of a shadow run.
    pub fn group(&self, key: Key) -> Option<&Group> {
        self.shadows.get(&Key { index: None, ..key })
    }

    /// The stage of a shadow run, to change it.
    pub fn group_mut(&mut self, key: Key) -> &mut Group {
        self.shadows.entry(Key { index: None, ..key }).or_default()
    }

    /// Whether the shadow runs of a loop repeat a stage.
    pub fn repeats(&self, looped: usize, stage: usize) -> bool {
        self.repeated.get(&looped).is_some_and(|stages| stages.contains(&stage))
    }

    /// Gives stages of shadow runs that did not succeed another chance.
    pub fn open_again(&mut self) {
        self.shadows.values_mut().for_each(Group::open_again);
    }

    /// Adds a step of a loop's tuning.
    pub fn add(&mut self, looped: usize, iteration: u32, step: &Step, tune: &Tune) {
        let Some(tuning) = self.loops.get_mut(&looped) else { return };
        tuning.add(tune, iteration, step);
        let Some(name) = parameter(tune) else { return };
        self.candidates.remove(&looped);
        if let Some(trial) = &tuning.open {
            let mut candidate = self.params.clone();
            candidate.insert(name.to_owned(), (&trial.candidate).into());
            self.candidates.insert(looped, candidate);
        } else {
            self.params.insert(name.to_owned(), (&tuning.value).into());
            // The shadow runs of earlier trials are over.
            let stages: BTreeSet<usize> = self.repeated.get(&looped).into_iter().flatten().copied().collect();
            self.shadows.retain(|key, _| !stages.contains(&key.stage));
        }
    }
}

impl State {
    /// Adds a step of a loop's tuning. Returns the stages that begin a trial.
    pub(super) fn tune(&mut self, looped: usize, iteration: u32, step: &Step, plan: &Plan) -> Vec<Key> {
        if let Some(tune) = plan.loops.get(looped).and_then(|looped| looped.tune.as_ref()) {
            self.tuned.add(looped, iteration, step, tune);
        }
        match step {
            Step::Try { .. } => self.open_shadows(looped),
            _ => Vec::new(),
        }
    }

    /// The parameters that an instance sees: those of its shadow run, or those in use.
    pub fn params(&self, key: Key) -> &BTreeMap<String, Value> {
        let tries = key.shadow.is_some_and(|shadow| shadow.candidate);
        let looped = self.loop_of(key.stage).filter(|_| tries);
        looped.and_then(|looped| self.tuned.candidates.get(&looped)).unwrap_or(&self.tuned.params)
    }

    /// The stage that goes on with a shadow run; `None` if it is over: all its stages are, or one did not succeed.
    pub fn next_of_shadow(&self, key: Key) -> Option<Key> {
        let stages = self.tuned.repeated.get(&self.loop_of(key.stage)?)?;
        let keys = stages.iter().map(|stage| Key { stage: *stage, index: None, ..key });
        let first = keys.into_iter().find(|key| !self.group(*key).outcome.is_some_and(Outcome::is_fine))?;
        self.group(first).outcome.is_none().then_some(first)
    }

    /// The stages that go on with the shadow runs of a loop's trial; none once all are over.
    pub fn open_shadows(&self, looped: usize) -> Vec<Key> {
        self.shadow_runs(looped).into_iter().filter_map(|key| self.next_of_shadow(key)).collect()
    }

    /// The first stage of each shadow run of a loop's trial.
    pub fn shadow_runs(&self, looped: usize) -> Vec<Key> {
        let trial = self.tuned.loops.get(&looped).and_then(|tuning| tuning.open.as_ref());
        let first = self.tuned.repeated.get(&looped).and_then(|stages| stages.first());
        let (Some(trial), Some(stage)) = (trial, first) else { return Vec::new() };
        let arms = |iteration: &u32| {
            let iteration = *iteration;
            [false, true].map(|candidate| {
                let shadow = Some(Shadow { trial: trial.number, candidate });
                Key { stage: *stage, iteration, index: None, shadow }
            })
        };
        trial.replayed.iter().flat_map(arms).collect()
    }
}
