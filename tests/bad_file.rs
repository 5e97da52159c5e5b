//! Files that are no models: cut off, with false headers, with shard indexes that do not fit.
//!
//! The tests use each as `bad_input` uses a bad update.

use crate::bad_input::{BAD, aggregate, assert_rejected, assert_rejected_with, bad, named, round_of, sound};
use crate::harness::{Dir, Update, fedmill_after};
use std::fs::{self, File};

#[test]
fn file_cut_off() {
    let bytes = bad().bytes().len();
    assert_rejected(&bad().cut_to(0), &["file has 0 bytes, expected at least the 8"]);
    assert_rejected(&bad().cut_to(7), &["file has 7 bytes"]);
    assert_rejected(&bad().cut_to(8), &["header claims", "but the file has only 0 more"]);
    assert_rejected(&bad().cut_to(100), &["header claims", "but the file has only 92 more"]);
    let parts = ["tensor `fc.weight`: data ends at byte 32", "only 31 bytes of data (truncated?)"];
    assert_rejected(&bad().cut_to(bytes - 1), &parts);
    let parts = ["tensor `fc.weight`: data ends at byte 32", "tensor `fc.bias`: data ends at byte 8"];
    assert_rejected(&bad().cut_to(bytes - 32), &parts);
}

#[test]
fn header_of_wrong_length() {
    assert_rejected(&bad().length(5000), &["header claims 5000 bytes, but the file has only"]);
    assert_rejected(&bad().length(100_000_001), &["header claims 100000001 bytes, expected at most "]);
    assert_rejected(&bad().length(u64::MAX), &["header claims 18446744073709551615 bytes"]);
    assert_rejected(&bad().length(0), &["header is not a JSON object"]);
    assert_rejected(&bad().length(20), &["header is not a JSON object"]);
}

#[test]
fn header_that_is_no_object() {
    for header in ["", "[]", "null", "{", "{}}", "{\"a\":}", "{\"a\":1,}", "\u{feff}{}"] {
        assert_rejected(&Update::new(BAD).header(header), &["header is not a JSON object"]);
    }
    let bytes = [&8u64.to_le_bytes()[..], b"{\"\xff\xfe\":1}"].concat();
    let make = |dir: &Dir| dir.write("updates/client-1.safetensors", &bytes);
    assert_rejected_with(make, &[], &["header is not a JSON object", "utf-8"]);
}

/// An update with this header and eight bytes of data.
fn with_header(entries: &str) -> Update {
    Update::new(BAD).header(&format!("{{{entries}}}")).behind(&[0; 8])
}

#[test]
fn header_with_bad_offsets() {
    let two = |a: &str, b: &str| {
        with_header(&format!(
            r#""a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}"#
        ))
    };
    let parts = ["tensor `b`: data starts at byte 2, inside tensor `a` which ends at 4"];
    assert_rejected(&two("[0,4]", "[2,6]"), &parts);
    assert_rejected(&two("[0,4]", "[0,4]"), &["tensor `b`: data starts at byte 0, inside tensor `a`"]);
    assert_rejected(
        &two("[0,4]", "[8,12]"),
        &["tensor `b`: data ends at byte 12, but the file holds only 8"],
    );
    assert_rejected(&two("[1,5]", "[5,9]"), &["tensor `b`: data ends at byte 9"]);
    assert_rejected(&two("[4,0]", "[4,8]"), &["tensor `a`: offsets 4..0"]);
    assert_rejected(
        &two("[0,8]", "[4,8]"),
        &["tensor `a`: offsets 0..8 hold 8 bytes, expected 4 for U8 [4]"],
    );
    assert_rejected(&two("[0,-4]", "[4,8]"), &["tensor `a`: header entry is not understood"]);
    assert_rejected(&bad().behind(&[0; 4]), &["file holds 36 bytes of data, expected 32"]);
    let gap = with_header(r#""a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}"#);
    assert_rejected(&gap, &["tensor `a`: data starts at byte 4, expected 0"]);
}

#[test]
fn header_entries_not_understood() {
    let entry = |entry: &str| with_header(&format!(r#""a":{entry}"#));
    for text in ["1", "[]", "{}", r#"{"dtype":"F99","shape":[2],"data_offsets":[0,8]}"#] {
        assert_rejected(&entry(text), &["tensor `a`: header entry is not understood"]);
    }
    let complex = entry(r#"{"dtype":"C64","shape":[1],"data_offsets":[0,8]}"#);
    assert_rejected(&complex, &["tensor `a`: dtype C64 cannot be merged, expected one of F64, F32"]);
    let metadata = |text: &str| with_header(&format!(r#""__metadata__":{text}"#));
    assert_rejected(&metadata(r#"{"a":1}"#), &["metadata `a` is not a string"]);
    assert_rejected(&metadata("[]"), &["metadata is not a map of strings"]);
}

#[test]
fn header_with_a_key_twice() {
    let tensor = r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
    let other = r#""a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}"#;
    assert_rejected(&with_header(&format!("{tensor},{other}")), &["key `a` appears twice"]);
    let metadata = r#""__metadata__":{"x":"1"}"#;
    assert_rejected(&with_header(&format!("{metadata},{metadata}")), &["key `__metadata__` appears twice"]);
    let twice = with_header(r#""__metadata__":{"x":"1","x":"2"}"#);
    assert_rejected(&twice, &["key `__metadata__.x` appears twice"]);
}

#[test]
fn header_claims_more_than_memory_holds() {
    let claim = |shape: &str, end: u64| {
        with_header(&format!(r#""a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}"#))
    };
    let cases = [
        (claim("[1099511627776]", 1 << 42), "tensor `a`: data ends at byte 4398046511104"),
        (claim("[4611686018427387904,8]", 8), "tensor `a`: shape [4611686018427387904, 8] has more values"),
        (claim("[18446744073709551615]", 8), "tensor `a`: shape [18446744073709551615] has more values"),
        (bad().length(99_999_999), "header claims 99999999 bytes"),
    ];
    for (update, part) in cases {
        assert_rejected(&update, &[part]);
        let dir = round_of(sound);
        update.write(&dir);
        let run =
            fedmill_after(&dir, "ulimit -v 1500000", &["aggregate", "updates", "-o", "merged.safetensors"]);
        run.assert_fails(2, &[BAD, part]);
    }
}

#[test]
fn file_of_a_terabyte_is_not_read() {
    let dir = round_of(sound);
    let length = 1u64 << 40;
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
    let huge = Update::new(BAD).header(&header);
    huge.write(&dir);
    let file = File::options().write(true).open(dir.path("updates/client-1.safetensors")).unwrap();
    if file.set_len(length + huge.bytes().len() as u64).is_err() {
        eprintln!("not run: this file system has no sparse files of a terabyte");
        return;
    }
    let args = ["aggregate", "updates", "-o", "merged.safetensors", "--on-bad-update", "skip"];
    let run = fedmill_after(&dir, "ulimit -v 1500000", &args);
    run.assert_merged("merged.safetensors");
    assert!(run.stderr.contains("tensor `a` is not expected"), "{}", run.stderr);
}

#[test]
fn header_over_the_limit_in_a_file_as_long() {
    let dir = round_of(sound);
    let name = "updates/client-1.safetensors";
    dir.write(name, 100_000_001u64.to_le_bytes());
    File::options().write(true).open(dir.path(name)).unwrap().set_len(150_000_000).unwrap();
    let run = aggregate(&dir, &[], &[]);
    run.assert_fails(2, &[BAD, "header claims 100000001 bytes, expected at most 4259840"]);
}

/// The bad client's update in two shards.
fn write_shards(dir: &Dir, index: &str) {
    let shard = |number: usize| Update::new(&format!("{BAD}-0000{number}-of-00002"));
    shard(1).f32("fc.bias", &[2], &[1.0, -1.0]).meta("num_examples", "10").write(dir);
    shard(2).f32("fc.weight", &[2, 3], &[0.5; 6]).meta("num_examples", "10").write(dir);
    dir.write(&format!("{BAD}.safetensors.index.json"), index);
}

fn weight_map(bias: &str, weight: &str) -> String {
    format!(r#"{{"weight_map":{{"fc.bias":"{bias}","fc.weight":"{weight}"}}}}"#)
}

#[test]
fn shard_index_not_understood() {
    for index in ["", "{", "[]", r#"{"metadata":{}}"#, r#"{"weight_map":{"fc.bias":1}}"#] {
        assert_rejected_with(|dir| write_shards(dir, index), &[], &["shard index is not understood"]);
    }
}

#[test]
fn shard_index_that_does_not_fit_its_shards() {
    const ONE: &str = "client-1-00001-of-00002.safetensors";
    const TWO: &str = "client-1-00002-of-00002.safetensors";
    let reject = |index: &str, parts: &[&str]| {
        assert_rejected_with(|dir| write_shards(dir, index), &[], parts);
    };
    reject(
        &weight_map(ONE, "client-1-00003-of-00003.safetensors"),
        &["shard client-1-00003-of-00003.safetensors: cannot be read: No such"],
    );
    reject(
        &weight_map(TWO, TWO),
        &[&format!("tensor `fc.bias`: the index places it in {TWO}, which does not hold it")],
    );
    reject(
        &format!(r#"{{"weight_map":{{"fc.bias":"{ONE}"}}}}"#),
        &["tensor `fc.weight` is missing, expected F32 [2, 3]"],
    );
    let both_in_one = |dir: &Dir| {
        write_shards(dir, &format!(r#"{{"weight_map":{{"fc.bias":"{ONE}"}}}}"#));
        named(&format!("{BAD}-00001-of-00002"), 1.0).write(dir);
        fs::remove_file(dir.path("updates").join(TWO)).unwrap();
    };
    let part = format!("tensor `fc.weight`: {ONE} holds it, but the index does not place it there");
    assert_rejected_with(both_in_one, &[], &[&part]);
    let cut_off = |dir: &Dir| {
        write_shards(dir, &weight_map(ONE, TWO));
        Update::new(&format!("{BAD}-00002-of-00002"))
            .f32("fc.weight", &[2, 3], &[0.5; 6])
            .cut_to(90)
            .write(dir);
    };
    assert_rejected_with(cut_off, &[], &[&format!("shard {TWO}: tensor `fc.weight`: data ends at byte 24")]);
    let contradicting = |dir: &Dir| {
        write_shards(dir, &weight_map(ONE, TWO));
        let two = Update::new(&format!("{BAD}-00002-of-00002")).f32("fc.weight", &[2, 3], &[0.5; 6]);
        two.meta("num_examples", "11").write(dir);
    };
    let part = "metadata `num_examples` is `10` in one shard and `11` in another";
    assert_rejected_with(contradicting, &[], &[part]);
}

#[test]
fn shard_index_that_reaches_elsewhere() {
    for name in ["../other.safetensors", "/etc/passwd", "..", ".", "", "sub/x.safetensors"] {
        let make = |dir: &Dir| {
            named("other", 1.0).write(dir);
            named("updates/sub/x", 1.0).write(dir);
            dir.write(&format!("{BAD}.safetensors.index.json"), weight_map(name, name));
        };
        let part = format!("shard index names `{name}`, expected a file beside it");
        assert_rejected_with(make, &[], &[&part]);
    }
}

#[test]
fn shard_index_that_names_the_file_of_another_client() {
    let other = "client-0.safetensors";
    let make = |dir: &Dir| dir.write(&format!("{BAD}.safetensors.index.json"), weight_map(other, other));
    assert_rejected_with(make, &[], &[other]);
}
