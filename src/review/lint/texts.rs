//! Characters that no text of a plan may have.

use super::finding::Lint;
use super::rules;
use serde_json::Value;

/// The most findings: one text may stand in each stage.
const MOST: usize = 100;

pub(super) fn check(lint: &mut Lint) {
    let value = serde_json::to_value(lint.plan).unwrap_or_default();
    let mut found = Vec::new();
    search(&value, "$", &mut found);
    for at in found {
        let why = "found a NUL character, expected none: no argument, path or request can hold it";
        lint.add(&rules::TEMPLATE, at, why);
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
