//! The dashboard of Grafana asks only for figures that are exported, by labels that they have.

use crate::harness::source_tree;
use fedmill::telemetry::figures::{FIGURES, Figure};
use fedmill::telemetry::prometheus::PREFIX;
use serde_json::Value;
use std::collections::BTreeSet;

/// Figures that node_exporter adds.
const OF_NODE_EXPORTER: [&str; 1] = ["node_textfile_mtime_seconds"];

/// Words of a query that are no figures.
const FUNCTIONS: [&str; 4] = ["time", "max", "by", "min"];

/// The words of a query outside texts and braces, each with the labels in the braces behind it.
fn words(query: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let (mut in_braces, mut in_text) = (false, false);
    let mut word = String::new();
    for c in query.chars().chain([' ']) {
        if !in_text && (c.is_alphanumeric() || c == '_') {
            word.push(c);
            continue;
        }
        let whole = std::mem::take(&mut word);
        if whole.starts_with(|c: char| c.is_alphabetic()) {
            match in_braces {
                true => found.last_mut().unwrap().1.push(whole),
                false => found.push((whole, Vec::new())),
            }
        }
        match c {
            '"' => in_text = !in_text,
            '{' if !in_text => in_braces = true,
            '}' if !in_text => in_braces = false,
            _ => {}
        }
    }
    found
}

/// What is wrong with a query.
fn faults(query: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (word, labels) in words(query) {
        let figure = FIGURES.iter().find(|figure| word.strip_prefix(PREFIX) == Some(figure.name));
        let label = figure.and_then(Figure::label);
        let is_word = FUNCTIONS.contains(&word.as_str()) || word == "federation";
        if figure.is_none() && !OF_NODE_EXPORTER.contains(&word.as_str()) && !is_word {
            faults.push(format!("{word} is not exported: {query}"));
        }
        let is_known =
            |name: &&String| *name == "federation" || Some(name.as_str()) == label || figure.is_none();
        faults.extend(
            labels.iter().filter(|name| !is_known(name)).map(|name| format!("{word} has no label {name}")),
        );
        if figure.is_some() && !labels.iter().any(|name| name == "federation") {
            faults.push(format!("{word} would mix federations: {query}"));
        }
    }
    faults
}

/// Every text of a JSON tree under a key.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str));
            map.values().for_each(|value| texts(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

#[test]
fn every_query_asks_for_exported_figures() {
    let Some(root) = source_tree() else { return };
    let text = std::fs::read_to_string(root.join("data/grafana/fedmill.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    assert!(queries.len() >= 25, "{}", queries.len());
    let faults: Vec<String> = queries.iter().flat_map(|query| faults(query)).collect();
    assert!(faults.is_empty(), "{faults:#?}");

    let asked: BTreeSet<String> =
        queries.iter().flat_map(|query| words(query)).map(|(word, _)| word).collect();
    let unseen: Vec<&str> = FIGURES
        .iter()
        .map(|figure| figure.name)
        .filter(|name| !asked.contains(&format!("{PREFIX}{name}")))
        .collect();
    assert_eq!(unseen, ["privacy_delta"], "figures without a panel");
}

#[test]
fn panels_have_their_places_and_numbers() {
    let Some(root) = source_tree() else { return };
    let text = std::fs::read_to_string(root.join("data/grafana/fedmill.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let number = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    let mut taken = BTreeSet::new();
    for panel in panels {
        for x in number(panel, "x")..number(panel, "x") + number(panel, "w") {
            for y in number(panel, "y")..number(panel, "y") + number(panel, "h") {
                assert!(x < 24 && taken.insert((x, y)), "{} overlaps at {x}, {y}", panel["title"]);
            }
        }
    }
}

#[test]
fn faulty_queries_are_found() {
    assert_eq!(faults("time() - fedmill_round{federation=\"$federation\"}"), [] as [&str; 0]);
    for query in [
        "fedmill_rounds{federation=\"a\"}",
        "fedmill_round",
        "fedmill_clients{federation=\"a\",phase=\"open\"}",
        "sum(fedmill_round{federation=\"a\"})",
    ] {
        assert_eq!(faults(query).len(), 1, "{query}: {:?}", faults(query));
    }
}
