//! Resolves the capabilities that a plan asks for, by the agents of a registry.

use crate::schema::Plan;
use crate::schema::address;
use crate::schema::agent::{Agent, able};
use crate::schema::name::Name;
use crate::schema::stage::Stage;
use crate::settings::nearest::nearest;
use crate::telemetry::explain::Explain;
use std::collections::{BTreeMap, BTreeSet};

/// Stages for whose work no agent is known.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{}", .0.join("; "))]
pub struct Unresolved(pub Vec<String>);

impl Explain for Unresolved {
    fn hint(&self) -> Option<String> {
        Some(
            "`fedmill agents list` shows what the registered agents can do, `fedmill agents add` adds others"
                .to_owned(),
        )
    }
}

/// Takes registered agents into a plan: for each capability that none of the plan's own agents has, all that have it. The
/// hosts of endpoints come into `limits.hosts`.
///
/// # Errors
///
/// When no registered agent has what a stage needs. Names the nearest.
pub fn resolve(plan: &mut Plan, registered: &BTreeMap<Name, Agent>) -> Result<(), Unresolved> {
    let mut missing = Vec::new();
    let mut taken: BTreeMap<Name, Agent> = BTreeMap::new();
    for stage in &plan.stages {
        let needs = needs(stage);
        if needs.is_empty() || !able(&plan.agents, &needs).is_empty() {
            continue;
        }
        let found = able(registered, &needs);
        if found.is_empty() {
            missing.push(unresolved(stage, &needs, registered));
        }
        taken.extend(found.into_iter().map(|(name, agent)| (name.clone(), agent.clone())));
    }
    if !missing.is_empty() {
        return Err(Unresolved(missing));
    }
    if let Some(name) = taken.keys().find(|name| plan.agents.contains_key(*name)) {
        return Err(Unresolved(vec![format!("the plan and the registry both have an agent `{name}`")]));
    }
    plan.agents.extend(taken);
    permit_hosts(plan);
    Ok(())
}

/// The capabilities that a stage needs.
fn needs(stage: &Stage) -> Vec<Name> {
    let pool = stage.pool().map(|(capability, _)| capability.clone());
    pool.map_or_else(|| stage.needs_capability.clone(), |capability| vec![capability])
}

fn permit_hosts(plan: &mut Plan) {
    let urls: Vec<String> = plan.agents.values().filter_map(Agent::url).map(str::to_owned).collect();
    for url in urls {
        if let Ok((_, address)) = address::of(&url)
            && address::permit(&address, &plan.limits.hosts).is_err()
        {
            plan.limits.hosts.push(address.to_string());
        }
    }
}

fn unresolved(stage: &Stage, needs: &[Name], registered: &BTreeMap<Name, Agent>) -> String {
    let words = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let head =
        format!("stage `{}` needs an agent with {}, and no registered agent has it", stage.id, words(needs));
    let known: BTreeSet<&str> =
        registered.values().flat_map(|agent| agent.skills().capabilities).map(Name::as_str).collect();
    let unknown = needs.iter().find(|need| !known.contains(need.as_str()));
    let Some(unknown) = unknown else {
        // Each is there, and no agent has all: those who have most.
        let has = |agent: &Agent| needs.iter().filter(|need| agent.can(std::slice::from_ref(*need))).count();
        let most = registered.values().map(has).max().unwrap_or(0);
        let nearest = registered.iter().filter(|(_, agent)| has(agent) == most).map(|(name, _)| name.clone());
        return format!("{head}; {} of {} has: {}", most, needs.len(), words(&nearest.collect::<Vec<_>>()));
    };
    match nearest(unknown.as_str(), known) {
        Some(near) => {
            let near: Vec<Name> = near.parse().into_iter().collect();
            let who: Vec<Name> = able(registered, &near).into_iter().map(|(name, _)| name.clone()).collect();
            format!("{head}; the nearest is `{}`, which {} can do", words(&near), words(&who))
        }
        None if registered.is_empty() => format!("{head}; it has no agents"),
        None => head,
    }
}
