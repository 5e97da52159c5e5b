//! The tasks of a plan, and which waits for which.
//!
//! A stage is a task, a fan-out is one for each instance, and a loop is one with all of its stages.

use crate::language::graph::{Graph, references};
use crate::language::template::Reference;
use crate::plan::run::fill::instances;
use crate::plan::run::state::State;
use crate::schema::Plan;
use crate::schema::stage::Stage;
use std::collections::{BTreeMap, BTreeSet};

/// A stage, or the stages of a loop: what other programs schedule as one job, or as an array of jobs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Its name: that of the stage, or `loop-` and that of the loop.
    pub name: String,
    /// The places of its stages.
    pub stages: BTreeSet<usize>,
    /// The number of tasks of a fan-out; `None` for a task alone.
    pub count: Option<u32>,
    /// What it waits for.
    pub after: Vec<After>,
    /// Whether its stage runs at the end, and when.
    pub handler: Option<Handler>,
}

/// A unit that another one waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// Its place among the units.
    pub unit: usize,
    /// What of it.
    pub how: How,
}

/// What a unit waits for in another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The success of all of its tasks.
    Done,
    /// The success of the task with the same place.
    Each,
    /// Its end.
    Over,
}

/// When a stage of the end runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handler {
    /// If a stage failed.
    Failure,
    /// In every case.
    Exit,
}

/// The units of a plan, in the order of its stages.
#[derive(Clone, Debug)]
pub struct Units {
    /// The units.
    pub all: Vec<Unit>,
    /// What waits for what among the stages.
    pub graph: Graph,
    /// The unit of each stage.
    unit_of: Vec<usize>,
}

/// A task: a unit, and the place in its fan-out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Task {
    /// The place of the unit.
    pub unit: usize,
    /// The place in the fan-out.
    pub index: Option<u32>,
}

impl Units {
    /// The units of a plan. `state` knows the files of inputs, and what `auto` shards stand for.
    pub fn of(plan: &Plan, graph: Graph, state: &State) -> Self {
        let handler = |stage: &Stage| {
            let is = |named: &[crate::schema::name::Id]| named.contains(&stage.id);
            let failure = is(&plan.on.failure).then_some(Handler::Failure);
            if is(&plan.on.exit) { Some(Handler::Exit) } else { failure }
        };
        let mut all: Vec<Unit> = Vec::new();
        let mut unit_of = Vec::new();
        let mut named: BTreeMap<String, usize> = BTreeMap::new();
        for (place, stage) in plan.stages.iter().enumerate() {
            let name = match plan.loop_of(place) {
                Some(looped) => format!("loop-{}", plan.loops[looped].id),
                None => stage.id.to_string(),
            };
            if let Some(unit) = named.get(&name) {
                all[*unit].stages.insert(place);
                unit_of.push(*unit);
                continue;
            }
            let asks = stage.gate.is_some() || stage.consensus.is_some();
            let fans_out = plan.loop_of(place).is_none() && !asks;
            let count = instances(plan, state, stage).filter(|count| fans_out && *count > 0);
            let (stages, handler) = (BTreeSet::from([place]), handler(stage));
            unit_of.push(all.len());
            named.insert(name.clone(), all.len());
            all.push(Unit { name, stages, count, after: Vec::new(), handler });
        }
        let mut units = Self { all, graph, unit_of };
        for unit in 0..units.all.len() {
            units.all[unit].after = units.after(plan, unit);
        }
        units
    }

    fn after(&self, plan: &Plan, unit: usize) -> Vec<After> {
        let this = &self.all[unit];
        if let Some(handler) = this.handler {
            let before = |other: &Unit| match other.handler {
                None => true,
                Some(Handler::Failure) => handler == Handler::Exit,
                Some(Handler::Exit) => false,
            };
            let others = (0..self.all.len()).filter(|other| before(&self.all[*other]));
            return others.map(|unit| After { unit, how: How::Over }).collect();
        }
        let mut found: BTreeMap<usize, How> = BTreeMap::new();
        for stage in &this.stages {
            for need in self.graph.needs[*stage].iter().filter(|need| !this.stages.contains(need)) {
                let need = self.unit_of[*need];
                let how = match &plan.stages[*stage].depends {
                    Some(_) => How::Over,
                    None if self.is_elementwise(plan, unit, need) => How::Each,
                    None => How::Done,
                };
                found.insert(need, how);
            }
        }
        found.into_iter().map(|(unit, how)| After { unit, how }).collect()
    }

    /// Whether each task of a fan-out reads only the task with the same place of another one.
    fn is_elementwise(&self, plan: &Plan, unit: usize, need: usize) -> bool {
        let (this, other) = (&self.all[unit], &self.all[need]);
        let (Some(stage), Some(of)) = (this.stages.first(), other.stages.first()) else { return false };
        let (stage, of) = (&plan.stages[*stage], &plan.stages[*of]);
        let conditions = stage.when.is_some() || stage.success_when.is_some() || stage.branch.is_some();
        let invariants = !plan.safety.invariants.is_empty();
        if this.count.is_none() || this.count != other.count || conditions || invariants {
            return false;
        }
        let references = references(stage);
        let mut of_need = references.iter().filter(|reference| match reference {
            Reference::Output(name, _) | Reference::At(name, ..) | Reference::Choice(name) => *name == of.id,
            _ => false,
        });
        let only_same = of_need.clone().all(|reference| matches!(reference, Reference::At(_, _, None)));
        of.success_when.is_none() && only_same && of_need.next().is_some()
    }

    /// The number of tasks.
    pub fn tasks(&self) -> u64 {
        self.all.iter().map(|unit| u64::from(unit.count.unwrap_or(1))).sum()
    }

    /// The task with a name.
    pub fn task(&self, name: &str) -> Option<Task> {
        let (unit, index) = match name.split_once('.') {
            Some((unit, index)) => (unit, Some(index.parse().ok()?)),
            None => (name, None),
        };
        let unit = self.all.iter().position(|found| found.name == unit)?;
        let fits = match (self.all[unit].count, index) {
            (Some(count), Some(index)) => index < count,
            (count, index) => count.is_none() && index.is_none(),
        };
        fits.then_some(Task { unit, index })
    }

    /// The name of a task: that of its unit, and its place after a dot.
    pub fn name(&self, task: Task) -> String {
        let unit = &self.all[task.unit].name;
        task.index.map_or_else(|| unit.clone(), |index| format!("{unit}.{index}"))
    }

    /// The tasks of a unit.
    pub fn tasks_of(&self, unit: usize) -> impl Iterator<Item = Task> {
        let count = self.all[unit].count;
        (0..count.unwrap_or(1)).map(move |index| Task { unit, index: count.map(|_| index) })
    }

    /// The tasks that a task may read, each behind those that it may read; with whether one of their stages may be
    /// missing.
    pub fn before(&self, task: Task) -> Vec<(Task, bool)> {
        let mut whole = BTreeSet::new();
        let mut same = BTreeSet::new();
        let mut lax = BTreeSet::new();
        let mut open = vec![(task.unit, task.index.is_some(), false)];
        while let Some((unit, one, missing)) = open.pop() {
            for after in &self.all[unit].after {
                let one = one && after.how == How::Each;
                let missing = missing || after.how == How::Over;
                let is_new = if one { same.insert(after.unit) } else { whole.insert(after.unit) };
                if is_new | (missing && lax.insert(after.unit)) {
                    open.push((after.unit, one, missing));
                }
            }
        }
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for unit in
            self.graph.order.iter().map(|stage| self.unit_of[*stage]).filter(|unit| seen.insert(*unit))
        {
            if whole.contains(&unit) {
                found.extend(self.tasks_of(unit).map(|task| (task, lax.contains(&unit))));
            } else if same.contains(&unit) {
                found.push((Task { unit, index: task.index }, false));
            }
        }
        found
    }
}
