//! Requests that fail with any updates: bad settings, bases, weights or lists.
//!
//! Each ends the run with status 2 and leaves the folder unchanged. Outputs that cannot be written are in `bad_output`.

use crate::bad_input::{named, round_of, sound};
use crate::harness::{Dir, Update, fedmill, fedmill_with_stdin};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Three sound updates and a base.
pub(crate) fn round() -> Dir {
    round_of(sound)
}

/// Fails unless a merge of `updates` with these arguments fails and leaves the folder unchanged.
#[track_caller]
pub(crate) fn assert_refused(dir: &Dir, args: &[&str], parts: &[&str]) {
    assert_ends(dir, &[&["aggregate", "updates", "-o", "merged.safetensors"], args].concat(), parts);
}

/// Like [`refused`], for a whole command line.
#[track_caller]
pub(crate) fn assert_ends(dir: &Dir, args: &[&str], parts: &[&str]) {
    let before = dir.contents();
    fedmill(dir, args).assert_fails(2, parts);
    dir.assert_unchanged_since(&before);
}

#[test]
fn cut_that_leaves_no_client() {
    let dir = round();
    let parts = ["trimmed-mean:cut=2 cuts 2 values on each side of 3", "the most it can cut is 1"];
    assert_refused(&dir, &["--rule", "trimmed-mean:cut=2"], &parts);
    assert_refused(&dir, &["--rule", "trimmed-mean:cut=0.9"], &["cuts 2 values on each side of 3"]);
    assert_refused(
        &dir,
        &["--rule", "trimmed-mean", "--byzantine", "2"],
        &["trimmed-mean tolerates at most 1 hostile of 3 clients, but --byzantine says 2"],
    );
    sound(4).write(&dir);
    assert_refused(&dir, &["--rule", "trimmed-mean:cut=0.5"], &["cuts 2 values on each side of 4"]);
}

#[test]
fn byzantine_beyond_the_breakdown_point() {
    let dir = round();
    let parts = ["median tolerates at most 1 hostile of 3 clients, but --byzantine says 2"];
    assert_refused(&dir, &["--rule", "median", "--byzantine", "2"], &parts);
    assert_refused(&dir, &["--rule", "mean", "--byzantine", "1"], &["mean tolerates at most 0 hostile"]);
    let parts = ["trimmed-mean:cut=0 tolerates at most 0 hostile"];
    assert_refused(&dir, &["--rule", "trimmed-mean:cut=0", "--byzantine", "1"], &parts);
}

#[test]
fn rule_not_known_or_misspelt() {
    let dir = round();
    for (rule, part) in [
        ("medain", "found rule `medain`, expected one of mean, median, trimmed-mean"),
        ("", "found rule ``"),
        ("median:cut=1", "median has no setting `cut`"),
        ("trimmed-mean:trim=1", "trimmed-mean has no setting `trim`; it has cut"),
        ("trimmed-mean:cut", "found setting `cut`, expected key=value"),
        ("trimmed-mean:cut=1,cut=1", "setting `cut` is given twice"),
        ("trimmed-mean:cut=-1", "cut: found `-1`, expected a count such as 3 or a fraction below 1"),
        ("trimmed-mean:cut=1.5", "cut: found `1.5`"),
        ("trimmed-mean:cut=NaN", "cut: found `NaN`"),
    ] {
        assert_refused(&dir, &["--rule", rule], &[part]);
    }
}

#[test]
fn usage_errors() {
    let dir = round();
    for args in [&[][..], &["agregate"], &["aggregate"], &["aggregate", "updates"], &["inspect", "--nope"]] {
        let run = fedmill(&dir, args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}: {run:#?}");
        assert!(run.stderr.contains("Usage: fedmill"), "{args:?}: {}", run.stderr);
    }
    for option in [
        "--threads=0",
        "--threads=-1",
        "--backend=quantum",
        "--isa=z80",
        "--min-clients=-1",
        "--on-bad-update=ignore",
        "--byzantine=1.5",
        "--byzantine=-1",
        "--round=one",
        "--max-shard-size=0",
        "--max-shard-size=5XB",
        "--log-format=xml",
    ] {
        let (name, value) = option.split_once('=').unwrap();
        assert_refused(&dir, &[option], &["error: ", name, value]);
    }
    assert_refused(&dir, &["--quiet", "--verbose"], &["cannot be used with"]);
}

#[test]
fn update_none_named() {
    let dir = Dir::new();
    assert_ends(&dir, &["aggregate", "-o", "merged.safetensors"], &["found no update, expected files"]);
    assert_ends(&dir, &["inspect"], &["found no update, expected files"]);
    dir.write("list", "\n \n");
    assert_ends(
        &dir,
        &["aggregate", "-o", "merged.safetensors", "--files-from", "list"],
        &["found no update, expected files"],
    );
    fedmill_with_stdin(&dir, &["aggregate", "-o", "merged.safetensors", "--files-from", "-"], "")
        .assert_fails(2, &["found no update, expected files"]);
}

#[test]
fn list_of_updates_not_readable() {
    let dir = round();
    assert_refused(
        &dir,
        &["--files-from", "nowhere"],
        &["nowhere: cannot read the list of updates: No such"],
    );
    // A name that is not UTF-8 is a name.
    dir.write("list", b"updates/\xff\n");
    assert_refused(&dir, &["--files-from", "list"], &["updates/", ": does not exist"]);
    dir.write("list", "updates/client-9.safetensors\n");
    assert_refused(&dir, &["--files-from", "list"], &["updates/client-9.safetensors: does not exist"]);
}

#[test]
fn directory_without_an_update() {
    let dir = round();
    fs::create_dir_all(dir.path("empty/below.d")).unwrap();
    let part = "empty: directory holds no update, expected *.safetensors or *.safetensors.index.json";
    assert_refused(&dir, &["empty"], &[part]);
    dir.write("empty/notes.txt", "");
    dir.write("empty/.hidden.safetensors", "");
    dir.write("empty/below.d/client-9.safetensors", sound(9).bytes());
    assert_refused(&dir, &["empty"], &[part]);
    assert_refused(&dir, &["empty", "--on-bad-update", "skip"], &[part]);
    assert_ends(&dir, &["inspect", "empty"], &[part]);
}

#[test]
fn directory_that_may_not_be_listed() {
    if rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: root may list every directory");
        return;
    }
    let dir = round();
    fs::create_dir(dir.path("locked")).unwrap();
    fs::set_permissions(dir.path("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    let args = ["aggregate", "updates", "locked", "-o", "merged.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["locked: cannot list the directory: Permission denied"]);
    fs::set_permissions(dir.path("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(!dir.exists("merged.safetensors"));
}

#[test]
fn weights_all_zero() {
    let dir = Dir::new();
    for client in 0..2 {
        let name = format!("updates/{client}");
        Update::new(&name).f32("w", &[1], &[1.0]).meta("num_examples", "0").write(&dir);
    }
    let part = "the weights of all 2 clients are zero, expected one above zero";
    assert_refused(&dir, &[], &[part]);
    assert_refused(&dir, &["--weights", "examples"], &[part]);
    assert_refused(&dir, &["--on-bad-update", "skip"], &[part]);
    dir.write("weights", "0 0\n1 0\n");
    assert_refused(&dir, &["--weights", "weights"], &[part]);
    dir.write("weights", r#"{"0": 1e308, "1": 1e308}"#);
    assert_refused(&dir, &["--weights", "weights"], &["the sum of the clients' weights does not fit f64"]);
}

#[test]
fn weights_file_not_understood() {
    let dir = round();
    assert_refused(&dir, &["--weights", "example"], &["example: cannot be read: No such file"]);
    for (text, part) in [
        ("client-0 1\nclient-2\n", "weights: line 2: found `client-2`, expected a client id and a weight"),
        ("client-0 -1\n", "weights: line 1: found `client-0 -1`"),
        ("client-0,NaN\n", "weights: line 1: found `client-0,NaN`"),
        ("client-0\tinf\n", "weights: line 1: found `client-0\\tinf`"),
        ("client-0 1\nclient-0 2\n", "weights: client `client-0` is listed twice"),
        ("{", "weights: is not a JSON object of client ids and weights"),
        (r#"{"client-0": "1"}"#, "weights: is not a JSON object of client ids and weights"),
        (r#"{"client-0": -1}"#, "the weight of `client-0` is -1"),
    ] {
        dir.write("weights", text);
        assert_refused(&dir, &["--weights", "weights"], &[part]);
    }
}

#[test]
fn weights_json_with_a_client_twice() {
    let dir = round();
    dir.write("weights", r#"{"client-0": 1, "client-0": 9, "client-2": 1, "client-3": 1}"#);
    assert_refused(&dir, &["--weights", "weights"], &["weights: ", "`client-0`", "twice"]);
}

#[test]
fn base_not_usable() {
    let dir = round();
    assert_refused(
        &dir,
        &["--base", "nowhere"],
        &["nowhere: the base cannot be used: cannot be read: No such"],
    );
    assert_refused(
        &dir,
        &["--base", "updates"],
        &["updates: the base cannot be used: updates: directory holds 3 models, expected one"],
    );
    named("broken", 0.0).cut_to(100).write(&dir);
    let parts = ["broken.safetensors: the base cannot be used: header claims"];
    assert_refused(&dir, &["--base", "broken.safetensors"], &parts);
    assert_refused(&dir, &["--base", "broken.safetensors", "--on-bad-update", "skip"], &parts);
    dir.write("b.safetensors.index.json", r#"{"weight_map":{"fc.bias":"b-00001-of-00001.safetensors"}}"#);
    let parts = [
        "b.safetensors.index.json: the base cannot be used: shard b-00001-of-00001.safetensors: cannot be read",
    ];
    assert_refused(&dir, &["--base", "b.safetensors.index.json"], &parts);
    assert_ends(&dir, &["inspect", "updates", "--base", "nowhere"], &["nowhere: the base cannot be used"]);
}

#[test]
fn base_with_other_tensors_than_every_update() {
    let dir = round();
    Update::new("other").f32("w", &[1], &[0.0]).write(&dir);
    let parts =
        ["client-0.safetensors: tensor `w` is missing", "client-3.safetensors: tensor `w` is missing"];
    assert_refused(&dir, &["--base", "other.safetensors"], &parts);
}

#[test]
fn base_not_finite() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[3], &[0.0, 1.0, f32::NAN]).write(&dir);
    for client in 0..3 {
        let delta = Update::new(&format!("updates/{client}")).f32("w", &[3], &[1.0; 3]).meta("kind", "delta");
        delta.write(&dir);
    }
    let parts = ["base.safetensors: ", "tensor `w`", "NaN at flat index 2"];
    assert_refused(&dir, &["--base", "base.safetensors"], &parts);
    assert_refused(&dir, &["--base", "base.safetensors", "--on-bad-update", "skip"], &parts);
}

#[test]
fn threads_and_slots_have_a_limit() {
    let dir = Dir::new();
    for (option, most) in [("--threads", 1024), ("--gpu-slots", 256)] {
        for found in ["0".to_owned(), (most + 1).to_string(), "100000".to_owned(), "-1".to_owned()] {
            let run = fedmill(&dir, &["aggregate", "u", "-o", "m", &format!("{option}={found}")]);
            run.assert_fails(2, &[option, &found, &format!("1..={most}")]);
        }
    }
}
