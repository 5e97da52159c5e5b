//! Tiers in rounds: weights, protection and codecs.

use super::federation::{Federation, STATE, update};
use crate::harness::{Update, fedmill, merge};
use serde_json::{Value, json};

const SIX: &str = "[coordination]\nmin_clients = 2\nclients = 6\n[tiers]\nfile = \"tiers.json\"\n";

fn write_tiers(federation: &Federation, tiers: &Value) {
    let file = json!({ "schema": "fedmill.tiers/1", "tiers": tiers }).to_string();
    federation.dir.write(&format!("{STATE}/tiers.json"), file);
}

/// Runs the first round with updates of all clients.
fn first_round(federation: &Federation) -> Value {
    federation.advance();
    federation.deliver(1, 0);
    let run = federation.round("run", &["--quiet"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    federation.dir.json(&format!("{STATE}/rounds/000001/report.json"))
}

fn check(federation: &Federation, code: i32) -> String {
    let check = federation.round("check", &[]);
    assert_eq!(check.code, Some(code), "{check:#?}");
    check.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_round_weighs_tiers_and_clients_as_aggregate_does() {
    let tiers = json!([
        { "name": "few", "clients": ["client-0", "client-1"], "rule": "mean" },
        { "name": "rest", "clients": ["*"], "rule": "mean" },
    ]);
    let mut models = Vec::new();
    for rule in ["", "[robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n"] {
        let federation = Federation::new(6, &format!("{SIX}{rule}"));
        write_tiers(&federation, &tiers);
        let report = first_round(&federation);
        // Examples are 10 to 15, 75 in all.
        let weight = report["clients"][5]["weight"].as_f64().unwrap();
        assert!((weight - 15.0 / 75.0).abs() < 1e-12, "{report}");
        for client in 0..6 {
            let sent = format!("updates/client-{client}.safetensors");
            federation.dir.write(&sent, update(client, 1).bytes());
        }
        let file = format!("--tiers={STATE}/tiers.json");
        let by_hand = merge(&federation.dir, &["--base=model.safetensors", "--client-id-from=stem", &file]);
        models.push((federation.model(), by_hand));
    }
    for (model, by_hand) in &models {
        let tensors = safetensors::SafeTensors::deserialize(model).unwrap();
        for (name, (_, _, bytes)) in &by_hand.tensors {
            assert_eq!(tensors.tensor(name).unwrap().data(), bytes, "{name}");
        }
    }
}

#[test]
fn a_tier_that_names_the_rule_of_the_round_keeps_its_protection() {
    let federation = Federation::new(6, SIX);
    write_tiers(&federation, &json!([{ "name": "all", "clients": ["*"], "rule": "trimmed-mean" }]));
    let report = first_round(&federation);
    // The tolerance of 0.3 of six clients.
    assert_eq!(report["tiers"][0]["byzantine"], 1, "{report}");
    assert!(
        check(&federation, 0)
            .contains("merged by trimmed-mean (its own, 0.3 of its clients assumed hostile)")
    );
}

#[test]
fn the_warnings_of_a_quiet_round_stay_visible_and_name_the_key_of_the_tier() {
    let settings = SIX.replace("clients = 6", "clients = 6\nrounds = 1");
    let federation = Federation::new(6, &format!("{settings}[robustness]\nbyzantine_tolerance = 0.0\n"));
    write_tiers(&federation, &json!([{ "name": "all", "clients": ["*"], "rule": "trimmed-mean" }]));
    assert!(check(&federation, 0).contains("warning: tiers.file is rule trimmed-mean of tier all"));
    first_round(&federation);
    let warning = "tier all: trimmed-mean cuts nothing: neither cut=.. nor `byzantine` is given";
    for command in ["show", "status"] {
        let text = federation.round(command, &[]).stdout;
        assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(warning), "{command}: {text}");
    }
    assert_eq!(federation.status()["warnings"], json!([warning]));
}

#[test]
fn a_rule_without_protection_in_a_tier_is_a_finding() {
    let federation = Federation::new(6, SIX);
    write_tiers(&federation, &json!([{ "name": "all", "clients": ["*"], "rule": "mean" }]));
    let found = check(&federation, 0);
    assert!(found.contains("warning: tiers.file is rule mean of tier all"), "{found}");
    assert!(found.contains("the key `byzantine` of the tier"), "{found}");
    write_tiers(&federation, &json!([{ "name": "all", "clients": ["*"], "rule": "mean", "byzantine": 0 }]));
    assert!(!check(&federation, 0).contains("rule mean of tier all"));
}

#[test]
fn codecs_that_the_rule_refuses_are_findings() {
    let median = |codecs: &str| {
        format!(
            "[coordination]\nmin_clients = 2\nclients = 6\n[robustness]\nrule = \"median\"\nbyzantine_tolerance = 0.0\n\
             [compression]\nmethods = [{codecs}]\n"
        )
    };
    let federation = Federation::new(6, &median("\"topk:fraction=0.05\""));
    // A codec sends tensors of few values whole.
    let model = Update::new("large").f32("a", &[200, 100], &[0.5; 20_000]);
    model.write(&federation.dir);
    std::fs::remove_dir_all(federation.dir.path(&format!("{STATE}/rounds"))).unwrap();
    let init = fedmill(&federation.dir, &["round", "init", STATE, "--model", "large.safetensors"]);
    assert_eq!(init.code, Some(0), "{init:#?}");
    let found = check(&federation, 1);
    assert!(found.contains("error: compression.methods is topk:fraction=0.05 for updates"), "{found}");
    assert!(found.contains("every round is refused") && found.contains("median compares clients"), "{found}");
    federation.configure(&median("\"u8\", \"topk:fraction=0.05\""));
    assert!(check(&federation, 0).contains("warning: compression.methods is topk:fraction=0.05"));
    federation.configure(&median("\"u8\""));
    assert!(!check(&federation, 0).contains("compression.methods"));
    federation.configure(&format!("{SIX}[robustness]\nbyzantine_tolerance = 0.0\n"));
    let tier = |codec: &str| json!([{ "name": "all", "clients": ["*"], "rule": "median", "codec": codec }]);
    for codec in ["topk:fraction=0.05", "sketch"] {
        write_tiers(&federation, &tier(codec));
        let found = check(&federation, 1);
        assert!(
            found.contains(&format!("error: tiers.file is {codec} for updates of clients of tier all")),
            "{found}"
        );
    }
    write_tiers(&federation, &tier("u8"));
    check(&federation, 0);
}
