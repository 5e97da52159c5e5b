//! `data/mnist-round/client.py`, the whole client of the docs, on a federation of those clients.
//!
//! It needs Python with NumPy, safetensors and blake3 (`data/requirements.txt`). Without them the tests are skipped, or
//! fail if `FEDMILL_REQUIRE_CLIENT` is set.

use crate::harness::{Dir, Run, fedmill, program, skip, source_tree};
use std::path::PathBuf;
use std::process::Command;

/// The variable that makes missing packages a failure.
const REQUIRE: &str = "FEDMILL_REQUIRE_CLIENT";

/// The folder of the client program, if it runs here.
fn client_folder() -> Option<PathBuf> {
    let folder = source_tree()?.join("data/mnist-round");
    let packages = "import numpy, safetensors, blake3";
    let tried = Command::new("python3").args(["-c", packages]).output();
    let runs = tried.is_ok_and(|output| output.status.success());
    assert!(runs || std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and `{packages}` fails");
    if !runs {
        skip(&format!("`python3 -c '{packages}'` fails: pip install -r data/requirements.txt"));
    }
    runs.then_some(folder)
}

/// A federation of four clients, whose first round is open.
fn federation(folder: &std::path::Path) -> Dir {
    let dir = Dir::new();
    let model = folder.join("base.safetensors");
    fedmill(&dir, &["round", "init", "fed", "--model", model.to_str().unwrap()]);
    let row = |client: u64| {
        format!(
            "{{\"node_id\":\"client-0{client}\",\"compute_capability\":1,\"data_size\":9,\"connection_quality\":1}}\n"
        )
    };
    dir.write("clients.jsonl", (0..4).map(row).collect::<String>());
    fedmill(&dir, &["clients", "import", "fed", "clients.jsonl"]);
    dir.write(
        "fed/fedmill.toml",
        "[coordination]\nmin_clients = 2\nclients = 4\nquorum = 1.0\nround_timeout = \"1h\"\n\
         [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n",
    );
    run_round(&dir);
    dir
}

#[track_caller]
fn run_round(dir: &Dir) -> Run {
    let run = fedmill(dir, &["round", "run", "fed"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    run
}

/// Runs the program for all four clients.
fn clients(dir: &Dir, folder: &std::path::Path, more: &[&str]) -> (bool, Vec<String>, String) {
    let ids = (0..4).map(|client| format!("client-0{client}"));
    let done = Command::new("python3")
        .arg(folder.join("client.py"))
        .args(["fed", "homes"])
        .args(ids)
        .args(["--fedmill", &program()])
        .args(more)
        .current_dir(dir.path(""))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.success(), text(done.stdout).lines().map(str::to_owned).collect(), text(done.stderr))
}

/// The updates in the inbox of a round.
fn inbox(dir: &Dir, round: u64) -> usize {
    std::fs::read_dir(dir.path(&format!("fed/inbox/{round:06}"))).unwrap().count()
}

fn copy(dir: &Dir, from: &str, to: &str) {
    let _ = std::fs::remove_dir_all(dir.path(to));
    let done = Command::new("cp").arg("-a").arg(dir.path(from)).arg(dir.path(to)).status().unwrap();
    assert!(done.success());
}

#[test]
fn clients_take_part_round_after_round_and_again_after_a_restore() {
    let Some(folder) = client_folder() else { return };
    let dir = federation(&folder);
    let (is_done, lines, error) = clients(&dir, &folder, &[]);
    assert!(is_done && error.is_empty(), "{error}");
    assert!(lines.len() == 4 && lines[0].starts_with("client-00: round 1: "), "{lines:?}");
    let (_, lines, _) = clients(&dir, &folder, &[]);
    assert!(lines.is_empty(), "a delivered update is not sent twice: {lines:?}");
    assert!(run_round(&dir).stdout.starts_with("fed/models/"));
    // The second round, which the server then loses: a backup has it as it opened.
    copy(&dir, "fed", "backup");
    let (_, lines, error) = clients(&dir, &folder, &[]);
    assert!(lines.len() == 4 && error.is_empty(), "{lines:?} {error}");
    let model = run_round(&dir).stdout;
    copy(&dir, "backup", "fed");
    let (_, lines, _) = clients(&dir, &folder, &[]);
    assert!(lines.is_empty() && inbox(&dir, 2) == 0, "the clients believe that they are done: {lines:?}");
    let (is_done, lines, error) = clients(&dir, &folder, &["--again"]);
    assert!(is_done && lines.len() == 4 && inbox(&dir, 2) == 4, "{lines:?} {error}");
    assert_eq!(run_round(&dir).stdout, model, "the same updates make the same model");
}

#[test]
fn updates_go_where_the_client_is_told() {
    let Some(folder) = client_folder() else { return };
    let dir = federation(&folder);
    std::fs::create_dir(dir.path("drop")).unwrap();
    let (is_done, lines, error) = clients(&dir, &folder, &["--drop", "drop"]);
    assert!(is_done && lines.len() == 4, "{lines:?} {error}");
    assert!(dir.exists("drop/000001.safetensors") && inbox(&dir, 1) == 0);
}

#[test]
fn a_task_that_lacks_a_key_is_named() {
    let Some(folder) = client_folder() else { return };
    let dir = federation(&folder);
    let path = "fed/tasks/000001/client-00.json";
    let mut task = dir.json(path);
    task.as_object_mut().unwrap().retain(|key, _| key != "metadata" && key != "put");
    dir.write(path, task.to_string());
    let (is_done, lines, error) = clients(&dir, &folder, &[]);
    assert!(!is_done && lines.is_empty(), "{lines:?}");
    assert_eq!(
        error.trim(),
        "client.py: client-00: the task lacks metadata, put, expected a task of fedmill.task/1"
    );
    assert_eq!(inbox(&dir, 1), 0);
}

#[test]
fn clients_mask_their_updates_in_a_secure_round() {
    let Some(folder) = client_folder() else { return };
    let dir = federation(&folder);
    std::fs::create_dir_all(dir.path("keys/helpers")).unwrap();
    let helpers = ["h1", "h2", "h3"].map(|id| (id.to_owned(), format!("keys/helpers/{id}")));
    let others = ["server", "client-00", "client-01", "client-02", "client-03"];
    for (id, file) in others.map(|id| (id.to_owned(), format!("keys/{id}"))).into_iter().chain(helpers) {
        let run = fedmill(&dir, &["secagg", "keygen", "--id", &id, "-o", &file]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        if id.starts_with("client") {
            dir.write("client.json", format!("{{\"node_id\":\"{id}\",\"compute_capability\":1,\"data_size\":9,\"connection_quality\":1}}"));
            let key = format!("{file}.pub");
            let run = fedmill(&dir, &["clients", "add", "fed", "client.json", "--update", "--key", &key]);
            assert_eq!(run.code, Some(0), "{run:#?}");
        }
    }
    let settings = String::from_utf8(dir.read("fed/fedmill.toml")).unwrap();
    let secure = "[secure]\nenabled = true\nkey = \"../keys/server\"\nhelpers = \"../keys/helpers\"\nstatistics_clip = 2.0\n";
    // The open round is in the clear: the next one is secure.
    let (is_done, _, error) = clients(&dir, &folder, &[]);
    assert!(is_done, "{error}");
    fedmill(&dir, &["round", "run", "fed", "--phase", "collect"]);
    for phase in ["validate", "aggregate", "evaluate", "publish", "adapt", "report"] {
        assert_eq!(fedmill(&dir, &["round", "run", "fed", "--phase", phase]).code, Some(0), "{phase}");
    }
    dir.write("fed/fedmill.toml", format!("{settings}{secure}"));
    run_round(&dir);
    let (is_done, _, error) = clients(&dir, &folder, &[]);
    assert!(!is_done && error.contains("the task asks for a masked update, expected --keys DIR"), "{error}");
    let (is_done, lines, error) = clients(&dir, &folder, &["--keys", "keys"]);
    assert!(
        is_done && lines.len() == 4 && lines[0].contains("masked, put at fed/secagg/000002"),
        "{lines:?} {error}"
    );
    run_round(&dir);
    for (step, code) in [("check", 1), ("help", 0)] {
        for helper in ["h1", "h2", "h3"] {
            let key = format!("keys/helpers/{helper}");
            let run = fedmill(&dir, &["secagg", step, "fed/secagg/000002", "--key", &key]);
            assert_eq!(run.code, Some(0), "{run:#?}");
        }
        assert_eq!(fedmill(&dir, &["round", "run", "fed"]).code, Some(code), "{step}");
    }
    assert_eq!(inbox(&dir, 2), 0);
    assert!(dir.exists("fed/secagg/000002/transcript.json"));
}
