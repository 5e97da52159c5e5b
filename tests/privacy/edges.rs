//! `privacy clip`, `sum` and `noise`: a round in steps has the bytes of one command.

use crate::harness::{Dir, Model, Run, Update, fedmill, without_digest};
use serde_json::Value;

const CLIENTS: [&str; 5] = ["ada", "bob", "cy", "dee", "eve"];

/// A base with a counter, five clients (one of them not finite) and two copies of one budget.
fn round(extra: &[&str]) -> Dir {
    let dir = Dir::new();
    let values = |seed: usize| -> Vec<f32> {
        (0..300).map(|i| ((i * 7 + seed * 31) % 97) as f32 / 50.0 - 1.0).collect()
    };
    let model = |name: &str, seed: usize| {
        Update::new(name).f32("w", &[100, 3], &values(seed)).i64("steps", &[], &[9])
    };
    model("base", 0).write(&dir);
    for (seed, client) in CLIENTS.iter().enumerate() {
        model(client, seed + 1).write(&dir);
    }
    Update::new("eve").f32("w", &[100, 3], &[f32::NAN; 300]).i64("steps", &[], &[9]).write(&dir);
    let init = [
        "privacy",
        "init",
        "budget",
        "--population",
        "100",
        "--epsilon",
        "8",
        "--delta",
        "1e-3",
        "--rounds",
        "5",
    ];
    let init =
        [&init[..], &["--clip", "2", "--denominator", "40", "--base", "base.safetensors"], extra].concat();
    assert_eq!(fedmill(&dir, &init).code, Some(0));
    for file in ["plan.lock", "ledger.jsonl", "head", "ledger.lock"] {
        dir.write(&format!("copy/{file}"), dir.read(&format!("budget/{file}")));
    }
    dir
}

/// Runs a command of `privacy` on a budget and the base.
fn step(dir: &Dir, command: &str, budget: &str, output: &str, inputs: &[&str]) -> Run {
    let shared = ["privacy", command, budget, "--base", "base.safetensors", "--round", "3", "-o", output];
    fedmill(dir, &[&shared[..], inputs].concat())
}

fn files(clients: &[&str]) -> Vec<String> {
    clients.iter().map(|client| format!("{client}.safetensors")).collect()
}

fn clip(dir: &Dir, output: &str, clients: &[&str]) {
    let files = files(clients);
    let run = step(dir, "clip", "copy", output, &files.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((run.code, run.stdout.trim()), (Some(0), output), "{run:#?}");
}

fn described(dir: &Dir, sum: &str) -> Value {
    let metadata = Model::read(dir, sum).metadata;
    serde_json::from_str(&metadata["fedmill.privacy.sum"]).unwrap()
}

#[test]
fn a_round_in_steps_has_the_bytes_of_one_command() {
    for extra in [&[][..], &["--adaptive-clip"]] {
        let dir = round(extra);
        let flat =
            ["aggregate", "--dp", "budget", "--test-seed", "5", "--round", "3", "--base", "base.safetensors"];
        let all = files(&CLIENTS);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let run = fedmill(&dir, &[&flat[..], &["-o", "flat.safetensors"], &all].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        clip(&dir, "one.safetensors", &["ada", "eve"]);
        clip(&dir, "two.safetensors", &["bob", "cy"]);
        clip(&dir, "three.safetensors", &["dee"]);
        let run = step(&dir, "sum", "copy", "sum.safetensors", &["one.safetensors", "two.safetensors"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let inputs = ["--test-seed", "5", "sum.safetensors", "three.safetensors"];
        let run = step(&dir, "noise", "copy", "tree.safetensors", &inputs);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let [flat, tree] = ["flat", "tree"].map(|name| Model::read(&dir, &format!("{name}.safetensors")));
        assert!(flat.tensors == tree.tensors, "{extra:?}");
        let next_clip = "fedmill.privacy.next_clip";
        assert_eq!(flat.metadata.get(next_clip), tree.metadata.get(next_clip));
        assert_eq!(flat.metadata.contains_key(next_clip), !extra.is_empty());
        assert_eq!(tree.bytes("steps"), 9i64.to_le_bytes());
    }
}

#[test]
fn a_sum_describes_itself() {
    let dir = round(&[]);
    clip(&dir, "sum.safetensors", &["bob", "ada", "eve"]);
    let found = described(&dir, "sum.safetensors");
    assert_eq!(found["private"], false);
    // Clients that count as zero are left out.
    assert_eq!(found["clients"], serde_json::json!(["ada", "bob"]));
    let model = Model::read(&dir, "sum.safetensors");
    assert_eq!((model.dtype("w"), model.dtype("steps")), ("I64", "I64"));
    assert_eq!(model.bytes("steps"), [0; 8]);
    let bound = found["terms"]["bound"].as_u64().unwrap();
    let integers = model.bytes("w").as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
    let square: u128 = integers.map(|x| u128::from(x.unsigned_abs()).pow(2)).sum();
    assert!(square > 0 && square <= u128::from(2 * bound).pow(2));
    // Nothing was charged.
    assert_eq!(dir.read("copy/ledger.jsonl"), dir.read("budget/ledger.jsonl"));
}

#[test]
fn sums_that_do_not_fit_together_are_refused() {
    let dir = round(&[]);
    clip(&dir, "one.safetensors", &["ada", "bob"]);
    clip(&dir, "again.safetensors", &["bob", "cy"]);
    let both = ["one.safetensors", "again.safetensors"];
    for command in ["sum", "noise"] {
        step(&dir, command, "copy", "out.safetensors", &both)
            .assert_fails(2, &["again.safetensors", "`bob`"]);
    }
    step(&dir, "noise", "copy", "out.safetensors", &["ada.safetensors"])
        .assert_fails(2, &["ada.safetensors", "fedmill.privacy.sum", "expected a sum of clipped updates"]);
    let other =
        ["privacy", "sum", "copy", "--base", "base.safetensors", "-o", "out.safetensors", "one.safetensors"];
    let differences =
        "one.safetensors: was made for another plan, base or round: round is 3, expected none\n";
    fedmill(&dir, &other).assert_fails(2, &[differences, "the same state directory, --base, --round"]);
    assert!(!dir.exists("out.safetensors"));
    assert_eq!(dir.read("copy/ledger.jsonl"), dir.read("budget/ledger.jsonl"));
}

/// A changed sum cannot have a larger norm than its clients allow.
#[test]
fn a_sum_longer_than_its_clients_is_refused() {
    let dir = round(&[]);
    clip(&dir, "sum.safetensors", &["ada"]);
    let mut bytes = without_digest(&dir.read("sum.safetensors"));
    // The highest byte of the first integer of `w`.
    let header = usize::try_from(u64::from_le_bytes(*bytes.first_chunk().unwrap())).unwrap();
    bytes[8 + header + 7] ^= 0x40;
    dir.write("longer.safetensors", bytes);
    step(&dir, "sum", "copy", "out.safetensors", &["longer.safetensors"])
        .assert_fails(2, &["longer.safetensors", "its integers exceed the clip bounds of its 1 clients"]);
    assert!(!dir.exists("out.safetensors"));
}

/// The operator's report shows which clients count, and warns that the budget does not cover it.
#[test]
fn the_report_shows_which_clients_count_as_zero() {
    let dir = round(&[]);
    let all = files(&CLIENTS);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let flat = ["aggregate", "--dp", "budget", "--base", "base.safetensors", "--report", "report.json"];
    let run = fedmill(&dir, &[&flat[..], &["--report-clients", "-o", "next.safetensors"], &all].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = dir.json("report.json");
    let clients = report["clients"].as_array().unwrap();
    let kept: Vec<bool> = clients.iter().map(|client| client["kept"].as_bool().unwrap()).collect();
    assert_eq!(kept, [true, true, true, true, false]);
    assert_eq!(clients[4]["reason"], "counts as zero");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("the budget does not cover it"), "{report}");
    assert!(warnings.contains("eve.safetensors"), "warnings about clients too: {report}");
}

/// Two tensors of the same size: the number of coordinates alone does not tell which is clipped.
#[test]
fn a_round_clips_the_tensors_of_its_plan() {
    let dir = Dir::new();
    let two = |name: &str| Update::new(name).f32("a", &[8], &[0.0; 8]).f32("b", &[8], &[0.0; 8]);
    two("base").write(&dir);
    two("in/c").meta("kind", "delta").write(&dir);
    let words = |text: &str| -> Run { fedmill(&dir, &text.split_whitespace().collect::<Vec<_>>()) };
    let plan =
        "--epsilon 8 --delta 1e-6 --clip 1 --sampling all --population 100 --rounds 5 --denominator 10";
    let init = |more: &str| assert_eq!(words(&format!("privacy init {more} {plan}")).code, Some(0), "{more}");
    init("p --base base.safetensors --personal a");
    let round = |more: &str| words(&format!("aggregate in --base base.safetensors -o m.safetensors {more}"));
    for other in ["--personal b", "--statistics b"] {
        round(&format!("--dp p {other}"))
            .assert_fails(2, &["p/plan.lock", "clips other tensors", "--personal"]);
    }
    let sum = "privacy clip p --base base.safetensors -o s.safetensors in";
    words(&format!("{sum} --personal b")).assert_fails(2, &["clips other tensors"]);
    let run = round("--dp p --personal a");
    run.assert_merged("m.safetensors");
    assert!(!run.stderr.contains("names no tensors"), "{run:#?}");
    init("q --dimension 8");
    let run = round("--dp q --personal b");
    run.assert_merged("m.safetensors");
    assert_eq!(run.stderr.matches("names no tensors").count(), 1, "{run:#?}");
}

/// A round that is over: the answer is not hidden behind a line for each client.
#[test]
fn a_late_round_of_a_series_is_refused_before_its_clients_are_listed() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[8], &[0.0; 8]).write(&dir);
    Update::new("in/c").meta("kind", "delta").f32("w", &[8], &[0.01; 8]).write(&dir);
    let words = |text: &str| -> Run { fedmill(&dir, &text.split_whitespace().collect::<Vec<_>>()) };
    let plan =
        "--epsilon 8 --delta 1e-6 --clip 1 --sampling all --population 100 --rounds 5 --denominator 10";
    let series = "--mechanism dp-ftrl:bands=2 --base base.safetensors";
    assert_eq!(words(&format!("privacy init p {plan} {series}")).code, Some(0));
    let round = |n: u32| {
        words(&format!("aggregate in --base base.safetensors --dp p --round {n} -o m{n}.safetensors"))
    };
    round(1).assert_merged("m1.safetensors");
    let run = words("aggregate in --base base.safetensors --dp p --round 3 -o m3.safetensors --allow-empty");
    assert!(run.stderr.contains("takes part more often"), "{run:#?}");
    let run = round(2);
    run.assert_fails(1, &["round 2 is too late"]);
    assert!(!run.stderr.contains("takes part more often"), "{run:#?}");
    round(9).assert_fails(1, &["round 9 is not in the plan"]);
}

/// A charge whose model was moved after its release, or that was voided, is not voided again.
#[test]
fn void_says_what_became_of_a_charge() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[8], &[0.0; 8]).write(&dir);
    Update::new("in/c").meta("kind", "delta").f32("w", &[8], &[0.01; 8]).write(&dir);
    let words = |text: &str| -> Run { fedmill(&dir, &text.split_whitespace().collect::<Vec<_>>()) };
    let plan =
        "--epsilon 8 --delta 1e-6 --clip 1 --sampling all --population 100 --rounds 5 --denominator 10";
    assert_eq!(words(&format!("privacy init p {plan} --base base.safetensors")).code, Some(0));
    words("aggregate in --base base.safetensors --dp p -o m.safetensors").assert_merged("m.safetensors");
    std::fs::rename(dir.path("m.safetensors"), dir.path("moved.safetensors")).unwrap();
    words("privacy void p --seq 1 --attest lost")
        .assert_fails(1, &["record 1", "was released, as record 2 says"]);
    assert_eq!(words("privacy spend p --noise-multiplier 9").code, Some(0));
    assert_eq!(words("privacy void p --seq 3 --attest lost").code, Some(0));
    words("privacy void p --seq 3 --attest lost").assert_fails(1, &["was voided before: `lost`"]);
}
