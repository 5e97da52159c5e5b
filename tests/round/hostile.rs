//! Clients that try to stop a round, or to get into it without a task.

use super::federation::{Federation, STATE, update};
use crate::harness::{Update, fedmill};
use std::fs;
use std::os::unix::fs::symlink;

const FOUR: &str = "[coordination]\nmin_clients = 2\nclients = 4\nround_timeout = \"1h\"\n\
                    [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

fn name(client: u64) -> String {
    format!("client-{client}.safetensors")
}

#[test]
fn a_task_is_done_once_and_by_its_client_alone() {
    let settings = FOUR
        .replace("[coord", "[strategy]\nname = \"fedbuff\"\n[coord")
        .replace("min_", "mode = \"async\"\nbuffer = 3\nmin_");
    let federation = Federation::new(5, &settings);
    federation.advance();
    let selected = federation.selected(1);
    for client in &selected[..3] {
        federation.put(1, &name(*client), &update(*client, 1).bytes());
    }
    federation.advance();
    // The update of a task that is done, of a client without a task, and of no client.
    federation.put(1, &name(selected[0]), &update(selected[0], 1).bytes());
    let other = (0..5).find(|client| !selected.contains(client)).unwrap();
    federation.put(1, &name(other), &update(other, 1).bytes());
    federation.put(1, "round.safetensors", &update(9, 1).bytes());
    for client in federation.selected(2).into_iter().take(3) {
        federation.put(2, &name(client), &update(client, 2).bytes());
    }
    federation.advance();
    let history = federation.history();
    assert_eq!(
        (history[1]["merged"].as_u64(), history[1]["other_files"].as_u64()),
        (Some(3), Some(3)),
        "{history:?}"
    );
}

#[test]
fn a_client_may_have_the_name_of_a_file() {
    let federation = Federation::new(3, FOUR);
    let row = r#"{"node_id":"round","compute_capability":9,"data_size":99,"connection_quality":1}"#;
    federation.dir.write("round.json", row);
    let add = fedmill(&federation.dir, &["clients", "add", STATE, "round.json"]);
    assert_eq!(add.code, Some(0), "{add:#?}");
    federation.advance();
    federation.deliver(1, 0);
    federation.put(1, "round.safetensors", &update(3, 1).bytes());
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
}

#[test]
fn no_file_in_the_inbox_stops_a_round() {
    let federation = Federation::new(4, &FOUR.replace("\"1h\"", "\"2s\""));
    federation.advance();
    federation.deliver(1, 2);
    let inbox = federation.dir.path(&format!("{STATE}/inbox/000001"));
    fs::create_dir(federation.dir.path(&format!("{STATE}/inbox/999999"))).unwrap();
    fs::write(inbox.join(format!("{}.safetensors", "x".repeat(243))), b"long").unwrap();
    fs::write(inbox.join("a\nb.safetensors"), update(7, 1).bytes()).unwrap();
    symlink("/dev/zero", inbox.join(name(federation.selected(1)[0]))).unwrap();
    // A file as large as a disk, with nothing in it.
    let sparse = fs::File::create(inbox.join(name(federation.selected(1)[1]))).unwrap();
    let header = update(1, 1).bytes();
    std::io::Write::write_all(&mut &sparse, &header).unwrap();
    sparse.set_len(1 << 40).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    federation.advance();
    let history = federation.history();
    assert_eq!(history[1]["merged"], 2, "{history:?}");
    let left_out = ["rejected", "other_files"].map(|name| history[1][name].as_u64().unwrap());
    assert!(left_out.iter().sum::<u64>() >= 4, "{history:?}");
    federation.assert_sound();
}

#[test]
fn a_file_that_changes_after_it_was_collected_is_left_out() {
    let federation = Federation::new(4, FOUR);
    federation.advance();
    federation.deliver(1, 0);
    let mine = format!("{STATE}/inbox/000001/{}", name(federation.selected(1)[0]));
    fs::hard_link(federation.dir.path(&mine), federation.dir.path("held")).unwrap();
    for phase in ["collect", "validate"] {
        federation.round("run", &["--phase", phase]);
    }
    let evil = Update::new("evil").f32("a", &[10], &[9e9; 10]).f32("b", &[5, 6], &[9e9; 30]);
    let evil = evil.meta("kind", "delta").meta("round", "1").meta("num_examples", "10");
    fs::write(federation.dir.path("held"), evil.bytes()).unwrap();
    federation.advance();
    let history = federation.history();
    assert_eq!(
        (history[1]["merged"].as_u64(), history[1]["rejected"].as_u64()),
        (Some(3), Some(1)),
        "{history:?}"
    );
    let reasons = federation.dir.read(&format!("{STATE}/rounds/000001/quarantine/reasons.jsonl"));
    assert!(String::from_utf8_lossy(&reasons).contains("the file changed after it was collected"));
}

#[test]
fn a_model_that_the_evaluation_changes_is_not_published() {
    let write = "printf x >> \\\"$FEDMILL_MODEL\\\"; echo '{}'";
    let settings = format!("{FOUR}[evaluation]\ncommand = [\"sh\", \"-c\", \"{write}\"]\n");
    let federation = Federation::new(4, &settings);
    federation.advance();
    federation.deliver(1, 0);
    let before = federation.current();
    federation.round("run", &[]).assert_fails(1, &["refused: the merged model changed after the merge"]);
    assert_eq!(federation.current(), before);
}

#[test]
fn an_evaluation_refuses_by_nan_and_ends_with_what_it_started() {
    let settings = format!(
        "{FOUR}[evaluation]\ncommand = [\"sh\", \"-c\", \"sleep 60 & echo '{{\\\"loss\\\": NaN}}'\"]\n"
    );
    let federation = Federation::new(4, &settings);
    federation.advance();
    federation.deliver(1, 0);
    let started = std::time::Instant::now();
    federation.round("run", &[]).assert_fails(1, &["refused: the metric loss is NaN"]);
    assert!(started.elapsed() < std::time::Duration::from_secs(30), "it waits for no child of the command");
}

#[test]
fn the_first_model_is_measured_too() {
    let settings = format!(
        "{FOUR}[evaluation]\ncommand = [\"sh\", \"-c\", \"case $FEDMILL_MODEL in */models/*) echo '{{\\\"accuracy\\\": 0.9}}';; *) echo '{{\\\"accuracy\\\": 0.1}}';; esac\"]\nmetric = \"accuracy\"\n"
    );
    let federation = Federation::new(4, &settings);
    federation.advance();
    federation.deliver(1, 0);
    federation
        .round("run", &[])
        .assert_fails(1, &["refused: accuracy is 0.1, worse by 0.8000 than the 0.9 of the current model"]);
}

#[test]
fn another_strategy_starts_without_the_state_of_the_last() {
    let federation = Federation::new(4, &format!("{FOUR}[strategy]\nname = \"fedadam:lr=0.01\"\n"));
    for (round, name) in
        [(1, "fedadam:lr=0.01"), (2, "fedyogi:lr=0.01"), (3, "fedavg"), (4, "fedyogi:lr=0.01")]
    {
        federation.configure(&format!("{FOUR}[strategy]\nname = \"{name}\"\n"));
        federation.round("run", &[]);
        federation.deliver(round, 0);
        federation.advance();
        assert_eq!(federation.status()["published"], round, "{name}");
    }
}

#[test]
fn metrics_that_the_operator_cut_go_on() {
    let federation = Federation::new(4, FOUR);
    for round in 1..=2 {
        federation.round("run", &[]);
        federation.deliver(round, 0);
        if round == 2 {
            federation.dir.write(&format!("{STATE}/metrics/rounds.jsonl"), "");
        }
        federation.advance();
    }
    let lines = federation.dir.read(&format!("{STATE}/metrics/rounds.jsonl"));
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.starts_with("{\"schema\""), "{lines}");
}

#[test]
fn a_client_with_a_cap_on_epsilon_takes_part_in_private_rounds_alone() {
    let federation = Federation::new(4, FOUR);
    let row = r#"{"node_id":"careful","compute_capability":9,"data_size":99,"connection_quality":1,"privacy_requirements":{"epsilon":3}}"#;
    federation.dir.write("careful.json", row);
    let add = fedmill(&federation.dir, &["clients", "add", STATE, "careful.json"]);
    assert_eq!(add.code, Some(0), "{add:#?}");
    federation.advance();
    assert!(!federation.dir.exists(&format!("{STATE}/tasks/000001/careful.json")));
    assert_eq!(federation.selected(1).len(), 4);
}

#[test]
fn what_is_no_update_goes_to_quarantine_and_is_never_dropped() {
    use std::os::unix::ffi::OsStrExt;
    let federation = Federation::new(4, FOUR);
    federation.advance();
    let inbox = |round: u64| federation.dir.path(&format!("{STATE}/inbox/{round:06}"));
    federation.put(1, ".client-1.safetensors.Xa81", b"half");
    federation.put(1, "client-2.safetensors.partial", b"half");
    fs::create_dir(inbox(1).join("client-9.safetensors")).unwrap();
    fs::write(inbox(1).join("client-9.safetensors/inner"), b"x").unwrap();
    fs::write(inbox(1).join(std::ffi::OsStr::from_bytes(b"caf\xe9.safetensors")), update(1, 1).bytes())
        .unwrap();
    fs::write(inbox(1).parent().unwrap().join("note"), b"x").unwrap();
    federation.deliver(1, 0);
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
    // A transfer may still go on as its round closes.
    assert!(inbox(1).join(".client-1.safetensors.Xa81").exists());
    assert!(inbox(1).join("client-2.safetensors.partial").exists());
    federation.deliver(2, 0);
    federation.advance();
    let reasons = |round: u64| {
        let path = format!("{STATE}/rounds/{round:06}/quarantine/reasons.jsonl");
        String::from_utf8(federation.dir.read(&path)).unwrap()
    };
    let (first, second) = (reasons(1), reasons(2));
    assert!(first.contains("is a folder") && first.contains("-caf%E9.safetensors"), "{first}");
    assert!(
        second.contains("Xa81") && second.contains(".partial") && second.contains("never came"),
        "{second}"
    );
    assert_eq!(fs::read_dir(inbox(1)).unwrap().count(), 0);
    let quarantine = inbox(1).parent().unwrap().with_file_name("rounds/000001/quarantine");
    let folder = fs::read_dir(quarantine).unwrap().map(|entry| entry.unwrap().path());
    let folder = folder.into_iter().find(|path| path.is_dir()).expect("the folder is kept");
    assert_eq!(fs::read(folder.join("inner")).unwrap(), b"x");
    assert_eq!(federation.status()["foreign"], serde_json::json!(["inbox/note"]));
    let status = federation.round("status", &[]).stdout;
    assert!(status.contains("1 entry that no round takes: inbox/note"), "{status}");
}
