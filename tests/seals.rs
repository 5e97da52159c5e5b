//! Files that carry a digest: damage to any part of them is found before their content is used.

use crate::harness::{Dir, Model, Update, fedmill, without_digest};
use std::fs;

/// The digest of a file with zeros in place of the digits of the digest that it carries.
fn digest_of(bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    if let Some(at) = find(&bytes, "\"blake3:") {
        bytes[at + 8..at + 72].fill(b'0');
    }
    format!("blake3:{}", blake3::hash(&bytes).to_hex())
}

fn stated(bytes: &[u8]) -> String {
    let at = find(bytes, "\"blake3:").expect("a digest") + 1;
    String::from_utf8_lossy(&bytes[at..at + 71]).into_owned()
}

fn find(bytes: &[u8], text: &str) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text.as_bytes())
}

/// The bytes with the lowest bit of one byte flipped.
fn flipped_at(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// The same for the byte at `offset` behind the start of `text`.
fn flipped(bytes: &[u8], text: &str, offset: usize) -> Vec<u8> {
    flipped_at(bytes, find(bytes, text).unwrap_or_else(|| panic!("no {text}")) + offset)
}

/// Damaged copies of a safetensors file, and what is said of each.
fn damaged(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>, Vec<String>)> {
    let expected = format!("expected {}", stated(bytes));
    let mut cases = Vec::new();
    let mut differs = |what, broken: Vec<u8>| {
        let found = format!("its digest is {}", digest_of(&broken));
        let parts = vec![found, expected.clone(), "hint:".to_owned()];
        cases.push((what, broken, parts));
    };
    // A key stands behind the last value of the metadata, and is the name of a tensor.
    let metadata = find(bytes, "\"},\"").unwrap();
    differs("a value", flipped_at(bytes, bytes.len() - 1));
    differs("a text of the metadata", flipped_at(bytes, metadata - 1));
    differs("the name of a tensor", flipped_at(bytes, metadata + 4));
    differs("the key that says that there is a digest", flipped(bytes, "fedmill.sealed", 8));
    let name = flipped(bytes, "\"fedmill.digest", 9);
    cases.push(("the key of the digest", name, vec!["metadata `fedmill.digest` is missing".to_owned()]));
    let digest = flipped(bytes, "\"blake3:", 8);
    let parts = vec![format!("its digest is {}", stated(bytes)), format!("expected {}", stated(&digest))];
    cases.push(("the digest", digest, parts));
    cases.push(("the length of the header", flipped_at(bytes, 1), Vec::new()));
    cases.push(("the end", bytes[..bytes.len() - 5].to_vec(), vec!["truncated".to_owned()]));
    cases
}

/// Fails unless a command takes a sound file, finds damage to each part of it, and warns of one without a digest.
#[track_caller]
fn assert_sealed(dir: &Dir, file: &str, args: &[&str]) {
    let sound = dir.read(file);
    assert_eq!(digest_of(&sound), stated(&sound), "{file}");
    for (what, broken, parts) in damaged(&sound) {
        dir.write(file, &broken);
        let before = dir.contents();
        let parts: Vec<&str> = parts.iter().map(String::as_str).chain([file]).collect();
        println!("{file}: {what}");
        fedmill(dir, args).assert_fails(2, &parts);
        dir.assert_unchanged_since(&before);
    }
    dir.write(file, &sound);
    assert_taken(dir, file, args, &without_digest(&sound));
}

/// Fails unless a command takes a sound file, and warns once of one without a digest.
#[track_caller]
fn assert_taken(dir: &Dir, file: &str, args: &[&str], unsealed: &[u8]) {
    let before = dir.contents();
    let run = fedmill(dir, args);
    assert_eq!((run.code, run.stderr.contains("no digest")), (Some(0), false), "{run:#?}");
    dir.restore(&before);
    dir.write(file, unsealed);
    let run = fedmill(dir, args);
    let warning = format!("{file}: no digest in the file");
    assert_eq!((run.code, run.stderr.matches(&warning).count()), (Some(0), 1), "{run:#?}");
}

/// Three updates and their base.
fn round() -> Dir {
    let dir = Dir::new();
    Update::new("base").f32("w", &[4], &[1.0; 4]).f32("b", &[2], &[0.0; 2]).write(&dir);
    for (i, client) in ["ada", "bob", "cy"].iter().enumerate() {
        let x = i as f32;
        Update::new(&format!("in/{client}"))
            .f32("w", &[4], &[x, 1.0 + x, 2.0, -x])
            .f32("b", &[2], &[x / 3.0, 0.5])
            .meta("num_examples", "10")
            .write(&dir);
    }
    dir
}

#[track_caller]
fn run(dir: &Dir, args: &[&str]) {
    let run = fedmill(dir, args);
    assert_eq!(run.code, Some(0), "{run:#?}");
}

const STEP: [&str; 10] = [
    "aggregate",
    "in",
    "--strategy",
    "fedadam:lr=0.1",
    "--state",
    "s.safetensors",
    "--kind",
    "weights",
    "-o",
    "m.safetensors",
];

#[test]
fn a_state_and_the_state_before_are_sealed() {
    let dir = round();
    run(&dir, &[&STEP[..], &["--base", "base.safetensors"]].concat());
    let first = (dir.read("m.safetensors"), dir.read("s.safetensors"));
    run(&dir, &[&STEP[..], &["--base", "base.safetensors"]].concat());
    assert!(first == (dir.read("m.safetensors"), dir.read("s.safetensors")), "two runs give the same bytes");
    dir.write("next.safetensors", &first.0);
    let next = [&STEP[..], &["--base", "next.safetensors"]].concat();
    assert_sealed(&dir, "s.safetensors", &next);
    dir.write("s.safetensors", without_digest(&first.1));
    run(&dir, &[&next[..], &["--report", "r.json"]].concat());
    assert!(dir.json("r.json")["warnings"].to_string().contains("s.safetensors: no digest in the file"));
    // The same round again finds the state of its base beside the state.
    dir.write("s.safetensors", &first.1);
    run(&dir, &next);
    assert!(dir.read("s.safetensors.previous") == first.1);
    assert_sealed(&dir, "s.safetensors.previous", &next);
}

#[test]
fn a_damaged_partial_is_a_fault_of_that_partial() {
    let dir = round();
    let leaf = |output| ["aggregate", "--partial", "in/ada.safetensors", "in/bob.safetensors", "-o", output];
    run(&dir, &leaf("p.safetensors"));
    run(&dir, &leaf("again.safetensors"));
    let sound = dir.read("p.safetensors");
    assert!(sound == dir.read("again.safetensors"), "two runs give the same bytes");
    let root = ["aggregate", "in/cy.safetensors", "--partials", "p.safetensors", "-o", "m.safetensors"];
    assert_sealed(&dir, "p.safetensors", &root);
    dir.write("p.safetensors", &sound);
    run(&dir, &root);
    let metadata = Model::read(&dir, "m.safetensors").metadata;
    assert!(metadata.keys().all(|key| !key.contains("digest") && !key.contains("sealed")), "{metadata:?}");
    for (what, broken, _) in damaged(&sound) {
        dir.write("p.safetensors", &broken);
        let skipped = fedmill(&dir, &[&root[..], &["--on-bad-update", "skip"]].concat());
        assert_eq!(skipped.code, Some(0), "{what}: {skipped:#?}");
        assert!(skipped.stderr.contains("skipped p.safetensors: "), "{what}: {skipped:#?}");
        run(&dir, &["aggregate", "in/cy.safetensors", "-o", "alone.safetensors"]);
        assert!(dir.read("m.safetensors") == dir.read("alone.safetensors"), "{what}");
    }
}

/// Each file of a partial is sound, but they are of two partials.
#[test]
fn files_of_two_partials_do_not_make_one() {
    let dir = round();
    let leaf = |output| {
        let cut = ["--max-shard-size", "40", "-o", output];
        run(
            &dir,
            &[&["aggregate", "--partial", "in/ada.safetensors", "in/bob.safetensors"], &cut[..]].concat(),
        );
    };
    leaf("p.safetensors");
    Update::new("in/bob")
        .f32("w", &[4], &[9.0; 4])
        .f32("b", &[2], &[9.0; 2])
        .meta("num_examples", "10")
        .write(&dir);
    leaf("q.safetensors");
    let names = dir.names();
    let files: Vec<&String> = names.iter().filter(|name| name.starts_with("p-0")).collect();
    assert!(files.len() > 1, "{names:?}");
    let root =
        ["aggregate", "in/cy.safetensors", "--partials", "p.safetensors.index.json", "-o", "m.safetensors"];
    run(&dir, &root);
    fs::copy(dir.path(&files[0].replace("p-", "q-")), dir.path(files[0])).unwrap();
    fedmill(&dir, &root).assert_fails(2, &["p.safetensors.index.json", "`fedmill.digest`", "blake3:"]);
}

#[test]
fn a_sum_without_noise_is_sealed() {
    let dir = round();
    let plan = ["--population", "100", "--epsilon", "8", "--delta", "1e-3", "--rounds", "5", "--clip", "2"];
    let init =
        [&["privacy", "init", "budget", "--denominator", "40", "--base", "base.safetensors"], &plan[..]];
    run(&dir, &init.concat());
    let step = |command, output, input| {
        let shared = ["privacy", command, "budget", "--base", "base.safetensors", "--round", "1"];
        [&shared[..], &["-o", output, input]].concat()
    };
    run(&dir, &step("clip", "one.safetensors", "in/ada.safetensors"));
    run(&dir, &step("clip", "again.safetensors", "in/ada.safetensors"));
    assert!(dir.read("one.safetensors") == dir.read("again.safetensors"), "two runs give the same bytes");
    assert_sealed(&dir, "one.safetensors", &step("sum", "all.safetensors", "one.safetensors"));
    assert_sealed(&dir, "all.safetensors", &step("noise", "m.safetensors", "all.safetensors"));
}

#[test]
fn shard_files_and_decisions_are_sealed() {
    let dir = round();
    let krum = ["in", "--rule", "krum", "--byzantine", "0"];
    let command = |name: &'static str, output: &'static str, more: &[&'static str]| {
        [&[name][..], &krum, &["-o", output], more].concat()
    };
    let gram = command("gram", "g.safetensors", &["--shard", "1/1"]);
    let decide = command("decide", "d.json", &["--partials", "g.safetensors"]);
    let combine = command("combine", "c.safetensors", &["--shard", "1/1", "--decision", "d.json"]);
    let merge = command("merge", "m.safetensors", &["--partials", "c.safetensors", "--decision", "d.json"]);
    run(&dir, &gram);
    let first = dir.read("g.safetensors");
    run(&dir, &gram);
    assert!(first == dir.read("g.safetensors"), "two runs give the same bytes");
    assert_sealed(&dir, "g.safetensors", &decide);
    dir.write("g.safetensors", &first);
    run(&dir, &decide);
    let decision = dir.read("d.json");
    run(&dir, &decide);
    assert!(decision == dir.read("d.json"), "two runs give the same bytes");
    run(&dir, &combine);
    assert_sealed(&dir, "c.safetensors", &merge);
    run(&dir, &combine);
    for args in [&combine, &merge] {
        assert_decision_is_sealed(&dir, args);
    }
}

#[track_caller]
fn assert_decision_is_sealed(dir: &Dir, args: &[&str]) {
    let sound = dir.read("d.json");
    assert_eq!(digest_of(&sound), stated(&sound));
    let changed = flipped(&sound, "\"weights\"", 10);
    let digest = flipped(&sound, "\"blake3:", 8);
    for (broken, found, expected) in [
        (flipped(&sound, "krum", 0), None, None),
        (flipped(&sound, "\"digest", 1), Some("unknown field `eigest`".to_owned()), None),
        (digest.clone(), Some(stated(&sound)), Some(stated(&digest))),
        (sound[..sound.len() - 1].to_vec(), None, Some(stated(&sound))),
        (sound[..sound.len() / 2].to_vec(), Some("EOF".to_owned()), None),
        (changed, None, None),
    ] {
        dir.write("d.json", &broken);
        let parts = [found, expected].map(Option::unwrap_or_default);
        fedmill(dir, args).assert_fails(2, &["d.json", &parts[0], &parts[1]]);
    }
    dir.write("d.json", &sound);
    let text = String::from_utf8(sound.clone()).unwrap();
    let lines =
        text.lines().filter(|line| !line.starts_with("  \"digest\": ")).map(|line| format!("{line}\n"));
    let unsealed: String = lines.collect();
    // The files of shards name their decision, so a decision without a digest needs other shards.
    if args.contains(&"combine") {
        assert_taken(dir, "d.json", args, unsealed.as_bytes());
        dir.write("d.json", &sound);
        run(dir, args);
    }
}

#[test]
fn a_residual_and_the_residual_before_are_sealed() {
    let dir = Dir::new();
    for round in ["1", "2"] {
        let values: Vec<f32> = (0..700).map(|j| (j % 101) as f32 / 500.0 - 0.1).collect();
        Update::new(&format!("in-{round}"))
            .f32("w", &[70, 10], &values)
            .f32("b", &[2], &[0.5, 1.0])
            .meta("kind", "delta")
            .meta("client_id", "ada")
            .meta("round", round)
            .write(&dir);
    }
    let compress =
        |input, output| ["compress", "--codec", "u2", "--residual", "e.safetensors", input, "-o", output];
    run(&dir, &compress("in-1.safetensors", "out-1.safetensors"));
    let first = dir.read("e.safetensors");
    run(&dir, &compress("in-1.safetensors", "out-1.safetensors"));
    assert!(first == dir.read("e.safetensors"), "two runs give the same bytes");
    let next = compress("in-2.safetensors", "out-2.safetensors");
    assert_sealed(&dir, "e.safetensors", &next);
    dir.write("e.safetensors", &first);
    run(&dir, &next);
    assert!(dir.read("e.safetensors.previous") == first);
    assert_sealed(&dir, "e.safetensors.previous", &next);
}
