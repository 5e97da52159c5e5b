//! Names that stand twice, and names of nothing.

use super::finding::Lint;
use super::index::Index;
use super::rules;
use crate::schema::stage::ForEach;
use std::collections::BTreeMap;

pub(super) fn check(lint: &mut Lint) {
    check_twice(lint);
    let plan = lint.plan;
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        for (number, need) in stage.needs.iter().enumerate() {
            known_stage(lint, &format!("{at}.needs[{number}]"), need.as_str());
        }
        if let Some(agent) = &stage.agent
            && !plan.agents.contains_key(agent)
        {
            let known = plan.agents.keys().map(|name| name.as_str());
            lint.add_unknown(
                &rules::UNKNOWN,
                format!("{at}.agent"),
                (agent.as_str(), "an agent of the plan"),
                known,
            );
        }
        if let Some(ForEach::Input(input)) = &stage.for_each {
            known_input(lint, &format!("{at}.for_each.input"), input.as_str());
        }
        if let Some(case) = &stage.branch {
            check_branch(lint, place, case.as_str());
        }
    }
    for (key, handlers) in [("failure", &plan.on.failure), ("exit", &plan.on.exit)] {
        for (number, id) in handlers.iter().enumerate() {
            known_stage(lint, &format!("$.on.{key}[{number}]"), id.as_str());
        }
    }
}

/// Adds a finding unless the name is that of a stage.
pub(super) fn known_stage(lint: &mut Lint, at: &str, name: &str) {
    if lint.index.stage(name).is_none() {
        let known: Vec<&str> = lint.index.stages.keys().copied().collect();
        lint.add_unknown(&rules::UNKNOWN, at, (name, "a stage"), known);
    }
}

/// Adds a finding unless the name is that of an input.
pub(super) fn known_input(lint: &mut Lint, at: &str, name: &str) {
    if !lint.index.inputs.contains(name) {
        let known: Vec<&str> = lint.index.inputs.iter().copied().collect();
        lint.add_unknown(&rules::UNKNOWN, at, (name, "an input"), known);
    }
}

fn check_branch(lint: &mut Lint, place: usize, case: &str) {
    if lint.index.graph.is_err() {
        return;
    }
    let needed = lint.index.needs(place).iter().map(|need| &lint.plan.stages[*need]);
    let choices: Vec<&str> = needed.flat_map(Index::choices).collect();
    if !choices.contains(&case) {
        let expected = "a case or option of a stage in `needs`";
        lint.add_unknown(&rules::UNKNOWN, format!("$.stages[{place}].branch"), (case, expected), choices);
    }
}

fn check_twice(lint: &mut Lint) {
    let plan = lint.plan;
    let stages = plan
        .stages
        .iter()
        .enumerate()
        .map(|(place, stage)| (format!("$.stages[{place}].id"), stage.id.as_str()));
    twice(lint, stages);
    let inputs = plan.inputs.iter().enumerate();
    twice(lint, inputs.map(|(place, input)| (format!("$.inputs[{place}].name"), input.name.as_str())));
    let loops = plan.loops.iter().enumerate();
    twice(lint, loops.map(|(place, looped)| (format!("$.loops[{place}].id"), looped.id.as_str())));
    let hosts = plan.limits.hosts.iter().enumerate();
    twice(lint, hosts.map(|(place, host)| (format!("$.limits.hosts[{place}]"), host.as_str())));
    let on = [("failure", &plan.on.failure), ("exit", &plan.on.exit)];
    let handlers = on
        .into_iter()
        .flat_map(|(key, ids)| ids.iter().enumerate().map(move |(number, id)| (key, number, id)));
    twice(lint, handlers.map(|(key, number, id)| (format!("$.on.{key}[{number}]"), id.as_str())));
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        let names = |key: &'static str, count: usize| (0..count).map(move |number| (key, number));
        let place = |(key, number): (&'static str, usize)| format!("{at}.{key}[{number}]");
        let needs =
            names("needs", stage.needs.len()).map(place).zip(stage.needs.iter().map(|id| id.as_str()));
        twice(lint, needs);
        let out = names("out", stage.out.len()).map(|name| place(name) + ".name");
        twice(lint, out.zip(stage.out.iter().map(|out| out.name.as_str())));
        let metrics = names("metrics", stage.metrics.len()).map(place);
        twice(lint, metrics.zip(stage.metrics.iter().map(|id| id.as_str())));
        if let Some(vote) = &stage.consensus {
            let options = names("consensus.options", vote.options.len()).map(place);
            twice(lint, options.zip(vote.options.iter().map(|id| id.as_str())));
        }
    }
}

/// Adds a finding for each name that stood before in the list.
fn twice<'n>(lint: &mut Lint, names: impl Iterator<Item = (String, &'n str)>) {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for (at, name) in names {
        match seen.get(name) {
            Some(first) => {
                let why = format!("found `{name}`, which {first} has too, expected another name");
                lint.add(&rules::TWICE, at, why);
            }
            None => drop(seen.insert(name, at)),
        }
    }
}
