//! The phases of a round, one thing that may happen in each.

use super::federation::{Federation, STATE, update};
use crate::harness::{Dir, Model, Update, fedmill};

const SIX: &str = "[coordination]\nmin_clients = 2\nclients = 6\nquorum = 1.0\nround_timeout = \"1h\"\n\
                   [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

#[test]
fn a_round_merges_what_aggregate_merges() {
    let federation = Federation::new(8, SIX);
    federation.advance();
    assert_eq!(federation.selected(1).len(), 6);
    federation.deliver(1, 0);
    let run = federation.advance();
    let model = format!("{STATE}/models/{}.safetensors\n", federation.current());
    assert_eq!(run.stdout, model, "the path of the published model");
    let dir = &federation.dir;
    let updates = format!("{STATE}/rounds/000001/updates");
    let merged =
        fedmill(dir, &["aggregate", &updates, "--base", "model.safetensors", "-o", "whole.safetensors"]);
    merged.assert_merged("whole.safetensors");
    let (one, other) = (Model::read(dir, "whole.safetensors"), federation.model());
    dir.write("published.safetensors", other);
    assert_eq!(Model::read(dir, "published.safetensors").tensors, one.tensors);
    let status = federation.status();
    assert_eq!((status["round"].as_u64(), status["phase"].as_str()), (Some(2), Some("collect")));
    assert_eq!(status["published"], 1);
    federation.assert_sound();
}

#[test]
fn nothing_is_done_twice_and_waiting_is_status_1() {
    let federation = Federation::new(8, SIX);
    federation.advance();
    let contents = || {
        let mut contents = federation.dir.contents();
        contents.remove(&format!("{STATE}/lock")).expect("the lock names its last holder");
        contents
    };
    let before = contents();
    let run = federation.round("run", &[]);
    run.assert_fails(1, &["waiting: round 1 has 0 of 6 updates"]);
    assert_eq!(federation.round("run", &["--quiet"]).stderr, "", "cron sends no mail");
    let run = federation.round("run", &["--waiting-ok"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.starts_with("waiting: round 1 has 0 of 6 updates"), "{run:#?}");
    assert!(contents() == before, "a run that waits changes nothing");
}

#[test]
fn a_dry_run_changes_nothing() {
    let federation = Federation::new(8, SIX);
    let before = federation.dir.contents();
    let run = federation.round("run", &["--dry-run"]);
    assert!(run.stdout.starts_with("would open round 1 with 6 clients: client-"), "{run:#?}");
    federation.dir.assert_unchanged_since(&before);
    federation.advance();
    federation.deliver(1, 2);
    let before = federation.dir.contents();
    let run = federation.round("run", &["--dry-run"]);
    assert!(run.stdout.starts_with("round 1 has 4 of 6 updates"), "{run:#?}");
    federation.dir.assert_unchanged_since(&before);
}

#[test]
fn a_phase_runs_alone_if_it_is_next() {
    let federation = Federation::new(8, SIX);
    let run = federation.round("run", &["--phase", "publish"]);
    run.assert_fails(1, &["waiting: the next phase of round 1 is open"]);
    let phases = ["open", "collect", "validate", "aggregate", "evaluate", "publish", "adapt", "report"];
    for phase in phases {
        if phase == "collect" {
            federation.deliver(1, 0);
        }
        let run = federation.round("run", &["--phase", phase]);
        assert_eq!(run.code, Some(0), "{phase}: {run:#?}");
    }
    assert_eq!(federation.status()["published"], 1);
}

#[test]
fn what_is_no_update_of_a_selected_client_goes_to_quarantine() {
    let federation = Federation::new(8, &SIX.replace("quorum = 1.0", "quorum = 0.5"));
    federation.advance();
    let selected = federation.selected(1);
    let stranger = (0..8).find(|client| !selected.contains(client)).unwrap();
    let name = |client: u64| format!("client-{client}.safetensors");
    federation.put(1, &name(stranger), &update(stranger, 1).bytes());
    let [bad, other, cut, sound, ..] = selected[..] else { panic!("{selected:?}") };
    federation.put(1, &name(bad), &Update::new("bad").f32("c", &[3], &[1.0, 2.0, 3.0]).bytes());
    federation.put(1, &name(sound), &update(sound, 1).bytes());
    let bytes = update(cut, 1).bytes();
    federation.put(1, &name(cut), &bytes[..bytes.len() - 3]);
    federation.put(1, &name(other), &update(other, 1).meta("round", "7").bytes());
    let run = federation.round("run", &[]);
    run.assert_fails(
        1,
        &["refused: the round closed by its quorum with 1 valid updates and 2 bad ones, expected 2 valid"],
    );
    let history = federation.history();
    assert_eq!((&history[0]["rejected"], &history[0]["other_files"]), (&2.into(), &1.into()), "{history:?}");
    federation.advance();
    // The file that never became whole is taken out as the next round closes.
    federation.deliver(2, 0);
    federation.advance();
    let quarantine = federation.dir.path(&format!("{STATE}/rounds/000001/quarantine"));
    let mut names: Vec<String> = std::fs::read_dir(quarantine)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [format!("0000-{}", name(stranger)), name(bad), name(other), "reasons.jsonl".to_owned()];
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(names, expected);
    let quarantine = federation.dir.path(&format!("{STATE}/rounds/000002/quarantine"));
    let late = std::fs::read_dir(quarantine).unwrap().next().unwrap().unwrap().file_name();
    assert!(late.to_str().unwrap().ends_with(&name(cut)), "{late:?}");
}

#[test]
fn an_update_that_only_the_merge_finds_bad_goes_to_quarantine_too() {
    let federation = Federation::new(6, SIX);
    federation.advance();
    federation.deliver(1, 1);
    let nan = Update::new("nan").f32("a", &[10], &[f32::NAN; 10]).f32("b", &[5, 6], &[0.0; 30]);
    let nan = nan.meta("kind", "delta").meta("num_examples", "3").meta("round", "1");
    federation.put(1, &format!("client-{}.safetensors", federation.selected(1)[0]), &nan.bytes());
    federation.advance();
    let history = federation.history();
    assert_eq!((history[1]["merged"].as_u64(), history[1]["rejected"].as_u64()), (Some(5), Some(1)));
    let reasons = federation.dir.read(&format!("{STATE}/rounds/000001/quarantine/reasons.jsonl"));
    let reasons = String::from_utf8(reasons).unwrap();
    assert!(reasons.contains("\"why\":\"tensor `a` holds NaN at flat index 0"), "{reasons}");
}

#[test]
fn a_round_without_its_quorum_closes_at_the_deadline() {
    let settings = SIX.replace("\"1h\"", "\"2s\"");
    let federation = Federation::new(8, &settings);
    federation.advance();
    federation.deliver(1, 3);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    federation.advance();
    let history = federation.history();
    assert_eq!((history[1]["merged"].as_u64(), history[1]["selected"].as_u64()), (Some(3), Some(6)));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let run = federation.round("run", &[]);
    run.assert_fails(1, &["refused: the round closed by its deadline with 0 valid updates and 0 bad ones"]);
    assert_eq!(federation.status()["published"], 1);
}

/// Seconds from the opening to each arrival, as the journal of a round has them.
fn arrivals(federation: &Federation, round: u64) -> Vec<f64> {
    let journal = federation.dir.read(&format!("{STATE}/rounds/{round:06}/journal.jsonl"));
    let lines = String::from_utf8(journal).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut found = lines.map(|line| line["event"]["validate"]["updates"].clone());
    let updates = found.find(|updates| updates.is_array()).unwrap();
    updates.as_array().unwrap().iter().map(|update| update["after_s"].as_f64().unwrap()).collect()
}

#[test]
fn an_update_is_late_by_the_moment_it_came_and_not_by_the_run_that_saw_it() {
    let settings = SIX.replace("\"1h\"", "\"3s\"");
    let federation = Federation::new(6, &settings);
    federation.advance();
    federation.deliver(1, 2);
    std::thread::sleep(std::time::Duration::from_millis(3200));
    // No run looked before the deadline. One client delivers after it, and dates its file back.
    let name = "client-0.safetensors";
    federation.put(1, name, &update(0, 1).bytes());
    let path = federation.dir.path(&format!("{STATE}/inbox/000001/{name}"));
    let back = std::fs::File::options().write(true).open(path).unwrap();
    back.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
    federation.advance();
    let past = federation.history()[1].clone();
    assert_eq!((past["merged"].as_u64(), past["selected"].as_u64()), (Some(4), Some(6)), "{past}");
    assert!(federation.dir.exists(&format!("{STATE}/stale/000001/{name}")));
    let times = arrivals(&federation, 1);
    assert!(times.len() == 4 && times.iter().all(|after| *after < 3.0), "{times:?}");
}

#[test]
fn the_moment_of_arrival_is_decided_once() {
    let settings = SIX.replace("\"1h\"", "\"4s\"");
    let federation = Federation::new(6, &settings);
    federation.advance();
    federation.deliver(1, 3);
    federation.round("run", &[]).assert_fails(1, &["waiting: round 1 has 3 of 6 updates"]);
    std::thread::sleep(std::time::Duration::from_millis(4200));
    // Whatever changes the inodes since, such as a backup with hard links, changes no arrival.
    for client in federation.selected(1).into_iter().skip(3) {
        let taken =
            federation.dir.path(&format!("{STATE}/rounds/000001/updates/client-{client}.safetensors"));
        std::fs::hard_link(taken, federation.dir.path(&format!("backup-{client}"))).unwrap();
    }
    federation.advance();
    let times = arrivals(&federation, 1);
    assert!(times.len() == 3 && times.iter().all(|after| *after < 4.0), "{times:?}");
}

#[test]
fn too_few_clients_are_a_refusal() {
    let federation = Federation::new(
        8,
        &SIX.replace("min_clients = 2", "min_clients = 9").replace("clients = 6", "clients = 9"),
    );
    federation.round("run", &[]).assert_fails(1, &["refused: ", "8"]);
    assert_eq!(federation.status()["round"], 0);
}

#[test]
fn late_updates_wait_for_a_strategy_that_merges_them() {
    // The client is late, or merged in the end.
    for (strategy, merged, late_clients) in [("fedavg", 4, 1), ("fedbuff", 5, 0)] {
        let settings = format!("{SIX}[strategy]\nname = \"{strategy}\"\n");
        let settings = settings.replace("\nclients = 6", "\nclients = 4\ndropout = 0.33");
        let federation = Federation::new(6, &settings);
        federation.advance();
        let selected = federation.selected(1);
        assert_eq!(selected.len(), 6, "two more, for dropouts");
        federation.deliver(1, 2);
        federation.advance();
        // Round 2 is open. A client delivers for round 1, and is too late.
        let late = selected[0];
        let bytes = update(late, 1).bytes();
        federation.put(1, &format!("client-{late}.safetensors"), &bytes);
        federation.round("run", &[]).assert_fails(1, &["waiting: round 2 has 0 of 4 updates"]);
        let waiting = format!("{STATE}/stale/000001/client-{late}.safetensors");
        assert!(federation.dir.exists(&waiting), "{strategy}");
        for client in federation.selected(2).into_iter().filter(|client| *client != late).take(4) {
            let bytes = update(client, 2).bytes();
            federation.put(2, &format!("client-{client}.safetensors"), &bytes);
        }
        federation.advance();
        let history = federation.history();
        assert_eq!(history[1]["merged"], merged, "{strategy}: {history:?}");
        let counts = ["rejected", "late", "other_files"].map(|name| history[1][name].as_u64().unwrap());
        assert_eq!(counts, [0, late_clients, 0], "{strategy}");
        assert!(!federation.dir.exists(&waiting), "{strategy}");
        federation.assert_sound();
    }
}

#[test]
fn a_worse_model_is_not_published() {
    let settings = format!(
        "{SIX}[evaluation]\ncommand = [\"sh\", \"-c\", \"cat accuracy\"]\nmetric = \"accuracy\"\nmax_regression = 0.05\n"
    );
    let federation = Federation::new(8, &settings);
    let accuracies = ["{\"accuracy\": 0.8, \"loss\": 0.5}", "{\"accuracy\": 0.7}", "{\"accuracy\": 0.76}"];
    let endings =
        ["published version 1", "published nothing: accuracy is 0.7, worse by", "published version 2"];
    for (round, (accuracy, ending)) in (1..).zip(accuracies.iter().zip(endings)) {
        federation.round("run", &[]);
        federation.deliver(round, 0);
        federation.dir.write(&format!("{STATE}/accuracy"), accuracy);
        let before = federation.current();
        let run = federation.round("run", &[]);
        assert_eq!(run.code, Some(i32::from(round == 2)), "{run:#?}");
        let history = federation.history();
        let last = history.iter().find(|past| past["round"] == round).unwrap();
        assert!(last["ending"].as_str().unwrap().starts_with(ending), "{last}");
        assert_eq!(federation.current() == before, round == 2);
    }
    federation.assert_sound();
}

#[test]
fn an_evaluation_that_fails_is_an_error_and_runs_again() {
    let settings = format!("{SIX}[evaluation]\ncommand = [\"sh\", \"-c\", \"cat accuracy\"]\n");
    let federation = Federation::new(8, &settings);
    federation.advance();
    federation.deliver(1, 0);
    federation.round("run", &[]).assert_fails(2, &["evaluation: `sh` ended with exit status: 1"]);
    federation.dir.write(&format!("{STATE}/accuracy"), "0.5");
    federation
        .round("run", &[])
        .assert_fails(2, &["evaluation: `sh` printed no JSON object of numbers", "hint: "]);
    federation.dir.write(&format!("{STATE}/accuracy"), "{\"accuracy\": 0.5}");
    federation.advance();
    assert_eq!(federation.status()["current"]["metrics"]["accuracy"], 0.5);
}

#[test]
fn a_rollback_goes_to_a_version_that_is_kept() {
    let federation = Federation::new(8, SIX);
    let mut models = vec![federation.current()];
    for round in 1..=3 {
        federation.round("run", &["--phase", "open"]);
        federation.deliver(round, 0);
        let run = federation.round("run", &["--rounds", "1"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        models.push(federation.current());
    }
    federation
        .round("rollback", &["--to", "9"])
        .assert_fails(1, &["refused: version 9 is not kept; kept are 0, 1, 2, 3"]);
    let back = federation.round("rollback", &["--to", "1"]);
    assert_eq!(back.stdout, format!("{STATE}/models/{}.safetensors\n", models[1]), "{back:#?}");
    assert_eq!(federation.current(), models[1]);
    federation.assert_sound();
    federation.advance();
    assert_eq!(
        federation.status()["kept"],
        serde_json::json!([0, 2, 3, 1]),
        "the target outlasts the others"
    );
    // Round 4 collects updates onto a model that the operator leaves.
    let back = federation.round("rollback", &["--to", "0"]);
    assert_eq!(back.code, Some(0), "{back:#?}");
    assert_eq!(federation.history()[0]["ending"], "abandoned");
    let status = federation.status();
    assert_eq!((&status["refused"], &status["abandoned"]), (&0.into(), &1.into()));
    let text = federation.round("status", &[]).stdout;
    assert!(text.contains("3 published, 0 refused, 1 abandoned"), "{text}");
    federation.advance();
    // Clients of the abandoned round deliver. One of them is slow in the next round.
    federation.deliver(4, 4);
    federation.deliver(5, 1);
    federation.round("run", &[]).assert_fails(1, &["waiting: round 5 has 5 of 6 updates"]);
    let slow = federation.selected(5)[0];
    federation.put(5, &format!("client-{slow}.safetensors"), &update(slow, 5).bytes());
    federation.advance();
    let history = federation.history();
    assert_eq!(history[1]["version"], 4, "a new version follows the newest: {history:?}");
    assert_eq!((&history[1]["rejected"], &history[1]["other_files"]), (&0.into(), &2.into()), "{history:?}");
    let reasons = federation.dir.read(&format!("{STATE}/rounds/000005/quarantine/reasons.jsonl"));
    assert!(String::from_utf8_lossy(&reasons).contains("was abandoned by a rollback"), "{history:?}");
    assert_eq!(history[3]["rollbacks"], serde_json::json!([1]));
    assert_eq!(history[2]["rollbacks"], serde_json::json!([0]));
    federation.assert_sound();
}

#[test]
fn old_models_are_removed_and_every_so_many_kept() {
    let settings = format!("{SIX}[publish]\nkeep_last = 2\nkeep_every = 3\n");
    let federation = Federation::new(8, &settings);
    for round in 1..=5 {
        federation.round("run", &["--phase", "open"]);
        federation.deliver(round, 0);
        federation.round("run", &["--rounds", "1"]);
    }
    assert_eq!(federation.status()["kept"], serde_json::json!([0, 3, 4, 5]));
    let models = std::fs::read_dir(federation.dir.path(&format!("{STATE}/models"))).unwrap().count();
    assert_eq!(models, 4);
    federation.assert_sound();
}

#[test]
fn a_first_model_that_is_not_finite_is_refused_before_anything_is_lost() {
    let dir = Dir::new();
    let model = |b: f32| Update::new("model").f32("a", &[2], &[1.0, 2.0]).f32("b", &[3], &[0.5, b, f32::NAN]);
    let init = || fedmill(&dir, &["round", "init", STATE, "--model", "model.safetensors"]);
    for (value, named) in [(f32::INFINITY, "inf"), (f32::NAN, "NaN")] {
        let bytes = model(value).bytes();
        dir.write("model.safetensors", &bytes);
        init().assert_fails(
            2,
            &[
                &format!("model.safetensors: found {named} in tensor `b` at flat index 1 (2 such values in the model)"),
                "expected a model of finite numbers",
            ],
        );
        assert!(dir.read("model.safetensors") == bytes);
        assert!(!dir.exists(&format!("{STATE}/rounds")) && !dir.exists(&format!("{STATE}/models")));
    }
    // The same directory takes a sound model then. Integers are no floats, whatever their bits.
    let sound = Update::new("model").f32("a", &[2], &[1.0, f32::MAX]).i64("n", &[2], &[i64::MAX, -1]);
    dir.write("model.safetensors", sound.bytes());
    assert_eq!(init().code, Some(0));
}

/// The test needs an account that may give files to another group, as root may.
#[test]
fn a_published_model_has_the_group_that_the_store_passes_on() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let federation = Federation::new(8, SIX);
    federation.advance();
    let [models, rounds] = ["models", "rounds"].map(|name| federation.dir.path(&format!("{STATE}/{name}")));
    let own = std::fs::metadata(&models).unwrap().gid();
    for (folder, group) in [(&models, own + 1), (&rounds, own + 2)] {
        if chown(folder, None, Some(group)).is_err() {
            return;
        }
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o2750)).unwrap();
    }
    federation.deliver(1, 0);
    federation.advance();
    let model = models.join(format!("{}.safetensors", federation.current()));
    assert_eq!(std::fs::metadata(model).unwrap().gid(), own + 1);
}

/// `--waiting-ok` leaves status 1 to refused rounds.
#[test]
fn a_refused_round_is_status_1_where_waiting_is_not() {
    let federation = Federation::new(8, SIX);
    federation.advance();
    federation.deliver(1, 0);
    federation.configure(&format!(
        "{SIX}[evaluation]\ncommand = [\"sh\", \"-c\", \"echo '{{\\\"loss\\\": NaN}}'\"]\n"
    ));
    let run = federation.round("run", &["--quiet", "--waiting-ok"]);
    run.assert_fails(1, &["error: refused: the metric loss is NaN"]);
}

/// docs/configuration.md says when a change acts: the quorum and the deadline stay, the fewest clients do not.
#[test]
fn keys_act_on_the_open_round_or_from_the_next_one_on() {
    let federation = Federation::new(8, SIX);
    federation.advance();
    let changed = |from: &str, to: &str| federation.configure(&SIX.replace(from, to));
    changed("quorum = 1.0", "quorum = 0.5");
    federation.deliver(1, 3);
    federation.round("run", &[]).assert_fails(1, &["round 1 has 3 of 6 updates; it closes in 3"]);
    changed("\"1h\"", "\"1s\"");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    federation.round("run", &[]).assert_fails(1, &["waiting: round 1 has 3 of 6 updates"]);
    federation.deliver(1, 0);
    let text = SIX.replace("min_clients = 2", "min_clients = 7").replace("clients = 6", "clients = 8");
    federation.configure(&text);
    let run = federation.round("run", &[]);
    run.assert_fails(1, &["error: refused: the round closed by its quorum with 6 valid updates"]);
    changed("quorum = 1.0", "quorum = 0.5");
    federation.advance();
    federation.deliver(2, 3);
    federation.advance();
    assert_eq!(federation.status()["published"], 1, "the next round has the new quorum");
}

#[test]
fn the_page_goes_to_standard_output_too() {
    let federation = Federation::new(8, SIX);
    federation.advance();
    federation.deliver(1, 0);
    federation.advance();
    let run = federation.round("report", &["--html", "-"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    assert!(run.stdout.starts_with("<!") && run.stdout.contains("<svg"), "{}", &run.stdout[..200]);
    assert!(!federation.dir.exists("-"));
}
