//! The properties of the parser of conditions for every input.
//!
//! The fuzz target, the test of its seeds and that of changed conditions share them.

use fedmill::language::condition::{Condition, Value as Known};
use std::collections::BTreeMap;

/// Values of each kind that conditions read.
pub(crate) fn known() -> Known {
    let map = |values: Vec<(&str, Known)>| {
        Known::Map(
            values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>(),
        )
    };
    let stage = || map(vec![("ok", Known::Bool(true)), ("failed", Known::Bool(false))]);
    map(vec![
        ("metrics", map(vec![("loss", Known::Real(0.25))])),
        (
            "history",
            map(vec![("loss", Known::List((0_u8..9).map(|n| Known::Real(f64::from(n) / 4.0)).collect()))]),
        ),
        ("stages", map(vec![("a", stage()), ("b", stage())])),
        ("params", map(vec![("n", Known::Int(i64::MAX))])),
        ("choices", map(vec![("vote", Known::Text("a".to_owned()))])),
        ("iteration", map(vec![("k", Known::Int(1)), ("max", Known::Int(9))])),
    ])
}

/// Parses and evaluates a text. Returns whether it is a condition.
pub(crate) fn check(file: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(file) else { return false };
    let condition = Condition::parse(text);
    let is_condition = condition.is_ok();
    match condition {
        Ok(condition) => {
            drop(condition.reads());
            condition.examine(|_| ());
            drop(condition.evaluate(&known()));
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
    is_condition
}
