//! Turns of new agents: an agent without successes would never get work beside one with many.

use crate::plan::run::event::Event;
use crate::schema::Plan;
use crate::schema::agent::Agent;
use crate::schema::name::Name;
use crate::schema::stage::Stage;
use std::collections::BTreeMap;

/// Attempts below which an agent is new.
const NEW: u32 = 5;

/// Each assignment of this number is that of a new agent.
const EVERY: u32 = 5;

/// The assignments of a run so far.
#[derive(Clone, Default)]
pub(super) struct Turns {
    /// To stages that ask for these capabilities.
    of_needs: BTreeMap<Vec<Name>, u32>,
    /// To each agent, by its name.
    of_agents: BTreeMap<String, u32>,
}

impl Turns {
    /// Counts an event.
    pub(super) fn add(&mut self, event: &Event, plan: &Plan) {
        if let Event::Begin { key, agent, .. } = event
            && let Some(stage) = plan.stages.get(key.stage)
        {
            self.count(stage, agent);
        }
    }

    /// Counts an assignment.
    pub(super) fn count(&mut self, stage: &Stage, agent: &str) {
        *self.of_agents.entry(agent.to_owned()).or_default() += 1;
        if stage.agent.is_none() && stage.pool().is_none() {
            *self.of_needs.entry(stage.needs_capability.clone()).or_default() += 1;
        }
    }

    /// The agent that takes the next work of a stage, of those that are idle, the best first: at each fifth assignment of
    /// the capability the new agent with the fewest attempts. Of the agents whose attempts at this work `failed`, those
    /// that failed least often are chosen, and only if no other agent is idle.
    pub(super) fn choose<'a>(
        &self,
        stage: &Stage,
        idle: &[(&'a Name, &'a Agent)],
        failed: &[String],
    ) -> Option<(&'a Name, &'a Agent)> {
        let failures = |name: &Name| failed.iter().filter(|failed| *failed == name.as_str()).count();
        let fewest = idle.iter().map(|(name, _)| failures(name)).min();
        let idle: Vec<_> = idle.iter().filter(|(name, _)| Some(failures(name)) == fewest).copied().collect();
        let attempts = |(name, agent): &(&Name, &Agent)| {
            let now = self.of_agents.get(name.as_str()).copied().unwrap_or(0);
            agent.skills().attempts.map(|before| before.saturating_add(now))
        };
        let so_far = self.of_needs.get(&stage.needs_capability).copied().unwrap_or(0);
        let is_turn = (so_far + 1).is_multiple_of(EVERY);
        let new = idle.iter().filter(|agent| attempts(agent).is_some_and(|attempts| attempts < NEW));
        let newest = new.min_by_key(|agent| attempts(agent)).filter(|_| is_turn);
        newest.or(idle.first()).copied()
    }
}
