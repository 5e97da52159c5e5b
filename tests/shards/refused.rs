//! Refused commands: they write nothing, end with status 2, and name the files.

use super::{DECISION, Kind, combine, decide, model, run, write_round};
use crate::harness::{Contents, Dir, Update, fedmill, without_digest};
use safetensors::SafeTensors;
use std::fs;

const KRUM: [&str; 4] = ["--rule", "krum", "--byzantine", "2"];
const MERGE: [&str; 6] = ["merge", "-q", "in", "-o", "m.safetensors", "--partials"];

/// A round before `merge`: three shard files with geometry, and three with values.
fn whole_round() -> Dir {
    let dir = Dir::new();
    write_round(&dir, 7, Kind::Weights);
    decide(&dir, &KRUM, &[], 3);
    combine(&dir, &KRUM, &DECISION, 3);
    dir
}

#[track_caller]
fn assert_refused(dir: &Dir, args: &[&str], parts: &[&str]) {
    let before: Contents = dir.contents();
    fedmill(dir, args).assert_fails(2, parts);
    dir.assert_unchanged_since(&before);
}

fn merging<'a>(partials: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&MERGE, partials, &KRUM, more].concat()
}

const ALL: [&str; 3] = ["c/1.safetensors", "c/2.safetensors", "c/3.safetensors"];

#[test]
fn partials_that_are_not_every_section_once_are_refused() {
    let dir = whole_round();
    let [one, two, three] = ALL;
    assert_refused(&dir, &merging(&[one, three], &DECISION), &["no shard file holds", one, three, "hint:"]);
    assert_refused(&dir, &merging(&[two, three], &DECISION), &["no shard file holds section 0,", two]);
    assert_refused(&dir, &merging(&[two, one], &DECISION), &["no shard file holds", two]);
    assert_refused(&dir, &merging(&[one, two, three, two], &DECISION), &["both hold", two]);
    fs::copy(dir.path(two), dir.path("again.safetensors")).unwrap();
    let twice = [one, two, three, "again.safetensors"];
    assert_refused(&dir, &merging(&twice, &DECISION), &["both hold", two, "again.safetensors"]);
    run(&dir, "combine", &KRUM, &[&["--shard", "1/2"], &DECISION[..]].concat(), "wide.safetensors");
    let overlapping = ["wide.safetensors", two, three];
    assert_refused(&dir, &merging(&overlapping, &DECISION), &["overlap", "wide.safetensors", two]);
    let looks = ["decide", "-q", "in", "-o", "x.json", "--partials", "g/1.safetensors", "g/3.safetensors"];
    assert_refused(&dir, &[&looks, &KRUM[..]].concat(), &["g/1.safetensors", "g/3.safetensors"]);
}

/// Both formats use the same metadata key.
#[test]
fn a_shard_file_is_no_partial_of_a_tree_nor_the_reverse() {
    let dir = whole_round();
    let [one, two, three] = ALL;
    let mean = ["aggregate", "-q", "-o", "x.safetensors", "in", "--partials", one];
    assert_refused(&dir, &mean, &[one, "shard file of shard 1/3", "fedmill merge"]);
    let update = ["aggregate", "-q", "-o", "x.safetensors", "in", one];
    assert_refused(&dir, &update, &[one, "`fedmill.shard` marks a shard file", "hint: `fedmill decide`"]);
    let leaf = fedmill(&dir, &["aggregate", "-q", "--partial", "-o", "leaf.safetensors", "in"]);
    assert_eq!(leaf.code, Some(0), "{leaf:#?}");
    let of_tree = "leaf.safetensors: is a partial of a tree, expected a shard file of `fedmill combine`";
    let mixed = merging(&["leaf.safetensors", two, three], &DECISION);
    assert_refused(&dir, &mixed, &[of_tree, "hint: `fedmill aggregate`"]);
}

/// A model of one section leaves two of three shards empty. Their files must still be there.
#[test]
fn empty_shards_are_missed_too() {
    let dir = Dir::new();
    for i in 0..7 {
        let values: Vec<f32> = (0..50).map(|j| super::value(i, j) as f32).collect();
        Update::new(&format!("in/client-{i}")).f32("w", &[50], &values).write(&dir);
    }
    decide(&dir, &KRUM, &[], 3);
    combine(&dir, &KRUM, &DECISION, 3);
    let [one, two, three] = ALL;
    assert_refused(&dir, &merging(&[two, three], &DECISION), &["no shard file is of shard 1/3", "hint:"]);
    fs::copy(dir.path(one), dir.path("again.safetensors")).unwrap();
    let twice = [one, two, three, "again.safetensors"];
    assert_refused(&dir, &merging(&twice, &DECISION), &["both are of shard 1/3", "again.safetensors"]);
    let looks = ["decide", "-q", "in", "-o", "x.json", "--partials", "g/1.safetensors", "g/3.safetensors"];
    assert_refused(&dir, &[&looks, &KRUM[..]].concat(), &["no shard file is of shard 2/3"]);
    run(&dir, "merge", &KRUM, &[&["--partials"], &ALL[..], &DECISION].concat(), "m.safetensors");
}

#[test]
fn partials_of_another_rule_are_strangers() {
    let dir = whole_round();
    let [one, two, three] = ALL;
    let other = ["--rule", "multi-krum", "--byzantine", "2"];
    decide(&dir, &other, &[], 3);
    let combined = [&other[..], &DECISION].concat();
    run(&dir, "combine", &combined, &["--shard", "2/3"], "other.safetensors");
    decide(&dir, &KRUM, &[], 3);
    let parts = ["other.safetensors", "its rule is `multi-krum", "that of this run is `krum`", "hint:"];
    assert_refused(&dir, &merging(&[one, "other.safetensors", three], &DECISION), &parts);
    let seeded = merging(&[one, two, three], &["--seed", "5"]);
    assert_refused(&dir, &[&seeded[..], &DECISION].concat(), &["d.json", "its seed is `0`"]);
    let looks = ["decide", "-q", "in", "-o", "x.json", "--partials", "g"];
    assert_refused(&dir, &[&looks, &other[..]].concat(), &["g/1.safetensors", "its rule is `krum`"]);
    let signs = [&looks, &KRUM[..], &["--metrics", "signs"]].concat();
    assert_refused(&dir, &signs, &["g/1.safetensors", "its look.signs is `false`"]);
}

#[test]
fn partials_of_other_updates_are_strangers() {
    let parts = |what: &str| ["c/1.safetensors".to_owned(), format!("its {what} is")];
    let refused = |dir: &Dir, more: &[&str], what: &str| {
        // Without a decision, so that the shard files themselves are refused.
        let args = [&MERGE[..], &ALL, &["--rule", "median"], more].concat();
        assert_refused(dir, &args, &parts(what).each_ref().map(String::as_str));
    };
    let of_median = |more: &[&str]| {
        let dir = Dir::new();
        write_round(&dir, 7, Kind::Weights);
        combine(&dir, &[&["--rule", "median"], more].concat(), &[], 3);
        dir
    };
    // The next round of the same clients: one of them sends other values.
    let dir = of_median(&[]);
    model("in/client-03", 77).meta("num_examples", "13.1").write(&dir);
    refused(&dir, &[], "updates");
    // One more client.
    let dir = of_median(&[]);
    model("in/client-99", 99).write(&dir);
    refused(&dir, &[], "clients");
    // Another base, and a base for a round without one.
    let base = ["--base", "base.safetensors"];
    let dir = of_median(&base);
    refused(&dir, &[], "base");
    model("base", 1001).write(&dir);
    refused(&dir, &base, "base");
}

#[test]
fn decisions_are_held_to_their_run() {
    let dir = whole_round();
    let without = merging(&ALL, &[]);
    assert_refused(
        &dir,
        &without,
        &["krum, --pre or the strategy compares whole updates", "--decision", "hint:"],
    );
    let combining = ["combine", "-q", "in", "-o", "x.safetensors", "--shard", "1/3"];
    assert_refused(
        &dir,
        &[&combining[..], &KRUM].concat(),
        &["krum, --pre or the strategy compares whole updates", "fedmill gram"],
    );
    // A decision in other bytes is another decision: its digest is in the shard files.
    let text = String::from_utf8(dir.read("d.json")).unwrap();
    let unsealed: Vec<&str> = text.split_inclusive('\n').filter(|line| !line.contains("blake3:")).collect();
    let unsealed = unsealed.concat();
    dir.write("other.json", unsealed.replace("\"warnings\": []", "\"warnings\": [\"edited\"]").into_bytes());
    let other = merging(&ALL, &["--decision", "other.json"]);
    assert_refused(&dir, &other, &["c/1.safetensors", "its decision is"]);
    for (name, bytes) in [("cut.json", &text.as_bytes()[..text.len() / 2]), ("empty.json", b"{}")] {
        dir.write(name, bytes);
        let args = [&combining[..], &KRUM, &["--decision", name]].concat();
        assert_refused(&dir, &args, &[name, "is not a decision"]);
    }
    assert_refused(&dir, &merging(&["g"], &DECISION), &["g/1.safetensors", "`gram/1`, expected `combine/1`"]);
    assert_refused(&dir, &merging(&["in"], &DECISION), &["in/client-00.safetensors", "fedmill.partial"]);
}

#[test]
fn cut_off_partials_are_refused() {
    let dir = whole_round();
    for name in ["g/2.safetensors", "c/2.safetensors"] {
        let whole = dir.read(name);
        let looks = [&["decide", "-q", "in", "-o", "x.json", "--partials", "g"], &KRUM[..]].concat();
        let args = if name.starts_with('g') { looks } else { merging(&["c"], &DECISION) };
        for bytes in [0, 7, 100, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
            dir.write(name, &whole[..bytes]);
            assert_refused(&dir, &args, &[name, "cannot be used"]);
        }
        dir.write(name, &whole);
    }
}

/// The offset of a tensor's data in a file.
fn start_of(bytes: &[u8], tensor: &str) -> usize {
    let (header, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    8 + header + metadata.info(tensor).unwrap().data_offsets.0
}

#[test]
fn sums_that_are_no_numbers_are_refused() {
    let dir = whole_round();
    let args = [&["decide", "-q", "in", "-o", "x.json", "--partials", "g"], &KRUM[..]].concat();
    let whole = without_digest(&dir.read("g/2.safetensors"));
    for (tensor, value) in [("usual.products", f64::NAN), ("usual.squares", f64::INFINITY)] {
        let mut bytes = whole.clone();
        let start = start_of(&bytes, tensor) + 16;
        bytes[start..start + 8].copy_from_slice(&value.to_le_bytes());
        dir.write("g/2.safetensors", &bytes);
        assert_refused(&dir, &args, &["g/2.safetensors", tensor, "expected a finite number", "hint:"]);
    }
    // Sums whose branches are not those of the file's sections.
    let mut bytes = whole.clone();
    let start = start_of(&bytes, "usual.branches");
    bytes[start..start + 8].copy_from_slice(&40u64.to_le_bytes());
    dir.write("g/2.safetensors", &bytes);
    assert_refused(&dir, &args, &["g/2.safetensors", "branches"]);
}

#[test]
fn shards_that_do_not_exist_are_refused() {
    let dir = Dir::new();
    write_round(&dir, 7, Kind::Weights);
    for shard in ["0/3", "4/3", "1/0", "1", "x/y"] {
        let args = ["gram", "in", "-o", "x.safetensors", "--shard", shard];
        assert_refused(&dir, &args, &[&format!("found `{shard}`"), "expected I/S"]);
    }
    let own = ["combine", "in", "--shard", "1/1", "-o", "in/client-00.safetensors"];
    assert_refused(&dir, &own, &["is also an input"]);
}

#[test]
fn an_update_that_one_shard_finds_bad_is_an_error_for_it() {
    let dir = Dir::new();
    write_round(&dir, 7, Kind::Weights);
    let mut bytes = dir.read("in/client-04.safetensors");
    let start = start_of(&bytes, "a.long");
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    dir.write("in/client-04.safetensors", &bytes);
    let parts = ["in/client-04.safetensors: tensor `a.long`", "NaN", "hint: the other shards still use it"];
    for skip in [&[][..], &["--on-bad-update", "skip"]] {
        let gram = ["gram", "-q", "in", "-o", "x.safetensors", "--shard", "1/3"];
        assert_refused(&dir, &[&gram[..], &KRUM, skip].concat(), &parts);
        let combine = ["combine", "-q", "in", "-o", "x.safetensors", "--shard", "1/3", "--rule", "median"];
        assert_refused(&dir, &[&combine[..], skip].concat(), &parts);
    }
    // A shard without the bad value is sound.
    run(&dir, "combine", &["--rule", "median"], &["--shard", "3/3"], "x.safetensors");
}

#[test]
fn rules_that_need_a_third_pass_are_refused() {
    let dir = Dir::new();
    write_round(&dir, 7, Kind::Weights);
    let args =
        ["gram", "in", "-o", "x.safetensors", "--shard", "1/2", "--rule", "distance-trim", "--pre", "nnm"];
    assert_refused(&dir, &args, &["distance-trim needs the coordinate median", "hint:", "fedmill aggregate"]);
}
