//! Files of a federation that are damaged or lost are noticed before they do harm.
//!
//! For each there is a way on.

use super::federation::{Federation, STATE, update};
use crate::harness::{Dir, Update, fedmill};
use std::fs;
use std::time::{Duration, Instant};

const SETTINGS: &str = "[coordination]\nmin_clients = 2\nclients = 4\nround_timeout = \"1h\"\n\
                        [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

fn after(rounds: u64, settings: &str) -> Federation {
    let federation = Federation::new(4, settings);
    federation.round("run", &[]);
    for round in 1..=rounds {
        federation.deliver(round, 0);
        federation.advance();
    }
    federation
}

/// Changes one bit of a file, and not its size. Returns the bytes before.
fn damage(federation: &Federation, path: &str) -> Vec<u8> {
    let whole = federation.dir.read(path);
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    federation.dir.write(path, bytes);
    whole
}

fn current(federation: &Federation) -> String {
    format!("{STATE}/models/{}.safetensors", federation.current())
}

#[test]
fn a_damaged_model_goes_into_no_merge_and_opens_no_round() {
    let federation = after(2, SETTINGS);
    let path = current(&federation);
    federation.deliver(3, 0);
    let whole = damage(&federation, &path);
    let told = ["models/", "found blake3 ", "expected blake3 ", "hint: restore the file", "--to 1`"];
    federation.round("run", &[]).assert_fails(2, &told);
    assert_eq!(federation.status()["published"], 2);
    federation.dir.write(&path, whole);
    federation.round("run", &["--phase", "aggregate"]);
    for phase in ["evaluate", "publish", "adapt", "report"] {
        assert_eq!(federation.round("run", &["--phase", phase]).code, Some(0), "{phase}");
    }
    let path = current(&federation);
    let whole = damage(&federation, &path);
    federation.round("run", &[]).assert_fails(2, &told[..3]);
    assert!(!federation.dir.exists(&format!("{STATE}/rounds/000004")));
    federation.dir.write(&path, whole);
    federation.advance();
    federation.assert_sound();
}

#[test]
fn a_rollback_checks_its_target_and_leaves_a_lost_model() {
    let federation = after(2, SETTINGS);
    let kept = federation.status()["kept"].clone();
    let versions: Vec<String> = [0, 1].map(|round| base_of(&federation, round + 1)).to_vec();
    let before = federation.current();
    damage(&federation, &versions[1]);
    fs::remove_file(federation.dir.path(&current(&federation))).unwrap();
    federation.round("run", &[]).assert_fails(2, &["found no file", "round rollback DIR --to "]);
    federation.round("rollback", &["--to", "1"]).assert_fails(2, &["found blake3 ", "expected blake3 "]);
    federation.round("rollback", &["--to", "2"]).assert_fails(2, &["found no file"]);
    assert_eq!((federation.current(), &federation.status()["kept"]), (before, &kept), "nothing changed");
    let back = federation.round("rollback", &["--to", "0"]);
    assert_eq!(back.code, Some(0), "{back:#?}");
    federation.advance();
    federation.deliver(4, 0);
    federation.advance();
    assert_eq!(federation.status()["published"], 3);
}

/// The path of the model that a round started from.
fn base_of(federation: &Federation, round: u64) -> String {
    let text = federation.dir.read(&format!("{STATE}/rounds/{round:06}/journal.jsonl"));
    let text = String::from_utf8(text).unwrap();
    let (_, base) = text.split_once("\"base\":").unwrap();
    let (_, digest) = base.split_once("\"blake3\":\"").unwrap();
    format!("{STATE}/models/{}.safetensors", &digest[..64])
}

#[test]
fn a_lost_state_of_the_strategy_is_named_and_has_two_ways_on() {
    let settings = format!("{SETTINGS}[strategy]\nname = \"fedadam:lr=0.01\"\n");
    for (to, more) in [("1", vec![]), ("2", vec!["--restart-strategy"])] {
        let federation = after(2, &settings);
        federation.deliver(3, 0);
        let state = format!("{STATE}/rounds/000002/state.safetensors");
        let whole = damage(&federation, &state);
        federation.round("verify", &[]).assert_fails(2, &["rounds/000002/state.safetensors"]);
        federation.dir.write(&state, whole);
        federation.assert_sound();
        fs::remove_file(federation.dir.path(&state)).unwrap();
        federation.round("verify", &[]).assert_fails(2, &["rounds/000002/state.safetensors: found no file"]);
        federation.round("run", &[]).assert_fails(
            2,
            &["rounds/000002/state.safetensors: found no file", "--restart-strategy`", "--to 1`"],
        );
        federation.round("rollback", &["--to", "2"]).assert_fails(2, &["state.safetensors: found no file"]);
        let back = federation.round("rollback", &[&["--to", to], &more[..]].concat());
        assert_eq!(back.code, Some(0), "{back:#?}");
        federation.advance();
        federation.deliver(4, 0);
        federation.advance();
        assert_eq!(federation.status()["published"], 3);
    }
}

#[test]
fn updates_that_no_list_has_are_taken_up_again() {
    for list in [None, Some("[]")] {
        let federation = after(0, SETTINGS);
        federation.deliver(1, 2);
        federation.round("run", &[]).assert_fails(1, &["has 2 of 4 updates"]);
        let path = format!("{STATE}/rounds/000001/collect.json");
        match list {
            Some(text) => federation.dir.write(&path, text),
            None => fs::remove_file(federation.dir.path(&path)).unwrap(),
        };
        let updates = format!("{STATE}/rounds/000001/updates");
        federation.dir.write(&format!("{updates}/stranger.safetensors"), update(9, 1).bytes());
        assert!(federation.status()["waits"].as_str().unwrap().contains("has 2 of 4 updates"));
        let run = federation.round("run", &[]);
        run.assert_fails(1, &["has 2 of 4 updates", "it is taken up again"]);
        for client in federation.selected(1).into_iter().take(2) {
            federation.put(1, &format!("client-{client}.safetensors"), &update(client, 1).bytes());
        }
        federation.advance();
        let history = federation.history();
        assert_eq!(
            (&history[1]["merged"], &history[1]["other_files"]),
            (&4.into(), &1.into()),
            "{history:?}"
        );
        let reasons = federation.dir.read(&format!("{STATE}/rounds/000001/quarantine/reasons.jsonl"));
        let reasons = String::from_utf8(reasons).unwrap();
        assert!(reasons.contains("does not have the file: the client was not selected"), "{reasons}");
    }
}

#[test]
fn a_sound_update_after_one_that_was_deleted_from_quarantine_counts() {
    let settings = format!("{SETTINGS}[compression]\nbytes_per_update = 2000\n");
    let federation = after(0, &settings);
    federation.deliver(1, 1);
    let first = federation.selected(1)[0];
    let name = format!("client-{first}.safetensors");
    federation.put(1, &name, &[update(first, 1).bytes(), vec![0; 4000]].concat());
    let large = update(first, 1).f32("c", &[1000], &[0.0; 1000]).bytes();
    federation.put(1, &name, &large);
    federation.round("run", &[]).assert_fails(1, &["has 3 of 4 updates"]);
    let quarantine = federation.dir.path(&format!("{STATE}/rounds/000001/quarantine"));
    let files: Vec<_> = fs::read_dir(&quarantine).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    fs::remove_file(&files[0]).unwrap();
    federation.put(1, &name, &update(first, 1).bytes());
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
}

#[test]
fn updates_of_an_abandoned_round_end_in_quarantine() {
    let federation = after(1, SETTINGS);
    federation.deliver(2, 2);
    federation.round("run", &[]).assert_fails(1, &["has 2 of 4 updates"]);
    let updates = federation.dir.path(&format!("{STATE}/rounds/000002/updates"));
    let names: Vec<String> = fs::read_dir(&updates)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2);
    assert_eq!(federation.round("rollback", &["--to", "0"]).code, Some(0));
    let quarantine = format!("{STATE}/rounds/000002/quarantine");
    let reasons = String::from_utf8(federation.dir.read(&format!("{quarantine}/reasons.jsonl"))).unwrap();
    assert_eq!(reasons.matches("late: its round was abandoned").count(), 2, "{reasons}");
    assert!(names.iter().all(|name| federation.dir.exists(&format!("{quarantine}/{name}"))), "{names:?}");
    assert_eq!(fs::read_dir(&updates).unwrap().count(), 0);
    federation.advance();
    federation.assert_sound();
}

#[test]
fn a_lost_link_to_the_current_model_is_noticed_and_made_anew() {
    let federation = after(1, SETTINGS);
    let link = federation.dir.path(&format!("{STATE}/current.safetensors"));
    let target = fs::read_link(&link).unwrap();
    fs::remove_file(&link).unwrap();
    federation
        .round("verify", &[])
        .assert_fails(2, &["current.safetensors: found no link, expected a link to"]);
    assert_eq!(federation.status()["has_link"], false);
    let status = federation.round("status", &[]).stdout;
    assert!(status.contains("current.safetensors is missing: the next run makes it"), "{status}");
    federation.round("run", &[]).assert_fails(1, &["was missing"]);
    assert_eq!(fs::read_link(&link).unwrap(), target);
    federation.assert_sound();
}

#[test]
fn tasks_and_the_inbox_of_an_open_round_are_made_again() {
    let federation = after(0, SETTINGS);
    let path = |name: &str| federation.dir.path(&format!("{STATE}/{name}"));
    let (task, whole) =
        (path("tasks/000001/client-2.json"), fs::read(path("tasks/000001/client-2.json")).unwrap());
    fs::remove_file(&task).unwrap();
    fs::remove_dir(path("inbox/000001")).unwrap();
    federation.round("run", &[]).assert_fails(1, &["tasks/000001: 1 of its tasks were missing"]);
    assert_eq!(fs::read(&task).unwrap(), whole);
    federation.deliver(1, 0);
    federation.advance();
    federation.assert_sound();
}

#[test]
fn a_federation_without_its_settings_gets_no_others() {
    let federation = after(1, SETTINGS);
    let (settings, kept) =
        (federation.dir.path(&format!("{STATE}/fedmill.toml")), federation.dir.path("kept"));
    fs::rename(&settings, &kept).unwrap();
    federation.round("run", &[]).assert_fails(2, &["fedmill.toml: is missing", "restore it from a backup"]);
    federation.round("init", &[]).assert_fails(2, &["fedmill.toml: is missing", "restore it from a backup"]);
    assert!(!settings.exists());
    fs::rename(&kept, &settings).unwrap();
    federation.deliver(2, 0);
    federation.advance();
    federation.assert_sound();
}

#[test]
fn a_lost_model_is_a_finding_and_after_a_rollback_no_obstacle() {
    let federation = after(2, SETTINGS);
    let path = federation.dir.path(&current(&federation));
    fs::remove_file(&path).unwrap();
    assert_eq!(federation.round("check", &[]).code, Some(1));
    let found = federation.round("check", &["--json"]).stdout;
    assert!(found.contains("no round can open or merge: ") && found.contains("--to 1`"), "{found}");
    assert_eq!(federation.round("rollback", &["--to", "1"]).code, Some(0));
    assert_eq!(federation.round("check", &[]).code, Some(0));
    federation.round("verify", &[]).assert_fails(
        2,
        &["found no file", "rounds go on without it: only a rollback to this version needs it"],
    );
}

#[test]
fn no_updates_stay_longer_than_they_are_kept() {
    let settings = format!("{SETTINGS}[publish]\nkeep_updates = 3\n");
    let federation = after(3, &settings);
    assert_eq!(federation.round("rollback", &["--to", "3"]).code, Some(0));
    federation.dir.write(&format!("{STATE}/fedmill.toml"), settings.replace("updates = 3", "updates = 1"));
    let there = |round: u64| federation.dir.exists(&format!("{STATE}/rounds/{round:06}/updates"));
    assert!([1, 2, 3].into_iter().all(there));
    federation.round("run", &[]);
    for round in [5, 6] {
        federation.deliver(round, 0);
        federation.advance();
    }
    assert_eq!((1..=6).filter(|round| there(*round)).collect::<Vec<_>>(), [6]);
    federation.assert_sound();
}

/// The update that a client sent in round 1, for another round.
fn again(client: u64, round: u64) -> Vec<u8> {
    update(client, 1).without_meta("round").meta("round", &round.to_string()).bytes()
}

#[test]
fn a_sound_merge_replaces_a_damaged_model_of_its_digest() {
    for keeps in [None, Some(100), Some(0)] {
        let federation = after(1, SETTINGS);
        let (path, before) = (current(&federation), federation.current());
        let whole = damage(&federation, &path);
        if let Some(bytes) = keeps {
            federation.dir.write(&path, &whole[..bytes]);
        }
        federation.deliver(2, 0);
        federation.round("run", &[]).assert_fails(2, &["expected blake3 ", "--to 0`"]);
        assert_eq!(federation.round("rollback", &["--to", "0"]).code, Some(0));
        federation.advance();
        for client in federation.selected(3) {
            federation.put(3, &format!("client-{client}.safetensors"), &again(client, 3));
        }
        federation.advance();
        assert_eq!(federation.current(), before, "the same updates give the same model");
        assert_eq!(federation.model(), whole);
        federation.assert_sound();
        // Version 1 is the same file: no way on from a damaged version 2.
        damage(&federation, &path);
        let verify = federation.round("verify", &[]);
        verify.assert_fails(2, &["--to 0`"]);
        assert!(!verify.stderr.contains("0, 1") && !verify.stderr.contains("1: "), "{verify:#?}");
    }
}

#[test]
fn init_replaces_a_damaged_file_of_the_first_model() {
    let federation = Federation::new(4, SETTINGS);
    let (digest, whole) = (federation.current(), federation.model());
    let dir = Dir::new();
    dir.write("model.safetensors", &whole);
    dir.write(&format!("{STATE}/models/{digest}.safetensors"), &whole[..100]);
    let init = fedmill(&dir, &["round", "init", STATE, "--model", "model.safetensors"]);
    assert_eq!(init.code, Some(0), "{init:#?}");
    assert_eq!(dir.read(&format!("{STATE}/current.safetensors")), whole);
}

/// Runs single phases of the open round.
fn phases(federation: &Federation, phases: &[&str]) {
    for phase in phases {
        let run = federation.round("run", &["--phase", phase]);
        assert_eq!(run.code, Some(0), "{phase}: {run:#?}");
    }
}

const PHASES: [&str; 4] = ["collect", "validate", "aggregate", "evaluate"];

#[test]
fn an_update_that_is_lost_after_its_collection_is_left_out() {
    for done in 1..=2 {
        for lost in [1, 4] {
            let federation = after(0, SETTINGS);
            federation.deliver(1, 0);
            phases(&federation, &PHASES[..done]);
            let folder = federation.dir.path(&format!("{STATE}/rounds/000001/updates"));
            for file in fs::read_dir(folder).unwrap().take(lost) {
                let path = file.unwrap().path();
                fs::remove_file(&path).unwrap();
                if lost == 1 && done == 1 {
                    fs::create_dir(path).unwrap();
                }
            }
            let run = federation.round("run", &[]);
            match lost {
                1 => assert_eq!(run.code, Some(0), "{run:#?}"),
                _ => run.assert_fails(1, &["refused: ", "0 valid updates and 4 bad ones"]),
            }
            federation.round("run", &[]);
            let counts = &federation.history()[1];
            let counted = [&counts["merged"], &counts["rejected"]].map(|count| count.as_u64().unwrap());
            assert_eq!(counted, [4 - lost as u64, lost as u64], "{counts}");
            federation.assert_sound();
        }
    }
}

#[test]
fn a_lost_merged_model_is_merged_again() {
    let whole = after(1, SETTINGS).model();
    for done in 3..=4 {
        let federation = after(0, SETTINGS);
        federation.deliver(1, 0);
        phases(&federation, &PHASES[..done]);
        let model = federation.dir.path(&format!("{STATE}/rounds/000001/model.safetensors"));
        fs::remove_file(&model).unwrap();
        let run = federation.advance();
        assert!(run.stderr.contains("the round merges again"), "{run:#?}");
        assert_eq!(federation.model(), whole);
        federation.assert_sound();
        // With an update that it needs lost too, the round publishes nothing.
        federation.deliver(2, 0);
        phases(&federation, &PHASES[..done]);
        fs::remove_dir_all(federation.dir.path(&format!("{STATE}/rounds/000002/updates"))).unwrap();
        let made = format!("{STATE}/rounds/000002/model.safetensors");
        fs::remove_file(federation.dir.path(&made)).unwrap();
        federation.round("run", &[]).assert_fails(1, &["refused: ", "was lost after the merge"]);
        federation.advance();
        federation.assert_sound();
    }
}

#[test]
fn a_rollback_abandons_a_round_that_has_not_published() {
    for done in 1..=4 {
        let federation = after(1, SETTINGS);
        let before = federation.current();
        federation.deliver(2, 0);
        phases(&federation, &PHASES[..done]);
        let back = federation.round("rollback", &["--to", "1"]);
        assert_eq!(back.code, Some(0), "after {done} phases: {back:#?}");
        assert_eq!((federation.current(), &federation.history()[0]["ending"]), (before, &"abandoned".into()));
        federation.advance();
        federation.deliver(3, 0);
        federation.advance();
        assert_eq!(federation.status()["published"], 2);
        federation.assert_sound();
    }
    let federation = after(1, SETTINGS);
    federation.deliver(2, 0);
    phases(&federation, &[&PHASES[..], &["publish"]].concat());
    federation.round("rollback", &["--to", "1"]).assert_fails(1, &["let it end first"]);
}

#[test]
fn a_lost_model_that_clients_hold_costs_them_the_patch_alone() {
    let federation = after(1, SETTINGS);
    let held = current(&federation);
    federation.deliver(2, 0);
    phases(&federation, &[&PHASES[..], &["publish", "adapt", "report"]].concat());
    fs::remove_file(federation.dir.path(&held)).unwrap();
    let run = federation.round("run", &["--phase", "open"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.contains("is missing or damaged: clients that hold version 1"), "{run:#?}");
    for client in federation.selected(3) {
        let task = federation.dir.read(&format!("{STATE}/tasks/000003/client-{client}.json"));
        let task: serde_json::Value = serde_json::from_slice(&task).unwrap();
        assert_eq!(task["model"]["patch"], serde_json::Value::Null);
    }
}

#[test]
fn rounds_are_in_order_of_their_number() {
    let federation = after(0, SETTINGS);
    for round in ["999999", "1000000"] {
        fs::create_dir(federation.dir.path(&format!("{STATE}/rounds/{round}"))).unwrap();
    }
    federation.round("status", &[]).assert_fails(2, &["rounds/999999/", "before round 1000000"]);
}

#[test]
fn updates_that_look_like_deltas_and_do_not_say_so_refuse_the_round() {
    let federation = after(0, SETTINGS);
    let unnamed = |client: u64, round: u64| {
        let small = |len: usize| (0..len).map(|j| (j as f32 + client as f32) * 1e-4).collect::<Vec<_>>();
        let update = Update::new("update").f32("a", &[10], &small(10)).f32("b", &[5, 6], &small(30));
        update.meta("round", &round.to_string()).meta("num_examples", "10").bytes()
    };
    let deliver = |round: u64| {
        for client in federation.selected(round) {
            federation.put(round, &format!("client-{client}.safetensors"), &unnamed(client, round));
        }
    };
    deliver(1);
    let run = federation.round("run", &[]);
    run.assert_fails(1, &["refused: ", "look like deltas", "strategy.update_kind"]);
    assert!(!run.stderr.contains("--kind"), "{run:#?}");
    federation.configure(&format!("{SETTINGS}[strategy]\nupdate_kind = \"delta\"\n"));
    federation.advance();
    let client = federation.selected(2)[0];
    let task = federation.dir.read(&format!("{STATE}/tasks/000002/client-{client}.json"));
    let task: serde_json::Value = serde_json::from_slice(&task).unwrap();
    assert_eq!(task["metadata"]["kind"], "delta");
    deliver(2);
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
}

#[test]
fn an_update_without_a_round_counts_for_that_of_its_folder() {
    let federation = after(0, SETTINGS);
    federation.deliver(1, 1);
    let first = federation.selected(1)[0];
    let update = update(first, 1).without_meta("round");
    federation.put(1, &format!("client-{first}.safetensors"), &update.bytes());
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
}

#[test]
fn no_process_that_an_evaluation_leaves_behind_holds_the_run() {
    let command = "[evaluation]\ntimeout = \"20s\"\ncommand = [\"sh\", \"-c\", \
                   \"setsid sleep 25 2>&- & echo '{\\\"loss\\\": 1}'\"]\n";
    let federation = after(0, &format!("{SETTINGS}{command}"));
    federation.deliver(1, 0);
    let started = Instant::now();
    federation.advance();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(federation.status()["current"]["metrics"]["loss"], 1.0);
}
