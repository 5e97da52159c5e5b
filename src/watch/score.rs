//! What the attempts of agents in a run came to, for their scores.

use crate::plan::run::event::{Event, Failure};
use crate::plan::run::key::Key;
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

/// The attempts of agents, in the order of their ends. Results that were used again are no attempts, and neither are
/// those that the runner ended, or that crashes interrupted.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::run::event::Made;

    const KEY: Key = Key { stage: 0, iteration: 0, shadow: None, index: None };

    fn begin(attempt: u32, agent: &str) -> Event {
        Event::Begin { key: KEY, attempt, work: String::new(), agent: agent.to_owned(), calls: 0 }
    }

    fn failed(failure: Failure) -> Event {
        Event::Failed { key: KEY, failure, seconds: 1.0, again: true, tokens: 0 }
    }

    fn made(cached: bool) -> Event {
        let made = Made { cached, ..Made::default() };
        Event::Made { key: KEY, made, seconds: 2.0, read: BTreeMap::new() }
    }

    #[test]
    fn each_attempt_counts_for_the_agent_that_made_it() {
        let events = [begin(1, "a"), failed(Failure::Exit(1)), begin(2, "b"), made(false)];
        let attempt =
            |agent: &str, succeeded, seconds| Attempt { agent: agent.to_owned(), succeeded, seconds };
        assert_eq!(attempts(&events), [attempt("a", false, 1.0), attempt("b", true, 2.0)]);
    }

    #[test]
    fn results_used_again_and_attempts_that_the_runner_ended_do_not_count() {
        assert_eq!(attempts(&[begin(1, "a"), made(true)]), []);
        assert_eq!(attempts(&[begin(1, "a"), failed(Failure::Cancelled)]), []);
        assert_eq!(attempts(&[begin(1, ""), made(false)]), [], "no agent made it");
        assert_eq!(attempts(&[begin(1, "a")]), [], "a crash interrupted it");
    }
}
