//! Tiers of clients, each with its own rule, against separate merges averaged in f64.

use crate::harness::{Dir, Model, Update, aggregate, merge};
use serde_json::{Value, json};

/// The values of a client, different from those of all others.
fn values(seed: usize) -> Vec<f64> {
    (0..11).map(|i| ((i * 37 + seed * 61) % 97) as f64 / 13.0 - 3.0).collect()
}

const PHONES: [&str; 5] = ["phone-a", "phone-b", "phone-c", "phone-d", "phone-e"];
const LAPTOPS: [&str; 3] = ["laptop-a", "laptop-b", "laptop-c"];
const SERVERS: [&str; 2] = ["rack-a", "rack-b"];

fn seed_of(id: &str) -> usize {
    id.bytes().fold(7, |seed, byte| (seed * 31 + usize::from(byte)) % 1009)
}

/// The example count of a client.
fn examples(id: &str) -> usize {
    1 + seed_of(id) % 7
}

fn update(folder: &str, id: &str) -> Update {
    let values = values(seed_of(id));
    let narrow: Vec<f32> = values.iter().map(|x| *x as f32).collect();
    let bits: Vec<u16> = narrow.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
    Update::new(&format!("{folder}/{id}"))
        .f64("w", &[11], &values)
        .f32("v", &[11], &narrow)
        .half("h", "BF16", &[11], &bits)
        .i64("n", &[2], &[seed_of(id) as i64, -3])
        .f32("zeros", &[2], &[-0.0, 0.0])
        .meta("num_examples", &examples(id).to_string())
}

/// Clients in `updates`, a base, and the tiers in `tiers.json`.
fn round_of(tiers: &Value) -> Dir {
    let dir = Dir::new();
    for id in PHONES.iter().chain(&LAPTOPS).chain(&SERVERS) {
        update("updates", id).write(&dir);
    }
    update(".", "base").write(&dir);
    dir.write("tiers.json", json!({ "schema": "fedmill.tiers/1", "tiers": tiers }).to_string());
    dir
}

const TIERS: [&str; 2] = ["--tiers", "tiers.json"];
const BASE: [&str; 2] = ["--base", "base.safetensors"];

/// The merge of these clients alone.
fn by_hand(ids: &[&str], args: &[&str]) -> Vec<f64> {
    let dir = Dir::new();
    ids.iter().for_each(|id| update("updates", id).write(&dir));
    update(".", "base").write(&dir);
    merge(&dir, args).f64("w")
}

fn average(parts: &[(f64, Vec<f64>)]) -> Vec<f64> {
    let total: f64 = parts.iter().map(|(weight, _)| weight).sum();
    (0..11).map(|i| parts.iter().map(|(weight, values)| weight / total * values[i]).sum()).collect()
}

fn examples_of(ids: &[&str]) -> f64 {
    ids.iter().map(|id| examples(id) as f64).sum()
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-14 * expected.abs().max(1.0), "{found} {expected}");
    }
}

#[test]
fn two_tiers_are_merges_of_each_by_examples() {
    let dir = round_of(&json!([
        { "name": "phones", "clients": ["phone-*"], "rule": "trimmed-mean:cut=1" },
        { "name": "others", "clients": ["*"], "rule": "krum", "byzantine": 1 },
    ]));
    let others: Vec<&str> = LAPTOPS.into_iter().chain(SERVERS).collect();
    let phones = by_hand(&PHONES, &["--rule", "trimmed-mean:cut=1"]);
    let rest = by_hand(&others, &["--rule", "krum", "--byzantine", "1"]);
    let expected = average(&[(examples_of(&others), rest), (examples_of(&PHONES), phones)]);
    for more in [&[][..], &BASE, &["--threads", "1"], &["--isa", "portable"]] {
        let model = merge(&dir, &[&TIERS, more].concat());
        assert_close(&model.f64("w"), &expected);
        // The f32 values equal those in f64 up to the rounding of the updates.
        for (narrow, wide) in model.f32("v").iter().zip(&expected) {
            assert!((f64::from(*narrow) - wide).abs() < 1e-5, "{narrow} {wide}");
        }
    }
}

#[test]
fn three_tiers_with_steps_and_weights_by_number() {
    let dir = round_of(&json!([
        { "name": "c", "clients": ["phone-*"], "rule": "median", "pre": ["nnm"], "byzantine": 0.2, "weight": 5 },
        { "name": "a", "clients": ["laptop-a", "laptop-[bc]"], "rule": "geometric-median", "weight": 2.5 },
        { "name": "b", "clients": ["*"], "rule": "mean", "weight": examples_of(&SERVERS) },
    ]));
    let model = merge(&dir, &[&TIERS[..], &BASE, &["--report", "report.json"]].concat());
    let expected = average(&[
        (2.5, by_hand(&LAPTOPS, &[&BASE[..], &["--rule", "geometric-median"]].concat())),
        (examples_of(&SERVERS), by_hand(&SERVERS, &BASE)),
        (
            5.0,
            by_hand(
                &PHONES,
                &[&BASE[..], &["--rule", "median", "--pre", "nnm", "--byzantine", "1"]].concat(),
            ),
        ),
    ]);
    assert_close(&model.f64("w"), &expected);
    let total = 2.5 + 5.0 + examples_of(&SERVERS);
    let report = dir.json("report.json");
    assert_eq!(
        report["tiers"][0],
        json!({
            "name": "a", "rule": "geometric-median", "pre": [], "byzantine": null, "clients": 3, "weight": 2.5 / total,
        })
    );
    assert_eq!(report["tiers"][2]["pre"], json!(["nnm"]));
    assert_eq!(report["tiers"][2]["byzantine"], 1);
    assert_eq!(report["pre"][0]["step"], "c: nnm");
    assert_eq!(report["pre"][0]["clients"].as_array().unwrap().len(), 5);
    assert_eq!(report["pre"][0]["clients"][0]["id"], "phone-a");
    let tier_of = |i: usize| report["clients"][i]["tier"].as_str().unwrap().to_owned();
    assert_eq!((tier_of(0), tier_of(3), tier_of(9)), ("a".to_owned(), "c".to_owned(), "b".to_owned()));
    // Rules by coordinate give no client weights. The other weights are their share of their tier's weight.
    assert_eq!(report["clients"][3]["weight"], Value::Null);
    let servers: f64 = (8..10).map(|i| report["clients"][i]["weight"].as_f64().unwrap()).sum();
    assert!((servers - examples_of(&SERVERS) / total).abs() < 1e-15, "{servers}");
    assert!((0..10).all(|i| report["clients"][i]["norm"].as_f64().unwrap() > 0.0));
    assert_eq!(model.metadata["fedmill.tiers"], "c=nnm+median a=geometric-median b=mean");
    assert_eq!(model.metadata["fedmill.rule"], "mean");
}

/// The report without times and without the name of the rule, to compare two reports of one round.
fn comparable(dir: &Dir) -> Value {
    let mut report = dir.json("report.json");
    for row in report["clients"].as_array_mut().unwrap() {
        row.as_object_mut().unwrap().retain(|key, _| key != "tier");
    }
    json!({ "clients": report["clients"], "bytes": report["bytes"], "step": report["strategy"]["server_step"] })
}

/// A single tier of all clients equals the plain run, bit by bit, in every dtype and for weights and deltas.
#[test]
fn one_tier_is_the_plain_merge() {
    for rule in ["mean", "median", "trimmed-mean:cut=2", "krum", "geometric-median", "meamed", "caf"] {
        let byzantine = if rule == "mean" { "0" } else { "1" };
        for pre in [&[][..], &["nnm"], &["bucketing:s=2"]] {
            let dir = round_of(&json!([
                { "name": "all", "clients": ["*"], "rule": rule, "byzantine": byzantine, "pre": pre },
            ]));
            let steps: Vec<&str> = pre.iter().flat_map(|step| ["--pre", *step]).collect();
            let plain = [&["--rule", rule, "--byzantine", byzantine], &steps[..]].concat();
            for more in [&[][..], &BASE] {
                let report = [more, &["--report", "report.json", "--metrics", "none"]].concat();
                let expected = merge(&dir, &[&plain[..], &report].concat()).tensors;
                let reported = comparable(&dir);
                let tiered = [more, &TIERS, &["--report", "report.json"]].concat();
                assert_eq!(merge(&dir, &tiered).tensors, expected, "{rule} {pre:?} {more:?}");
                let found = comparable(&dir);
                assert_eq!(found["clients"], reported["clients"], "{rule} {pre:?} {more:?}");
                assert_eq!(found["step"], reported["step"]);
            }
        }
    }
}

#[test]
fn weights_and_deltas_may_meet_in_tiers() {
    let tiers = json!([
        { "name": "phones", "clients": ["phone-*"], "rule": "median" },
        { "name": "others", "clients": ["*"], "rule": "mean" },
    ]);
    let dir = round_of(&tiers);
    let expected = merge(&dir, &[&TIERS[..], &BASE].concat());
    let base = values(seed_of("base"));
    for id in PHONES {
        let delta: Vec<f64> = values(seed_of(id)).iter().zip(&base).map(|(x, b)| x - b).collect();
        let narrow: Vec<f32> = delta.iter().map(|x| *x as f32).collect();
        let update = Update::new(&format!("updates/{id}")).f64("w", &[11], &delta).f32("v", &[11], &narrow);
        let update = update.f32("h", &[11], &narrow).f32("zeros", &[2], &[0.0; 2]);
        let update = update.i64("n", &[2], &[seed_of(id) as i64 - seed_of("base") as i64, 0]);
        update.meta("num_examples", &examples(id).to_string()).meta("kind", "delta").write(&dir);
    }
    let mixed = merge(&dir, &[&TIERS[..], &BASE].concat());
    assert_close(&mixed.f64("w"), &expected.f64("w"));
    assert_eq!(mixed.bytes("n"), expected.bytes("n"));
}

#[test]
fn the_order_of_tiers_changes_nothing_and_the_first_that_matches_has_the_client() {
    let a = json!({ "name": "a", "clients": ["phone-*"], "rule": "median", "weight": 0.1 });
    let b = json!({ "name": "b", "clients": ["laptop-*"], "rule": "mean", "weight": 0.7 });
    let c = json!({ "name": "c", "clients": ["rack-*"], "rule": "mean", "weight": 0.3 });
    let rest = json!({ "name": "c", "clients": ["*"], "rule": "mean", "weight": 0.3 });
    let empty = json!({ "name": "z", "clients": ["*"], "rule": "mean", "optional": true });
    let expected = merge(&round_of(&json!([a, b, c])), &TIERS).tensors;
    for tiers in [json!([c, b, a]), json!([b, c, a]), json!([b, a, rest]), json!([c, a, b, empty])] {
        assert_eq!(merge(&round_of(&tiers), &TIERS).tensors, expected, "{tiers}");
    }
}

#[test]
fn bad_updates_of_a_tier_are_left_out() {
    let tiers = json!([
        { "name": "phones", "clients": ["phone-*"], "rule": "krum" },
        { "name": "others", "clients": ["*"], "rule": "mean" },
    ]);
    let dir = round_of(&tiers);
    std::fs::remove_file(dir.path("updates/laptop-b.safetensors")).unwrap();
    std::fs::remove_file(dir.path("updates/phone-c.safetensors")).unwrap();
    let expected = merge(&dir, &TIERS).tensors;
    for id in ["laptop-b", "phone-c"] {
        let nan = Update::new(&format!("updates/{id}")).f64("w", &[11], &[f64::NAN; 11]).f32(
            "zeros",
            &[2],
            &[0.0; 2],
        );
        let nan = nan.f32("v", &[11], &[0.0; 11]).half("h", "BF16", &[11], &[0; 11]).i64("n", &[2], &[0; 2]);
        nan.meta("num_examples", "3").write(&dir);
    }
    let run = aggregate(&dir, &TIERS);
    run.assert_fails(2, &["phone-c.safetensors: tensor `w` holds NaN at flat index 0"]);
    assert_eq!(merge(&dir, &[&TIERS[..], &["--on-bad-update", "skip"]].concat()).tensors, expected);
}

#[test]
fn strategies_step_what_all_tiers_make_together() {
    let dir = round_of(&json!([{ "name": "all", "clients": ["*"], "rule": "median" }]));
    let strategy = ["--strategy", "fedadam", "--state"];
    let plain = merge(&dir, &[&BASE[..], &strategy, &["plain.state", "--rule", "median"]].concat());
    let tiered = merge(&dir, &[&BASE[..], &strategy, &["tiered.state"], &TIERS].concat());
    assert_eq!(tiered.tensors, plain.tensors);
    for id in PHONES.iter().chain(&LAPTOPS).chain(&SERVERS) {
        update("updates", id).meta("local_steps", "3").write(&dir);
    }
    let run = aggregate(&dir, &[&BASE[..], &TIERS, &["--strategy", "fednova"]].concat());
    run.assert_fails(2, &["fednova with --tiers has no meaning"]);
}

#[test]
fn what_is_wrong_with_tiers_is_named() {
    let all = |more: Value| {
        let mut tier = json!({ "name": "all", "clients": ["*"], "rule": "mean" });
        tier.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([tier])
    };
    let phones = json!({ "name": "phones", "clients": ["phone-*"], "rule": "mean" });
    for (tiers, parts) in [
        (json!([]), &["tiers.json: is not a file of tiers: `tiers` is empty"][..]),
        (json!({}), &["tiers.json: is not a file of tiers: invalid type: map"]),
        (all(json!({ "extra": 1 })), &["tiers.json: tier `all`: unknown field `extra`"]),
        (json!([{ "clients": ["*"], "rule": "mean" }]), &["tiers.json: tier number 1: missing field `name`"]),
        (all(json!({ "rule": "average" })), &["tier `all`: found rule `average`, expected one of mean"]),
        (all(json!({ "rule": "trimmed-mean:cut=x" })), &["tier `all`: ", "cut"]),
        (all(json!({ "pre": ["nn"] })), &["tier `all`: found step `nn`"]),
        (all(json!({ "byzantine": -1 })), &["tier `all`: byzantine: found `-1`, expected a count"]),
        (
            all(json!({ "weight": -1 })),
            &["tier `all`: weight is -1, expected `examples`, `clients` or a number"],
        ),
        (all(json!({ "weight": "much" })), &["tier `all`: weight is much, expected"]),
        (all(json!({ "weight": 0 })), &["the weights of the tiers add up to 0"]),
        (all(json!({ "clients": ["a["] })), &["tier `all`: clients: `a[`: "]),
        (all(json!({ "clients": [] })), &["tier `all`: `name` and `clients` may not be empty"]),
        (all(json!({ "rule": "krum", "byzantine": 6 })), &["tiers.json: tier `all`: krum tolerates at most"]),
        (json!([phones, phones]), &["tiers.json: tier `phones` is listed twice"]),
        (json!([phones]), &["tiers.json: no tier has client `laptop-a`", "hint: end the list with a tier"]),
        (
            json!([{ "name": "all", "clients": ["*"], "rule": "mean" }, phones]),
            &["tiers.json: tier `phones` has none of the 10 clients", "hint: a tier with \"optional\": true"],
        ),
    ] {
        let dir = round_of(&tiers);
        let before = dir.contents();
        aggregate(&dir, &TIERS).assert_fails(2, parts);
        dir.assert_unchanged_since(&before);
    }
    let dir = round_of(&json!([phones]));
    for (text, part) in [
        ("{", "is not a file of tiers: "),
        (
            r#"{"schema":"fedmill.tiers/2","tiers":[]}"#,
            "schema is `fedmill.tiers/2`, expected `fedmill.tiers/1`",
        ),
        (r#"{"schema":"fedmill.tiers/1","tiers":[],"more":1}"#, "unknown field `more`"),
        (
            r#"{"schema":"fedmill.tiers/1","tiers":[{"name":"a","name":"a","clients":["*"],"rule":"mean"}]}"#,
            "duplicate field",
        ),
    ] {
        dir.write("tiers.json", text);
        aggregate(&dir, &TIERS).assert_fails(2, &["tiers.json: ", part]);
    }
    for args in [&["--rule", "mean"][..], &["--pre", "nnm"], &["--byzantine", "1"]] {
        aggregate(&dir, &[&TIERS[..], args].concat()).assert_fails(2, &["cannot be used with"]);
    }
    aggregate(&dir, &["--tiers", "none.json"]).assert_fails(2, &["none.json: cannot be read"]);
    aggregate(&dir, &[&TIERS[..], &["--backend", "gpu"]].concat())
        .assert_fails(2, &["tiers are merged on the CPU"]);
}

#[test]
fn a_tier_whose_clients_weigh_nothing_is_refused_where_its_rule_weighs() {
    let tiers = |rule: &str| {
        json!([
            { "name": "racks", "clients": ["rack-*"], "rule": rule, "weight": 1 },
            { "name": "others", "clients": ["*"], "rule": "mean", "weight": 1 },
        ])
    };
    let weights = "phone-a 1\nphone-b 1\nphone-c 1\nphone-d 1\nphone-e 1\nlaptop-a 1\nlaptop-b 1\nlaptop-c 1\nrack-a 0\nrack-b 0\n";
    for (rule, code) in [("mean", 2), ("median", 0)] {
        let dir = round_of(&tiers(rule));
        dir.write("weights", weights);
        let run = aggregate(&dir, &[&TIERS[..], &["--weights", "weights"]].concat());
        assert_eq!(run.code, Some(code), "{run:?}");
        let said = run.stderr.contains("tier `racks`: the weights of its 2 clients are all zero");
        assert_eq!(said, code == 2, "{run:?}");
    }
}

/// The report has a norm for each client, for every way to measure them.
#[test]
fn norms_are_those_of_a_plain_run() {
    let dir = round_of(&json!([
        { "name": "phones", "clients": ["phone-*"], "rule": "median" },
        { "name": "others", "clients": ["*"], "rule": "mean" },
    ]));
    let norms = |args: &[&str]| {
        merge(&dir, &[args, &BASE, &["--report", "report.json"]].concat());
        let rows = dir.json("report.json")["clients"].clone();
        rows.as_array().unwrap().iter().map(|row| row["norm"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    assert_close(&norms(&TIERS), &norms(&["--metrics", "none"]));
}

/// A client that no tier has is a bad update: it ends no round that skips those.
#[test]
fn a_client_without_a_tier_is_a_bad_update() {
    let tiers = json!([
        { "name": "phones", "clients": ["phone-*"], "rule": "mean" },
        { "name": "others", "clients": ["laptop-*", "rack-*", "server-*"], "rule": "mean" },
    ]);
    let dir = round_of(&tiers);
    let expected = merge(&dir, &TIERS).tensors;
    update("updates", "stranger").write(&dir);
    let fault = "updates/stranger.safetensors: tiers.json: no tier has client `stranger`";
    aggregate(&dir, &TIERS).assert_fails(2, &[fault, "hint: end the list with a tier"]);
    let skip = [&TIERS[..], &["--on-bad-update", "skip"]].concat();
    assert_eq!(merge(&dir, &skip).tensors, expected);
}

#[test]
fn an_optional_tier_of_too_few_clients_is_left_out() {
    let others = json!({ "name": "others", "clients": ["*"], "rule": "mean" });
    let dir = round_of(&json!([others]));
    for id in &LAPTOPS {
        std::fs::remove_file(dir.path(&format!("updates/{id}.safetensors"))).unwrap();
    }
    let expected = merge(&dir, &TIERS).tensors;
    let id = LAPTOPS[0];
    for (rule, needs, says) in [
        (
            json!({ "rule": "krum", "byzantine": 1 }),
            "the tier needs 5 clients",
            "krum needs at least 5 clients, found 1",
        ),
        (
            json!({ "rule": "bulyan", "byzantine": 1 }),
            "the tier needs 7 clients",
            "bulyan needs at least 7 clients, found 1",
        ),
        (json!({ "rule": "trimmed-mean:cut=1" }), "the tier needs 3 clients", "trimmed-mean:cut=1 "),
        (json!({ "rule": "median", "byzantine": 1 }), "the tier needs 3 clients", "median tolerates"),
    ] {
        let tier = |optional: bool| {
            let mut tier = json!({ "name": "laptops", "clients": ["laptop-*"], "optional": optional });
            tier.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
            json!({ "schema": "fedmill.tiers/1", "tiers": [tier, others] }).to_string()
        };
        update("updates", id).write(&dir);
        dir.write("tiers.json", tier(false));
        let run = aggregate(&dir, &TIERS);
        run.assert_fails(
            2,
            &["tiers.json: tier `laptops`: ", &format!("hint: {needs}; with \"optional\": true")],
        );
        dir.write("tiers.json", tier(true));
        let run = aggregate(&dir, &[&TIERS[..], &["--report", "report.json"]].concat());
        run.assert_merged("merged.safetensors");
        assert!(run.stderr.contains("warning: tier laptops with 1 clients is left out: "), "{}", run.stderr);
        assert_eq!(Model::read(&dir, "merged.safetensors").tensors, expected, "{rule}");
        let report = dir.json("report.json");
        let row = report["tiers"].as_array().unwrap().iter().find(|tier| tier["name"] == "laptops").unwrap();
        assert_eq!((&row["clients"], &row["weight"]), (&json!(1), &json!(0.0)));
        let why = row["left_out"].as_str().unwrap();
        assert!(why.starts_with(says), "{why}");
        let client = report["clients"].as_array().unwrap().iter().find(|client| client["id"] == id).unwrap();
        assert_eq!(
            (&client["kept"], &client["tier"], &client["norm"]),
            (&json!(false), &json!("laptops"), &json!(null))
        );
    }
    // With no other tier nothing is left to merge.
    let alone =
        json!([{ "name": "all", "clients": ["*"], "rule": "krum", "byzantine": 9, "optional": true }]);
    dir.write("tiers.json", json!({ "schema": "fedmill.tiers/1", "tiers": alone }).to_string());
    aggregate(&dir, &TIERS)
        .assert_fails(2, &["tiers.json: every tier is left out, `all` because krum tolerates"]);
}

#[test]
fn the_trusted_client_that_another_claims_to_be_is_named() {
    let tiers = json!([{ "name": "all", "clients": ["*"], "rule": format!("monna:trusted={}", PHONES[0]) }]);
    let dir = round_of(&tiers);
    update("updates", PHONES[0]).write(&dir);
    let claimed = update("other", PHONES[1]).meta("client_id", PHONES[0]);
    claimed.write(&dir);
    let name = format!("other/{}.safetensors", PHONES[1]);
    std::fs::copy(dir.path(&name), dir.path("updates/zz.safetensors")).unwrap();
    let rule = format!("monna:trusted={}", PHONES[0]);
    let trusted = format!("{rule}: the update of `{}` was left out: updates/{0}.safetensors", PHONES[0]);
    let what = [&trusted, "is also the id of updates/zz.safetensors", "hint: ", "--client-id-from stem"];
    let skip = ["--on-bad-update", "skip"];
    for args in [&TIERS[..], &["--rule", &rule]] {
        aggregate(&dir, &[args, &skip].concat()).assert_fails(2, &what);
        let by_stem = [args, &skip, &["--client-id-from", "stem"]].concat();
        aggregate(&dir, &by_stem).assert_merged("merged.safetensors");
    }
}
