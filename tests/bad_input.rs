//! Updates that cannot be merged.
//!
//! Each test makes one and merges it three times. The update ends the run with an error that names it, the run leaves
//! it out with a warning, and it counts against the quorum. Files with a broken format are in `bad_file`.

use crate::harness::{Contents, Dir, Run, Update, fedmill};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// The sound clients of a round. Client 1 is the bad one.
const SOUND: [usize; 3] = [0, 2, 3];

/// The start of the path of client 1's file.
pub(crate) const BAD: &str = "updates/client-1";

pub(crate) const WITH_BASE: &[&str] = &["--base", "base.safetensors"];

/// A sound update: a bias and a weight, with other values for each client.
pub(crate) fn sound(client: usize) -> Update {
    named(&format!("updates/client-{client}"), client as f32)
}

/// Client 1 with a sound update.
pub(crate) fn bad() -> Update {
    named(BAD, 1.0)
}

pub(crate) fn named(name: &str, seed: f32) -> Update {
    Update::new(name)
        .f32("fc.bias", &[2], &[seed, -seed])
        .f32("fc.weight", &[2, 3], &[0.5, 1.0, seed * 0.3, 2.0, 0.1, seed])
        .meta("num_examples", "10")
}

pub(crate) fn round_of(sound: impl Fn(usize) -> Update) -> Dir {
    let dir = Dir::new();
    for client in SOUND {
        sound(client).write(&dir);
    }
    named("base", 0.0).write(&dir);
    dir
}

pub(crate) fn aggregate(dir: &Dir, args: &[&str], more: &[&str]) -> Run {
    let run = ["aggregate", "updates", "-o", "merged.safetensors"];
    fedmill(dir, &[&run, args, more].concat())
}

/// Fails unless client 1 is rejected with the texts of `parts`, in runs with and without a base.
#[track_caller]
pub(crate) fn assert_rejected(bad: &Update, parts: &[&str]) {
    for args in [&[], WITH_BASE] {
        assert_rejected_with(|dir| bad.write(dir), args, parts);
    }
}

/// Fails unless client 1, made by `make`, is rejected with the texts of `parts`.
#[track_caller]
pub(crate) fn assert_rejected_with(make: impl Fn(&Dir), args: &[&str], parts: &[&str]) {
    assert_rejected_among(sound, make, args, parts);
}

#[track_caller]
fn assert_rejected_among(
    sound: impl Fn(usize) -> Update,
    make: impl Fn(&Dir),
    args: &[&str],
    parts: &[&str],
) {
    let dir = round_of(&sound);
    make(&dir);
    let before = dir.contents();
    assert_ends_the_run(&dir, args, parts, &before);
    assert_counts_against_the_quorum(&dir, args, &before);
    assert_is_skipped(&dir, args, parts, &merged_without_it(&sound, args));
}

fn merged_without_it(sound: impl Fn(usize) -> Update, args: &[&str]) -> Vec<u8> {
    let dir = round_of(sound);
    aggregate(&dir, args, &[]).assert_merged("merged.safetensors");
    dir.read("merged.safetensors")
}

#[track_caller]
fn assert_ends_the_run(dir: &Dir, args: &[&str], parts: &[&str], before: &Contents) {
    let run = aggregate(dir, args, &["--report", "report.json"]);
    run.assert_fails(2, parts);
    assert!(run.stderr.contains(&format!("error: {BAD}")), "{BAD} is not named: {}", run.stderr);
    dir.assert_unchanged_since(before);
}

#[track_caller]
fn assert_counts_against_the_quorum(dir: &Dir, args: &[&str], before: &Contents) {
    let skip = ["--on-bad-update", "skip", "--min-clients", "4", "--report", "report.json"];
    aggregate(dir, args, &skip).assert_fails(1, &["refused: 3 usable updates", "expected at least 4"]);
    let report = dir.json("report.json");
    assert_eq!(report["published"], false);
    assert!(report["refused"].as_str().unwrap().contains("expected at least 4"), "{report:#}");
    fs::remove_file(dir.path("report.json")).unwrap();
    dir.assert_unchanged_since(before);
}

#[track_caller]
fn assert_is_skipped(dir: &Dir, args: &[&str], parts: &[&str], expected: &[u8]) {
    let run = aggregate(dir, args, &["--on-bad-update", "skip", "--report", "report.json"]);
    run.assert_merged("merged.safetensors");
    assert!(run.stderr.contains(&format!("warning: skipped {BAD}")), "{}", run.stderr);
    let report = dir.json("report.json");
    let errors = errors_of_the_bad(&report);
    for part in parts {
        assert!(errors.contains(part), "no `{part}` in {report:#}");
    }
    let ids: Vec<_> = report["clients"].as_array().unwrap().iter().map(|c| c["id"].clone()).collect();
    assert_eq!(ids, SOUND.map(|client| format!("client-{client}")));
    assert!(dir.read("merged.safetensors") == expected, "not the merge of the others alone");
}

/// The faults that the report lists for the files of client 1.
fn errors_of_the_bad(report: &serde_json::Value) -> String {
    let rows = report["rejected"].as_array().unwrap().iter();
    let of_the_bad = rows.filter(|row| row["file"].as_str().unwrap().starts_with(BAD));
    let errors = of_the_bad.flat_map(|row| {
        assert_eq!(row["error"], row["errors"][0]);
        row["errors"].as_array().unwrap().iter().map(|error| error.as_str().unwrap())
    });
    errors.collect::<Vec<_>>().join("\n")
}

#[test]
fn tensor_missing_extra_or_misshapen() {
    let bias = || Update::new(BAD).f32("fc.bias", &[2], &[1.0, 1.0]).meta("num_examples", "10");
    assert_rejected(&bias(), &["tensor `fc.weight` is missing, expected F32 [2, 3]"]);
    let extra = bad().f32("fc.extra", &[1], &[0.0]);
    let parts = ["tensor `fc.extra` is not expected"];
    assert_rejected_with(|dir| extra.write(dir), &[], &[parts[0], "layout most updates share"]);
    assert_rejected_with(|dir| extra.write(dir), WITH_BASE, &[parts[0], "the base has none of that name"]);
    let flat = bias().f32("fc.weight", &[6], &[0.0; 6]);
    assert_rejected(&flat, &["tensor `fc.weight` has shape [6], expected [2, 3]"]);
    let turned = bias().f32("fc.weight", &[3, 2], &[0.0; 6]);
    assert_rejected(&turned, &["tensor `fc.weight` has shape [3, 2], expected [2, 3]"]);
    let renamed = bias().f32("fc.Weight", &[2, 3], &[0.0; 6]);
    assert_rejected(&renamed, &["tensor `fc.weight` is missing", "tensor `fc.Weight` is not expected"]);
    assert_rejected(&Update::new(BAD), &["tensor `fc.bias` is missing", "tensor `fc.weight` is missing"]);
}

#[test]
fn tensor_of_a_kind_that_does_not_convert() {
    for dtype in ["I32", "U32"] {
        let update = Update::new(BAD).raw("fc.bias", dtype, &[2], &[0; 8]);
        let update = update.f32("fc.weight", &[2, 3], &[0.0; 6]).meta("num_examples", "10");
        let part = format!("tensor `fc.bias` has dtype {dtype}, which does not convert to F32");
        assert_rejected(&update, &[&part]);
    }
}

#[test]
fn value_not_finite() {
    let cases: [(&str, &[u8], &[u8], &str); 8] = [
        ("F64", &[0; 8], &f64::NEG_INFINITY.to_le_bytes(), "-inf"),
        ("F32", &[0; 4], &f32::NAN.to_le_bytes(), "NaN"),
        ("F32", &[0; 4], &f32::INFINITY.to_le_bytes(), "inf"),
        ("F16", &[0; 2], &0x7e00u16.to_le_bytes(), "NaN"),
        ("BF16", &[0; 2], &0xff80u16.to_le_bytes(), "-inf"),
        ("BF16", &[0; 2], &0x7fc0u16.to_le_bytes(), "NaN"),
        ("F8_E4M3", &[0], &[0xff], "NaN"),
        ("F8_E5M2", &[0], &[0x7c], "inf"),
    ];
    for (dtype, zero, not_finite, shown) in cases {
        let of = |client: usize, values: [&[u8]; 3]| {
            Update::new(&format!("updates/client-{client}")).raw("fc.bias", dtype, &[], values[0]).raw(
                "fc.weight",
                dtype,
                &[2],
                &values[1..].concat(),
            )
        };
        let sound = |client: usize| of(client, [zero; 3]);
        let part =
            format!("tensor `fc.weight` holds {shown} at flat index 1, expected a finite number (1 such");
        for rule in ["mean", "median", "trimmed-mean:cut=1"] {
            let make = |dir: &Dir| of(1, [zero, zero, not_finite]).write(dir);
            assert_rejected_among(sound, make, &["--rule", rule], &[&part]);
        }
    }
}

#[test]
fn value_not_finite_anywhere_in_a_large_tensor() {
    const LEN: usize = 100_003;
    let large = |client: usize, bad: &[usize]| {
        let mut values = vec![0.25; LEN];
        bad.iter().for_each(|at| values[*at] = f32::NAN);
        Update::new(&format!("updates/client-{client}")).f32("w", &[LEN], &values)
    };
    for at in [0, 63, 65_536, LEN - 1] {
        let part = format!("tensor `w` holds NaN at flat index {at}");
        for rule in ["mean", "median"] {
            let make = |dir: &Dir| large(1, &[at]).write(dir);
            assert_rejected_among(|client| large(client, &[]), make, &["--rule", rule], &[&part]);
        }
    }
    let make = |dir: &Dir| large(1, &[LEN - 1, 70, 70_000]).write(dir);
    let part = "NaN at flat index 70, expected a finite number (3 such values in the update)";
    assert_rejected_among(|client| large(client, &[]), make, &[], &[part]);
}

#[test]
fn round_or_base_of_another() {
    let stale = bad().meta("round", "6");
    assert_rejected_with(
        |dir| stale.write(dir),
        &["--round", "7"],
        &["update is of round 6, expected round 7"],
    );
    let elsewhere = bad().meta("base", "00ff");
    let parts = ["update started from base 00ff, expected blake3:", " or sha256:"];
    assert_rejected_with(|dir| elsewhere.write(dir), WITH_BASE, &parts);
}

#[test]
fn round_and_base_as_expected() {
    let dir = round_of(sound);
    let base = dir.read("base.safetensors");
    let blake3 = blake3::hash(&base).to_hex().to_string();
    let sha256: String =
        <sha2::Sha256 as sha2::Digest>::digest(&base).iter().map(|x| format!("{x:02X}")).collect();
    sound(1).meta("round", "7").meta("base", &blake3).write(&dir);
    sound(2).meta("round", "7").meta("base", &sha256).write(&dir);
    sound(0).meta("round", "7").write(&dir);
    sound(3).meta("round", "7").meta("base", &format!("sha256:{sha256}")).write(&dir);
    aggregate(&dir, WITH_BASE, &["--round", "7"]).assert_merged("merged.safetensors");
}

#[test]
fn metadata_not_understood() {
    for (key, value, expected) in [
        ("num_examples", "-1", "a number from 0 to 2^53"),
        ("num_examples", "many", "a number from 0 to 2^53"),
        ("num_examples", "NaN", "a number from 0 to 2^53"),
        ("num_examples", "inf", "a number from 0 to 2^53"),
        ("num_examples", "", "a number from 0 to 2^53"),
        ("local_steps", "-1", "a number from 0 to 2^53"),
        ("round", "1.5", "a whole number"),
        ("kind", "gradient", "`weights` or `delta`"),
        ("client_id", " ", "a name without control or invisible characters"),
    ] {
        let part = format!("metadata `{key}` is `{value}`, expected {expected}");
        assert_rejected(&bad().meta(key, value), &[&part]);
    }
}

#[test]
fn examples_not_given() {
    let silent = Update::new(BAD).f32("fc.bias", &[2], &[1.0; 2]).f32("fc.weight", &[2, 3], &[1.0; 6]);
    let part = "metadata `num_examples` is missing, expected it for weighting by examples";
    assert_rejected(&silent, &[part]);
    assert_rejected_with(|dir| silent.write(dir), &["--weights", "examples"], &[part]);
}

#[test]
fn weight_not_given() {
    let make = |dir: &Dir| {
        bad().write(dir);
        dir.write("weights", "client-0 1\nclient-2 2\nclient-3 1\n");
    };
    let dir = round_of(sound);
    make(&dir);
    let part = "client `client-1` has no weight in the weights file";
    let before = dir.contents();
    assert_ends_the_run(&dir, &["--weights", "weights"], &[part], &before);
    assert_counts_against_the_quorum(&dir, &["--weights", "weights"], &before);
    fs::remove_file(dir.path("updates/client-1.safetensors")).unwrap();
    aggregate(&dir, &["--weights", "weights"], &[]).assert_merged("merged.safetensors");
    let expected = dir.read("merged.safetensors");
    make(&dir);
    assert_is_skipped(&dir, &["--weights", "weights"], &[part], &expected);
}

#[test]
fn kind_of_another_without_a_base() {
    let part = "update holds a delta, but most others hold weights; without --base both cannot be merged";
    assert_rejected_with(|dir| bad().meta("kind", "delta").write(dir), &[], &[part]);
}

#[test]
fn path_that_is_no_regular_file() {
    let name = "updates/client-1.safetensors";
    let fifo = |dir: &Dir| {
        mknodat(CWD, dir.path(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    };
    assert_rejected_with(fifo, &[], &["cannot be read: not a regular file"]);
    let folder = |dir: &Dir| fs::create_dir(dir.path(name)).unwrap();
    assert_rejected_with(folder, &[], &["cannot be read: not a regular file"]);
    let dangling = |dir: &Dir| symlink("nowhere", dir.path(name)).unwrap();
    assert_rejected_with(dangling, &[], &["cannot be read: No such file or directory"]);
    let circle = |dir: &Dir| symlink("client-1.safetensors", dir.path(name)).unwrap();
    assert_rejected_with(circle, &[], &["cannot be read: Too many levels of symbolic links"]);
}

#[test]
fn path_that_may_not_be_read() {
    if rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: root may read every file");
        return;
    }
    let locked = |dir: &Dir| {
        bad().write(dir);
        let path = dir.path("updates/client-1.safetensors");
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    };
    let dir = round_of(sound);
    locked(&dir);
    aggregate(&dir, &[], &[]).assert_fails(2, &[BAD, "cannot be read: Permission denied"]);
    assert!(!dir.exists("merged.safetensors"));
}

#[test]
fn path_that_does_not_exist() {
    let dir = round_of(sound);
    let before = dir.contents();
    for policy in ["fail", "skip"] {
        aggregate(&dir, &["--on-bad-update", policy], &["updates/client-1.safetensors"])
            .assert_fails(2, &["updates/client-1.safetensors: does not exist"]);
        dir.assert_unchanged_since(&before);
    }
}

#[test]
fn faults_of_many_files_are_reported_at_once() {
    let dir = round_of(sound);
    sound(1).cut_to(5).write(&dir);
    sound(4).meta("num_examples", "-3").meta("round", "x").write(&dir);
    let parts = [
        "updates/client-1.safetensors: file has 5 bytes",
        "updates/client-4.safetensors: metadata `num_examples` is `-3`",
        "updates/client-4.safetensors: metadata `round` is `x`",
        "hint: pass --on-bad-update skip to merge the other",
    ];
    aggregate(&dir, &[], &[]).assert_fails(2, &parts);
}

#[test]
fn every_update_rejected() {
    let dir = Dir::new();
    bad().cut_to(9).write(&dir);
    let skip = ["--on-bad-update", "skip", "--report", "report.json"];
    aggregate(&dir, &[], &skip).assert_fails(1, &["refused: 0 usable updates (1 rejected)"]);
    assert_eq!(dir.json("report.json")["published"], false);
    assert!(!dir.exists("merged.safetensors"));
}
