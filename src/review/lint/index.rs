//! The names of a plan, its graph, its loops, and the agents of its stages.

use crate::language::graph::{Cycle, Graph};
use crate::schema::Plan;
use crate::schema::agent::{Agent, REPLY};
use crate::schema::looped::Loop;
use crate::schema::name::Name;
use crate::schema::stage::{ForEach, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// What checks look up in a plan, each in less than linear time.
pub(super) struct Index<'p> {
    plan: &'p Plan,
    /// The places of stages; of two with one name, the first.
    pub(super) stages: BTreeMap<&'p str, usize>,
    /// The names of inputs.
    pub(super) inputs: BTreeSet<&'p str>,
    /// What waits for what.
    pub(super) graph: Result<Graph, Cycle>,
    /// The range of each loop; `None` if its ends are no stages in that order.
    pub(super) ranges: Vec<Option<RangeInclusive<usize>>>,
    /// The loop of each stage.
    pub(super) loop_of: Vec<Option<usize>>,
    /// The stages that measure a metric, in order of place.
    pub(super) measuring: BTreeMap<&'p str, Vec<usize>>,
    /// The stages that run at the end.
    pub(super) handlers: BTreeSet<usize>,
    /// The agents with each capability, by name.
    able: BTreeMap<&'p str, Vec<&'p Name>>,
}

impl<'p> Index<'p> {
    pub(super) fn of(plan: &'p Plan) -> Self {
        let mut stages = BTreeMap::new();
        let mut measuring: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, stage) in plan.stages.iter().enumerate() {
            stages.entry(stage.id.as_str()).or_insert(place);
            // A decision lists the metrics that it reads.
            for metric in stage.metrics.iter().filter(|_| !stage.decides()) {
                measuring.entry(metric.as_str()).or_default().push(place);
            }
        }
        let range = |looped: &Loop| {
            let place = |id: Option<&crate::schema::name::Id>| stages.get(id?.as_str()).copied();
            let (first, last) = (place(looped.over.first())?, place(looped.over.last())?);
            (first <= last && looped.over.len() <= 2).then_some(first..=last)
        };
        let ranges: Vec<Option<RangeInclusive<usize>>> = plan.loops.iter().map(range).collect();
        let mut able: BTreeMap<&str, Vec<&Name>> = BTreeMap::new();
        for (name, agent) in &plan.agents {
            for capability in agent.skills().capabilities {
                able.entry(capability.as_str()).or_default().push(name);
            }
        }
        let handlers = plan.on.stages();
        Self {
            plan,
            inputs: plan.inputs.iter().map(|input| input.name.as_str()).collect(),
            graph: Graph::of(plan),
            loop_of: loops_of_stages(plan.stages.len(), &ranges),
            ranges,
            measuring,
            handlers: handlers.filter_map(|id| stages.get(id.as_str()).copied()).collect(),
            stages,
            able,
        }
    }

    /// The agents with a capability.
    pub(super) fn able(&self, capability: &Name) -> &[&'p Name] {
        self.able.get(capability.as_str()).map_or(&[], Vec::as_slice)
    }

    /// The capabilities of all agents.
    pub(super) fn capabilities(&self) -> impl Iterator<Item = &'p str> {
        self.able.keys().copied()
    }

    /// The agents that may do the work of a stage.
    pub(super) fn agents_of(&self, stage: &Stage) -> Vec<&'p Agent> {
        let names =
            |names: &[&'p Name]| names.iter().filter_map(|name| self.plan.agents.get(*name)).collect();
        if let Some(name) = &stage.agent {
            return self.plan.agents.get(name).into_iter().collect();
        }
        if let Some(vote) = &stage.consensus {
            return names(self.able(&vote.capability));
        }
        match (&stage.for_each, stage.needs_capability.split_first()) {
            (Some(ForEach::Agents(pool)), _) => names(self.able(&pool.capability)),
            (_, Some((first, rest))) => {
                let all: Vec<&Agent> = names(self.able(first));
                all.into_iter().filter(|agent| agent.can(rest)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The names of the outputs of a stage.
    pub(super) fn outputs(&self, stage: &'p Stage) -> Vec<&'p str> {
        let mut names: Vec<&str> = stage.out.iter().map(|out| out.name.as_str()).collect();
        let replies = self.agents_of(stage).iter().any(|agent| !matches!(agent, Agent::Command(_)));
        if replies || stage.consensus.is_some() {
            names.push(REPLY);
        }
        names
    }

    /// The stage with this name.
    pub(super) fn stage(&self, name: &str) -> Option<(usize, &'p Stage)> {
        let place = *self.stages.get(name)?;
        Some((place, &self.plan.stages[place]))
    }

    /// The stages that a stage waits for; none in a plan with a cycle.
    pub(super) fn needs(&self, stage: usize) -> &[usize] {
        self.graph.as_ref().map_or(&[], |graph| graph.needs[stage].as_slice())
    }

    /// The cases or options that a stage chooses from.
    pub(super) fn choices(stage: &Stage) -> Vec<&str> {
        let cases = stage.cases.iter().map(|case| case.to.as_str()).filter(|_| stage.decides());
        let otherwise = stage.otherwise.iter().filter(|_| stage.decides()).map(|case| case.as_str());
        let options =
            stage.consensus.iter().flat_map(|vote| vote.options.iter().map(|option| option.as_str()));
        cases.chain(otherwise).chain(options).collect()
    }
}

fn loops_of_stages(stages: usize, ranges: &[Option<RangeInclusive<usize>>]) -> Vec<Option<usize>> {
    let mut loops = vec![None; stages];
    // The first loop of several has the stage, as in a run.
    for (looped, range) in ranges.iter().enumerate().rev() {
        for stage in range.clone().into_iter().flatten() {
            loops[stage] = Some(looped);
        }
    }
    loops
}
