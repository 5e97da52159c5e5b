//! Protection that must not vanish: fractions of few clients, quorums, lost states, reports.

use crate::harness::{Dir, Model, Update, aggregate, fedmill, merge};
use fedmill::rules::RULES;
use serde_json::{Value, json};

const REPORT: [&str; 2] = ["--report", "report.json"];
const SKIP: [&str; 2] = ["--on-bad-update", "skip"];

/// Clients `client-0` to `client-N` with the values 1, 2, and so on in `updates`.
fn round_of(clients: usize) -> Dir {
    let dir = Dir::new();
    for i in 0..clients {
        let values = [1.0 + i as f64, -1.0 - i as f64, 0.5, 2.0];
        Update::new(&format!("updates/client-{i}"))
            .f64("w", &[4], &values)
            .meta("num_examples", "10")
            .write(&dir);
    }
    dir
}

fn texts(of: &Value) -> Vec<String> {
    of.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_fraction_of_few_clients_that_is_no_client_is_refused() {
    let dir = round_of(4);
    for args in [
        &["--rule", "trimmed-mean:cut=0.2"][..],
        &["--rule", "trimmed-mean", "--byzantine", "0.2"],
        &["--rule", "krum", "--byzantine", "0.2"],
        &["--rule", "mean", "--pre", "nnm", "--byzantine", "0.2"],
        &["--rule", "median", "--byzantine=0.2"],
    ] {
        aggregate(&dir, &[args, &REPORT].concat())
            .assert_fails(1, &["refused: ", "0.2 needs at least 5 clients, found 4", "--allow-unprotected"]);
        assert!(!dir.exists("merged.safetensors"), "{args:?}");
        let report = dir.json("report.json");
        assert_eq!((&report["published"], &report["refused"]), (&json!(false), &report["error"]));
        assert_eq!(report["clients"].as_array().unwrap().len(), 4, "{args:?}");
    }
    for args in [&["--rule", "trimmed-mean:cut=0"][..], &["--rule", "trimmed-mean", "--byzantine", "0"]] {
        merge(&dir, args);
    }
    merge(&round_of(5), &["--rule", "trimmed-mean:cut=0.2"]);
}

#[test]
fn a_run_without_the_protection_that_was_asked_for_says_so() {
    let dir = round_of(4);
    for args in [&["--rule", "trimmed-mean:cut=0.2"][..], &["--rule", "trimmed-mean", "--byzantine", "0.2"]] {
        let model = merge(&dir, &[args, &REPORT, &["--allow-unprotected"]].concat());
        let report = dir.json("report.json");
        let unprotected = texts(&report["unprotected"]);
        assert!(unprotected[0].contains("0.2 needs at least 5 clients, found 4"), "{unprotected:?}");
        assert!(texts(&report["warnings"]).contains(&unprotected[0]));
        assert_eq!(model.metadata["fedmill.unprotected"], unprotected[0]);
    }
    let model = merge(&round_of(5), &["--rule", "trimmed-mean:cut=0.2", "--allow-unprotected"]);
    assert!(!model.metadata.contains_key("fedmill.unprotected"));
}

#[test]
fn steps_and_tiers_count_the_updates_that_the_fraction_is_of() {
    let dir = round_of(8);
    let bucketed = ["--pre", "bucketing:s=2", "--byzantine", "1", "--rule", "trimmed-mean:cut=0.2"];
    aggregate(&dir, &bucketed).assert_fails(1, &["cut=0.2 needs at least 5 clients, found 4"]);
    let tier = |more: Value| {
        let mut tier = json!({ "name": "all", "clients": ["*"], "rule": "median" });
        tier.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "schema": "fedmill.tiers/1", "tiers": [tier] }).to_string()
    };
    for more in [json!({ "byzantine": 0.1 }), json!({ "rule": "trimmed-mean:cut=0.1" })] {
        dir.write("tiers.json", tier(more));
        let parts = ["refused: ", "tier `all`", "needs at least 10 clients, found 8"];
        aggregate(&dir, &["--tiers", "tiers.json"]).assert_fails(1, &parts);
    }
    let gram =
        ["gram", "updates", "--shard", "1/1", "-o", "g.safetensors", "--rule", "krum", "--byzantine", "0.1"];
    fedmill(&dir, &gram).assert_fails(1, &["--byzantine 0.1 needs at least 10 clients, found 8"]);
}

/// Bucketing leaves as many hostile updates among fewer: the rule must tolerate them.
#[test]
fn a_rule_after_a_step_that_bounds_nothing_must_tolerate_the_hostile_clients() {
    let dir = round_of(20);
    let buckets = ["--pre", "bucketing:s=10", "--byzantine", "4"];
    let by_coordinate = ["mean", "median", "trimmed-mean", "meamed"];
    let by_distance = ["geometric-median", "centered-clipping:tau=1", "distance-trim", "mda", "caf"];
    for rule in by_coordinate.iter().chain(&by_distance) {
        let part = format!(
            "after --pre bucketing:s=10, which made 2 updates of 20: {rule} tolerates at most 0 hostile of 2 clients, \
             but --byzantine says 4"
        );
        aggregate(&dir, &[&["--rule", rule][..], &buckets].concat()).assert_fails(2, &[&part]);
        assert!(!dir.exists("merged.safetensors"), "{rule}");
    }
    let krum = aggregate(&dir, &[&["--rule", "krum"][..], &buckets].concat());
    krum.assert_fails(2, &["krum needs at least 11 clients, found 2"]);
    // Mixing with neighbours bounds what a mean can do.
    let mixed = aggregate(&dir, &["--rule", "mean", "--pre", "nnm", "--byzantine", "4"]);
    mixed.assert_merged("merged.safetensors");
    assert!(mixed.stderr.contains("it relies on the steps before"), "{mixed:#?}");
    for pre in ["bucketing:s=2", "nnm"] {
        merge(&dir, &["--rule", "median", "--pre", pre, "--byzantine", "4"]);
    }
    let tier = json!({ "name": "all", "clients": ["*"], "rule": "median", "pre": ["bucketing:s=10"], "byzantine": 4 });
    dir.write("tiers.json", json!({ "schema": "fedmill.tiers/1", "tiers": [tier] }).to_string());
    let parts = ["tier `all`: after --pre bucketing:s=10", "median tolerates at most 0 hostile of 2 clients"];
    aggregate(&dir, &["--tiers", "tiers.json"]).assert_fails(2, &parts);
}

/// What is left after `outliers` are two honest clients, whom every rule may average.
#[test]
fn a_rule_may_rely_on_a_step_that_bounds_hostile_clients() {
    let dir = round_of(3);
    Update::new("updates/client-2").f64("w", &[4], &[1e6; 4]).meta("num_examples", "10").write(&dir);
    for rule in ["mean", "median", "trimmed-mean"] {
        let done = aggregate(&dir, &["--rule", rule, "--pre", "outliers", "--byzantine", "1"]);
        done.assert_merged("merged.safetensors");
        assert!(done.stderr.contains("it relies on the steps before"), "{rule}: {}", done.stderr);
        assert!(!done.stderr.contains("--byzantine is given"), "{rule}: {}", done.stderr);
        assert_eq!(Model::read(&dir, "merged.safetensors").f64("w"), [1.5, -1.5, 0.5, 2.0], "{rule}");
    }
}

#[test]
fn a_quorum_counts_clients_with_a_part_in_the_model() {
    let dir = round_of(4);
    dir.write("weights.txt", "client-0 1\nclient-1 0\nclient-2 0\nclient-3 2\n");
    let weighed = |least: &'static str| ["--weights", "weights.txt", "--min-clients", least];
    merge(&dir, &weighed("2"));
    let why = "2 of 4 clients have a part in the merged model, expected at least 3";
    aggregate(&dir, &[&weighed("3")[..], &REPORT].concat()).assert_fails(1, &[why]);
    assert_eq!(dir.json("report.json")["error"], why);
    let krum = ["--rule", "multi-krum:m=2", "--byzantine", "0", "--min-clients"];
    merge(&dir, &[&krum[..], &["2"]].concat());
    aggregate(&dir, &[&krum[..], &["3"]].concat()).assert_fails(1, &[why]);
}

#[test]
fn a_quorum_may_be_a_fraction_of_the_population() {
    let dir = round_of(4);
    merge(&dir, &["--min-clients", "0.5", "--population", "8"]);
    let nine = ["--min-clients", "0.5", "--population", "9"];
    aggregate(&dir, &nine).assert_fails(1, &["4 usable updates (0 rejected), expected at least 5"]);
    aggregate(&dir, &["--min-clients", "0.5"]).assert_fails(2, &["expected --population N"]);
}

#[test]
fn an_empty_inbox_is_a_refusal_under_a_quorum_and_a_missing_one_is_an_error() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("updates")).unwrap();
    let quorum = ["--min-clients", "2"];
    aggregate(&dir, &[&quorum[..], &REPORT].concat()).assert_fails(1, &["0 usable updates", "at least 2"]);
    assert_eq!(dir.json("report.json")["published"], false);
    aggregate(&dir, &[]).assert_fails(2, &["updates: directory holds no update"]);
    let missing = ["aggregate", "updatse", "-o", "m.safetensors"];
    for more in [&[][..], &SKIP, &quorum] {
        fedmill(&dir, &[&missing[..], more].concat()).assert_fails(2, &["updatse: does not exist"]);
    }
}

#[test]
fn a_failed_run_has_its_report() {
    let dir = round_of(3);
    Update::new("updates/bad").f64("w", &[4], &[1.0, f64::NAN, 0.0, 0.0]).write(&dir);
    Update::new("updates/other").f64("x", &[4], &[0.0; 4]).write(&dir);
    aggregate(&dir, &REPORT).assert_fails(2, &["updates/other.safetensors"]);
    let report = dir.json("report.json");
    assert_eq!(report["published"], false);
    assert!(report["error"].as_str().unwrap().contains("updates/other.safetensors"), "{report}");
    assert_eq!(report["rejected"][0]["id"], "other");
    assert!(report["clients"].as_array().unwrap().len() >= 3);

    for early in [&["--base", "none.safetensors"][..], &["--strategy", "fedadam"]] {
        aggregate(&dir, &[early, &REPORT].concat()).assert_fails(2, &["error: "]);
        let report = dir.json("report.json");
        let found = (&report["schema"], &report["published"], &report["clients"]);
        assert_eq!(found, (&json!("fedmill.report/1"), &json!(false), &json!([])), "{early:?}");
        assert!(report["error"].is_string());
    }
}

/// The first error is the one that the user sees, and a file that is no report stays.
/// One client must not take the weight of all others away by stating what they leave out.
#[test]
fn a_few_clients_do_not_decide_the_weights() {
    let dir = Dir::new();
    for i in 0..6 {
        Update::new(&format!("in/c{i}")).f32("w", &[1], &[1.0]).write(&dir);
    }
    Update::new("in/odd").f32("w", &[1], &[8.0]).meta("num_examples", "1000").write(&dir);
    let run = fedmill(&dir, &["aggregate", "in", "-o", "m.safetensors"]);
    run.assert_merged("m.safetensors");
    assert!(
        run.stderr.contains("1 of 7 updates state `num_examples`: every client weighs the same"),
        "{run:#?}"
    );
    assert_eq!(Model::read(&dir, "m.safetensors").f32("w"), [2.0]);
}

#[test]
fn a_failed_run_without_its_folder_has_its_report() {
    let dir = Dir::new();
    Update::new("in/c").f32("w", &[1], &[1.0]).write(&dir);
    let run = fedmill(&dir, &["aggregate", "in", "-o", "missing/m.safetensors", "--report", "r.json"]);
    run.assert_fails(2, &["missing"]);
    assert_eq!(dir.json("r.json")["published"], false);
}

/// A round without the strategy of the rounds before would lose its moments without a word.
#[test]
fn a_run_that_leaves_a_state_behind_says_so() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[1], &[1.0]).write(&dir);
    Update::new("in/c").f32("w", &[1], &[2.0]).meta("num_examples", "1").write(&dir);
    let adam = [
        "aggregate",
        "in",
        "--base",
        "base.safetensors",
        "--strategy",
        "fedadam",
        "--state",
        "s.safetensors",
    ];
    fedmill(&dir, &[&adam[..], &["-o", "one.safetensors"]].concat()).assert_merged("one.safetensors");
    let run = fedmill(&dir, &["aggregate", "in", "--base", "one.safetensors", "-o", "two.safetensors"]);
    run.assert_merged("two.safetensors");
    assert!(
        run.stderr.contains("was made by 1 steps of fedadam; this run leaves their state behind"),
        "{run:#?}"
    );
}

#[test]
fn a_command_line_that_is_not_understood_has_its_report() {
    let dir = Dir::new();
    let report = ["--report", "r.json"];
    let cases: [(&[&str], &str); 5] = [
        (&["aggregate", "--rule", "zzz", "-o", "m.safetensors", "in"], "found rule `zzz`"),
        (&["aggregate", "--nope", "-o", "m.safetensors", "in"], "'--nope'"),
        (&["aggregate", "in"], "required arguments were not provided: --output"),
        (&["merge", "-o", "m.safetensors", "--threads", "x", "in"], "'x' for '--threads"),
        (&["aggregate", "in", "-o", "m.safetensors", "-q", "-v"], "cannot be used with"),
    ];
    for (args, part) in cases {
        fedmill(&dir, &[args, &report].concat()).assert_fails(2, &["error: "]);
        let json = dir.json("r.json");
        assert_eq!(json["published"], false, "{json:#}");
        assert!(json["error"].as_str().unwrap().contains(part), "{json:#}");
    }
    dir.write("notes.json", b"not a report");
    fedmill(&dir, &["aggregate", "--rule", "zzz", "--report", "notes.json"])
        .assert_fails(2, &["no report was written"]);
    assert_eq!(dir.read("notes.json"), b"not a report");
    fedmill(&dir, &["inspect", "--report", "new.json"]).assert_fails(2, &["'--report'"]);
    assert!(!dir.exists("new.json"));
}

#[test]
fn the_report_of_a_failure_replaces_no_other_file() {
    let dir = round_of(3);
    let base = dir.contents();
    let early = ["--base", "none.safetensors", "--report"];
    let input = [&early[..], &["updates/client-1.safetensors"]].concat();
    aggregate(&dir, &input)
        .assert_fails(2, &["error: none.safetensors", "no report was written", "is not a report"]);
    dir.assert_unchanged_since(&base);
    aggregate(&dir, &[&early[..], &["no/folder.json"]].concat())
        .assert_fails(2, &["error: no: directory does not exist", "no report was written"]);
    dir.assert_unchanged_since(&base);
}

#[test]
fn every_warning_is_in_the_report() {
    let dir = round_of(3);
    Update::new("updates/other").f64("x", &[4], &[0.0; 4]).write(&dir);
    let args = ["--rule", "median", "--weights", "examples"];
    for quiet in [&[][..], &["--quiet"]] {
        let run = aggregate(&dir, &[&args[..], &SKIP, &REPORT, quiet].concat());
        run.assert_merged("merged.safetensors");
        let warnings = texts(&dir.json("report.json")["warnings"]);
        for part in ["median is unweighted: it ignores --weights", "skipped updates/other.safetensors"] {
            assert!(warnings.iter().any(|warning| warning.contains(part)), "{warnings:?}");
        }
        assert_eq!(
            run.stderr.matches("warning: ").count(),
            if quiet.is_empty() { warnings.len() } else { 0 }
        );
    }
}

#[test]
fn a_base_that_steps_made_needs_its_state() {
    let dir = round_of(3);
    let base = Update::new("base").f64("w", &[4], &[0.0; 4]);
    base.write(&dir);
    let step = |base: &'static str, state: &'static str, more: &[&'static str]| {
        let args = ["--strategy", "fedadam", "--base", base, "--state", state];
        fedmill(&dir, &[&["aggregate", "updates", "-o", "next.safetensors"][..], &args, more].concat())
    };
    step("base.safetensors", "state.safetensors", &[]).assert_merged("next.safetensors");
    std::fs::rename(dir.path("next.safetensors"), dir.path("one.safetensors")).unwrap();
    let before = dir.contents();
    step("one.safetensors", "typo.safetensors", &[]).assert_fails(
        2,
        &[
            "one.safetensors: was made by 1 steps of fedadam",
            "typo.safetensors does not exist",
            "--state-init",
        ],
    );
    dir.assert_unchanged_since(&before);
    step("one.safetensors", "state.safetensors", &[]).assert_merged("next.safetensors");
    step("one.safetensors", "new.safetensors", &["--state-init"]).assert_merged("next.safetensors");
    // The same command again repeats the round.
    step("one.safetensors", "new.safetensors", &["--state-init"]).assert_merged("next.safetensors");
    let clipping = ["--rule", "centered-clipping", "--base", "one.safetensors"];
    aggregate(&dir, &clipping).assert_fails(2, &["no --state FILE is given", "--state-init"]);
    merge(&dir, &["--base", "one.safetensors"]);
}

#[test]
fn weights_of_tiers_in_different_units_are_refused() {
    let dir = round_of(4);
    let tiers = |a: Value, b: Value| {
        let tier = |name: &str, clients: &str, weight: Value| json!({ "name": name, "clients": [clients], "rule": "mean", "weight": weight });
        let tiers = [tier("a", "client-0", a), tier("b", "*", b)];
        dir.write("tiers.json", json!({ "schema": "fedmill.tiers/1", "tiers": tiers }).to_string());
        aggregate(&dir, &["--tiers", "tiers.json"])
    };
    tiers(json!(2.5), json!("examples")).assert_fails(
        2,
        &[
            "different units",
            "`a` by number has a share of 0.076923",
            "`b` by examples has a share of 0.923077",
        ],
    );
    tiers(json!("clients"), json!("examples")).assert_fails(2, &["`a` by clients has a share of 0.032258"]);
    for same in [json!(2.5), json!("clients"), json!("examples")] {
        tiers(same.clone(), same).assert_merged("merged.safetensors");
    }
    tiers(json!(0), json!("examples")).assert_merged("merged.safetensors");
}

/// Three rounds with the defaults of both of Flower's interfaces, against Flower itself.
#[test]
fn strategies_of_both_flower_interfaces_agree_with_flower() {
    let vectors: Value = serde_json::from_str(include_str!("../data/vectors/flower_steps.json")).unwrap();
    let floats = |of: &Value| of.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    for case in vectors["steps"].as_array().unwrap() {
        let dir = Dir::new();
        Update::new("model").f64("w", &[4], &floats(&vectors["base"])).write(&dir);
        let (strategy, compat) = (case["strategy"].as_str().unwrap(), case["compat"].as_str().unwrap());
        for mean in vectors["means"].as_array().unwrap() {
            Update::new("update").f64("w", &[4], &floats(mean)).write(&dir);
            let args =
                ["aggregate", "update.safetensors", "--base", "model.safetensors", "--strategy", strategy];
            let more = ["--compat", compat, "--state", "state.safetensors", "-o", "next.safetensors"];
            fedmill(&dir, &[&args[..], &more].concat()).assert_merged("next.safetensors");
            std::fs::rename(dir.path("next.safetensors"), dir.path("model.safetensors")).unwrap();
        }
        for (found, expected) in
            Model::read(&dir, "model.safetensors").f64("w").iter().zip(floats(&case["model"]))
        {
            assert!((found - expected).abs() <= 1e-6, "{strategy} {compat}: {found} {expected}");
        }
    }
}

/// One hostile client of ten, at every size of values. Robust rules stay among the honest clients, or the client's
/// update is a fault.
#[test]
fn no_value_of_one_client_moves_a_robust_rule() {
    for size in [1e30, 1e80, 1e150, 1e153, 1e154, 1e200, 1e300, 1.7e308] {
        let dir = Dir::new();
        Update::new("base").f64("w", &[64], &[0.0; 64]).write(&dir);
        for i in 0..10 {
            let values: Vec<f64> = (0..64).map(|j| 1.0 + ((i * 7 + j * 3) % 11) as f64 / 100.0).collect();
            Update::new(&format!("updates/user-{i}")).f64("w", &[64], &values).write(&dir);
        }
        let mut evil = vec![size; 64];
        evil[3] = -size;
        Update::new("updates/evil").f64("w", &[64], &evil).write(&dir);
        for entry in RULES.iter().filter(|entry| entry.name != "mean") {
            let rule = crate::harness::shortest(entry, "user-1");
            for pre in [&[][..], &["--pre", "nnm"], &["--pre", "arc"], &["--pre", "outliers"]] {
                let byzantine = ["--base", "base.safetensors", "--rule", &rule, "--byzantine", "1"];
                let run = aggregate(&dir, &[&byzantine[..], &SKIP, pre].concat());
                let what = format!("{rule} {pre:?} at {size:e}: {}", run.stderr);
                assert_eq!(run.code, Some(0), "{what}");
                let model = Model::read(&dir, "merged.safetensors").f64("w");
                // Clipping moves its start, zero, by the honest clients' length at most.
                assert!(model.iter().all(|x| (-0.5..=1.6).contains(x)), "{what}: {model:?}");
            }
        }
    }
}
