//! What the registry says of each client in each round, and why.

use super::federation::{Federation, STATE, update};
use crate::harness::{COLUMNS, Update, fedmill};
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
    assert!(rounds.lines().all(|line| line.chars().count() <= COLUMNS), "{table}");
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
    let fits = |text: &str| text.lines().all(|line| line.chars().count() <= COLUMNS);
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

/// Every selected client has one outcome, and files of others are counted apart.
#[test]
fn a_round_shows_each_client_and_each_other_file() {
    let federation = Federation::new(4, &SETTINGS.replace("RULE", "mean"));
    federation.advance();
    let nan = Update::new("nan").f32("a", &[10], &[f32::NAN; 10]).f32("b", &[5, 6], &[0.0; 30]);
    federation.put(
        1,
        "client-0.safetensors",
        &nan.meta("kind", "delta").meta("num_examples", "3").meta("round", "1").bytes(),
    );
    put(&federation, 9, 1);
    (1..3).for_each(|client| put(&federation, client, 1));
    federation.advance();
    let shown = federation.round("show", &["1", "--json"]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let outcomes: Vec<&str> =
        shown["clients"].as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    let count = |name: &str| outcomes.iter().filter(|outcome| **outcome == name).count();
    assert_eq!(
        (outcomes.len(), count("merged"), count("missing"), count("rejected")),
        (4, 2, 1, 1),
        "{shown}"
    );
    let counts =
        ["merged", "missing", "late", "rejected", "refused"].map(|name| shown[name].as_u64().unwrap());
    assert_eq!((counts, shown["selected"].as_u64()), ([2, 1, 0, 1, 0], Some(4)), "{shown}");
    let files = shown["files"].as_array().unwrap();
    assert_eq!((files.len(), &shown["other_files"]), (1, &json!(1)), "{shown}");
    assert_eq!(
        (&files[0]["id"], files[0]["why"].as_str()),
        (&json!("client-9"), Some("the client was not selected for the round"))
    );
    assert_eq!(shown["settings"]["clients"], 4);
    let text = federation.round("show", &["1"]).stdout;
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    for part in [
        "version 1",
        "4 selected: 2 merged, 1 missing, 0 late, 1 rejected",
        "client-3",
        "NaN",
        "not selected",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The round that is open says so, and a round that is not there is refused.
    let open = federation.round("show", &[]).stdout;
    assert!(open.contains("open, phase collect") && open.contains("client-3"), "{open}");
    federation.round("show", &["7"]).assert_fails(1, &["there is no round 7, expected 1 to 2"]);
}

#[test]
fn a_private_round_names_no_client() {
    let federation = Federation::new(4, &SETTINGS.replace("RULE", "mean"));
    federation.advance();
    federation.deliver(1, 0);
    federation.advance();
    let private = format!("{}[privacy]\nenabled = true\ndelta = 0.01\n", SETTINGS.replace("RULE", "mean"));
    federation.configure(&private);
    let text = federation.round("show", &["1"]).stdout;
    assert!(text.contains("names no client") && !text.contains("client-1"), "{text}");
    federation.configure(&format!("{private}[monitoring]\nclients_under_privacy = true\n"));
    assert!(federation.round("show", &["1"]).stdout.contains("client-1"));
}

/// An update that waits in `stale/` moves later: its reason names no path. All readers have the reason.
#[test]
fn a_late_update_has_a_reason_without_a_path() {
    let settings = SETTINGS.replace("RULE", "mean").replace("1h", "2s");
    let fedbuff = format!("{settings}[strategy]\nname = \"fedbuff\"\n");
    let federation = Federation::new(4, &fedbuff);
    federation.advance();
    (0..3).for_each(|client| put(&federation, client, 1));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    put(&federation, 3, 1);
    federation.advance();
    let late = rounds(&federation, 3);
    let late = late.iter().find(|row| row[1] == "late").unwrap_or_else(|| panic!("{late:?}"));
    let why = late[2].as_str().unwrap();
    assert!(why.contains("too late") && !why.contains('/'), "{why}");
    let lines = federation.dir.read(&format!("{STATE}/metrics/rounds.jsonl"));
    let lines = String::from_utf8(lines).unwrap();
    let last: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let rows = last["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["id"] == "client-3").unwrap();
    assert_eq!((&row["outcome"], row["reason"].as_str()), (&json!("late"), Some(why)), "{last}");
}

#[test]
fn the_error_of_the_last_run_is_shown_until_a_run_ends_without_one() {
    let settings = SETTINGS.replace("RULE", "mean");
    let federation = Federation::new(4, &settings);
    federation.advance();
    federation.deliver(1, 0);
    federation.configure(&format!("{settings}[evaluation]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\n"));
    assert_eq!(federation.round("run", &[]).code, Some(2));
    let status = federation.status();
    assert_eq!(status["phase"], "evaluate");
    assert!(status["error"]["error"].as_str().unwrap().contains('3'), "{status}");
    let text = federation.round("status", &[]).stdout;
    assert!(text.contains("the last run failed at 20"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    federation.configure(&settings);
    federation.advance();
    assert!(federation.status()["error"].is_null());
}
