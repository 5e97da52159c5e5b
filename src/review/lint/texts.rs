//! Characters that no text of a plan, and no name of a variable, may have.
//!
//! [`shells`] finds texts that run as code, and shell syntax where no shell reads it.

pub(super) mod shells;

use super::finding::Lint;
use super::rules;
use crate::schema::agent::Agent;
use serde_json::Value;

/// The most findings: one text may stand in each stage.
const MOST: usize = 100;

pub(super) fn check(lint: &mut Lint) {
    check_variables(lint);
    let value = serde_json::to_value(lint.plan).unwrap_or_default();
    let mut found = Vec::new();
    search(&value, "$", &mut found);
    for at in found {
        let why = "found a NUL character, expected none: no argument, path or request can hold it";
        lint.add(&rules::TEMPLATE, at, why);
    }
}

/// Variables whose names no environment can have.
fn check_variables(lint: &mut Lint) {
    let plan = lint.plan;
    let of_agents = plan.agents.iter().flat_map(|(agent, of)| {
        let names = if let Agent::Command(of) = of { of.env.as_slice() } else { &[] };
        names.iter().enumerate().map(move |(place, name)| (format!("$.agents.{agent}.env[{place}]"), name))
    });
    let of_stages = plan.stages.iter().enumerate().flat_map(|(place, stage)| {
        stage.env.keys().map(move |name| (format!("$.stages[{place}].env.{name}"), name))
    });
    for (at, name) in of_agents.chain(of_stages).filter(|(_, name)| name.is_empty() || name.contains('=')) {
        let why = format!("found the variable `{}`, expected a name without `=`", name.escape_debug());
        lint.add(&rules::VARIABLE, at, why);
    }
}

/// The places of texts and keys with a NUL character.
fn search(value: &Value, at: &str, found: &mut Vec<String>) {
    if found.len() >= MOST {
        return;
    }
    match value {
        Value::String(text) if text.contains('\0') => found.push(at.to_owned()),
        Value::Array(list) => {
            for (place, value) in list.iter().enumerate() {
                search(value, &format!("{at}[{place}]"), found);
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                match key.contains('\0') {
                    true => found.push(at.to_owned()),
                    false => search(value, &format!("{at}.{key}"), found),
                }
            }
        }
        _ => {}
    }
}
