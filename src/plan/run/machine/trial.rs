//! Tunes parameters of loops between iterations: begins and judges trials, takes changes back.

use super::Machine;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Event, Outcome};
use crate::plan::run::key::{Key, Shadow};
use crate::plan::run::world::World;
use crate::schema::looped::{Tune, Validate};
use crate::tuning::judge::{Pairs, Verdict, compare, judge, worst};
use crate::tuning::population::confidence;
use crate::tuning::propose::{Proposal, propose};
use crate::tuning::{Step, Trial};

impl Machine<'_> {
    /// Tunes after an iteration whose stages are over. Returns whether the loop waits for shadow runs.
    pub(super) fn tune(
        &mut self,
        looped: usize,
        last: Key,
        world: &mut impl World,
    ) -> Result<bool, RunError> {
        let Some(tune) = self.flow.plan.loops[looped].tune.as_ref() else { return Ok(false) };
        self.watch(looped, last.iteration, tune);
        if let Some(trial) = self.trial(looped).cloned() {
            if !self.state.open_shadows(looped).is_empty() {
                return Ok(true);
            }
            let verdict = self.verdict(looped, tune, &trial);
            self.step(looped, last.iteration, Step::Judge { trial: trial.number, verdict });
            return Ok(false);
        }
        let Some(tuning) = self.state.tuned.loops.get(&looped) else { return Ok(false) };
        if !tuning.is_due(tune, last.iteration) {
            return Ok(false);
        }
        let trial = tuning.trials + 1;
        let measured = self.measured(looped, "fedexp", None, last.iteration);
        match propose(tune, tuning, measured) {
            Ok(Proposal { candidate, rounds }) => {
                let first = last.iteration + 1 - rounds;
                let until = tune.validate.timeout.map(|most| world.now() + most.as_seconds());
                let replayed = (first..=last.iteration).collect();
                self.step(looped, last.iteration, Step::Try { trial, candidate, replayed, until });
                Ok(true)
            }
            Err(why) => {
                self.step(looped, last.iteration, Step::Pass { trial, why });
                Ok(false)
            }
        }
    }

    fn trial(&self, looped: usize) -> Option<&Trial> {
        self.state.tuned.loops.get(&looped)?.open.as_ref()
    }

    fn step(&mut self, looped: usize, iteration: u32, step: Step) {
        self.record(&[Event::Tuned { looped, iteration, step }]);
    }

    /// Looks at the iteration after an accepted change, and takes the change back after too many that are worse.
    fn watch(&mut self, looped: usize, iteration: u32, tune: &Tune) {
        let Some(tuning) = self.state.tuned.loops.get(&looped) else { return };
        let Some(watched) =
            tuning.watched.clone().filter(|_| tuning.looked < iteration && tuning.done < iteration)
        else {
            return;
        };
        let from = tuning.value.clone();
        let metric = self.measured(looped, tune.validate.metric.as_str(), None, iteration);
        let is_worse =
            |metric: f64| if tune.validate.minimize { metric > watched.bar } else { metric < watched.bar };
        let worse = metric.is_some_and(is_worse);
        self.step(looped, iteration, Step::Watch { metric, worse });
        if worse && watched.worse + 1 >= tune.rollback.after_failures {
            self.step(looped, iteration, Step::Back { from, to: watched.before });
        }
    }

    /// A metric of a loop's stage in an iteration, or in its shadow run: the mean of a fan-out.
    fn measured(&self, looped: usize, name: &str, shadow: Option<Shadow>, iteration: u32) -> Option<f64> {
        let stages = self.flow.names.measuring(name).iter();
        let of_loop = stages.filter(|stage| self.state.loop_of(**stage) == Some(looped));
        let found = of_loop.filter_map(|stage| {
            let group = self.state.group(Key { stage: *stage, iteration, index: None, shadow });
            let values = group.metric(name)?;
            Some(values.iter().sum::<f64>() / values.len() as f64)
        });
        found.into_iter().next()
    }

    /// A metric of both kinds of shadow runs.
    fn pairs(&self, looped: usize, name: &str, trial: &Trial) -> Option<Pairs> {
        let of = |candidate: bool| {
            let shadow = Some(Shadow { trial: trial.number, candidate });
            let values =
                trial.replayed.iter().map(|iteration| self.measured(looped, name, shadow, *iteration));
            values.collect::<Option<Vec<f64>>>()
        };
        Some(Pairs { now: of(false)?, new: of(true)? })
    }

    /// Judges a trial whose shadow runs are over.
    fn verdict(&self, looped: usize, tune: &Tune, trial: &Trial) -> Verdict {
        let runs = self.state.shadow_runs(looped);
        if let Some(why) = runs.iter().find_map(|run| self.failure(looped, *run, &tune.validate)) {
            return Verdict::refused(why);
        }
        let missing = |name: &str| Verdict::refused(format!("no shadow run measured `{name}`"));
        let Some(metric) = self.pairs(looped, tune.validate.metric.as_str(), trial) else {
            return missing(tune.validate.metric.as_str());
        };
        if trial.replayed.len() < tune.validate.replay_rounds as usize {
            return compare(&tune.validate, &metric);
        }
        let mut guards = Vec::new();
        for (name, worse) in &tune.validate.guard {
            let Some(pairs) = self.pairs(looped, name.as_str(), trial) else { return missing(name.as_str()) };
            guards.push((name.to_string(), *worse, pairs));
        }
        let name = tune.validate.metric.as_str();
        let as_run = trial.replayed.iter().map(|iteration| self.measured(looped, name, None, *iteration));
        let Some(as_run) = as_run.collect::<Option<Vec<f64>>>() else { return missing(name) };
        let validate = Validate { ci: confidence(tune), ..tune.validate.clone() };
        let verdict = judge(&validate, &metric, &guards);
        let bar = worst(tune.validate.minimize, &as_run).filter(|_| verdict.accepted);
        Verdict { bar, ..verdict }
    }

    /// Why a shadow run cannot be judged: a stage of it did not succeed, or an invariant does not hold after it.
    fn failure(&self, looped: usize, run: Key, validate: &Validate) -> Option<String> {
        let plan = self.flow.plan;
        let keys = validate
            .shadow
            .iter()
            .filter_map(|id| Some(Key { stage: self.flow.names.stage(id.as_str())?, ..run }));
        let keys: Vec<Key> = keys.collect();
        let failed = keys.iter().find(|key| !self.state.group(**key).outcome.is_some_and(Outcome::is_fine));
        if let Some(key) = failed {
            return Some(format!("stage `{}`: {}", key.name(plan), self.state.group(*key).why));
        }
        let last = *keys.last()?;
        debug_assert_eq!(self.state.loop_of(last.stage), Some(looped), "a shadow stage of the loop");
        plan.safety.invariants.iter().find_map(|text| match self.scope(last).evaluate(text) {
            Ok(evaluated) if evaluated.holds => None,
            Ok(_) => Some(format!("the invariant `{text}` does not hold after `{}`", last.name(plan))),
            Err(why) => Some(why.to_string()),
        })
    }

    /// Goes on after a stage of a shadow run.
    pub(super) fn end_shadow(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        let looped = self.state.loop_of(key.stage);
        let number = key.shadow.map(|shadow| shadow.trial);
        let is_open = |looped: usize| self.trial(looped).is_some_and(|trial| Some(trial.number) == number);
        match looped.filter(|looped| is_open(*looped) && self.state.stop.is_none()) {
            Some(looped) => self.iterate(looped, world),
            // The trial was given up, or the run is about to end: a resumed run goes on with the trial.
            None => Ok(()),
        }
    }

    /// Refuses candidates whose shadow runs take too long.
    pub(super) fn give_up_late_trials(&mut self, world: &mut impl World) -> Result<(), RunError> {
        let now = world.now();
        let is_late = |trial: &Trial| trial.until.is_some_and(|until| now > until);
        let loops = 0..self.flow.plan.loops.len();
        let late: Vec<usize> = loops.filter(|looped| self.trial(*looped).is_some_and(is_late)).collect();
        for looped in late {
            let (Some(trial), Some(first)) =
                (self.trial(looped), self.state.shadow_runs(looped).first().copied())
            else {
                continue;
            };
            let number = trial.number;
            let ours = |key: &Key| key.shadow.is_some() && self.state.loop_of(key.stage) == Some(looped);
            self.queues.ready.retain(|(_, key)| !ours(key));
            self.queues.free.retain(|key| !ours(key));
            self.queues.sleeping.retain(|key, _| !ours(key));
            self.queues.running.keys().filter(|key| ours(key)).for_each(|key| world.stop(*key));
            let most = self.flow.plan.loops[looped].tune.as_ref().and_then(|tune| tune.validate.timeout);
            let most = most.map(|most| most.to_string()).unwrap_or_default();
            let verdict = Verdict::refused(format!("the shadow runs took longer than {most}"));
            let iteration = self.state.current(first.stage).iteration;
            self.step(looped, iteration, Step::Judge { trial: number, verdict });
            self.iterate(looped, world)?;
        }
        Ok(())
    }
}
