//! What the registry says of each client in each round, and why.

use super::federation::{Federation, STATE, update};
use crate::harness::{Update, fedmill};
use fedmill::round::collect::LATE;
use serde_json::{Value, json};

const SETTINGS: &str = "[coordination]\nmin_clients = 2\nclients = 4\nquorum = 0.75\nround_timeout = \"1h\"\n\
                        [robustness]\nrule = \"RULE\"\nbyzantine_tolerance = 0.0\n";

fn show(federation: &Federation, client: u64, more: &[&str]) -> String {
    let id = format!("client-{client}");
    let run = fedmill(&federation.dir, &[&["clients", "show", STATE, &id], more].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    run.stdout
}

/// The rounds of a client, the last first: each with its number, its outcome and the reason.
fn rounds(federation: &Federation, client: u64) -> Vec<Value> {
    let shown: Value = serde_json::from_str(&show(federation, client, &["--json"])).unwrap();
    let rounds = shown["rounds"].as_array().unwrap().iter();
    rounds.map(|past| json!([past["round"], past["outcome"], past["reason"]])).collect()
}

fn put(federation: &Federation, client: u64, round: u64) {
    federation.put(round, &format!("client-{client}.safetensors"), &update(client, round).bytes());
}

#[test]
fn each_outcome_has_its_reason() {
    let federation = Federation::new(4, &SETTINGS.replace("RULE", "mean"));
    federation.advance();
    let nan = Update::new("nan").f32("a", &[10], &[f32::NAN; 10]).f32("b", &[5, 6], &[0.0; 30]);
    let nan = nan.meta("kind", "delta").meta("num_examples", "3").meta("round", "1");
    federation.put(1, "client-0.safetensors", &nan.bytes());
    (1..3).for_each(|client| put(&federation, client, 1));
    federation.advance();
    put(&federation, 3, 1);
    (0..3).for_each(|client| put(&federation, client, 2));
    federation.advance();
    let refuses = "[evaluation]\ncommand = [\"sh\", \"-c\", \"echo '{\\\"loss\\\": NaN}'\"]\n";
    federation.configure(&format!("{}{refuses}", SETTINGS.replace("RULE", "mean")));
    (0..4).for_each(|client| put(&federation, client, 3));
    federation.round("run", &[]).assert_fails(1, &["error: refused: the metric loss is NaN"]);

    let refused = "the round published nothing: the metric loss is NaN, expected a finite number";
    let first = rounds(&federation, 0);
    assert_eq!(first[0], json!([3, "refused", refused]));
    assert_eq!(first[1], json!([2, "merged", null]));
    assert_eq!((&first[2][0], &first[2][1]), (&json!(1), &json!("rejected")));
    assert!(first[2][2].as_str().unwrap().starts_with("tensor `a` holds NaN"), "{first:?}");
    assert_eq!(
        rounds(&federation, 3)[1..],
        [
            json!([2, "late", LATE]),
            json!([1, "missing", "no update came before the round closed by its quorum"]),
        ]
    );
    let table = show(&federation, 3, &[]);
    assert!(["late", "too late", "missing"].iter().all(|part| table.contains(part)), "{table}");
    let (_, rounds) = table.split_once("\n\n").unwrap();
    assert!(rounds.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn an_update_that_the_rule_left_out_has_the_reason_of_the_rule() {
    let federation = Federation::new(
        4,
        &SETTINGS
            .replace("RULE", "krum")
            .replace("0.75", "1.0")
            .replace("min_clients = 2", "min_clients = 1"),
    );
    federation.advance();
    federation.deliver(1, 0);
    federation.advance();
    let all: Vec<Value> = (0..4).flat_map(|client| rounds(&federation, client)).collect();
    let rejected: Vec<&Value> = all.iter().filter(|row| row[1] == "rejected").collect();
    assert_eq!(rejected.len(), 3, "{all:?}");
    assert!(rejected.iter().all(|row| !row[2].as_str().unwrap().is_empty()), "{all:?}");
}

#[test]
fn the_tables_of_operators_fit_80_columns() {
    let federation = Federation::new(4, &SETTINGS.replace("RULE", "mean"));
    federation.advance();
    federation.deliver(1, 0);
    federation.advance();
    let measures =
        "[evaluation]\ncommand = [\"sh\", \"-c\", \"echo '{\\\"accuracy\\\": 0.25, \\\"loss\\\": NaN}'\"]\n";
    federation.configure(&format!("{}{measures}", SETTINGS.replace("RULE", "mean")));
    federation.deliver(2, 0);
    federation.round("run", &[]);
    let fits = |text: &str| text.lines().all(|line| line.chars().count() <= 80);
    let history = federation.round("history", &[]).stdout;
    assert!(fits(&history) && history.contains("4 of 4") && history.contains("accuracy"), "{history}");
    let json = &federation.history()[0];
    assert_eq!((&json["selected"], &json["merged"]), (&json!(4), &json!(0)), "all figures: {json}");
    federation.configure("[coordination]\nmin_clients = 10\nclients = 12\n");
    let check = federation.round("check", &[]).stdout;
    assert!(fits(&check), "{check}");
    assert!(check.contains("error: coordination.min_clients is 10\n  the registry has 4 clients"), "{check}");
    assert!(check.contains("\n  remedy: register more clients, or lower min_clients\n"), "{check}");
}
