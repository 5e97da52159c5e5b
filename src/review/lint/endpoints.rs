//! Endpoints: hosts that the plan does not list, and models whose answers cannot be repeated.

use super::finding::Lint;
use super::rules;
use crate::endpoint::check::faults;
use crate::schema::agent::Agent;

pub(super) fn check(lint: &mut Lint) {
    // The runner refuses a plan for the same faults.
    for (at, why) in faults(lint.plan) {
        lint.add(&rules::ENDPOINT, at, why);
    }
    for (name, agent) in &lint.plan.agents {
        let Agent::Ollama(agent) = agent else { continue };
        let missing: Vec<&str> =
            ["seed", "num_ctx"].into_iter().filter(|key| !agent.options.contains_key(*key)).collect();
        if !missing.is_empty() {
            let why = format!("found no {}: an answer cannot be repeated without", missing.join(" and no "));
            lint.add(&rules::REPEATABLE, format!("$.agents.{name}.options"), why);
        }
    }
}
