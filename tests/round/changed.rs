//! Updates that their clients change after the server took them: none is lost or stops a round.

use super::federation::{Federation, STATE, update};
use std::fs::{self, File};

const FOUR: &str = "[coordination]\nmin_clients = 2\nclients = 4\nquorum = 1.0\nround_timeout = \"1h\"\n\
                    [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

fn name(client: u64) -> String {
    format!("client-{client}.safetensors")
}

/// A descriptor of a file in the inbox of a round, which follows the file wherever the server moves it.
fn held_open(federation: &Federation, round: u64, client: u64) -> File {
    let path = federation.dir.path(&format!("{STATE}/inbox/{round:06}/{}", name(client)));
    File::options().write(true).open(path).unwrap()
}

/// The lengths of the updates that lie in the quarantine of a round, and the list of reasons.
fn quarantine(federation: &Federation, round: u64) -> (Vec<u64>, String) {
    let folder = federation.dir.path(&format!("{STATE}/rounds/{round:06}/quarantine"));
    let entries = fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap());
    let updates = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".safetensors"));
    let lengths = updates.map(|entry| entry.metadata().unwrap().len()).collect();
    (lengths, fs::read_to_string(folder.join("reasons.jsonl")).unwrap_or_default())
}

#[test]
fn an_update_that_is_cut_off_while_the_round_waits_no_longer_counts() {
    let federation = Federation::new(4, FOUR);
    federation.advance();
    federation.deliver(1, 1);
    let [last, cut, ..] = federation.selected(1)[..] else { panic!() };
    let held = held_open(&federation, 1, cut);
    federation.round("run", &[]).assert_fails(1, &["waiting: round 1 has 3 of 4 updates"]);
    held.set_len(20).unwrap();
    let run = federation.round("run", &["--dry-run"]);
    assert!(run.stdout.starts_with("round 1 has 2 of 4 updates"), "{run:#?}");
    federation.put(1, &name(last), &update(last, 1).bytes());
    federation.round("run", &[]).assert_fails(1, &["waiting: round 1 has 3 of 4 updates"]);
    // The client delivers again, since its task is open.
    federation.put(1, &name(cut), &update(cut, 1).bytes());
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
    let (lengths, reasons) = quarantine(&federation, 1);
    assert_eq!(lengths, [20], "{reasons}");
    assert!(reasons.contains("changed after it was collected"), "{reasons}");
}

#[test]
fn an_update_that_is_cut_off_in_any_phase_goes_to_quarantine() {
    for phases in [&["collect"][..], &["collect", "validate"]] {
        let federation = Federation::new(4, FOUR);
        federation.advance();
        federation.deliver(1, 0);
        let cut = federation.selected(1)[1];
        let held = held_open(&federation, 1, cut);
        for phase in phases {
            federation.round("run", &["--phase", phase]);
        }
        held.set_len(20).unwrap();
        federation.advance();
        let history = federation.history();
        assert_eq!(
            (history[1]["merged"].as_u64(), history[1]["rejected"].as_u64()),
            (Some(3), Some(1)),
            "{phases:?}: {history:?}"
        );
        let (lengths, reasons) = quarantine(&federation, 1);
        assert!(lengths == [20] && reasons.contains(&format!("client-{cut}")), "{phases:?}: {reasons}");
    }
}

#[test]
fn a_refused_merge_keeps_the_update_that_changed_before_it() {
    let federation = Federation::new(4, &FOUR.replace("min_clients = 2", "min_clients = 4"));
    federation.advance();
    federation.deliver(1, 0);
    let held = held_open(&federation, 1, federation.selected(1)[1]);
    for phase in ["collect", "validate"] {
        federation.round("run", &["--phase", phase]);
    }
    held.set_len(20).unwrap();
    federation.round("run", &[]).assert_fails(1, &["error: refused: "]);
    let (lengths, reasons) = quarantine(&federation, 1);
    assert!(lengths == [20] && reasons.contains("changed after it was collected"), "{lengths:?} {reasons}");
}

#[test]
fn a_late_update_that_is_cut_off_while_it_waits_goes_to_quarantine() {
    let settings = FOUR.replace("[coord", "[strategy]\nname = \"fedbuff\"\n[coord");
    let federation = Federation::new(4, &settings.replace("quorum = 1.0", "quorum = 0.5"));
    federation.advance();
    federation.deliver(1, 2);
    federation.advance();
    let late = (0..4)
        .find(|client| !federation.dir.exists(&format!("{STATE}/rounds/000001/updates/{}", name(*client))));
    let late = late.expect("a client that did not deliver");
    federation.put(1, &name(late), &update(late, 1).bytes());
    let held = held_open(&federation, 1, late);
    federation.round("run", &[]).assert_fails(1, &["waiting: round 2 has 0 of 2 updates"]);
    assert!(federation.dir.exists(&format!("{STATE}/stale/000001/{}", name(late))));
    held.set_len(20).unwrap();
    for client in federation.selected(2).into_iter().filter(|client| *client != late).take(2) {
        federation.put(2, &name(client), &update(client, 2).bytes());
    }
    federation.advance();
    let (lengths, reasons) = quarantine(&federation, 2);
    assert!(lengths == [20] && reasons.contains(&format!("client-{late}")), "{lengths:?} {reasons}");
}

#[test]
fn a_claim_beyond_any_number_of_examples_is_the_fault_of_its_client() {
    for weights in ["", "weights = \"metadata:my_weight\"\n"] {
        let federation = Federation::new(4, &format!("{FOUR}{weights}"));
        federation.advance();
        let selected = federation.selected(1);
        for (place, client) in selected.iter().enumerate() {
            let claim = if place < 2 { "1e308" } else { "7" };
            let key = if weights.is_empty() { "num_examples" } else { "my_weight" };
            let update = update(*client, 1).meta("my_weight", "7").meta(key, claim);
            federation.put(1, &name(*client), &update.bytes());
        }
        federation.advance();
        let history = federation.history();
        assert_eq!(
            (history[1]["merged"].as_u64(), history[1]["rejected"].as_u64()),
            (Some(2), Some(2)),
            "{weights}: {history:?}"
        );
        let (_, reasons) = quarantine(&federation, 1);
        let liars = selected[..2].iter().all(|client| reasons.contains(&format!("client-{client}")));
        assert!(liars && reasons.contains("from 0 to 2^53"), "{weights}: {reasons}");
    }
}

#[test]
fn thousands_of_files_stop_no_round() {
    let federation = Federation::new(4, FOUR);
    federation.advance();
    let inbox = federation.dir.path(&format!("{STATE}/inbox/000001"));
    let junk = update(9, 1).bytes();
    for number in 0..3000 {
        fs::write(inbox.join(format!("junk-{number}.safetensors")), &junk).unwrap();
    }
    federation.deliver(1, 0);
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 4);
    assert_eq!(fs::read_dir(&inbox).unwrap().count(), 0);
}
