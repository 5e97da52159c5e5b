//! Tiers by devices, and the file of tiers as `aggregate --tiers` reads it.

use super::{profile, query, registry};
use crate::harness::{Dir, Update, fedmill, merge};
use fedmill::fleet::client::Profile;
use serde_json::json;

/// A client with equal compute, memory and bandwidth.
fn device(id: &str, level: f64) -> Profile {
    Profile { compute_capability: level, memory: Some(level), bandwidth: Some(level), ..profile(id) }
}

fn tier_of(dir: &Dir, tier: &str) -> String {
    query(dir, &format!("SELECT id FROM clients WHERE tier = '{tier}' ORDER BY id")).concat()
}

#[test]
fn thresholds_and_quantiles_sort_clients() {
    let dir = Dir::new();
    // Scores 0, 0.1, .. 1: equal to the thresholds is below them.
    let clients: Vec<Profile> =
        ('a'..='k').enumerate().map(|(n, id)| device(&id.to_string(), n as f64)).collect();
    let mut registry = registry(&dir, &clients);
    let tiers = |more: &[&str]| fedmill(&dir, &[&["clients", "tiers", "state"], more].concat());
    let sorted = || ["high", "medium", "low"].map(|tier| tier_of(&dir, tier));
    assert_eq!(tiers(&[]).stdout, "3 high, 4 medium, 4 low; 11 changed\n");
    assert_eq!(sorted(), ["ijk", "efgh", "abcd"]);
    assert_eq!(tiers(&[]).stdout, "3 high, 4 medium, 4 low; 0 changed\n");
    tiers(&["--high", "0.95", "--low", "0.05"]);
    assert_eq!(sorted(), ["k", "bcdefghij", "a"]);
    registry.retire(&["k".to_owned()], super::now()).unwrap();
    assert_eq!(tiers(&["--quantiles"]).stdout, "3 high, 4 medium, 3 low; 5 changed\n");
    assert_eq!(sorted(), ["hijk", "defg", "abc"]);
    tiers(&["--high", "0.2", "--low", "0.3"]).assert_fails(2, &["LOW is 0.3 and HIGH 0.2"]);
    tiers(&["--compute", "0", "--memory", "0", "--bandwidth", "0"]).assert_fails(2, &["one above 0"]);
}

#[test]
fn weights_and_missing_numbers_decide_the_score() {
    let dir = Dir::new();
    let a = Profile { compute_capability: 0.0, memory: Some(10.0), ..profile("a") };
    let b = Profile { compute_capability: 10.0, memory: Some(0.0), ..profile("b") };
    let c = Profile { compute_capability: 10.0, ..profile("c") };
    drop(registry(&dir, &[a, b, c]));
    let run = fedmill(&dir, &["clients", "tiers", "state"]);
    assert!(run.stderr.contains("1 clients state neither memory nor bandwidth"), "{run:#?}");
    // 3/7, 4/7 and 1.
    assert_eq!(["high", "medium", "low"].map(|tier| tier_of(&dir, tier)), ["c", "ab", ""]);
    fedmill(&dir, &["clients", "tiers", "state", "--compute", "0.1"]);
    assert_eq!(["high", "medium", "low"].map(|tier| tier_of(&dir, tier)), ["ac", "", "b"]);
}

#[test]
fn aggregate_reads_the_file() {
    let dir = Dir::new();
    let clients =
        [device("s*[1]", 9.0), device("s2", 9.0), device("s3", 10.0), device("p1", 1.0), device("p2", 0.0)];
    drop(registry(&dir, &clients));
    let tiers = [
        "clients",
        "tiers",
        "state",
        "-o",
        "tiers.json",
        "--tier-rule",
        "high=median",
        "--tier-steps",
        "low=2",
        "--tier-codec",
        "low=f16",
    ];
    assert_eq!(fedmill(&dir, &tiers).stdout, "3 high, 0 medium, 2 low; 5 changed\n");
    let file = dir.json("tiers.json");
    let high =
        json!({"name": "high", "clients": ["s2", "s3", "s[*][[]1[]]"], "rule": "median", "optional": true});
    let low = json!({"name": "low", "clients": ["*"], "optional": true, "local_steps": 2, "codec": "f16"});
    assert_eq!(file["tiers"].as_array().unwrap().len(), 2);
    let mut found = file["tiers"][0].clone();
    found["clients"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
    assert_eq!((&found, &file["tiers"][1]), (&high, &low));
    for (id, value) in [("s*[1]", 1.0), ("s2", 2.0), ("s3", 30.0), ("p1", 4.0), ("new", 6.0)] {
        let update = Update::new(&format!("updates/{id}")).f32("w", &[1], &[value]);
        update.meta("num_examples", "1").meta("client_id", id).write(&dir);
    }
    // The median of 1, 2 and 30, and the mean of 4 and 6, by examples: without a rule a tier takes the mean.
    let merged = merge(&dir, &["--tiers", "tiers.json"]);
    assert_eq!(merged.f32("w"), [(3.0 * 2.0 + 2.0 * 5.0) / 5.0]);
    for (bad, says) in
        [("high=nothing", "nothing"), ("top=mean", "high, medium, low"), ("mean", "TIER=VALUE")]
    {
        let run = fedmill(&dir, &["clients", "tiers", "state", "-o", "t.json", "--tier-rule", bad]);
        run.assert_fails(2, &[says]);
    }
    fedmill(&dir, &["clients", "tiers", "state", "-o", "t.json", "--tier-steps", "low=0"])
        .assert_fails(2, &["`0`"]);
    fedmill(&dir, &["clients", "tiers", "state", "-o", "t.json", "--tier-codec", "low=zip"])
        .assert_fails(2, &["zip"]);
    assert!(!dir.exists("t.json"));
}
