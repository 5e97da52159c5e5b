//! State directories that are damaged, of another version, or partly from a backup.

use super::federation::{Federation, STATE};
use std::fs;

const SETTINGS: &str = "[coordination]\nmin_clients = 2\nclients = 4\nround_timeout = \"1h\"\n\
                        [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

fn after(rounds: u64) -> Federation {
    let federation = Federation::new(4, SETTINGS);
    for round in 1..=rounds {
        federation.round("run", &[]);
        federation.deliver(round, 0);
        federation.advance();
    }
    federation
}

#[test]
fn parts_of_a_backup_are_noticed() {
    let federation = after(2);
    let backup = federation.dir.contents();
    federation.deliver(3, 0);
    federation.advance();
    // The journals of the backup, beside everything else as it is.
    let newer = federation.dir.path(&format!("{STATE}/rounds/000004"));
    fs::remove_dir_all(&newer).unwrap();
    let journal = format!("{STATE}/rounds/000003/journal.jsonl");
    federation.dir.write(&journal, &backup[&journal]);
    let run = federation.round("run", &[]);
    run.assert_fails(2, &["the journal ends at round 3", "from a backup", "hint: "]);
    federation.round("verify", &[]).assert_fails(2, &["from a backup"]);
}

#[test]
fn a_changed_journal_is_noticed() {
    let federation = after(2);
    let path = format!("{STATE}/rounds/000001/journal.jsonl");
    let text = String::from_utf8(federation.dir.read(&path)).unwrap();
    federation.dir.write(&path, text.replacen("\"quorum\":4", "\"quorum\":3", 1));
    federation
        .round("verify", &[])
        .assert_fails(2, &["rounds/000001/journal.jsonl: line 1 is damaged or was changed"]);
}

#[test]
fn a_damaged_model_is_noticed() {
    let federation = after(2);
    let path = format!("{STATE}/models/{}.safetensors", federation.current());
    let mut bytes = federation.dir.read(&path);
    *bytes.last_mut().unwrap() ^= 1;
    federation.dir.write(&path, bytes);
    federation.round("verify", &[]).assert_fails(2, &["models/", "found blake3", "expected blake3"]);
}

#[test]
fn a_state_of_a_later_version_is_refused() {
    let federation = after(1);
    let path = format!("{STATE}/rounds/000002/journal.jsonl");
    let text = String::from_utf8(federation.dir.read(&path)).unwrap();
    federation.dir.write(&path, text.replace("\"format\":1", "\"format\":2"));
    let run = federation.round("run", &[]);
    run.assert_fails(2, &["found format 2, this version of fedmill knows formats up to 1", "hint: "]);
}

#[test]
fn a_torn_line_is_dropped() {
    let federation = after(1);
    let path = format!("{STATE}/rounds/000002/journal.jsonl");
    let bytes = federation.dir.read(&path);
    federation.dir.write(&path, [&bytes[..], b"{\"seq\":17,\"prev"].concat());
    federation.deliver(2, 0);
    federation.advance();
    federation.assert_sound();
    assert_eq!(federation.status()["published"], 2);
}

#[test]
fn a_folder_without_a_federation_is_named() {
    let federation = after(0);
    fs::create_dir(federation.dir.path("empty")).unwrap();
    let run = crate::harness::fedmill(&federation.dir, &["round", "status", "empty"]);
    assert_eq!(run.code, Some(2), "{run:#?}");
    let again = federation.round("init", &["--model", "model.safetensors"]);
    again.assert_fails(2, &["fed: holds a federation already"]);
}

/// A registry from a backup beside journals that know more: it is noticed, and what it lacks is recorded again.
#[test]
fn an_older_registry_is_noticed_and_completed() {
    let federation = after(1);
    let path = format!("{STATE}/clients.db");
    let backup = federation.dir.read(&path);
    for round in 2..=3 {
        federation.deliver(round, 0);
        federation.advance();
    }
    let show = || {
        let shown =
            crate::harness::fedmill(&federation.dir, &["clients", "show", STATE, "client-1", "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        (shown["history"].clone(), shown["rounds"].clone(), shown["last_update"].clone())
    };
    let whole = show();
    assert_eq!(whole.1.as_array().unwrap().len(), 3);
    federation.assert_sound();
    federation.dir.write(&path, backup);
    let verify = federation.round("verify", &[]);
    assert_eq!(verify.code, Some(1), "{verify:#?}");
    assert!(verify.stderr.contains("refused: clients.db does not know rounds 2 to 3"), "{verify:#?}");
    assert_eq!(federation.status()["unrecorded"], serde_json::json!([2, 3]));
    let status = federation.round("status", &[]).stdout;
    assert!(status.contains("does not know rounds 2 to 3: it is from a backup"), "{status}");
    // The next run mends it, though the round only waits.
    let run = federation.round("run", &["--quiet"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(
        run.stderr.contains("error: clients.db did not know rounds 2 to 3: it is from a backup"),
        "{run:#?}"
    );
    federation.assert_sound();
    assert!(federation.status()["unrecorded"].is_null());
    federation.deliver(4, 0);
    federation.advance();
    let completed = show();
    assert_eq!(completed.1.as_array().unwrap()[1..], whole.1.as_array().unwrap()[..]);
    assert_eq!(completed.0["merged"], 4);
}

/// The same between two rounds: the registry is complete before the next round selects.
#[test]
fn an_older_registry_is_completed_before_a_round_opens() {
    let federation = after(1);
    let path = format!("{STATE}/clients.db");
    let backup = federation.dir.read(&path);
    federation.deliver(2, 0);
    federation.round("run", &["--phase", "collect"]);
    for phase in ["validate", "aggregate", "evaluate", "publish", "adapt", "report"] {
        let run = federation.round("run", &["--phase", phase]);
        assert_eq!(run.code, Some(0), "{run:#?}");
    }
    federation.dir.write(&path, backup);
    let run = federation.advance();
    assert!(run.stderr.contains("clients.db did not know round 2: it is from a backup"), "{run:#?}");
    federation.assert_sound();
}

#[test]
fn a_list_of_the_inbox_that_a_disk_lost_comes_with_a_way_on() {
    let federation = after(1);
    federation.deliver(2, 2);
    federation.round("run", &[]).assert_fails(1, &["waiting: round 2 has 2 of 4 updates"]);
    let list = format!("{STATE}/rounds/000002/collect.json");
    let bytes = federation.dir.read(&list);
    federation.dir.write(&list, &bytes[..bytes.len() / 2]);
    federation
        .round("run", &[])
        .assert_fails(2, &["rounds/000002/collect.json: found EOF", "hint: restore "]);
    federation.dir.write(&list, "");
    let run = federation.round("run", &[]);
    run.assert_fails(
        2,
        &["rounds/000002/collect.json: found an empty file, expected the list", "hint: restore "],
    );
    let hint = run.stderr.split('`').nth(1).unwrap();
    let moved =
        std::process::Command::new("sh").args(["-c", hint]).current_dir(federation.dir.path(STATE)).status();
    assert!(moved.unwrap().success(), "{hint}");
    for client in federation.selected(2).into_iter().take(2) {
        let bytes = super::federation::update(client, 2).bytes();
        federation.put(2, &format!("client-{client}.safetensors"), &bytes);
    }
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
    federation.assert_sound();
}

#[test]
fn a_journal_that_a_disk_lost_comes_with_a_way_on() {
    let federation = after(2);
    federation.dir.write(&format!("{STATE}/rounds/000002/journal.jsonl"), "");
    let run = federation.round("run", &[]);
    run.assert_fails(2, &["rounds/000002/journal.jsonl: found a round that does not end", "hint: restore "]);
}

/// After a restore the clients of the open round believe that they delivered. A rollback to the current version opens
/// another round, with tasks that no client knows.
#[test]
fn a_rollback_to_the_current_version_gives_the_open_round_new_tasks() {
    let federation = after(1);
    let task = |round: u64| federation.dir.read(&format!("{STATE}/tasks/{round:06}/client-1.json"));
    let (known, version) = (task(2), federation.status()["current"]["number"].to_string());
    let run = federation.round("rollback", &["--to", &version]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    federation.advance();
    assert_eq!(federation.status()["round"], 3);
    assert_ne!(task(3), known);
    federation.deliver(3, 0);
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
}
