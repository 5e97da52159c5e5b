//! Takes the word of the operator for what came of attempts that may have happened.

use super::Machine;
use crate::language::graph::references;
use crate::language::template::Reference;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event, Outcome};
use crate::plan::run::key::Key;
use crate::plan::run::world::World;

impl Machine<'_> {
    /// Takes the operator's word for what came of an attempt that may have happened: whether its work is done. What the
    /// operator said before can be taken back.
    ///
    /// # Errors
    ///
    /// When there is no such attempt, the stage is over without it, or other stages need what only the work makes.
    pub fn attest(&mut self, name: &str, done: bool, world: &mut impl World) -> Result<(), RunError> {
        let fault = |why: String| Err(RunError::Settled { stage: name.to_owned(), why });
        let keys = (0..self.flow.plan.stages.len()).flat_map(|stage| {
            let key = self.state.current(stage);
            let fans_out = self.flow.plan.stages[stage].fans_out();
            let count = self.state.group(key).instances.len() as u32;
            (0..count).map(move |index| Key { index: fans_out.then_some(index), ..key })
        });
        let is_known = |key: &Key| {
            let instance = self.state.instance(*key);
            instance.is_some_and(|found| found.running || found.may_have_happened || found.attested)
        };
        let Some(key) = keys.filter(is_known).find(|key| key.name(self.flow.plan) == name) else {
            let why = "no attempt of that name may have happened without a receipt";
            return fault(self.of_earlier_iteration(name).unwrap_or_else(|| why.to_owned()));
        };
        let was_attested = self.state.instance(key).is_some_and(|instance| instance.attested);
        let is_fine = self.state.group(key).outcome.is_some_and(Outcome::is_fine);
        if !was_attested && (is_fine || self.state.ending == Some(Ending::Succeeded)) {
            let why =
                "the stage succeeded, or may fail, without this attempt, so that nothing is left to settle";
            return fault(why.to_owned());
        }
        if done && let Some(lacks) = self.made_by_work_alone(key.stage) {
            return fault(format!("found `done`, expected `again`, since {lacks}"));
        }
        self.record(&[Event::Attested { key, done }]);
        self.flush(world)
    }

    /// Why nothing is left to say of an instance in an iteration behind which another one began.
    fn of_earlier_iteration(&self, name: &str) -> Option<String> {
        let plan = self.flow.plan;
        (0..plan.stages.len()).find_map(|stage| {
            let looped = &plan.loops[self.state.loop_of(stage)?];
            let last = self.state.current(stage);
            let earlier = (1..last.iteration).map(|iteration| Key { iteration, ..last });
            let mut instances = earlier.flat_map(|key| {
                let count = self.state.group(key).instances.len() as u32;
                let indices = (0..count).map(|index| plan.stages[stage].fans_out().then_some(index));
                indices.map(move |index| Key { index, ..key })
            });
            let key = instances.find(|key| key.name(plan) == name)?;
            Some(format!(
                "iteration {} of loop `{}` began after iteration {}, so that what came of that one stays",
                last.iteration, looped.id, key.iteration
            ))
        })
    }

    /// What a stage makes that the word of the operator cannot stand for.
    fn made_by_work_alone(&self, stage: usize) -> Option<String> {
        let plan = self.flow.plan;
        let this = &plan.stages[stage];
        if let Some(metric) = this.metrics.first() {
            return Some(format!("only the work itself measures its metric `{metric}`"));
        }
        let reads = |found: &Reference, output: &str| match found {
            Reference::Output(of, name) | Reference::At(of, name, _) => {
                *of == this.id && name.as_str() == output
            }
            _ => false,
        };
        this.out.iter().filter(|out| !out.optional).map(|out| out.name.as_str()).find_map(|output| {
            let others = plan.stages.iter().filter(|other| other.id != this.id);
            let mut readers =
                others.filter(|other| references(other).iter().any(|found| reads(found, output)));
            let carried = format!("{}.{output}", this.id);
            let mut loops =
                plan.loops.iter().filter(|looped| looped.carry.values().any(|carry| carry.from == carried));
            let reader = readers.next().map(|other| format!("stage `{}`", other.id));
            let reader = reader.or_else(|| loops.next().map(|looped| format!("loop `{}`", looped.id)))?;
            Some(format!("{reader} reads its output `{output}`, which only the work itself makes"))
        })
    }
}
