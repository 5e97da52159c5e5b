//! Pipes and devices in place of the files of a federation: no command waits for one.

use super::federation::{Federation, STATE};
use crate::harness::{Dir, fedmill};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;

const TWO: &str = "[coordination]\nmin_clients = 2\nclients = 2\nround_timeout = \"1h\"\n\
                   [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

/// Puts a pipe in the place of a file.
fn pipe(dir: &Dir, name: &str) {
    let path = dir.path(name);
    if path.symlink_metadata().is_ok() {
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[track_caller]
fn assert_refuses(dir: &Dir, file: &str, args: &[&str]) {
    let run = fedmill(dir, args);
    let named = file.rsplit('/').next().unwrap();
    assert_eq!(run.code, Some(2), "{args:?} with a pipe as {file}: {run:#?}");
    assert!(
        run.stderr.contains(named) && run.stderr.contains("not a regular file"),
        "{args:?} with a pipe as {file}: {run:#?}"
    );
}

#[test]
fn no_command_waits_for_a_pipe_in_place_of_a_file() {
    let federation = Federation::new(2, TWO);
    let dir = &federation.dir;
    federation.advance();
    dir.write("row.json", r#"{"node_id":"x","compute_capability":9,"data_size":99,"connection_quality":1}"#);
    let sound = dir.contents();
    let cases: &[(&str, &[&str])] = &[
        ("fed/fedmill.toml", &["round", "run", STATE]),
        ("fed/fedmill.toml", &["round", "check", STATE]),
        ("fed/fedmill.toml", &["round", "status", STATE]),
        ("fed/clients.db", &["clients", "list", STATE]),
        ("fed/clients.db", &["clients", "add", STATE, "row.json"]),
        ("fed/rounds/000001/journal.jsonl", &["round", "run", STATE]),
        ("fed/rounds/000001/journal.jsonl", &["round", "history", STATE]),
        ("fed/rounds/000001/collect.json", &["round", "run", STATE]),
        ("row.json", &["clients", "add", STATE, "row.json"]),
        ("rows.csv", &["clients", "import", STATE, "rows.csv"]),
        ("model.safetensors", &["round", "init", "other", "--model", "model.safetensors"]),
        ("plan.json", &["plan", "lint", "plan.json"]),
        ("plan.json", &["plan", "run", "plan.json"]),
    ];
    for (file, args) in cases {
        pipe(dir, file);
        assert_refuses(dir, file, args);
        fs::remove_file(dir.path(file)).unwrap();
        dir.restore(&sound);
    }
    federation.configure(&format!("{TWO}[tiers]\nfile = \"tiers.json\"\n"));
    pipe(dir, "fed/tiers.json");
    let check = federation.round("check", &[]);
    assert!(check.code == Some(1) && check.stdout.contains("not a regular file"), "{check:#?}");
    federation.deliver(1, 0);
    assert_refuses(dir, "fed/tiers.json", &["round", "run", STATE]);
}

#[test]
fn no_command_reads_a_device_without_end() {
    let federation = Federation::new(2, TWO);
    let settings = federation.dir.path(&format!("{STATE}/fedmill.toml"));
    fs::remove_file(&settings).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &settings).unwrap();
    assert_refuses(&federation.dir, "fed/fedmill.toml", &["round", "run", STATE]);
}
