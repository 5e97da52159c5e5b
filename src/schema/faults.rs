//! Reads a plan from JSON, or finds all that is wrong with it.

use super::agent::{Agent, CommandAgent, HttpAgent, OllamaAgent};
use super::looped::Loop;
use super::stage::Stage;
use super::words::plain;
use super::{Input, Plan};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

/// The most faults of one stage, or of another member of a plan.
const MOST_OF_ONE: usize = 100;

/// What is wrong with a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its path: `$.stages[3].needs[0]`.
    pub at: String,
    /// What was found, and what was expected.
    pub why: String,
}

/// The plan that a JSON value says.
///
/// # Errors
///
/// What is wrong with it: at least one fault.
pub fn read(value: Value) -> Result<Plan, Vec<Fault>> {
    let mut found = Vec::new();
    let first = match Plan::deserialize(&value) {
        Ok(plan) => {
            check_lists(&value, &plan, "$", &mut found);
            return if found.is_empty() { Ok(plan) } else { Err(found) };
        }
        Err(first) => first.to_string(),
    };
    let mut rest = value;
    members::<Stage>(&mut rest, "stages", &mut found);
    members::<Loop>(&mut rest, "loops", &mut found);
    members::<Input>(&mut rest, "inputs", &mut found);
    if let Some(Value::Object(agents)) = rest.get_mut("agents") {
        // The names stay, with an agent that has no fault.
        for (name, agent) in agents.iter_mut() {
            let agent = std::mem::replace(agent, json!({"kind": "command", "argv": ["true"]}));
            of_agent(agent, &format!("$.agents.{name}"), &mut found);
        }
    }
    of::<Plan>(rest, "$", &mut found);
    if found.is_empty() {
        found.push(Fault { at: "$".to_owned(), why: plain(&first) });
    }
    Err(found)
}

/// Takes the members out of a list of a plan, and finds their faults.
fn members<T: DeserializeOwned + Serialize>(plan: &mut Value, list: &str, found: &mut Vec<Fault>) {
    let Some(Value::Array(members)) = plan.get_mut(list) else { return };
    for (place, member) in std::mem::take(members).into_iter().enumerate() {
        of::<T>(member, &format!("$.{list}[{place}]"), found);
    }
}

/// Finds the faults of an agent: the deserialiser knows no place inside of a value whose `kind` it reads first.
fn of_agent(mut agent: Value, at: &str, found: &mut Vec<Fault>) {
    let kind = agent.get("kind").and_then(Value::as_str).map(str::to_owned);
    let read = match kind.as_deref() {
        Some("command") => of::<CommandAgent>,
        Some("http") => of::<HttpAgent>,
        Some("ollama") => of::<OllamaAgent>,
        _ => return of::<Agent>(agent, at, found),
    };
    agent.as_object_mut().and_then(|agent| agent.remove("kind"));
    read(agent, at, found);
}

/// Finds the faults of a value, one after another: each is taken out before the next one is looked for.
fn of<T: DeserializeOwned + Serialize>(mut value: Value, at: &str, found: &mut Vec<Fault>) {
    let mut missing = Vec::new();
    for _ in 0..MOST_OF_ONE {
        let why = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) => return check_lists(&value, &read, at, found),
            Err(why) => why,
        };
        let (path, why) = (why.path().clone(), why.into_inner().to_string());
        // What was taken out is missing now.
        if missing.contains(&why) {
            return;
        }
        found.push(Fault { at: below(at, &path), why: plain(&why) });
        let Some(key) = take_out(&mut value, &path) else { return };
        missing.push(format!("missing field `{key}`"));
    }
}

/// The path of a value inside of another one.
fn below(at: &str, path: &Path) -> String {
    match path.to_string() {
        path if path == "." || path == "?" => at.to_owned(),
        path if path.starts_with('[') => format!("{at}{path}"),
        path => format!("{at}.{path}"),
    }
}

/// Takes the member of an object out that a path leads to or through, the innermost. Returns its key.
fn take_out(value: &mut Value, path: &Path) -> Option<String> {
    let last = path.iter().rposition(|segment| matches!(segment, Segment::Map { .. }))?;
    let mut around = value;
    for segment in path.iter().take(last) {
        around = match segment {
            Segment::Seq { index } => around.get_mut(*index)?,
            Segment::Map { key } | Segment::Enum { variant: key } => around.get_mut(key)?,
            Segment::Unknown => return None,
        };
    }
    let Segment::Map { key } = path.iter().nth(last)? else { return None };
    around.as_object_mut()?.remove(key).map(|_| key.clone())
}

/// Finds the first list that the deserialiser took for an object, with its values in order.
fn check_lists(given: &Value, read: &impl Serialize, at: &str, found: &mut Vec<Fault>) {
    let read = serde_json::to_value(read).unwrap_or_default();
    let place = list_for_object(given, &read, at);
    found.extend(place.map(|at| Fault { at, why: "found a list, expected an object".to_owned() }));
}

fn list_for_object(given: &Value, read: &Value, at: &str) -> Option<String> {
    match (given, read) {
        (Value::Array(_), Value::Object(_)) => Some(at.to_owned()),
        (Value::Array(given), Value::Array(read)) => {
            let mut pairs = given.iter().zip(read).enumerate();
            pairs.find_map(|(place, (given, read))| list_for_object(given, read, &format!("{at}[{place}]")))
        }
        (Value::Object(given), Value::Object(read)) => given
            .iter()
            .find_map(|(key, value)| list_for_object(value, read.get(key)?, &format!("{at}.{key}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hides_no_other() {
        let plan = json!({"schema": "fedmill.plan/1", "id": "P!", "colour": 1, "limits": {"eps": "x", "wall": 3},
        "agents": {"a": {"kind": "command"}, "b": {"kind": "http", "url": 5, "uri": 6}, "c": {"kind": "x"}},
        "inputs": [{"name": "i", "min": -1}, ["i"]],
        "stages": [
            {"id": "a", "ned": ["b"], "needs": "b", "retry": {"max_attempts": -1, "onn": []}},
            {"id": "fine", "agent": "a"},
            {"agent": "a", "mem_bytes": 1.5},
            {"id": "d", "for_each": {"range": "x"}, "out": [{"name": "o", "path": "-"}, {"name": "p"}]},
            {"id": "e", "retry": [2]},
        ]});
        let found = read(plan).unwrap_err();
        let mut places: Vec<&str> = found.iter().map(|fault| fault.at.as_str()).collect();
        places.sort_unstable();
        let expected = [
            "$.agents.a",
            "$.agents.b.uri",
            "$.agents.b.url",
            "$.agents.c.kind",
            "$.colour",
            "$.id",
            "$.inputs[0].min",
            "$.inputs[1]",
            "$.limits.eps",
            "$.limits.wall",
            "$.stages[0].ned",
            "$.stages[0].needs",
            "$.stages[0].retry.max_attempts",
            "$.stages[0].retry.onn",
            "$.stages[2]",
            "$.stages[2].mem_bytes",
            "$.stages[3].for_each.range",
            "$.stages[3].out[1]",
            "$.stages[4].retry",
        ];
        assert_eq!(places, expected, "{found:#?}");
    }

    #[test]
    fn the_name_of_an_agent_may_be_the_fault() {
        let agent = json!({"kind": "command", "argv": ["true"]});
        let plan = json!({"schema": "fedmill.plan/1", "id": "p", "agents": {"fine": agent, "m,": agent}, "stages": []});
        let found = read(plan).unwrap_err();
        let [Fault { at, why }] = found.as_slice() else { panic!("{found:?}") };
        assert!(at.starts_with("$.agents") && why.contains("m,"), "{found:?}");
    }
}
