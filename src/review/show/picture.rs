//! What pictures of a plan draw: stages with their work, loops, branches and the critical path.

use crate::language::graph::{Cycle, Graph};
use crate::schema::Plan;
use crate::schema::stage::{ForEach, Shards, Stage};
use std::collections::BTreeMap;

/// A plan as pictures draw it.
pub struct Picture<'p> {
    /// The plan.
    pub plan: &'p Plan,
    /// What waits for what.
    pub graph: Graph,
    /// The stages of the critical path, first to last.
    pub critical: Vec<usize>,
    /// For each stage of the critical path, the one behind it; the last stage stands for itself.
    pub next: BTreeMap<usize, usize>,
    /// The loop of each stage.
    pub loop_of: Vec<Option<usize>>,
    /// The cost of each stage: seconds, or 1.
    pub costs: Vec<f64>,
}

/// What a stage is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// It does work.
    Work,
    /// It does work once for each of several values.
    FanOut,
    /// It chooses a case.
    Decision,
    /// Agents vote.
    Vote,
    /// It waits for a person, and does nothing else.
    Gate,
}

impl Shape {
    /// What a stage is.
    pub fn of(stage: &Stage) -> Self {
        if stage.decides() {
            Self::Decision
        } else if stage.consensus.is_some() {
            Self::Vote
        } else if stage.for_each.is_some() {
            Self::FanOut
        } else if stage.gate.is_some() && !stage.works() {
            Self::Gate
        } else {
            Self::Work
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::FanOut => "fan-out",
            Self::Decision => "decision",
            Self::Vote => "vote",
            Self::Gate => "gate",
        }
    }
}

impl<'p> Picture<'p> {
    /// The picture of a plan. `costs` are the seconds of its stages, by place; without them each stage costs 1.
    ///
    /// # Errors
    ///
    /// When stages wait for each other.
    pub fn of(plan: &'p Plan, costs: Option<Vec<f64>>) -> Result<Self, Cycle> {
        let graph = Graph::of(plan)?;
        let costs = costs.unwrap_or_else(|| vec![1.0; plan.stages.len()]);
        let critical = graph.critical_path(|stage| costs[stage]);
        let mut loop_of = vec![None; plan.stages.len()];
        // The first loop of several has the stage, as in a run.
        for (place, looped) in plan.loops.iter().enumerate().rev() {
            plan.members(looped).into_iter().flatten().for_each(|stage| loop_of[stage] = Some(place));
        }
        let behind = critical.iter().skip(1).chain(critical.last());
        let next = critical.iter().copied().zip(behind.copied()).collect();
        Ok(Self { plan, graph, critical, next, loop_of, costs })
    }

    /// The stages outside of loops.
    pub fn outside(&self) -> impl Iterator<Item = usize> {
        (0..self.loop_of.len()).filter(|stage| self.loop_of[*stage].is_none())
    }

    /// The stages of each loop, in the order of the plan.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.plan.loops.len()];
        for (stage, looped) in self.loop_of.iter().enumerate() {
            looped.iter().for_each(|looped| members[*looped].push(stage));
        }
        members
    }

    /// Whether a stage is part of the critical path.
    pub fn is_critical(&self, stage: usize) -> bool {
        self.next.contains_key(&stage)
    }

    /// Whether a wait is part of the critical path.
    pub fn is_critical_edge(&self, from: usize, to: usize) -> bool {
        from != to && self.next.get(&from) == Some(&to)
    }

    /// The case of a decision, or option of a vote, for which a stage runs.
    pub fn case(&self, from: usize, to: usize) -> Option<&'p str> {
        let case = self.plan.stages[to].branch.as_ref()?.as_str();
        let stage = &self.plan.stages[from];
        let cases = stage.cases.iter().map(|case| &case.to).chain(&stage.otherwise);
        let options = stage.consensus.iter().flat_map(|vote| &vote.options);
        cases.chain(options).any(|choice| choice.as_str() == case).then_some(case)
    }
}

/// Who does the work of a stage, in a few words.
pub fn worker(stage: &Stage) -> Option<String> {
    if let Some(agent) = &stage.agent {
        return Some(agent.to_string());
    }
    if let Some(nested) = &stage.plan {
        return Some(format!("plan {}", nested.file));
    }
    if let Some(reduce) = &stage.reduce {
        return Some(reduce.by.word().to_owned());
    }
    if let Some(vote) = &stage.consensus {
        return Some(format!("vote of {}", vote.capability));
    }
    let capabilities: Vec<&str> = stage.needs_capability.iter().map(|name| name.as_str()).collect();
    (!capabilities.is_empty()).then(|| format!("agent for {}", capabilities.join(" and ")))
}

/// How a stage fans out, in a few words.
pub fn fan_out(stage: &Stage) -> Option<String> {
    Some(match stage.for_each.as_ref()? {
        ForEach::Values(values) => format!("x {}", values.len()),
        ForEach::Range(count) | ForEach::Shards(Shards::Count(count)) => format!("x {count}"),
        ForEach::Shards(Shards::Auto(_)) => "x shards".to_owned(),
        ForEach::Input(name) => format!("x files of {name}"),
        ForEach::Agents(pool) => format!("x agents for {}", pool.capability),
    })
}
