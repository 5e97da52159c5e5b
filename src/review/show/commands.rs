//! What a run of a plan would execute: commands, addresses and hosts.

use crate::schema::Plan;
use crate::schema::address;
use crate::schema::agent::{Agent, Method};
use crate::schema::name::Name;
use crate::schema::stage::{ForEach, Stage};
use std::collections::{BTreeMap, BTreeSet};

/// A block for each stage: its command lines or addresses. Then the hosts, and the variables that commands inherit.
pub fn list(plan: &Plan) -> String {
    let mut able: BTreeMap<&str, Vec<&Name>> = BTreeMap::new();
    for (name, agent) in &plan.agents {
        for capability in agent.skills().capabilities {
            able.entry(capability.as_str()).or_default().push(name);
        }
    }
    let mut text = String::new();
    let (mut hosts, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for stage in &plan.stages {
        if let Some(nested) = &stage.plan {
            text += &format!("{}: the plan {}\n", stage.id, word(&nested.file));
        }
        if let Some(reduce) = &stage.reduce {
            let files: Vec<String> = reduce.files.iter().map(|file| word(file)).collect();
            text += &format!("{}: {} {} (fedmill itself)\n", stage.id, reduce.by.word(), files.join(" "));
        }
        for name in agents(stage, &able) {
            let Some(agent) = plan.agents.get(name) else { continue };
            let of = if stage.agent.is_some() { String::new() } else { format!(" ({name})") };
            text += &format!("{}{of}: {}\n", stage.id, line(agent, stage));
            match agent {
                Agent::Command(agent) => variables.extend(agent.env.iter().map(String::as_str)),
                Agent::Http(agent) => {
                    hosts.insert(host(&agent.url));
                    let read = agent.headers.values().filter_map(|value| value.strip_prefix("env:"));
                    variables.extend(read);
                }
                Agent::Ollama(agent) => drop(hosts.insert(host(&agent.url))),
            }
        }
    }
    let variables: Vec<String> = variables.into_iter().map(word).collect();
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    text += &format!("\nhosts: {}\n", list(hosts.iter().map(String::as_str).collect()));
    text + &format!("variables of the runner: {}\n", list(variables.iter().map(String::as_str).collect()))
}

/// The agents that may do the work of a stage.
fn agents<'p>(stage: &'p Stage, able: &BTreeMap<&str, Vec<&'p Name>>) -> Vec<&'p Name> {
    let with = |capability: &Name| able.get(capability.as_str()).cloned().unwrap_or_default();
    match (&stage.agent, &stage.consensus, &stage.for_each, stage.needs_capability.first()) {
        (Some(name), ..) => vec![name],
        (None, Some(vote), ..) => with(&vote.capability),
        (None, None, Some(ForEach::Agents(pool)), _) => with(&pool.capability),
        (None, None, _, Some(first)) => with(first),
        (None, None, _, None) => Vec::new(),
    }
}

fn host(url: &str) -> String {
    address::of(url).map_or_else(|_| "no address".to_owned(), |(_, address)| address.to_string())
}

fn line(agent: &Agent, stage: &Stage) -> String {
    match agent {
        Agent::Command(agent) => {
            let variables = stage.env.iter().map(|(name, value)| format!("{}={}", word(name), word(value)));
            let words = agent.argv.iter().chain(&stage.argv).map(|argument| word(argument));
            let input = stage.stdin.as_ref().map(|_| "< standard input of the plan".to_owned());
            variables.chain(words).chain(input).collect::<Vec<_>>().join(" ")
        }
        Agent::Http(agent) => {
            let method = match agent.method {
                Method::Get => "GET",
                Method::Post => "POST",
                Method::Put => "PUT",
            };
            format!("{method} {}", word(&agent.url))
        }
        Agent::Ollama(agent) => {
            format!("POST {}/api/chat (model {})", word(agent.url.trim_end_matches('/')), word(&agent.model))
        }
    }
}

/// An argument as a shell would take it.
fn word(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,{}".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    if argument.chars().all(|c| c.is_ascii_graphic() || c.is_alphanumeric() || c == ' ') {
        return format!("'{}'", argument.replace('\'', "'\\''"));
    }
    // A line break or another control would forge a line of the list.
    let mut quoted = "$'".to_owned();
    for c in argument.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_ascii() || c.is_alphanumeric() => quoted.push(c),
            c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted + "'"
}
