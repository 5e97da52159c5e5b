//! Outputs that cannot be written, or must not be.
//!
//! Each ends the run with status 2 and leaves the folder unchanged.

use crate::bad_input::sound;
use crate::bad_request::{assert_ends, assert_refused, round};
use crate::harness::{Dir, Update, fedmill, fedmill_after};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};

#[test]
fn output_that_cannot_stand_there() {
    let dir = round();
    let merge = |to| ["aggregate", "updates", "-o", to];
    let parts = ["nowhere: directory does not exist", "hint: mkdir -p nowhere"];
    assert_ends(&dir, &merge("nowhere/merged.safetensors"), &parts);
    assert_ends(&dir, &merge("updates"), &["updates: is a directory, expected a file name"]);
    assert_ends(&dir, &merge("base.safetensors/merged"), &["base.safetensors: directory does not exist"]);
    symlink("updates", dir.path("linked")).unwrap();
    assert_ends(&dir, &merge("linked"), &["linked: is a directory"]);
}

#[test]
fn output_that_is_no_regular_file() {
    let dir = round();
    mknodat(CWD, dir.path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert_ends(&dir, &["aggregate", "updates", "-o", "pipe"], &["pipe: "]);
    assert!(fs::metadata(dir.path("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn output_that_is_named_as_an_index() {
    let dir = round();
    let name = "merged.safetensors.index.json";
    assert_ends(&dir, &["aggregate", "updates", "-o", name], &[name]);
}

#[test]
fn output_that_is_an_input() {
    let dir = round();
    dir.write("weights", "client-0 1\nclient-2 1\nclient-3 1\n");
    dir.write("list", "updates\n");
    symlink("base.safetensors", dir.path("link")).unwrap();
    fs::hard_link(dir.path("updates/client-0.safetensors"), dir.path("hard")).unwrap();
    let inputs = ["--base", "base.safetensors", "--weights", "weights", "--files-from", "list"];
    let targets = [
        "updates/client-2.safetensors",
        "./updates/../updates/client-2.safetensors",
        "base.safetensors",
        "weights",
        "list",
        "link",
        "hard",
    ];
    for target in targets {
        let part = format!("{target}: is also an input, expected another output path");
        let args = [&["aggregate", "-o", target], &inputs[..]].concat();
        assert_ends(&dir, &args, &[&part]);
        let args = [&["aggregate", "-o", "merged.safetensors", "--report", target], &inputs[..]].concat();
        assert_ends(&dir, &args, &[&part]);
    }
}

#[test]
fn output_that_is_an_input_by_its_shards() {
    let dir = round();
    let sharded = ["aggregate", "updates", "-o", "model.safetensors", "--max-shard-size", "20"];
    fedmill(&dir, &sharded).assert_merged("model.safetensors.index.json");
    let args = [&sharded[..], &["--base", "model.safetensors.index.json"]].concat();
    assert_ends(&dir, &args, &["is also an input"]);
    let args = ["aggregate", "updates", "--base", "model.safetensors.index.json", "-o", "model.safetensors"];
    assert_ends(&dir, &args, &["is also an input"]);
    let args = ["aggregate", "model.safetensors.index.json", "-o", "model-00001-of-00002.safetensors"];
    assert_ends(&dir, &args, &["is also an input"]);
}

#[test]
fn output_that_is_a_rejected_input() {
    let dir = round();
    sound(1).cut_to(5).write(&dir);
    let skip = ["--on-bad-update", "skip"];
    let args = [&["aggregate", "updates", "-o", "updates/client-1.safetensors"], &skip[..]].concat();
    assert_ends(&dir, &args, &["updates/client-1.safetensors: is also an input"]);
}

#[test]
fn output_into_the_folder_of_the_updates_works_once() {
    let dir = round();
    let args = ["aggregate", "updates", "-o", "updates/merged.safetensors"];
    fedmill(&dir, &args).assert_merged("updates/merged.safetensors");
    assert_ends(&dir, &args, &["updates/merged.safetensors: is also an input"]);
}

#[test]
fn report_that_is_the_output() {
    let dir = round();
    let report = |to| ["--report", to];
    assert_refused(&dir, &report("merged.safetensors"), &["merged.safetensors"]);
    let index = "merged.safetensors.index.json";
    assert_refused(&dir, &[&report(index)[..], &["--max-shard-size", "20"]].concat(), &[index]);
}

#[test]
fn report_that_is_the_output_by_another_path() {
    let dir = round();
    assert_refused(&dir, &["--report", "./merged.safetensors"], &["merged.safetensors"]);
    assert_refused(&dir, &["--report", "updates/../merged.safetensors"], &["merged.safetensors"]);
}

#[test]
fn report_that_cannot_be_written() {
    let dir = round();
    assert_refused(&dir, &["--report", "nowhere/report.json"], &["nowhere"]);
    assert_refused(&dir, &["--report", "updates"], &["updates"]);
}

#[test]
fn disk_full_for_the_model() {
    let dir = Dir::new();
    for client in 0..2 {
        Update::new(&format!("updates/{client}")).f32("w", &[50_000], &[1.0; 50_000]).write(&dir);
    }
    let before = dir.contents();
    let args = ["aggregate", "updates", "-o", "merged.safetensors"];
    let parts = ["merged.safetensors: cannot be written: File too large"];
    for setup in ["ulimit -f 100", "trap '' XFSZ && ulimit -f 100"] {
        fedmill_after(&dir, setup, &args).assert_fails(2, &parts);
        dir.assert_unchanged_since(&before);
        let sharded = [&args[..], &["--max-shard-size", "100KB"]].concat();
        fedmill_after(&dir, setup, &sharded).assert_fails(2, &parts);
        dir.assert_unchanged_since(&before);
    }
    dir.write("merged.safetensors", "the model before");
    let before = dir.contents();
    fedmill_after(&dir, "ulimit -f 100", &args).assert_fails(2, &parts);
    dir.assert_unchanged_since(&before);
}

#[test]
fn disk_full_for_the_report() {
    let dir = Dir::new();
    for client in 0..8 {
        Update::new(&format!("updates/{client}")).f32("w", &[1], &[1.0]).write(&dir);
    }
    let before = dir.contents();
    let args = ["aggregate", "updates", "-o", "merged.safetensors", "--report", "report.json"];
    fedmill_after(&dir, "ulimit -f 1", &args).assert_fails(2, &["report.json: cannot be written"]);
    dir.assert_unchanged_since(&before);
}
