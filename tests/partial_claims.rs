//! What a partial says of its round, its kind and its sums, held against the run.
//!
//! Without `--base`, the bases that updates name are held against each other.

use crate::harness::{Dir, Model, Run, Update, fedmill};

const BASE: [f32; 4] = [1.0, -2.0, 3.0, -4.0];

/// An update of one tensor, with metadata.
fn update(dir: &Dir, name: &str, values: [f32; 4], metadata: &[(&str, &str)]) {
    let update = Update::new(name).f32("w", &[4], &values).meta("num_examples", "10");
    metadata.iter().fold(update, |update, (key, value)| update.meta(key, value)).write(dir);
}

/// The base, moved by this much.
fn moved(by: f32) -> [f32; 4] {
    BASE.map(|x| x + by)
}

fn with_base() -> Dir {
    let dir = Dir::new();
    update(&dir, "base", BASE, &[]);
    dir
}

/// Makes a partial of the updates in a folder.
#[track_caller]
fn leaf(dir: &Dir, folder: &str, args: &[&str]) {
    let output = format!("{folder}.safetensors");
    let command = ["aggregate", "--partial", folder, "-o", &output];
    fedmill(dir, &[&command, args].concat()).assert_merged(&output);
}

/// Merges onto the base.
fn root(dir: &Dir, args: &[&str]) -> Run {
    fedmill(dir, &[&["aggregate", "--base", "base.safetensors", "-o", "m.safetensors"], args].concat())
}

#[track_caller]
fn merged(dir: &Dir, args: &[&str]) -> Vec<f32> {
    root(dir, args).assert_merged("m.safetensors");
    Model::read(dir, "m.safetensors").f32("w")
}

const SKIP: [&str; 2] = ["--on-bad-update", "skip"];

fn round_of(dir: &Dir, partial: &str) -> serde_json::Value {
    let text = Model::read(dir, partial).metadata["fedmill.partial"].clone();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["round"].clone()
}

#[test]
fn a_leaf_states_the_round_of_its_clients() {
    let dir = with_base();
    for i in 0..3 {
        update(&dir, &format!("late/a{i}"), moved(100.0), &[("round", "2")]);
        update(&dir, &format!("fresh/c{i}"), moved(0.5), &[("round", "3")]);
    }
    leaf(&dir, "late", &[]);
    assert_eq!(round_of(&dir, "late.safetensors"), 2);
    let args = ["--round", "3", "fresh", "--partials", "late.safetensors"];
    root(&dir, &args).assert_fails(2, &["late.safetensors: update is of round 2, expected round 3"]);
    assert_eq!(merged(&dir, &[&args[..], &SKIP].concat()), moved(0.5));

    update(&dir, "late/odd", moved(7.0), &[("round", "9")]);
    let args = ["aggregate", "--partial", "late", "-o", "late.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["late/odd.safetensors: update is of round 9, expected round 2"]);
    leaf(&dir, "late", &SKIP);
    assert_eq!(round_of(&dir, "late.safetensors"), 2);

    // One client of many that say nothing does not speak for them.
    for i in 0..3 {
        update(&dir, &format!("silent/s{i}"), moved(0.5), &[]);
    }
    update(&dir, "silent/odd", moved(0.5), &[("round", "9")]);
    leaf(&dir, "silent", &[]);
    assert_eq!(round_of(&dir, "silent.safetensors"), serde_json::Value::Null);
}

#[test]
fn a_leaf_of_two_rounds_has_none_to_state() {
    let dir = with_base();
    update(&dir, "in/a", moved(1.0), &[("round", "2")]);
    update(&dir, "in/b", moved(1.0), &[("round", "3")]);
    let args = ["aggregate", "--partial", "in", "-o", "p.safetensors"];
    fedmill(&dir, &args)
        .assert_fails(2, &["updates of round 2 and as many of round 3", "hint: pass --round N"]);
    fedmill(&dir, &[&args[..], &["--round", "3"], &SKIP].concat()).assert_merged("p.safetensors");
}

#[test]
fn a_partial_without_a_round_is_held_against_the_others() {
    let dir = with_base();
    for i in 0..3 {
        update(&dir, &format!("silent/s{i}"), moved(2.0), &[]);
        update(&dir, &format!("fresh/c{i}"), moved(0.5), &[("round", "3")]);
    }
    leaf(&dir, "silent", &[]);
    let args = ["--round", "3", "--partials", "silent.safetensors"];
    let alone = root(&dir, &args);
    alone.assert_merged("m.safetensors");
    let warning = "warning: 1 of 1 partials state no round: --round 3 leaves out none of them";
    assert_eq!(alone.stderr.matches(warning).count(), 1, "{}", alone.stderr);
    // One update that states the round decides nothing about two partials that do not.
    update(&dir, "more/s9", moved(2.0), &[]);
    leaf(&dir, "more", &[]);
    let few =
        ["--round", "3", "fresh/c0.safetensors", "--partials", "silent.safetensors", "more.safetensors"];
    let few = root(&dir, &few);
    few.assert_merged("m.safetensors");
    assert!(few.stderr.contains("2 of 2 partials state no round"), "{}", few.stderr);
    let args = ["--round", "3", "fresh", "--partials", "silent.safetensors"];
    root(&dir, &args).assert_fails(2, &["silent.safetensors: metadata `round` is missing, expected 3"]);
    assert_eq!(merged(&dir, &[&args[..], &SKIP].concat()), moved(0.5));
}

/// A leaf without the base cannot tell deltas from weights. The root can.
#[test]
fn the_root_finds_deltas_that_a_leaf_took_for_weights() {
    let dir = with_base();
    for i in 0..3 {
        update(&dir, &format!("deltas/d{i}"), [0.25; 4], &[]);
        update(&dir, &format!("models/c{i}"), moved(0.25), &[]);
    }
    // With a cut of one, a value is summed. With two of two clients, all values stand apart.
    update(&dir, "few/f0", [0.25; 4], &[]);
    update(&dir, "few/f1", [0.25; 4], &[]);
    for (folder, rule) in
        [("deltas", "mean"), ("deltas", "trimmed-mean:cut=1"), ("few", "trimmed-mean:cut=1")]
    {
        let (rule, partial) = (["--rule", rule], format!("{folder}.safetensors"));
        leaf(&dir, folder, &rule);
        let args = [&["models"], &rule[..], &["--partials", &partial]].concat();
        let message = format!("{partial}: partial holds sums of weights that look like deltas");
        let hint = "make it again with --kind delta; if they sent models, pass --kind weights here";
        root(&dir, &args).assert_fails(2, &[&message, hint]);
        assert_eq!(merged(&dir, &[&args[..], &SKIP].concat()), moved(0.25), "{rule:?}");
        root(&dir, &[&args[..], &["--kind", "weights"]].concat()).assert_merged("m.safetensors");

        leaf(&dir, folder, &[&rule[..], &["--kind", "delta"]].concat());
        assert_eq!(merged(&dir, &args), moved(0.25), "{rule:?}");
    }
    leaf(&dir, "models", &[]);
    assert_eq!(merged(&dir, &["--partials", "models.safetensors"]), moved(0.25));
}

#[test]
fn a_partial_that_overflows_is_named() {
    let dir = Dir::new();
    update(&dir, "base", [2e38; 4], &[]);
    let delta = [("kind", "delta")];
    update(&dir, "huge/h0", [3e38; 4], &delta);
    update(&dir, "large/l0", [3e25; 4], &delta);
    update(&dir, "small/s0", [1e20; 4], &delta);
    for folder in ["huge", "large", "small"] {
        leaf(&dir, folder, &[]);
    }
    let message = "huge.safetensors: tensor `w`: the mean of its clients is 3.";
    root(&dir, &["--partials", "huge.safetensors"]).assert_fails(2, &[message, "in the model", "for F32"]);
    let step = ["--strategy", "fedadam", "--state", "s.state", "--partials"];
    let message = "large.safetensors: tensor `w`: the mean of its clients is 2.9";
    let both = [&step[..], &["large.safetensors", "small.safetensors"]].concat();
    root(&dir, &both).assert_fails(2, &[message, "`v` of the state"]);
    let skipped = root(&dir, &[&both[..], &SKIP].concat());
    skipped.assert_merged("m.safetensors");
    assert!(skipped.stderr.contains("skipped large.safetensors"), "{}", skipped.stderr);
    assert!(!skipped.stderr.contains("skipped small.safetensors"), "{}", skipped.stderr);
}

/// A partial of a batch-norm layer, with the sums of four clients of weight 10, made by no program of ours.
fn forged(dir: &Dir, variance: f64, error: f64, kind: &str) {
    let clients: Vec<_> =
        (0..4).map(|i| serde_json::json!({ "id": format!("x{i}"), "weight": 10 })).collect();
    let description = serde_json::json!({
        "schema": "fedmill.partial/1", "version": "0.1.0", "rule": "mean", "kind": kind, "weights": "examples",
        "low": 0, "high": 0, "dtypes": { "w": "F32", "bn.running_var": "F32" }, "clients": clients,
    });
    Update::new("forged")
        .f64("sum.w", &[1], &[40.0])
        .f64("error.w", &[1], &[error])
        .f64("sum.bn.running_var", &[1], &[variance])
        .f64("error.bn.running_var", &[1], &[0.0])
        .meta("fedmill.partial", &description.to_string())
        .write(dir);
}

#[test]
fn sums_and_errors_are_those_that_clients_can_make() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[1], &[1.0]).f32("bn.running_var", &[1], &[2.0]).write(&dir);
    for (variance, error, kind, what) in [
        (80.0, 5.0, "weights", Some("tensor `w`: the rounding error of the sum is 5 at flat index 0")),
        (80.0, 1e-10, "weights", Some("tensor `w`: the rounding error of the sum is 0.0000000001")),
        (80.0, 1e-14, "weights", None),
        (-1e-3, 0.0, "weights", Some("tensor `bn.running_var`: the clients' values are -0.001")),
        (0.0, 0.0, "weights", None),
        // The change of a variance may be negative.
        (-4.0, 0.0, "delta", None),
    ] {
        forged(&dir, variance, error, kind);
        let run = root(&dir, &["--partials", "forged.safetensors"]);
        match what {
            None => run.assert_merged("m.safetensors"),
            Some(what) => run.assert_fails(2, &["forged.safetensors: ", what]),
        }
    }
}

/// Sums in which large values cancel keep more bits than f64 has. A leaf writes them so that a root takes them.
#[test]
fn sums_of_values_that_cancel_pass_from_leaf_to_root() {
    let dir = Dir::new();
    let values = [1e30, 1.0, -1e30, 1e-3, 0.5];
    for (i, value) in values.into_iter().enumerate() {
        update(&dir, &format!("in/c{i}"), [value; 4], &[]);
    }
    for rule in ["mean", "trimmed-mean:cut=1"] {
        leaf(&dir, "in", &["--rule", rule]);
        let (flat, tree) =
            (["in", "-o", "flat.safetensors"], ["--partials", "in.safetensors", "-o", "t.safetensors"]);
        let command = ["aggregate", "--rule", rule];
        fedmill(&dir, &[&command[..], &flat].concat()).assert_merged("flat.safetensors");
        fedmill(&dir, &[&command[..], &tree].concat()).assert_merged("t.safetensors");
        assert!(dir.read("flat.safetensors") == dir.read("t.safetensors"), "{rule}");
    }
}

#[test]
fn without_a_base_updates_of_another_base_are_bad_updates() {
    let dir = Dir::new();
    let (one, other) = ("a".repeat(64), "b".repeat(64));
    for i in 0..3 {
        update(&dir, &format!("updates/g{i}"), moved(i as f32), &[("base", &one)]);
    }
    update(&dir, "updates/odd", [9e9; 4], &[("base", &other)]);
    update(&dir, "updates/silent", moved(1.0), &[]);
    let args = ["aggregate", "updates", "-o", "m.safetensors"];
    let message = format!("updates/odd.safetensors: update started from base {other}, expected {one}");
    fedmill(&dir, &args).assert_fails(2, &[&message]);
    fedmill(&dir, &[&args[..], &SKIP].concat()).assert_merged("m.safetensors");
    assert_eq!(Model::read(&dir, "m.safetensors").f32("w"), moved(1.0));

    // The digests of two functions cannot be compared: they may name one base.
    update(&dir, "updates/odd", moved(1.0), &[("base", &format!("sha256:{other}"))]);
    fedmill(&dir, &args).assert_merged("m.safetensors");
}

#[test]
fn a_tie_of_bases_ends_the_run() {
    let dir = Dir::new();
    for (i, letter) in ["a", "a", "b", "b"].into_iter().enumerate() {
        update(&dir, &format!("updates/g{i}"), moved(i as f32), &[("base", &letter.repeat(64))]);
    }
    let args = ["aggregate", "updates", "-o", "m.safetensors"];
    for args in [args.to_vec(), [&args[..], &SKIP].concat()] {
        let what = ["as many updates name the base aaaa", "as bbbb", "hint: pass the model"];
        fedmill(&dir, &args).assert_fails(2, &what);
    }
    let inspected = fedmill(&dir, &["inspect", "updates"]);
    assert!(inspected.code == Some(0) && inspected.stdout.contains("g3"), "{inspected:?}");
}
