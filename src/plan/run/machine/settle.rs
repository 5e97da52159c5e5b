//! How stages, iterations and the run end.

use super::Machine;
use crate::language::condition::{Outcome as Evaluated, Value};
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event, Failure, Outcome};
use crate::plan::run::key::{Key, some_failed};
use crate::plan::run::state::Group;
use crate::plan::run::world::World;
use crate::schema::Plan;
use crate::schema::looped::Exhausted;
use crate::schema::policy::{Answer, FailureMode};
use std::cmp::Reverse;
use std::collections::BTreeMap;

impl Machine<'_> {
    /// Ends a stage once no attempt of its instances follows.
    pub(super) fn settle_if_over(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        let key = Key { index: None, ..key };
        let group = self.state.group(key);
        if group.outcome.is_some() || (group.over as usize) < group.instances.len() {
            return Ok(());
        }
        if let Some(vote) = &self.stage(key).consensus {
            return self.settle_vote(key, vote, world);
        }
        let why = match fallen_short(self.flow.plan, key, group) {
            Ok(why) => why,
            Err((outcome, why)) => return self.settle(key, outcome, why, None, BTreeMap::new(), world),
        };
        match &self.stage(key).success_when {
            Some(text) if self.stage(key).fans_out() => match self.scope(key).evaluate(text) {
                Ok(Evaluated { holds, read }) => {
                    let (outcome, why) = match holds {
                        true => (Outcome::Ok, why),
                        false => (Outcome::Failed, Failure::Unsuccessful(read.clone()).to_string()),
                    };
                    self.settle(key, outcome, why, None, read, world)
                }
                Err(why) => self.settle(key, Outcome::Error, why.to_string(), None, BTreeMap::new(), world),
            },
            _ => self.settle(key, Outcome::Ok, why, None, BTreeMap::new(), world),
        }
    }

    pub(super) fn settle(
        &mut self,
        key: Key,
        outcome: Outcome,
        why: String,
        choice: Option<String>,
        read: BTreeMap<String, Value>,
        world: &mut impl World,
    ) -> Result<(), RunError> {
        self.record(&[Event::Settled { key, outcome, why, choice, read }]);
        if key.shadow.is_some() {
            return self.end_shadow(key, world);
        }
        if outcome.is_failure() && !self.is_handled(key.stage) {
            self.fail(format!("stage `{}` failed", key.name(self.flow.plan)), world)?;
        }
        match self.state.loop_of(key.stage) {
            Some(looped) => self.iterate(looped, world),
            None => Ok(()),
        }
    }

    /// Whether the run goes on after a failure of this stage.
    fn is_handled(&self, stage: usize) -> bool {
        self.flow.graph.failure_is_a_result(self.flow.plan, stage)
    }

    /// Does what the plan says of failures, after this one of a stage or a loop.
    fn fail(&mut self, why: String, world: &mut impl World) -> Result<(), RunError> {
        let limits = &self.flow.plan.limits;
        match limits.on_failure {
            _ if self.closing.is_some() => Ok(()),
            FailureMode::FailFast => self.stop(why, false, true, world),
            FailureMode::FinishRunning => self.stop(why, false, false, world),
            FailureMode::KeepGoing => {
                let failed = (self.failures().count() + self.state.failed_loops().count()) as f64;
                let Some(most) = limits.max_failed else { return Ok(()) };
                let most = if most < 1.0 { most * self.flow.plan.stages.len() as f64 } else { most };
                if failed < most {
                    return Ok(());
                }
                let why = format!("{failed} failed stages and loops reached limits.max_failed");
                self.stop(why, false, false, world)
            }
        }
    }

    /// The stages that failed and whose failure no other stage handles.
    pub(super) fn failures(&self) -> impl Iterator<Item = Key> + '_ {
        let failed = |key: &Key| self.state.group(*key).outcome.is_some_and(Outcome::is_failure);
        let stages = (0..self.flow.plan.stages.len()).filter(|stage| !self.is_handled(*stage));
        stages.map(|stage| self.state.current(stage)).filter(failed)
    }

    /// Ends an iteration whose stages are all over, and begins the next.
    pub(super) fn iterate(&mut self, looped: usize, world: &mut impl World) -> Result<(), RunError> {
        let Some(members) = self.flow.plan.members(&self.flow.plan.loops[looped]) else { return Ok(()) };
        let keys: Vec<Key> = members.map(|stage| self.state.current(stage)).collect();
        let Some(last) = keys.last() else { return Ok(()) };
        let is_open = |key: &Key| self.state.group(*key).outcome.is_none();
        if self.state.loops[looped].is_over || keys.iter().any(is_open) {
            return Ok(());
        }
        let iteration = last.iteration;
        let settings = &self.flow.plan.loops[looped];
        let failed = self.cut_short_by(looped).is_some();
        let evaluated = match &settings.until {
            Some(text) if !failed => self.scope(*last).evaluate(text),
            _ => Ok(Evaluated { holds: false, read: BTreeMap::new() }),
        };
        let (holds, read, error) = match evaluated {
            Ok(Evaluated { holds, read }) => (holds, read, None),
            Err(why) => (false, BTreeMap::new(), Some(why)),
        };
        let is_last = iteration >= settings.max_iters;
        let again = !failed && !holds && !is_last && error.is_none();
        if again && self.state.stop.is_some() {
            // A run that goes on later goes on with the loop.
            return Ok(());
        }
        if again && self.tune(looped, *last, world)? {
            return Ok(());
        }
        let exhausted = !failed && !holds && is_last && error.is_none() && settings.until.is_some();
        let failed = match error {
            Some(why) => format!("ended since `until` has no value: {why}"),
            None if exhausted && settings.exhausted() == Exhausted::Fail => {
                format!("ended without its condition: `until` held in none of {iteration} iterations")
            }
            None => String::new(),
        };
        let why = format!("loop `{}` {failed}", settings.id);
        let has_failed = !failed.is_empty();
        self.record(&[Event::Iterated { looped, iteration, again, exhausted, failed, read }]);
        if has_failed { self.fail(why, world) } else { Ok(()) }
    }

    /// The stage whose end lets no iteration follow, in the iteration of a loop that runs or ran last: the first that
    /// failed, or else the first that did not succeed.
    pub(super) fn cut_short_by(&self, looped: usize) -> Option<Key> {
        let members = self.flow.plan.members(&self.flow.plan.loops[looped])?;
        let outcome = |key: &Key| self.state.group(*key).outcome;
        let keys = members.filter(|stage| !self.is_handled(*stage)).map(|stage| self.state.current(stage));
        let short: Vec<Key> = keys.filter(|key| outcome(key).is_some_and(|found| !found.is_fine())).collect();
        let failed = short.iter().find(|key| outcome(key).is_some_and(Outcome::is_failure));
        failed.or(short.first()).copied()
    }

    /// Whether a stage or a loop failed.
    fn has_failures(&self) -> bool {
        self.failures().next().is_some() || self.state.failed_loops().next().is_some()
    }

    /// Why the run is refused, if no stage failed but those whose gates were answered with reject.
    fn rejected(&self) -> Option<String> {
        if self.state.failed_loops().next().is_some() {
            return None;
        }
        let failed: Vec<Key> = self.failures().collect();
        let is_reject = |key: &Key| self.state.group(*key).answer == Some(Answer::Reject);
        let first = failed.first().filter(|_| failed.iter().all(is_reject))?;
        Some(format!("stage `{}`: {}", first.name(self.flow.plan), self.state.group(*first).why))
    }

    /// Whether a stage or a loop failed; of a part, whether one of its stages or loops did not succeed.
    fn fell_short(&self) -> bool {
        let Some(part) = &self.flow.part else { return self.has_failures() };
        let has_part = |looped| part.stages.iter().any(|stage| self.state.loop_of(*stage) == Some(looped));
        if self.state.failed_loops().any(has_part) {
            return true;
        }
        part.stages.iter().filter(|stage| !self.is_handled(**stage)).any(|stage| {
            let group = self.state.group(self.state.current(*stage));
            let instance = group.instances.get(part.index.unwrap_or(0) as usize);
            let made = part.index.is_some() && instance.is_some_and(|instance| instance.made.is_some());
            let idle = group.outcome.is_none() && group.instances.is_empty();
            match group.outcome {
                Some(outcome) => !outcome.is_fine(),
                None => !(made || idle && self.flow.handlers.contains(stage)),
            }
        })
    }

    /// Comes to the end of the run, once nothing runs or waits. Returns whether there is more to do.
    pub(super) fn close(&mut self) -> bool {
        let busy = !self.queues.running.is_empty()
            || !self.queues.gates.is_empty()
            || !self.queues.sleeping.is_empty();
        if busy || !self.queues.ready.is_empty() || self.is_over() {
            return false;
        }
        if self.closing.is_none() {
            let failed = self.state.stop.is_some() || self.has_failures();
            let on = &self.flow.plan.on;
            let named = on.failure.iter().filter(|_| failed).chain(&on.exit);
            let mut stages: Vec<usize> = named.filter_map(|id| self.flow.names.stage(id.as_str())).collect();
            stages.reverse();
            self.closing = Some(stages);
        }
        if let Some(stage) = self.closing.as_mut().and_then(Vec::pop) {
            self.queues.free.insert(self.state.current(stage));
            return true;
        }
        // A stage of the end, alone, takes no part in the failure of others.
        let of_others =
            self.flow.part.as_ref().is_some_and(|part| part.stages.is_subset(&self.flow.handlers));
        let ending = match &self.state.stop {
            Some((why, true)) => Ending::Refused(why.clone()),
            _ if let Some(why) = self.rejected() => Ending::Refused(why),
            Some(_) if !of_others => Ending::Failed,
            _ if self.fell_short() => Ending::Failed,
            _ => Ending::Succeeded,
        };
        self.record(&[Event::End { ending }]);
        false
    }
}

/// How a stage ends some of whose instances failed, if too few succeeded; else what to say of those that failed.
fn fallen_short(plan: &Plan, key: Key, group: &Group) -> Result<String, (Outcome, String)> {
    let stage = &plan.stages[key.stage];
    let instances = (0..).zip(&group.instances);
    let failed = instances.filter_map(|(index, instance)| Some((index, instance.failure.as_ref()?)));
    let mut failed: Vec<(u32, &Failure)> = failed.collect();
    failed.sort_by_key(|(_, failure)| Reverse(failure.outcome()));
    let Some((_, worst)) = failed.first().copied() else { return Ok(String::new()) };
    let (outcome, all) = (worst.outcome(), group.instances.len());
    let succeeded = all - failed.len();
    // What the runner ended may still succeed in a resumed run.
    let is_known = failed.iter().all(|(_, failure)| **failure != Failure::Cancelled);
    failed.retain(|(_, failure)| **failure != Failure::Cancelled);
    let name = |(index, _): &(u32, &Failure)| Key { index: Some(*index), ..key }.name(plan);
    let names: Vec<String> = failed.iter().filter(|_| stage.fans_out()).map(name).collect();
    let why = worst.to_string();
    let why = if names.is_empty() { why } else { some_failed(&names, all, &why) };
    match stage.min_succeeded {
        Some(least) if is_known && succeeded >= least.max(1) as usize => Ok(why),
        Some(least) if is_known && least > 1 => {
            Err((outcome, format!("{why}; expected at least {least} to succeed")))
        }
        _ => Err((outcome, why)),
    }
}
