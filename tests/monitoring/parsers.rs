//! `prometheus_client` reads the textfile, `tensorboard` the event file; both find every figure.

use super::{examples, is_there, script};
use crate::harness::{Dir, source_tree};
use fedmill::telemetry::derived::Derived;
use fedmill::telemetry::figures::FIGURES;
use fedmill::telemetry::metrics::RoundRecord;
use fedmill::telemetry::{prometheus, tensorboard};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every exported value of a round by name, federation and label, as `read_textfile.py` prints them.
fn samples(records: &[RoundRecord], federation: &str) -> BTreeMap<String, f64> {
    let derived = Derived::of(records, 10).unwrap();
    let mut samples = BTreeMap::new();
    for figure in FIGURES {
        for (of, value) in figure.values(records.last().unwrap(), &derived) {
            let mut labels = json!({ "federation": federation });
            if let (Some(label), Some(of)) = (figure.label(), of) {
                labels[label] = Value::from(of);
            }
            samples.insert(format!("fedmill_{} {labels}", figure.name), value);
        }
    }
    samples
}

#[test]
fn prometheus_client_reads_every_figure() {
    if source_tree().is_none() || !is_there("python3", &["-c", "import prometheus_client"]) {
        return;
    }
    for (records, least) in [(examples::open(30), 70), (examples::private(30), 45), (examples::hostile(), 20)]
    {
        let federation = "a \"b\" \\ c\nd";
        let dir = Dir::new();
        let derived = Derived::of(&records, 10).unwrap();
        dir.write("fedmill.prom", prometheus::text(records.last().unwrap(), &derived, federation));
        let read = script("read_textfile.py", &[dir.path("fedmill.prom").to_str().unwrap()]);
        let read: BTreeMap<String, f64> = serde_json::from_str(&read).unwrap();
        assert_eq!(read, samples(&records, federation));
        assert!(read.len() >= least, "{} figures of {records:?}", read.len());
    }
}

#[test]
fn tensorboard_reads_every_figure_of_every_round() {
    if source_tree().is_none() || !is_there("python3", &["-c", "import tensorboard"]) {
        return;
    }
    let records = examples::open(30);
    let dir = Dir::new();
    let mut file = Vec::new();
    let mut expected: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for end in 1..=records.len() {
        let derived = Derived::of(&records[..end], 10).unwrap();
        let record = &records[end - 1];
        file.extend(tensorboard::events(end == 1, record, &derived));
        for (tag, value) in tensorboard::scalars(record, &derived) {
            expected.entry(tag).or_default().push((record.round, f64::from(value as f32)));
        }
    }
    dir.write("run/events.out.tfevents.1.fedmill", &file);
    // A run that was killed while it appended leaves a part of a record.
    dir.write("torn/events.out.tfevents.1.fedmill", &file[..file.len() - 5]);
    let read = |run: &str| -> BTreeMap<String, Vec<(u64, f64)>> {
        serde_json::from_str(&script("read_events.py", &[dir.path(run).to_str().unwrap()])).unwrap()
    };
    assert_eq!(read("run"), expected);
    let last_whole = read("torn")["round/round"].last().copied();
    assert_eq!(last_whole, Some((29, 29.0)));
    for name in [
        "convergence_rate",
        "communication_cost",
        "privacy_budget_spent",
        "node_participation",
        "model_accuracy",
    ] {
        assert!(FIGURES.iter().any(|figure| figure.name.starts_with(name)), "{name}");
    }
}
