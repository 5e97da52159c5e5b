//! What updates claim: numbers, rounds and weights, and the bounds of each.

use super::{merged, write};
use crate::harness::{Dir, Model, fedmill};

/// Claims at the ends of what a client may say, and beyond, end no round.
#[test]
fn no_claim_ends_a_round() {
    let dir = Dir::new();
    write(&dir, "base", [0.0, 0.0], &[]);
    let sound =
        [("num_examples", "10"), ("local_steps", "4"), ("local_lr", "0.1"), ("loss", "1"), ("round", "3")];
    for i in 0..4 {
        write(&dir, &format!("in/c{i}"), [1.0, 1.0 + i as f32], &[&sound[..], &[("kind", "delta")]].concat());
    }
    let within = [
        ("num_examples", "9007199254740992"),
        ("num_examples", "5e-324"),
        ("local_steps", "10000000"),
        ("momentum", "0.9999999999999999"),
        ("loss", "1e12"),
        ("loss", "0"),
        ("proximal_mu", "1e6"),
        ("local_lr", "1e-30"),
        ("local_lr", "1e6"),
        ("round", "0"),
    ];
    let beyond = [
        ("num_examples", "1e308"),
        ("num_examples", "-1"),
        ("num_examples", "NaN"),
        ("local_steps", "1e308"),
        ("momentum", "1"),
        ("loss", "1e308"),
        ("loss", "inf"),
        ("proximal_mu", "1e308"),
        ("local_lr", "1e308"),
        ("local_lr", "5e-324"),
        ("round", "18446744073709551616"),
        ("kind", "gradient"),
    ];
    for strategy in [
        "fedavg",
        "fednova",
        "fednova:gmf=0.5",
        "qfedavg",
        "qfedavg:q=50",
        "fedbuff",
        "fedbuff:normalize=weights",
        "fedexp",
    ] {
        for (number, (key, value)) in within.iter().chain(&beyond).enumerate() {
            let claims: Vec<(&str, &str)> = sound.iter().filter(|(name, _)| name != key).copied().collect();
            write(&dir, "in/evil", [1.0, 9.0], &[&claims[..], &[("kind", "delta"), (key, value)]].concat());
            let case = format!("{strategy} {key}={value}");
            let state = format!("state-{number}-{}.safetensors", strategy.replace([':', '='], "-"));
            let mut args = vec![
                "aggregate",
                "in",
                "--base",
                "base.safetensors",
                "--strategy",
                strategy,
                "-o",
                "m.safetensors",
                "--on-bad-update",
                "skip",
            ];
            if strategy.contains("gmf") {
                args.extend(["--state", &state]);
            }
            if strategy.contains("fedbuff") {
                args.extend(["--round", "3"]);
            }
            let got = fedmill(&dir, &args);
            assert_eq!(got.code, Some(0), "{case}: {got:#?}");
            let values = Model::read(&dir, "m.safetensors").f32("w");
            assert!(values.iter().all(|value| value.is_finite()), "{case}: {values:?}");
            if number >= within.len() {
                assert!(got.stderr.contains("skipped in/evil.safetensors"), "{case}: {}", got.stderr);
            }
        }
    }
}

/// The learning rate that most clients state is the round's.
#[test]
fn one_other_learning_rate_is_that_clients_fault() {
    let dir = Dir::new();
    write(&dir, "base", [0.0, 0.0], &[]);
    let of = |lr| [("kind", "delta"), ("loss", "1"), ("local_lr", lr)];
    for i in 0..3 {
        write(&dir, &format!("in/c{i}"), [1.0, 1.0], &of("0.1"));
    }
    for (name, lr) in [("in/a", "1"), ("in/z", "1")] {
        write(&dir, name, [9.0, 9.0], &of(lr));
    }
    let (_, ids, stderr) = merged(&dir, &["in", "--base", "base.safetensors", "--strategy", "qfedavg"]);
    assert_eq!(ids, ["c0", "c1", "c2"]);
    assert!(stderr.contains("`local_lr`: found 1, expected 0.1 as in most updates"), "{stderr}");
}

#[test]
fn max_examples_caps_a_weight() {
    let dir = Dir::new();
    write(&dir, "in/a", [0.0, 0.0], &[("num_examples", "10")]);
    write(&dir, "in/b", [4.0, 4.0], &[("num_examples", "1000000")]);
    let (values, _, stderr) = merged(&dir, &["in", "--max-examples", "30"]);
    assert_eq!(values, [3.0, 3.0]);
    assert!(stderr.contains("--max-examples: 30 examples count of b"), "{stderr}");
    let report = dir.json("r.json");
    assert_eq!(report["settings"]["max_examples"], 30.0);
    assert_eq!(report["clients"][1]["examples"], 1_000_000.0);
    let leaf = ["aggregate", "in/b.safetensors", "--partial", "-o", "p.safetensors"];
    fedmill(&dir, &leaf).assert_merged("p.safetensors");
    let root = [
        "aggregate",
        "in/a.safetensors",
        "--partials",
        "p.safetensors",
        "--max-examples",
        "30",
        "-o",
        "m.safetensors",
    ];
    fedmill(&dir, &root).assert_fails(2, &["the weight of `b` is 1000000, expected at most 30"]);
}

#[test]
fn an_update_without_a_round_is_not_all_that_an_old_inbox_merges() {
    let dir = Dir::new();
    for i in 0..3 {
        write(&dir, &format!("in/c{i}"), [1.0, 1.0], &[("round", "4")]);
    }
    write(&dir, "in/silent", [9.0, 9.0], &[]);
    let skip = ["aggregate", "in", "--round", "5", "--on-bad-update", "skip", "-o", "m.safetensors"];
    fedmill(&dir, &skip)
        .assert_fails(1, &["in/silent.safetensors", "metadata `round` is missing, expected 5"]);
}

#[test]
fn a_factor_that_clients_choose_is_a_warning_beside_a_robust_rule() {
    let dir = Dir::new();
    write(&dir, "base", [0.0, 0.0], &[]);
    for i in 0..4 {
        write(&dir, &format!("in/c{i}"), [1.0, i as f32], &[("kind", "delta"), ("local_steps", "4")]);
    }
    let base = ["in", "--base", "base.safetensors", "--strategy", "fednova"];
    let (.., stderr) = merged(&dir, &[&base[..], &["--rule", "median"]].concat());
    assert_eq!(stderr.matches("fednova scales each update by the `local_steps`").count(), 1, "{stderr}");
    let (.., stderr) = merged(&dir, &base);
    assert!(!stderr.contains("scales each update"), "{stderr}");
}

#[test]
fn an_update_without_a_round_is_a_fault_where_half_state_one() {
    let dir = Dir::new();
    write(&dir, "in/a", [1.0, 1.0], &[("round", "5")]);
    write(&dir, "in/b", [1.0, 1.0], &[("round", "5")]);
    write(&dir, "in/old", [9.0, 9.0], &[]);
    let (values, _, stderr) = merged(&dir, &["in", "--round", "5"]);
    assert_eq!(values, [1.0, 1.0]);
    assert!(
        stderr.contains("skipped in/old.safetensors: metadata `round` is missing, expected 5"),
        "{stderr}"
    );
    write(&dir, "in/odd", [9.0, 9.0], &[("round", "5.0")]);
    let (.., stderr) = merged(&dir, &["in", "--round", "5"]);
    assert!(
        stderr.contains("skipped in/odd.safetensors: metadata `round` is `5.0`, expected a whole"),
        "{stderr}"
    );
    assert_eq!(stderr.matches("in/odd").count(), 1, "{stderr}");
    std::fs::remove_file(dir.path("in/odd.safetensors")).unwrap();
    let (values, _, stderr) = merged(&dir, &["in/old.safetensors", "--round", "5"]);
    assert_eq!(values, [9.0, 9.0]);
    assert_eq!(stderr.matches("no update states `round`").count(), 1, "{stderr}");
    write(&dir, "in/more", [9.0, 9.0], &[]);
    write(&dir, "in/most", [9.0, 9.0], &[]);
    let (_, ids, stderr) = merged(&dir, &["in", "--round", "5"]);
    assert_eq!(ids, ["a", "b", "more", "most", "old"], "a minority decides for no others");
    assert_eq!(
        stderr.matches("2 of 5 updates state `round`: --round 5 leaves out none").count(),
        1,
        "{stderr}"
    );
    // Updates that are left out decide nothing either.
    for name in ["x/a", "x/b", "x/c", "x/d"] {
        write(&dir, name, [9.0, 9.0], &[("round", "5"), ("client_id", "twin")]);
    }
    let (_, ids, _) = merged(&dir, &["in/more.safetensors", "in/most.safetensors", "x", "--round", "5"]);
    assert_eq!(ids, ["more", "most"]);
    write(&dir, "in/b", [1.0, 1.0], &[("round", "4")]);
    let (.., stderr) = merged(&dir, &["in"]);
    assert_eq!(stderr.matches("updates state rounds from 4 to 5").count(), 1, "{stderr}");
}
