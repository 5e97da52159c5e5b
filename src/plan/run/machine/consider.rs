//! Whether a stage runs: needs, branches, conditions, decisions and gates.

use super::Machine;
use crate::language::condition::{ConditionError, Outcome as Evaluated, Value};
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Event, Outcome};
use crate::plan::run::key::Key;
use crate::plan::run::world::World;
use crate::schema::policy::Answer;
use std::collections::BTreeMap;

impl Machine<'_> {
    /// Whether a stage may start now: handlers wait for the end of the run, and nothing starts once the run stops.
    pub(super) fn may_start(&self, key: Key) -> bool {
        let is_ours = self.flow.part.as_ref().is_none_or(|part| part.stages.contains(&key.stage));
        let is_open = is_ours && self.state.group(key).outcome.is_none();
        let is_handler = self.flow.handlers.contains(&key.stage);
        is_open && if is_handler { self.closing.is_some() } else { self.state.stop.is_none() }
    }

    /// Looks at a stage that nothing holds back.
    pub(super) fn consider(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        let began = !self.state.group(key).instances.is_empty() || self.state.group(key).answer.is_some();
        if !began && self.state.group(key).gate_until.is_none() {
            match self.permitted(key) {
                Ok(None) => {}
                Ok(Some(NotRun { outcome, why, read })) => {
                    return self.settle(key, outcome, why, None, read, world);
                }
                Err(Broken::Invariant(text)) if key.shadow.is_some() => {
                    let why = format!("the invariant `{text}` does not hold");
                    return self.settle(key, Outcome::Failed, why, None, BTreeMap::new(), world);
                }
                Err(Broken::Invariant(text)) => {
                    let why = format!(
                        "the invariant `{text}` does not hold before stage `{}`",
                        key.name(self.flow.plan)
                    );
                    return self.stop(why, true, true, world);
                }
                Err(Broken::Condition(why)) => {
                    return self.settle(key, Outcome::Error, why.to_string(), None, BTreeMap::new(), world);
                }
            }
        }
        let stage = self.stage(key);
        if stage.decides() {
            return self.decide(key, world);
        }
        match (&stage.gate, self.state.group(key).answer) {
            // The person is asked after the vote.
            (Some(_), None) if stage.asks_without_consensus() => {}
            (Some(_), None) => return self.open_gate(key, world),
            (Some(gate), Some(Answer::Reject)) => {
                let why = if self.state.group(key).by_default {
                    format!("the gate had no answer within {}, and its default is reject", gate.timeout)
                } else {
                    "the answer at the gate is reject".to_owned()
                };
                return self.settle(key, Outcome::Failed, why, None, BTreeMap::new(), world);
            }
            _ => {}
        }
        self.expand(key, world)
    }

    /// How a stage ends without work, if it does.
    fn permitted(&self, key: Key) -> Result<Option<NotRun>, Broken> {
        let stage = self.stage(key);
        let scope = self.scope(key);
        let is_handler = self.flow.handlers.contains(&key.stage);
        for text in &self.flow.plan.safety.invariants {
            if !scope.evaluate(text)?.holds && !is_handler {
                return Err(Broken::Invariant(text.clone()));
            }
        }
        match &stage.depends {
            Some(text) => {
                let Evaluated { holds, read } = scope.evaluate(text)?;
                if !holds {
                    let why = "`depends` does not hold".to_owned();
                    return Ok(Some(NotRun { outcome: Outcome::Skipped, why, read }));
                }
            }
            None if !is_handler => {
                if let Some(why) = self.failed_need(key) {
                    return Ok(Some(NotRun { outcome: Outcome::Blocked, why, read: BTreeMap::new() }));
                }
            }
            None => {}
        }
        if let Some(case) = &stage.branch
            && !self.is_chosen(key, case.as_str())
        {
            let why = format!("no decision chose `{case}`");
            return Ok(Some(NotRun { outcome: Outcome::Skipped, why, read: BTreeMap::new() }));
        }
        if let Some(text) = &stage.when {
            let Evaluated { holds, read } = scope.evaluate(text)?;
            if !holds {
                let why = "`when` does not hold".to_owned();
                return Ok(Some(NotRun { outcome: Outcome::Skipped, why, read }));
            }
        }
        Ok(None)
    }

    /// Why a stage is blocked: one that it needs neither succeeded nor was skipped, and may not fail, or the loop around
    /// that one did not come to its end.
    fn failed_need(&self, key: Key) -> Option<String> {
        let plan = self.flow.plan;
        self.flow.graph.needs[key.stage].iter().find_map(|need| {
            let around = self.state.loop_of(*need);
            let looped =
                |looped: usize| format!("`{}` of loop `{}`", plan.stages[*need].id, plan.loops[looped].id);
            if let Some(failed) = self.state.failed_loops().find(|looped| around == Some(*looped)) {
                return Some(format!("needs {}, which failed", looped(failed)));
            }
            let seen = self.state.seen_from(*need, key);
            let may_fail = plan.stages[*need].may_fail();
            let is_fine = |outcome: Outcome| outcome.is_fine() || may_fail && outcome.is_failure();
            if !self.state.group(seen).outcome.is_none_or(is_fine) {
                return Some(format!("needs `{}`, which failed", seen.name(plan)));
            }
            let left = around.filter(|around| self.state.loop_of(key.stage) != Some(*around))?;
            let last = self.cut_short_by(left)?.name(plan);
            Some(format!("needs {}, which ended early: `{last}` did not succeed", looped(left)))
        })
    }

    fn is_chosen(&self, key: Key, case: &str) -> bool {
        self.flow.graph.needs[key.stage].iter().any(|need| {
            let group = self.state.group(self.state.seen_from(*need, key));
            group.choice.as_deref() == Some(case)
        })
    }

    /// Chooses the case of a decision.
    fn decide(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        let stage = self.stage(key);
        let mut read = BTreeMap::new();
        let mut chosen = stage.otherwise.as_ref();
        for case in &stage.cases {
            match self.scope(key).evaluate(&case.condition) {
                Ok(evaluated) => {
                    read.extend(evaluated.read);
                    if evaluated.holds {
                        chosen = Some(&case.to);
                        break;
                    }
                }
                Err(why) => return self.settle(key, Outcome::Error, why.to_string(), None, read, world),
            }
        }
        match chosen {
            Some(case) => self.settle(key, Outcome::Ok, String::new(), Some(case.to_string()), read, world),
            None => {
                let why = "no case holds, and the decision has no `else`".to_owned();
                self.settle(key, Outcome::Error, why, None, read, world)
            }
        }
    }

    /// Lets a stage wait for a person.
    pub(super) fn open_gate(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        let Some(gate) = &self.stage(key).gate else { return Ok(()) };
        if self.state.group(key).gate_until.is_none() {
            let until = world.now() + gate.timeout.as_seconds();
            self.record(&[Event::Gate { key, until, question: gate.question.clone() }]);
        }
        self.queues.gates.insert(key);
        self.ask(key, world)?;
        match self.state.group(key).gate_until {
            Some(until) if self.queues.gates.contains(&key) => {
                self.flush(world)?;
                world.ask(&key.name(self.flow.plan), gate, until)
            }
            _ => Ok(()),
        }
    }

    /// Looks for the answer of a person.
    pub(super) fn ask(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        let group = self.state.group(key);
        let (Some(gate), Some(until)) = (&self.stage(key).gate, group.gate_until) else { return Ok(()) };
        let answer = world.answer(&key.name(self.flow.plan))?;
        let (answer, by_default) = match answer {
            Some(answer) => (answer, false),
            None if world.now() >= until => (gate.default, true),
            None => return Ok(()),
        };
        self.queues.gates.remove(&key);
        self.record(&[Event::Answered { key, answer, by_default }]);
        self.queues.free.insert(key);
        self.put_answer_aside(key, world)
    }

    /// Moves the last answer of a person aside, once the journal has it: another chance of the stage asks again.
    pub(super) fn put_answer_aside(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        match self.state.group(key).answers {
            0 => Ok(()),
            number => {
                self.flush(world)?;
                world.put_aside(&key.name(self.flow.plan), number)
            }
        }
    }
}

/// How a stage ends without work.
struct NotRun {
    outcome: Outcome,
    why: String,
    /// The values that its conditions read.
    read: BTreeMap<String, Value>,
}

/// Why a stage may not start.
enum Broken {
    /// An invariant does not hold.
    Invariant(String),
    /// A condition has no value.
    Condition(ConditionError),
}

impl From<ConditionError> for Broken {
    fn from(why: ConditionError) -> Self {
        Self::Condition(why)
    }
}
