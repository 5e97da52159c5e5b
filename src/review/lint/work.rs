//! Who does the work of a stage, and whether the stage has the fields that this work reads.

use super::finding::Lint;
use super::rules;
use crate::language::template::{Reference, Template};
use crate::schema::agent::Agent;
use crate::schema::stage::{ForEach, Kind, Stage};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (name, agent) in &plan.agents {
        if let Agent::Command(agent) = agent
            && agent.argv.first().is_none_or(String::is_empty)
        {
            let at = format!("$.agents.{name}.argv");
            lint.add(&rules::MISSING, at, "found no program, expected its name and its first arguments");
        }
        if let Agent::Command(agent) = agent {
            for (place, argument) in agent.argv.iter().enumerate() {
                let whose =
                    "references stand in the arguments of stages, which come behind those of the agent";
                check_plain(lint, format!("$.agents.{name}.argv[{place}]"), argument, whose);
            }
        }
    }
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        check_kind(lint, &at, stage);
        check_capabilities(lint, &at, stage);
        check_fields(lint, &at, stage);
        if stage.decides() {
            check_decision(lint, &at, stage);
        }
        check_reduction(lint, &at, stage);
        if let Some(gate) = &stage.gate {
            let whose = "a question has none";
            check_plain(lint, format!("{at}.gate.question"), &gate.question, whose);
        }
    }
}

/// Adds a finding if a text that has no references reads as if it had one.
fn check_plain(lint: &mut Lint, at: String, text: &str, whose: &str) {
    let Ok(template) = Template::parse(text) else { return };
    // One word in braces may be of another language, unless it is that of a stage.
    let is_meant = |reference: &&Reference| match reference {
        Reference::Choice(name) => lint.index.stage(name.as_str()).is_some(),
        _ => true,
    };
    if let Some(reference) = template.references().find(is_meant) {
        lint.add(&rules::PLAIN, at, format!("found `{reference}`, which stays as it stands; {whose}"));
    }
}

/// What a stage says about its work, by the names of the fields.
fn kinds(stage: &Stage) -> Vec<&'static str> {
    let pool = matches!(stage.for_each, Some(ForEach::Agents(_)));
    let stated = [
        (stage.agent.is_some(), "agent"),
        (!stage.needs_capability.is_empty(), "needs_capability"),
        (pool, "for_each.agents"),
        (stage.consensus.is_some(), "consensus"),
        (stage.decides(), "kind: decide"),
        (stage.kind == Some(Kind::Plan), "kind: plan"),
        (stage.kind == Some(Kind::Reduce), "kind: reduce"),
    ];
    stated.into_iter().filter(|(is_stated, _)| *is_stated).map(|(_, name)| name).collect()
}

fn check_kind(lint: &mut Lint, at: &str, stage: &Stage) {
    match kinds(stage).as_slice() {
        [] if stage.gate.is_none() => {
            let why = "found no work, expected `agent`, `needs_capability`, `consensus`, `gate`, `kind: decide`, \
                `kind: plan` or `kind: reduce`";
            lint.add(&rules::WORK, at, why);
        }
        [] | [_] => {}
        several => {
            let why = format!("found {} beside each other, expected one of them", several.join(" and "));
            lint.add(&rules::WORK, at, why);
        }
    }
}

fn check_capabilities(lint: &mut Lint, at: &str, stage: &Stage) {
    let named = stage
        .needs_capability
        .iter()
        .enumerate()
        .map(|(number, name)| (format!("needs_capability[{number}]"), name));
    let vote = stage.consensus.iter().map(|vote| ("consensus.capability".to_owned(), &vote.capability));
    let pool = match &stage.for_each {
        Some(ForEach::Agents(pool)) => Some(("for_each.agents.capability".to_owned(), &pool.capability)),
        _ => None,
    };
    let mut all_known = true;
    for (key, name) in named.chain(vote).chain(pool) {
        if lint.index.able(name).is_empty() {
            all_known = false;
            let known: Vec<&str> = lint.index.capabilities().collect();
            let expected = "a capability of an agent of the plan";
            lint.add_unknown(&rules::UNKNOWN, format!("{at}.{key}"), (name.as_str(), expected), known);
        }
    }
    if all_known
        && stage.needs_capability.len() > 1
        && stage.agent.is_none()
        && lint.index.agents_of(stage).is_empty()
    {
        let why = "found no agent that has all of these, expected one";
        lint.add(&rules::UNKNOWN, format!("{at}.needs_capability"), why);
    }
}

/// The fields of a stage that hold work, with the kinds of agents that read them.
fn fields(stage: &Stage) -> Vec<(&'static str, &'static [&'static str])> {
    let all: [(bool, &str, &[&str]); 5] = [
        (!stage.argv.is_empty(), "argv", &["command"]),
        (!stage.env.is_empty(), "env", &["command"]),
        (stage.stdin.is_some(), "stdin", &["command"]),
        (stage.body.is_some(), "body", &["http"]),
        (stage.prompt.is_some(), "prompt", &["ollama"]),
    ];
    all.into_iter().filter(|(is_stated, ..)| *is_stated).map(|(_, name, kinds)| (name, kinds)).collect()
}

fn check_fields(lint: &mut Lint, at: &str, stage: &Stage) {
    let agents = lint.index.agents_of(stage);
    let found: BTreeSet<&str> = agents.iter().map(|agent| agent.kind()).collect();
    for (field, readers) in fields(stage) {
        let at = format!("{at}.{field}");
        if !stage.works() || stage.is_built_in() {
            lint.add(
                &rules::FIELD,
                at,
                format!("found `{field}` in a stage without an agent, which nothing reads"),
            );
        } else if !found.is_empty() && !readers.iter().any(|kind| found.contains(kind)) {
            let found: Vec<&str> = found.iter().copied().collect();
            let why = format!(
                "found `{field}` for an agent of kind {}, expected kind {}",
                found.join(" and "),
                readers.join(" or ")
            );
            lint.add(&rules::FIELD, at, why);
        }
    }
    if found.contains("ollama") && stage.prompt.as_ref().is_none_or(String::is_empty) {
        lint.add(&rules::MISSING, at, "found no `prompt`, expected one for an agent of kind ollama");
    }
    if !stage.decides() && (!stage.cases.is_empty() || stage.otherwise.is_some()) {
        let why = "found cases of a stage that is no decision, expected `kind: decide`";
        lint.add(&rules::FIELD, at, why);
    }
    if !stage.works() && !stage.out.is_empty() {
        let why = "found outputs of a stage without an agent, which makes no files";
        lint.add(&rules::FIELD, format!("{at}.out"), why);
    }
    if let Some(least) = stage.min_succeeded {
        let at = format!("{at}.min_succeeded");
        if !stage.works() || stage.consensus.is_some() {
            let why = "found `min_succeeded` in a stage whose work is no agent's or a vote, which reads none";
            lint.add(&rules::FIELD, at, why);
        } else if let Some(count) = stage.known_instances().filter(|count| least > *count) {
            let why = format!("found {least}, expected at most the {count} instances of the stage");
            lint.add(&rules::LIMIT, at, why);
        }
    }
    if stage.for_each.is_some() && stage.consensus.is_some() {
        let why = "found `for_each` in a vote, which has an instance for each voter";
        lint.add(&rules::FIELD, format!("{at}.for_each"), why);
    } else if stage.for_each.is_some() && !stage.works() {
        lint.add(&rules::FIELD, format!("{at}.for_each"), "found `for_each` in a stage without an agent");
    }
}

/// A stage that makes one file of several.
fn check_reduction(lint: &mut Lint, at: &str, stage: &Stage) {
    let reduces = stage.kind == Some(Kind::Reduce);
    match &stage.reduce {
        None if reduces => {
            lint.add(&rules::MISSING, at, "found no `reduce`, expected how it makes one file of which");
        }
        Some(_) if !reduces => {
            let why = "found `reduce` in a stage of another kind, expected `kind: reduce`";
            lint.add(&rules::FIELD, format!("{at}.reduce"), why);
        }
        Some(reduce) if reduce.files.is_empty() => {
            let why = "found no file, expected references such as `{part.text}`";
            lint.add(&rules::MISSING, format!("{at}.reduce.files"), why);
        }
        Some(_) | None => {}
    }
    if reduces && stage.out.len() != 1 {
        let why = format!("found {} outputs of a stage that makes one file, expected one", stage.out.len());
        lint.add(&rules::MISSING, format!("{at}.out"), why);
    }
}

fn check_decision(lint: &mut Lint, at: &str, stage: &Stage) {
    if stage.cases.is_empty() {
        lint.add(&rules::MISSING, format!("{at}.cases"), "found no case, expected at least one");
    }
    if stage.otherwise.is_none() {
        let why = "found a decision without `else`, expected the case that holds if no condition does";
        lint.add(&rules::MISSING, at, why);
    }
    if stage.gate.is_some() {
        lint.add(
            &rules::FIELD,
            format!("{at}.gate"),
            "found a gate of a decision, expected a separate stage before it",
        );
    }
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (number, case) in stage.cases.iter().enumerate() {
        if let Some(first) = seen.insert((case.condition.as_str(), ""), number) {
            let why = format!("found the condition of case {first} again, which holds first");
            lint.add(&rules::TWICE, format!("{at}.cases[{number}].if"), why);
        }
        if let Some(first) = seen.insert(("", case.to.as_str()), number) {
            let why =
                format!("found `{}`, which case {first} has too; join their conditions with ||", case.to);
            lint.add(&rules::TWICE, format!("{at}.cases[{number}].to"), why);
        }
    }
}
