//! What differs between two plans.
//!
//! Stages, loops and inputs are compared by their names, so that a plan in another order differs only in `order`. A change
//! inside of one has its path: `stages.merge.argv[2]`.

use crate::plan::read::digest;
use crate::schema::Plan;
use serde::Serialize;
use serde_json::{Map, Value};

/// Lists of a plan whose members have names, with the field that holds the name.
const NAMED: [(&str, &str); 3] = [("stages", "id"), ("loops", "id"), ("inputs", "name")];

/// What differs between two plans.
#[derive(Serialize, Debug)]
pub struct Difference {
    /// The digest of the first plan.
    pub from: String,
    /// The digest of the second plan.
    pub to: String,
    /// The changes, in the order of paths.
    pub changes: Vec<Change>,
}

/// A value that differs.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Change {
    /// How it differs.
    pub kind: ChangeKind,
    /// Its path: `params.f`, `stages.merge.argv[2]`.
    pub path: String,
    /// The value in the first plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// The value in the second plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// How a value differs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Only the second plan has it.
    Added,
    /// Only the first plan has it.
    Removed,
    /// Both have it, with other values.
    Changed,
}

impl ChangeKind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// What differs between two plans.
pub fn diff(from: &Plan, to: &Plan) -> Difference {
    let mut changes = Vec::new();
    compare("", &by_name(from), &by_name(to), &mut changes);
    for (list, _) in NAMED {
        let (before, after) = (names(from, list), names(to, list));
        let both = |list: &[String], other: &[String]| -> Vec<String> {
            let other: std::collections::BTreeSet<&String> = other.iter().collect();
            list.iter().filter(|name| other.contains(name)).cloned().collect()
        };
        let (kept, now) = (both(&before, &after), both(&after, &before));
        if kept != now {
            changes.push(Change {
                kind: ChangeKind::Changed,
                path: format!("order of {list}"),
                from: Some(kept.into()),
                to: Some(now.into()),
            });
        }
    }
    Difference { from: digest(from), to: digest(to), changes }
}

fn names(plan: &Plan, list: &str) -> Vec<String> {
    match list {
        "stages" => plan.stages.iter().map(|stage| stage.id.to_string()).collect(),
        "loops" => plan.loops.iter().map(|looped| looped.id.to_string()).collect(),
        _ => plan.inputs.iter().map(|input| input.name.to_string()).collect(),
    }
}

/// A plan as JSON, with names in place of the places of stages, loops and inputs.
fn by_name(plan: &Plan) -> Value {
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    for (list, key) in NAMED {
        let Some(members) = value.get_mut(list) else { continue };
        let Value::Array(array) = members.take() else { continue };
        let mut named = Map::new();
        for (place, mut member) in array.into_iter().enumerate() {
            let taken = member.as_object_mut().and_then(|object| object.remove(key));
            let mut name = taken.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            // A name that stands twice is a finding of lint.
            if named.contains_key(&name) {
                name = format!("{name}#{place}");
            }
            named.insert(name, member);
        }
        *members = Value::Object(named);
    }
    value
}

fn compare(path: &str, from: &Value, to: &Value, changes: &mut Vec<Change>) {
    match (from, to) {
        (Value::Object(before), Value::Object(after)) => {
            let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                one(&path, before.get(key), after.get(key), changes);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for place in 0..before.len().max(after.len()) {
                one(&format!("{path}[{place}]"), before.get(place), after.get(place), changes);
            }
        }
        (before, after) if before == after => {}
        (before, after) => one(path, Some(before), Some(after), changes),
    }
}

fn one(path: &str, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    let kind = match (from, to) {
        (Some(before), Some(after)) => {
            let is_nested = before.is_object() && after.is_object() || before.is_array() && after.is_array();
            if is_nested {
                return compare(path, before, after, changes);
            }
            if before == after {
                return;
            }
            ChangeKind::Changed
        }
        (None, Some(_)) => ChangeKind::Added,
        (Some(_), None) => ChangeKind::Removed,
        (None, None) => return,
    };
    changes.push(Change { kind, path: path.to_owned(), from: from.cloned(), to: to.cloned() });
}
