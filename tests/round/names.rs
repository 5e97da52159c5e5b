//! Names of clients and of their files: in both forms of Unicode, and for rounds that are over.

use super::federation::{Federation, STATE, update};
use crate::harness::fedmill;

const ALL: &str = "[coordination]\nmin_clients = 2\nclients = 5\nquorum = 1.0\nround_timeout = \"1h\"\n\
                   [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

/// One name in composed and in decomposed form.
const NFC: &str = "caf\u{e9}";
const NFD: &str = "cafe\u{301}";

/// A federation of four clients and one with this id.
fn with_client(id: &str) -> Federation {
    let federation = Federation::new(4, ALL);
    let row = format!(
        "{{\"node_id\":\"{id}\",\"compute_capability\":9,\"data_size\":99,\"connection_quality\":1}}"
    );
    federation.dir.write("client.json", row);
    let add = fedmill(&federation.dir, &["clients", "add", STATE, "client.json"]);
    assert_eq!(add.code, Some(0), "{add:#?}");
    federation
}

fn reasons(federation: &Federation, round: u64) -> String {
    let path = format!("{STATE}/rounds/{round:06}/quarantine/reasons.jsonl");
    String::from_utf8(federation.dir.read(&path)).unwrap()
}

#[test]
fn a_file_is_that_of_its_client_in_both_forms_of_its_name() {
    for (id, file) in [(NFC, NFD), (NFD, NFC), (NFC, NFC)] {
        let federation = with_client(id);
        federation.advance();
        federation.deliver(1, 0);
        federation.put(1, &format!("{file}.safetensors"), &update(7, 1).bytes());
        federation.advance();
        assert_eq!(federation.history()[1]["merged"], 5, "{id:?} {file:?}");
    }
}

#[test]
fn both_forms_of_a_name_are_one_client() {
    let federation = with_client(NFC);
    federation.advance();
    federation.deliver(1, 1);
    for file in [NFC, NFD] {
        federation.put(1, &format!("{file}.safetensors"), &update(7, 1).bytes());
    }
    federation.round("run", &[]).assert_fails(1, &["waiting: round 1 has 4 of 5 updates"]);
    federation.deliver(1, 0);
    federation.advance();
    assert_eq!(federation.history()[1]["merged"], 5);
    assert!(reasons(&federation, 1).contains("the client delivered before"), "{}", reasons(&federation, 1));
}

#[test]
fn a_second_delivery_for_a_closed_round_is_called_one() {
    let settings = ALL.replace("clients = 5", "clients = 4").replace("quorum = 1.0", "quorum = 0.75");
    for mode in ["", "mode = \"async\"\nbuffer = 3\n"] {
        let settings = settings.replace("min_", &format!("{mode}min_"));
        let strategy = if mode.is_empty() { "" } else { "[strategy]\nname = \"fedbuff\"\n" };
        let federation = Federation::new(5, &format!("{strategy}{settings}"));
        federation.advance();
        let selected = federation.selected(1);
        federation.deliver(1, 1);
        federation.advance();
        let stranger = (0..5).find(|client| !selected.contains(client)).unwrap();
        for client in [selected[1], stranger] {
            federation.put(1, &format!("client-{client}.safetensors"), &update(client, 1).bytes());
        }
        for client in federation.selected(2) {
            federation.put(2, &format!("client-{client}.safetensors"), &update(client, 2).bytes());
        }
        federation.advance();
        let reasons = reasons(&federation, 2);
        let reason = |client: u64| {
            let line = reasons.lines().find(|line| line.contains(&format!("\"client-{client}\"")));
            line.unwrap_or_else(|| panic!("client-{client}: {reasons}"))
        };
        let twice = "round 1 is closed, and an update of this client for it was delivered before";
        assert!(reason(selected[1]).contains(twice), "{reasons}");
        assert!(reason(stranger).contains("the client was not selected for the round"), "{reasons}");
    }
}
