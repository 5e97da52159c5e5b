//! Whether updates hold weights or deltas, by what they say and by their values.

use super::{merged, write};
use crate::harness::{Dir, Model, Update, fedmill};

/// Untagged deltas would count as weights, and move the model to about zero.
#[test]
fn deltas_that_do_not_say_so_end_the_run() {
    let dir = Dir::new();
    write(&dir, "base", [10.0, 10.0], &[]);
    for i in 1..=3 {
        write(&dir, &format!("in/c{i}"), [0.01 * i as f32; 2], &[("num_examples", "1")]);
    }
    let base = ["in", "--base", "base.safetensors"];
    let run = |args: &[&str]| {
        fedmill(
            &dir,
            &[&["aggregate", "-o", "m.safetensors", "--on-bad-update", "skip"], &base[..], args].concat(),
        )
    };
    for rule in ["mean", "median", "krum"] {
        let got = run(&["--rule", rule, "--byzantine", "0"]);
        got.assert_fails(2, &["3 of the 3 updates state no `kind`", "--kind delta", "--kind weights"]);
    }
    run(&["--kind", "delta"]).assert_merged("m.safetensors");
    for value in Model::read(&dir, "m.safetensors").f32("w") {
        assert!((value - 10.02).abs() < 1e-5, "{value}");
    }
    run(&["--kind", "weights"]).assert_merged("m.safetensors");
    for value in Model::read(&dir, "m.safetensors").f32("w") {
        assert!((value - 0.02).abs() < 1e-6, "{value}");
    }
}

/// Untagged deltas of a few clients would pull the model to zero. They are faults of those clients, and end no round.
#[test]
fn a_few_deltas_that_do_not_say_so_are_faults() {
    let dir = Dir::new();
    write(&dir, "base", [10.0, 10.0], &[]);
    let tags: [&[(&str, &str)]; 2] =
        [&[("num_examples", "1")], &[("num_examples", "1"), ("kind", "weights")]];
    let fault = "in/odd.safetensors: update states no `kind` and looks like a delta";
    for tag in tags {
        write(&dir, "in/a", [9.5, 10.5], tag);
        write(&dir, "in/b", [9.5, 10.5], tag);
        write(&dir, "in/odd", [0.01, 0.02], &[("num_examples", "1")]);
        let args = ["aggregate", "in", "--base", "base.safetensors", "-o", "m.safetensors"];
        fedmill(&dir, &args).assert_fails(2, &[fault, "--kind delta"]);
        let (values, _, stderr) = merged(&dir, &["in", "--base", "base.safetensors"]);
        assert_eq!(values, [9.5, 10.5]);
        assert!(stderr.contains(&format!("skipped {fault}")), "{stderr}");
        // A client that states its kind is believed.
        write(&dir, "in/odd", [0.5, 1.0], &[("num_examples", "1"), ("kind", "delta")]);
        assert_eq!(merged(&dir, &["in", "--base", "base.safetensors"]).0, [29.5 / 3.0, 32.0 / 3.0]);
    }
}

#[test]
fn a_base_of_zeros_or_near_zero_is_no_sign_of_deltas() {
    let dir = Dir::new();
    for i in 0..3 {
        write(&dir, &format!("in/c{i}"), [0.01, 0.02 * i as f32], &[]);
    }
    for base in [[0.0, 0.0], [1e-9, -1e-9], [0.012, 0.012]] {
        write(&dir, "base", base, &[]);
        merged(&dir, &["in", "--base", "base.safetensors"]);
    }
}

#[test]
fn the_operator_says_the_kind_and_contradictions_are_faults() {
    let dir = Dir::new();
    write(&dir, "base", [1.0, 1.0], &[]);
    write(&dir, "in/a", [1.0, 1.0], &[("kind", "weights")]);
    write(&dir, "in/b", [3.0, 3.0], &[]);
    write(&dir, "in/c", [5.0, 5.0], &[("kind", "delta")]);
    let base = ["in", "--base", "base.safetensors"];
    for (kind, values, odd) in [("weights", [2.0; 2], ("c", "delta")), ("delta", [5.0; 2], ("a", "weights"))]
    {
        let (got, _, stderr) = merged(&dir, &[&base[..], &["--kind", kind]].concat());
        assert_eq!(got, values, "{kind}");
        let fault = format!(
            "skipped in/{}.safetensors: metadata `kind` is {}, expected {kind} because",
            odd.0, odd.1
        );
        assert!(stderr.contains(&fault), "{stderr}");
    }
    assert_eq!(dir.json("r.json")["settings"]["kind"], "delta");
}

/// Deltas of a third of the base's norm, as large learning rates make them, and weights that moved as far.
#[test]
fn long_deltas_are_told_from_weights_by_their_place() {
    let dir = Dir::new();
    write(&dir, "base", [3.0, 4.0], &[]);
    let deltas = [[0.9, -1.2], [-1.4, 1.0], [0.8, 1.0]];
    let run = |more: &[&str]| {
        let args =
            ["aggregate", "in", "--rule", "median", "--base", "base.safetensors", "-o", "m.safetensors"];
        fedmill(&dir, &[&args, more].concat())
    };
    for (i, delta) in deltas.iter().enumerate() {
        write(&dir, &format!("in/c{i}"), *delta, &[]);
    }
    let hint = "hint: pass --kind delta if they are deltas, or --kind weights if they are models";
    run(&[]).assert_fails(2, &["3 of the 3 updates state no `kind` and look like deltas", hint]);
    let inspected = fedmill(&dir, &["inspect", "--json", "--base", "base.safetensors", "in"]);
    assert_eq!(inspected.stdout.matches("looks like a delta").count(), 3, "{inspected:#?}");
    for (i, delta) in deltas.iter().enumerate() {
        write(&dir, &format!("in/c{i}"), [3.0 + delta[0], 4.0 + delta[1]], &[]);
    }
    let plain = run(&[]);
    plain.assert_merged("m.safetensors");
    assert!(!plain.stderr.contains("look like"), "{plain:#?}");
    // The other way round.
    let twice = run(&["--kind", "delta"]);
    twice.assert_merged("m.safetensors");
    let warning = "warning: 3 of the 3 updates count as deltas and look like weights";
    assert_eq!(twice.stderr.matches(warning).count(), 1, "{twice:#?}");
}

/// A delta that says nothing is no model of a client.
#[test]
fn personalize_refuses_what_looks_like_a_delta() {
    let dir = Dir::new();
    write(&dir, "global", [3.0, 4.0], &[]);
    write(&dir, "c", [0.9, -1.2], &[]);
    for how in [["--mix", "0.5"], ["--mix", "1"]] {
        let args =
            ["personalize", "--global", "global.safetensors", "--personal", "c.safetensors", "-o", "out"];
        let got = fedmill(&dir, &[&args[..], &how].concat());
        got.assert_fails(
            2,
            &["c.safetensors: states no `kind` and looks like a delta", "hint: if it is a delta"],
        );
    }
    let whole = |name: &str, w: [f32; 2], head: f32| {
        Update::new(name).f32("w", &[2], &w).f32("head", &[1], &[head]).write(&dir);
    };
    whole("global", [3.0, 4.0], 1.0);
    whole("c", [0.9, -1.2], 0.1);
    let args = ["personalize", "--global", "global.safetensors", "--personal", "c.safetensors", "-o", "out"];
    let got = fedmill(&dir, &[&args[..], &["--layers", "head"]].concat());
    got.assert_fails(2, &["c.safetensors: states no `kind` and looks like a delta"]);
    write(&dir, "global", [3.0, 4.0], &[]);
    write(&dir, "c", [0.9, -1.2], &[("kind", "weights")]);
    let args = ["personalize", "--global", "global.safetensors", "--personal", "c.safetensors"];
    let got = fedmill(&dir, &[&args[..], &["--mix", "0.5", "-o", "out.safetensors"]].concat());
    assert_eq!(got.code, Some(0), "{got:#?}");
}

/// Deltas of a part of the tensors, and a delta beside partials.
#[test]
fn only_the_tensors_of_an_update_tell_its_kind() {
    let dir = Dir::new();
    Update::new("base").f32("body", &[2], &[30.0, 40.0]).f32("head", &[2], &[3.0, 4.0]).write(&dir);
    for i in 0..3 {
        Update::new(&format!("in/c{i}")).f32("head", &[2], &[0.01, 0.02 * i as f32]).write(&dir);
    }
    for missing in ["base", "present"] {
        let args =
            ["aggregate", "in", "--base", "base.safetensors", "--rule", "median", "-o", "m.safetensors"];
        fedmill(&dir, &[&args[..], &["--missing", missing]].concat())
            .assert_fails(2, &["3 of the 3 updates state no `kind` and look like deltas"]);
    }
}

/// One update among partials is not most of the inputs.
#[test]
fn a_delta_beside_partials_ends_no_round() {
    let dir = Dir::new();
    write(&dir, "base", [3.0, 4.0], &[]);
    for side in ["east", "west"] {
        (0..3).for_each(|i| write(&dir, &format!("{side}/{side}{i}"), [3.5, 4.5], &[("num_examples", "1")]));
        let output = format!("{side}.safetensors");
        let leaf = ["aggregate", "--partial", side, "--base", "base.safetensors", "-o", &output];
        fedmill(&dir, &leaf).assert_merged(&output);
    }
    write(&dir, "odd", [0.0, 0.01], &[("num_examples", "1")]);
    let partials = ["--partials", "east.safetensors", "west.safetensors"];
    let (values, ids, stderr) =
        merged(&dir, &[&["odd.safetensors", "--base", "base.safetensors"], &partials[..]].concat());
    assert_eq!((values, ids.len()), (vec![3.5, 4.5], 6), "{stderr}");
    assert!(stderr.contains("skipped odd.safetensors: update states no `kind`"), "{stderr}");
}
