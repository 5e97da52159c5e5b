//! Tiers of clients, each merged by its own rule.

use super::inputs::{Kind, every_dtype, five_sections, write_round};
use super::{Digests, merge};
use serde_json::json;

#[test]
fn tiers() {
    let mut digests = Digests::new("tiers");
    let two = json!([
        { "name": "first", "clients": ["client-0[0-4]"], "rule": "trimmed-mean:cut=1" },
        { "name": "others", "clients": ["*"], "rule": "krum", "byzantine": 1 },
    ]);
    let three = json!([
        { "name": "c", "clients": ["client-0[0-4]"], "rule": "median", "pre": ["nnm"], "byzantine": 0.2, "weight": 5 },
        { "name": "a", "clients": ["client-0[5-7]"], "rule": "geometric-median", "weight": 2.5 },
        { "name": "b", "clients": ["*"], "rule": "mean", "weight": 3 },
    ]);
    for (kind_name, kind) in Kind::ALL {
        let dir = write_round(10, kind, every_dtype);
        for (name, tiers) in [("two", &two), ("three", &three)] {
            dir.write("tiers.json", json!({ "schema": "fedmill.tiers/1", "tiers": tiers }).to_string());
            let args = ["in", "--tiers=tiers.json", "--base=base.safetensors"];
            merge(&mut digests, &format!("{kind_name}/{name}"), &dir, &args);
        }
    }
    let dir = write_round(10, Kind::Weights, five_sections);
    dir.write("tiers.json", json!({ "schema": "fedmill.tiers/1", "tiers": three }).to_string());
    merge(
        &mut digests,
        "sections",
        &dir,
        &["in", "--tiers=tiers.json", "--strategy=fedavgm", "--state=s", "--base=base.safetensors"],
    );
    digests.add_file("sections/state", &dir, "s");
    digests.check(include_str!("recorded/tiers.txt"));
}
