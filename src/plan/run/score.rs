//! What the attempts of agents in a run came to, for their scores.

use super::event::{Event, Failure};
use super::key::Key;
use std::collections::BTreeMap;

/// An attempt of an agent that came to an end.
#[derive(Clone, PartialEq, Debug)]
pub struct Attempt {
    /// The agent.
    pub agent: String,
    /// Whether it succeeded.
    pub succeeded: bool,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The attempts of agents, in the order of their ends. Results that were used again are no attempts, and neither are those
/// that the runner ended, or that crashes interrupted.
pub fn attempts(events: &[Event]) -> Vec<Attempt> {
    let mut agents: BTreeMap<Key, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for event in events {
        let (key, succeeded, seconds) = match event {
            Event::Begin { key, agent, .. } => {
                agents.insert(*key, agent);
                continue;
            }
            Event::Made { key, made, seconds, .. } if !made.cached => (key, true, *seconds),
            Event::Failed { failure: Failure::Cancelled | Failure::Reference(_), .. } => continue,
            Event::Failed { key, seconds, .. } => (key, false, *seconds),
            _ => continue,
        };
        if let Some(agent) = agents.get(key).filter(|agent| !agent.is_empty()) {
            found.push(Attempt { agent: (*agent).to_owned(), succeeded, seconds });
        }
    }
    found
}
