//! What differs between two plans.
//!
//! Stages, loops and inputs are compared by their names, so that a plan in another order differs only in `order`. A
//! change inside of one has its path: `stages.merge.argv[2]`.

use crate::plan::nested::{self, Inner};
use crate::plan::read::digest;
use crate::schema::Plan;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

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
    /// The plans inside of the two that differ, in the order of the stages that name them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inner: Vec<InnerDifference>,
    /// Why the plans inside of one of the two were not compared: the place, and what is wrong there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<String>,
}

/// A plan inside of one of the two that differs.
#[derive(Serialize, Debug)]
pub struct InnerDifference {
    /// The path of the stage that names it: `stages.run`, and `stages.run.stages.deep` inside of that plan.
    pub stage: String,
    /// How it differs.
    pub kind: ChangeKind,
    /// Its file in the folder of the first plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Its file in the folder of the second plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<PathBuf>,
    /// The changes, if both plans have it.
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

/// What differs between two plans in files, and between the plans inside of them. Folders of inner files are those of the
/// outer ones.
pub fn diff_with_inner(from: (&Plan, &Path), to: (&Plan, &Path)) -> Difference {
    let mut found = diff(from.0, to.0);
    let mut sides = [Vec::new(), Vec::new()];
    for (side, (plan, path)) in sides.iter_mut().zip([from, to]) {
        let base = path.parent().unwrap_or(Path::new(""));
        match nested::all(plan, base, path.file_name().map(Path::new)) {
            Ok(all) => *side = all,
            Err((at, why)) => found.not_compared.push(format!("{}: {at}: {why}", path.display())),
        }
    }
    if found.not_compared.is_empty() {
        let [before, after] = [(&sides[0], from.0), (&sides[1], to.0)].map(|(all, plan)| by_stage(plan, all));
        let stages: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        found.inner = stages.into_iter().filter_map(|at| inner(at, before.get(at), after.get(at))).collect();
    }
    found
}

/// The plans inside of a plan, by the paths of the stages that name them.
fn by_stage<'i>(plan: &Plan, all: &'i [Inner]) -> BTreeMap<String, &'i Inner> {
    let mut paths: Vec<String> = Vec::new();
    for inner in all {
        let (outer, prefix) = match inner.outer {
            Some(outer) => (&all[outer].plan, format!("{}.", paths[outer])),
            None => (plan, String::new()),
        };
        paths.push(format!("{prefix}stages.{}", outer.stages[inner.stage].id));
    }
    paths.into_iter().zip(all).collect()
}

/// How the plan of a stage differs, if it does.
fn inner(stage: &str, from: Option<&&Inner>, to: Option<&&Inner>) -> Option<InnerDifference> {
    let (kind, changes) = match (from, to) {
        (Some(from), Some(to)) => (ChangeKind::Changed, diff(&from.plan, &to.plan).changes),
        (Some(_), None) => (ChangeKind::Removed, Vec::new()),
        _ => (ChangeKind::Added, Vec::new()),
    };
    let file = |side: Option<&&Inner>| side.map(|inner| inner.file.clone());
    let differs = kind != ChangeKind::Changed || !changes.is_empty();
    differs.then(|| InnerDifference {
        stage: stage.to_owned(),
        kind,
        from: file(from),
        to: file(to),
        changes,
    })
}

/// What differs between two plans, without a look at the plans inside of them.
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
    let (inner, not_compared) = (Vec::new(), Vec::new());
    Difference { from: digest(from), to: digest(to), changes, inner, not_compared }
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
