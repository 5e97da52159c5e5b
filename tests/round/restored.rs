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
