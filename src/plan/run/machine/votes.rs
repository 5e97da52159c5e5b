//! How a vote ends: the winner, or what the plan says of a vote without one.

use super::Machine;
use crate::language::condition::{Outcome as Evaluated, Value};
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Failure, Outcome};
use crate::plan::run::fill::members;
use crate::plan::run::key::Key;
use crate::plan::run::vote::{Tally, Voter, count, leader};
use crate::plan::run::world::World;
use crate::schema::policy::Answer;
use crate::schema::vote::{Consensus, NoConsensus};
use std::collections::BTreeMap;

impl Machine<'_> {
    /// Why a vote asks no agent, if fewer options than its minimum are left.
    pub(super) fn too_few_options(&self, key: Key, vote: &Consensus) -> Option<String> {
        let left = self.filler().options(key);
        let is_too_few = left.len() < vote.min_options as usize;
        let names = if left.is_empty() { String::new() } else { format!(" ({})", left.join(", ")) };
        is_too_few.then(|| {
            let (found, all, least) = (left.len(), vote.options.len(), vote.min_options);
            format!("{found} of {all} options are left{names}, expected at least {least}")
        })
    }

    /// Ends a vote once each voter answered or abstained.
    pub(super) fn settle_vote(
        &mut self,
        key: Key,
        vote: &Consensus,
        world: &mut impl World,
    ) -> Result<(), RunError> {
        let failures = self.state.group(key).instances.iter().filter_map(|voter| voter.failure.as_ref());
        // Neither says anything about the voter.
        let broken = failures.filter(|why| matches!(why, Failure::Cancelled | Failure::Reference(_)));
        if let Some(why) = broken.max_by_key(|why| why.outcome()) {
            let (outcome, why) = (why.outcome(), why.to_string());
            return self.settle(key, outcome, why, None, BTreeMap::new(), world);
        }
        let (tally, read) = self.tally(key, vote);
        let Err(why) = &tally.winner else {
            let Ok(option) = tally.winner else { return Ok(()) };
            return self.choose(key, option, String::new(), read, world);
        };
        let why = format!("no consensus: {why}");
        match (vote.on_no_consensus, self.state.group(key).answer) {
            (NoConsensus::Fallback, _) if let Some(option) = self.fallback(key, vote) => {
                self.choose(key, option, why, read, world)
            }
            (NoConsensus::Gate, None) if self.stage(key).gate.is_some() => self.open_gate(key, world),
            (NoConsensus::Gate, Some(Answer::Approve))
                if let Some(option) = leader(&self.filler().options(key), &tally) =>
            {
                self.choose(key, option, why, read, world)
            }
            _ => self.settle(key, Outcome::Failed, why, None, read, world),
        }
    }

    /// The option that holds without a winner: the one that the plan names, or the first if that one is left out.
    fn fallback(&self, key: Key, vote: &Consensus) -> Option<String> {
        let named = vote.fallback.as_ref()?.to_string();
        let left = self.filler().options(key);
        if left.contains(&named) { Some(named) } else { left.into_iter().next() }
    }

    /// The vote as it stands, and what of it the journal keeps.
    fn tally(&self, key: Key, vote: &Consensus) -> (Tally, BTreeMap<String, Value>) {
        let plan = self.flow.plan;
        let names = members(plan, &vote.capability, None);
        let chosen = |place: usize| {
            let made = self.state.group(key).instances.get(place)?.made.as_ref()?;
            made.option.clone()
        };
        let score = |name| plan.agents.get(name).map_or(0.0, |agent| agent.skills().score);
        let voters: Vec<Voter> = names
            .iter()
            .enumerate()
            .map(|(place, name)| Voter { score: score(*name), option: chosen(place) })
            .collect();
        let tally = count(vote, vote.threshold.unwrap_or(plan.limits.consensus_threshold), &voters);
        let weights =
            names.iter().zip(&tally.weights).map(|(name, weight)| (name.to_string(), Value::Real(*weight)));
        let shares = tally.shares.iter().map(|(option, share)| (option.clone(), Value::Real(*share)));
        let read = [
            ("weights".to_owned(), Value::Map(weights.collect())),
            ("shares".to_owned(), Value::Map(shares.collect())),
            ("answered".to_owned(), Value::Real(tally.answered)),
        ];
        (tally, BTreeMap::from(read))
    }

    /// Ends a vote with an option, if its condition of success holds with it.
    fn choose(
        &mut self,
        key: Key,
        option: String,
        why: String,
        mut read: BTreeMap<String, Value>,
        world: &mut impl World,
    ) -> Result<(), RunError> {
        let Some(text) = &self.stage(key).success_when else {
            return self.settle(key, Outcome::Ok, why, Some(option), read, world);
        };
        self.state.group_mut(key).choice = Some(option.clone());
        let evaluated = self.scope(key).evaluate(text);
        self.state.group_mut(key).choice = None;
        match evaluated {
            Ok(Evaluated { holds, read: values }) => {
                let failed = Failure::Unsuccessful(values.clone()).to_string();
                read.extend(values);
                let (outcome, why) = if holds { (Outcome::Ok, why) } else { (Outcome::Failed, failed) };
                self.settle(key, outcome, why, Some(option), read, world)
            }
            Err(why) => self.settle(key, Outcome::Error, why.to_string(), None, read, world),
        }
    }
}
