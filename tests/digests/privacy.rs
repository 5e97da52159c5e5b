//! Rounds under a budget, with noise from a test seed: models, sums, plans, ledgers and reports.
//!
//! Random fields and times are left out. Costs are those of Renyi divergences, which have the same digits on every
//! machine. Privacy loss distributions do not.

use super::inputs::{Kind, every_dtype, f32s, five_sections, write_round};
use super::{Digests, done, run};
use crate::harness::{Dir, Model, Update};
use serde_json::Value;

const INIT: [&str; 8] = [
    "privacy",
    "init",
    "dp",
    "--population=100",
    "--delta=1e-3",
    "--accountant=rdp",
    "--base=base.safetensors",
    "--epsilon=50",
];

/// Fields of a ledger's records that differ between all ledgers.
const RANDOM: [&str; 9] = [
    "ts",
    "prev_sha256",
    "sha256",
    "ledger_id",
    "release_id",
    "output_sha256",
    "output",
    "key_sha256",
    "clients_sha256",
];

/// Metadata of a model that differ between all ledgers.
const RANDOM_STAMPS: [&str; 2] = ["fedmill.privacy.release", "fedmill.privacy.ledger"];

/// A model without the id of its release.
fn add_model(digests: &mut Digests, name: &str, dir: &Dir, file: &str) {
    let mut model = Model::read(dir, file);
    for key in RANDOM_STAMPS {
        assert!(model.metadata.remove(key).is_some(), "{file} has no {key}");
    }
    let mut bytes = format!("{:?}", model.metadata).into_bytes();
    for (name, (dtype, shape, values)) in &model.tensors {
        bytes.extend(format!("\n{name} {dtype} {shape:?}\n").bytes());
        bytes.extend(values);
    }
    digests.add(name, &bytes);
}

fn without_random(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !RANDOM.contains(&key.as_str()));
            fields.values_mut().for_each(without_random);
        }
        Value::Array(items) => items.iter_mut().for_each(without_random),
        _ => {}
    }
}

/// The plan and the records of the ledger in the folder.
fn add_books(digests: &mut Digests, case: &str, dir: &Dir) {
    digests.add_file(&format!("{case}/plan"), dir, "dp/plan.lock");
    let ledger = String::from_utf8(dir.read("dp/ledger.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        without_random(&mut record);
        format!("{record}\n")
    };
    digests.add(&format!("{case}/ledger"), ledger.lines().map(record).collect::<String>().as_bytes());
}

/// Releases the updates in the folder once.
fn release(digests: &mut Digests, case: &str, dir: &Dir, args: &[&str]) {
    let fixed = ["aggregate", "--dp=dp", "-o", "m.safetensors", "--report=r.json", "--test-seed=5"];
    done(dir, &[&fixed, args].concat());
    add_model(digests, &format!("{case}/model"), dir, "m.safetensors");
    let mut report = dir.json("r.json");
    without_random(&mut report);
    dir.write("r.json", report.to_string());
    digests.add_report(&format!("{case}/report"), dir, "r.json");
}

#[test]
fn rounds_under_a_budget() {
    let mut digests = Digests::new("private");
    let plans: [(&str, &[&str]); 4] = [
        ("all", &["--noise-multiplier=1.5", "--rounds=4", "--clip=2", "--denominator=10"]),
        (
            "poisson",
            &[
                "--noise-multiplier=1.5",
                "--rounds=4",
                "--clip=2",
                "--sampling=poisson",
                "--sampling-rate=0.1",
            ],
        ),
        (
            "adaptive",
            &["--noise-multiplier=1.5", "--rounds=4", "--clip=2", "--denominator=40", "--adaptive-clip"],
        ),
        ("calibrated", &["--rounds=4", "--clip=0.5", "--denominator=10"]),
    ];
    for (name, plan) in plans {
        let dir = write_round(9, Kind::Mixed, |name, client| match client {
            // A client that counts as zero.
            5 => Update::new(name).f32("a.long", &[2], &[f32::NAN, 1.0]),
            client => every_dtype(name, client),
        });
        done(&dir, &[&INIT, plan].concat());
        // Both rounds have the base of the first. Otherwise the models would differ: a model names its release.
        for (round, step) in [(1, &[][..]), (2, &["--strategy=fedadam", "--state=s"])] {
            let number = format!("--round={round}");
            let args = [&["in", "--base=base.safetensors", &number], step].concat();
            release(&mut digests, &format!("{name}/{round}"), &dir, &args);
        }
        add_books(&mut digests, name, &dir);
    }
    let dir = write_round(5, Kind::Weights, five_sections);
    done(&dir, &[&INIT, plans[0].1].concat());
    release(&mut digests, "sections", &dir, &["in", "--base=base.safetensors"]);
    digests.check(include_str!("recorded/private.txt"));
}

#[test]
fn rounds_in_steps() {
    let mut digests = Digests::new("private-steps");
    for (name, plan) in [("fixed", &[][..]), ("adaptive", &["--adaptive-clip"])] {
        let dir = write_round(7, Kind::Weights, every_dtype);
        let fixed = ["--noise-multiplier=1.5", "--rounds=4", "--clip=2", "--denominator=40"];
        done(&dir, &[&INIT[..], &fixed, plan].concat());
        let shared = ["dp", "--base=base.safetensors", "--round=3", "-o"];
        let mut step = |command: &str, output: &str, inputs: &[&str]| {
            let file = format!("{output}.safetensors");
            done(&dir, &[&["privacy", command], &shared[..], &[&file], inputs].concat());
            match command {
                "noise" => add_model(&mut digests, &format!("{name}/{output}"), &dir, &file),
                _ => digests.add_file(&format!("{name}/{output}"), &dir, &file),
            }
        };
        step("clip", "one", &["in/client-00.safetensors", "in/client-03.safetensors"]);
        step("clip", "two", &["in/client-01.safetensors"]);
        step("clip", "three", &["in/client-02.safetensors", "in/client-06.safetensors"]);
        step("sum", "sum", &["one.safetensors", "two.safetensors"]);
        step("noise", "released", &["sum.safetensors", "three.safetensors", "--test-seed=5"]);
        add_books(&mut digests, name, &dir);
    }
    digests.check(include_str!("recorded/private-steps.txt"));
}

#[test]
fn correlated_noise() {
    let mut digests = Digests::new("correlated");
    for mechanism in ["dp-ftrl:bands=3", "dp-ftrl:tree", "dp-ftrl"] {
        let dir = Dir::new();
        let model = |name: &str, seed: usize| {
            Update::new(name).i64("counter", &[3], &[1, 2, 3]).f32("w", &[200], &f32s(seed, 200)).write(&dir);
        };
        model("base", 90);
        for (client, name) in ["ada", "bob", "cy", "dee"].into_iter().enumerate() {
            model(name, client);
        }
        let chosen = format!("--mechanism={mechanism}");
        let plan = [&chosen, "--noise-multiplier=1.5", "--rounds=4", "--clip=2", "--denominator=2"];
        done(&dir, &[&INIT, &plan[..]].concat());
        for (round, clients) in [(1, ["ada", "bob"]), (2, ["cy", "ada"]), (4, ["dee", "dee"])] {
            let number = format!("--round={round}");
            let mut inputs = clients.map(|client| format!("{client}.safetensors")).to_vec();
            inputs.dedup();
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            let args = [&["--base=base.safetensors", &number], &inputs[..]].concat();
            release(&mut digests, &format!("{mechanism}/{round}"), &dir, &args);
        }
        add_books(&mut digests, mechanism, &dir);
    }
    digests.check(include_str!("recorded/correlated.txt"));
}

#[test]
fn printed_of_budgets() {
    let mut digests = Digests::new("budgets");
    let dir = write_round(3, Kind::Weights, every_dtype);
    done(
        &dir,
        &[&INIT[..], &["--noise-multiplier=1.5", "--rounds=4", "--clip=2", "--denominator=10"]].concat(),
    );
    done(&dir, &["privacy", "spend", "dp", "--noise-multiplier=1.5", "--rounds=3"]);
    done(&dir, &["privacy", "spend", "dp", "--noise-multiplier=9", "--round=7", "--note=statistics"]);
    let commands: [&[&str]; 7] = [
        &["status", "dp"],
        &["status", "dp", "--bar"],
        &["export", "dp", "--format=dp-event"],
        &["export", "dp", "--format=csv"],
        &["export", "dp", "--format=model-card"],
        &["export", "dp", "--format=prometheus"],
        &[
            "calibrate",
            "--epsilon=2",
            "--delta=1e-5",
            "--rounds=50",
            "--accountant=rdp",
            "--sampling-rate=0.1",
        ],
    ];
    for command in commands {
        let printed = done(&dir, &[&["privacy"], command].concat());
        digests.add_printed(&command.join("+"), &printed);
    }
    add_books(&mut digests, "spent", &dir);
    let refused = run(&dir, &["privacy", "spend", "dp", "--noise-multiplier=0.1"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    digests.add("refused", refused.stderr.as_bytes());
    digests.check(include_str!("recorded/budgets.txt"));
}
