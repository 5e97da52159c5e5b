//! The tasks of clients: their keys, and what their metadata means for an update.

use super::federation::{Federation, STATE, update};
use crate::harness::source_tree;
use serde_json::Value;
use std::collections::BTreeSet;

const FOUR: &str = "[coordination]\nmin_clients = 2\nclients = 4\nquorum = 1.0\nround_timeout = \"1h\"\n\
                    [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

fn task(federation: &Federation, client: u64) -> Value {
    federation.dir.json(&format!("{STATE}/tasks/000001/client-{client}.json"))
}

/// The words between backticks in the first cells of the table of tasks.
fn declared(docs: &str) -> BTreeSet<String> {
    let table = docs.lines().skip_while(|line| !line.starts_with("| key of a task |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn a_task_has_the_keys_that_the_docs_declare() {
    let Some(root) = source_tree() else { return };
    let docs = std::fs::read_to_string(root.join("docs/rounds.md")).unwrap();
    let federation = Federation::new(4, FOUR);
    federation.advance();
    let task = task(&federation, federation.selected(1)[0]);
    let keys: BTreeSet<String> = task.as_object().unwrap().keys().cloned().collect();
    let mut declared = declared(&docs);
    assert!(declared.remove("secure"), "a task of a secure round alone has it");
    assert_eq!(keys, declared);
    let model: Vec<&String> = task["model"].as_object().unwrap().keys().collect();
    assert!(model.iter().all(|key| docs.contains(&format!("`{key}`"))), "{model:?}");
    let metadata: Vec<&String> = task["metadata"].as_object().unwrap().keys().collect();
    assert_eq!(metadata, ["base", "client_id", "round"]);
}

/// The name of the file says whose update it is. Another round or base is a fault, and silence about the round is
/// none: the folder says it.
#[test]
fn the_metadata_of_a_task_decides_as_the_docs_say() {
    let federation = Federation::new(4, &FOUR.replace("min_clients = 2", "min_clients = 1"));
    federation.advance();
    let selected = federation.selected(1);
    let base = task(&federation, selected[0])["metadata"]["base"].as_str().unwrap().to_owned();
    let other = format!("blake3:{}", "0".repeat(64));
    let stated = [
        update(selected[0], 1).meta("base", &base).meta("client_id", &format!("client-{}", selected[0])),
        update(selected[1], 1).meta("base", &other),
        update(selected[2], 1).meta("round", "7"),
    ];
    for (client, update) in selected.iter().zip(stated) {
        federation.put(1, &format!("client-{client}.safetensors"), &update.bytes());
    }
    let silent =
        crate::harness::Update::new("silent").f32("a", &[10], &[1.0; 10]).f32("b", &[5, 6], &[0.0; 30]);
    federation.put(
        1,
        &format!("client-{}.safetensors", selected[3]),
        &silent.meta("kind", "delta").meta("num_examples", "3").bytes(),
    );
    federation.advance();
    let history = federation.history();
    assert_eq!(
        (history[1]["merged"].as_u64(), history[1]["rejected"].as_u64()),
        (Some(2), Some(2)),
        "{history:?}"
    );
    let reasons = federation.dir.read(&format!("{STATE}/rounds/000001/quarantine/reasons.jsonl"));
    let reasons = String::from_utf8(reasons).unwrap();
    let reason =
        |client: u64| reasons.lines().find(|line| line.contains(&format!("client-{client}"))).unwrap();
    assert!(reason(selected[1]).contains("started from base"), "{reasons}");
    assert!(reason(selected[2]).contains("update is of round 7, expected round 1"), "{reasons}");
}
