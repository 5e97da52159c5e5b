//! The registry of clients: what is registered, what is refused, what a killed run leaves.

mod odds;
mod pipes;
mod selection;
mod tiers;
mod widths;

use crate::harness::{Dir, fedmill, fedmill_after, fedmill_with_stdin, program, source_tree};
use fedmill::fleet::client::{PrivacyRequirements, Profile};
use fedmill::fleet::history::{Outcome, Participation};
use fedmill::fleet::registry::Registry;
use fedmill::fleet::schema::{AGENTS, SCHEMA};
use jiff::Timestamp;
use rusqlite::Connection;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// The time at which clients of tests register.
fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// A client with little to say.
fn profile(id: &str) -> Profile {
    Profile {
        id: id.to_owned(),
        compute_capability: 1.0,
        data_size: 100.0,
        connection_quality: 0.5,
        memory: None,
        bandwidth: None,
        privacy_requirements: PrivacyRequirements::default(),
        tier: None,
        public_key: None,
        last_update: None,
        retired_at: None,
    }
}

/// A registry of these clients.
fn registry(dir: &Dir, clients: &[Profile]) -> Registry {
    let mut registry = Registry::create(&dir.path("state/clients.db")).unwrap();
    let batch = registry.batch(now()).unwrap();
    for client in clients {
        batch.put(client, false).unwrap();
    }
    batch.commit().unwrap();
    registry
}

fn part(client: &str, outcome: Outcome) -> Participation {
    let client = client.to_owned();
    Participation {
        client,
        outcome,
        bytes_up: 10,
        bytes_down: 100,
        duration_s: None,
        loss: None,
        holds: None,
        reason: None,
    }
}

const JSON: &str = r#"{"node_id":"ID","compute_capability":1.5,"data_size":10,"connection_quality":1,
"privacy_requirements":{"epsilon":2,"secure_aggregation":false}}"#;

fn client(id: &str) -> String {
    JSON.replace("ID", id).replace('\n', "")
}

/// What `sqlite3` would print for a query of one text or number a row.
fn query(dir: &Dir, sql: &str) -> Vec<String> {
    let connection = Connection::open(dir.path("state/clients.db")).unwrap();
    let mut query = connection.prepare(sql).unwrap();
    let rows = query.query_map([], |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            value => value.as_str().unwrap().to_owned(),
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[track_caller]
fn assert_sound(dir: &Dir, ids: &[&str]) {
    assert_eq!(query(dir, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(query(dir, "SELECT id FROM clients ORDER BY id"), ids);
}

#[test]
fn every_format_registers_the_same_clients() {
    let dir = Dir::new();
    let all = [client("a"), client("b"), client("c")];
    let csv = "node_id,data_size,compute_capability,connection_quality,epsilon,tier,memory\n";
    let row = |id: &str| format!("{id},10,1.5,1,2,,\n");
    dir.write("c.json", format!("[\n{}\n]\n", all.join(",\n")));
    dir.write("values.json", format!("\u{feff}{}", all.join("\n")));
    dir.write("c.jsonl", all.join("\n\n"));
    dir.write("c.csv", format!("{csv}{}{}{}", row("a"), row("\"b\""), row("c")));
    let mut lists = Vec::new();
    for (place, file) in ["c.json", "values.json", "c.jsonl", "c.csv"].into_iter().enumerate() {
        let state = format!("state-{place}");
        let run = fedmill(&dir, &["clients", "import", &state, file]);
        assert_eq!(run.stdout, "3 clients added; 3 may be selected\n", "{run:#?}");
        let list = fedmill(&dir, &["clients", "list", &state, "--json"]).stdout;
        let mut list: Vec<serde_json::Value> =
            list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        list.iter_mut().for_each(|client| client["registered_at"] = 0.into());
        lists.push(list);
    }
    assert_eq!(lists[0].len(), 3);
    assert_eq!(lists[0][1]["privacy_requirements"]["epsilon"], 2.0);
    assert!(lists.iter().all(|list| *list == lists[0]), "{lists:#?}");
    let run =
        fedmill_with_stdin(&dir, &["clients", "import", "s", "-", "--format", "jsonl"], &all.join("\n"));
    assert_eq!(run.code, Some(0), "{run:#?}");
    fedmill(&dir, &["clients", "import", "s", "clients.txt"]).assert_fails(2, &["clients.txt"]);
    assert!(!dir.exists("t"));
}

#[test]
fn every_bad_row_is_reported_with_its_line_and_nothing_is_registered() {
    let dir = Dir::new();
    let bad = [
        client("good"),
        client("a/b"),
        client("good").replace("1.5", "-1"),
        "{\"node_id\": 3".to_owned(),
        client("x").replace("data_size", "datasize"),
        client("y").replace("epsilon", "epsilom"),
        client("good"),
        client("z").replace(":1,", ":1.5,"),
        client("\\u202ex"),
    ];
    dir.write("c.jsonl", bad.join("\n"));
    let lines = [
        "c.jsonl: line 2: node_id holds `/`",
        "c.jsonl: line 3: compute_capability is -1",
        "c.jsonl: line 4: invalid type: integer `3`, expected a string at column 13",
        "c.jsonl: line 5: found key `datasize`, expected a known key such as `data_size`",
        "c.jsonl: line 6: found key `epsilom`, expected a known key such as `epsilon`",
        "c.jsonl: line 7: client `good` is registered already",
        "c.jsonl: line 8: connection_quality is 1.5, expected a number from 0 to 1",
        "c.jsonl: line 9: node_id holds \\u{202e}",
        "8 of 9 rows are bad",
    ];
    fedmill(&dir, &["clients", "import", "state", "c.jsonl"]).assert_fails(2, &lines);
    assert_sound(&dir, &[]);
    let run = fedmill(&dir, &["clients", "import", "state", "c.jsonl", "--skip-bad"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "1 client added, 8 bad rows left out; 1 may be selected\n")
    );
    assert_sound(&dir, &["good"]);

    dir.write(
        "c.csv",
        "node_id,compute_capability,data_size,connection_quality\na,1,2,0.5\nb,x,2,0.5\nc,1,2\nd,nan,2,1\n",
    );
    let lines = [
        "c.csv: line 3: compute_capability: found `x`",
        "c.csv: line 4: found 3 cells, expected 4",
        "c.csv: line 5: compute_capability: found `nan`",
    ];
    fedmill(&dir, &["clients", "import", "state", "c.csv"]).assert_fails(2, &lines);
    let text = String::from_utf8(dir.read("c.csv")).unwrap().replace('\n', "\r\n");
    dir.write("c.csv", text);
    fedmill(&dir, &["clients", "import", "state", "c.csv"]).assert_fails(2, &lines);
    dir.write("c.csv", "node_id,compute\na,1\n");
    fedmill(&dir, &["clients", "import", "state", "c.csv"])
        .assert_fails(2, &["line 1: found key `compute`, expected a known key such as `compute_capability`"]);
    dir.write("c.json", format!("[{},\n\n{}\n", client("a"), &client("b")[..40]));
    fedmill(&dir, &["clients", "import", "state", "c.json", "--skip-bad"])
        .assert_fails(2, &["c.json: line 3: the row that starts here has no end"]);
    assert_sound(&dir, &["good"]);
}

#[test]
fn a_client_that_comes_again_keeps_its_history() {
    let dir = Dir::new();
    dir.write("a.json", client("a"));
    let add = |more: &[&str]| fedmill(&dir, &[&["clients", "add", "state", "a.json"], more].concat());
    assert_eq!(add(&[]).code, Some(0));
    add(&[]).assert_fails(2, &["client `a` is registered already", "--update"]);
    let mut registry = Registry::open(&dir.path("state/clients.db")).unwrap();
    registry.record(1, &[part("a", Outcome::Merged)], now()).unwrap();
    assert_eq!(fedmill(&dir, &["clients", "retire", "state", "a"]).stdout, "1 client retired\n");
    assert_eq!(fedmill(&dir, &["clients", "list", "state", "--json"]).stdout, "");
    fedmill(&dir, &["clients", "select", "state", "--count", "1", "--round", "2", "--seed", "1"])
        .assert_fails(1, &["0 clients may be selected, the round needs 1", "1 by retirement"]);
    dir.write("a.json", client("a").replace("1.5", "7"));
    assert_eq!(add(&["--update"]).stdout, "0 clients added, 1 updated; 1 may be selected\n");
    let shown = fedmill(&dir, &["clients", "show", "state", "a", "--json"]).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["compute_capability"], &shown["history"]["merged"]), (&7.0.into(), &1.into()));
    assert_eq!(shown["rounds"][0]["outcome"], "merged");
    fedmill(&dir, &["clients", "retire", "state", "a", "b"]).assert_fails(2, &["no client has id `b`"]);
    assert_eq!(query(&dir, "SELECT count(*) FROM clients WHERE retired_at IS NOT NULL"), ["0"]);
}

#[test]
fn clients_that_were_not_seen_expire() {
    let dir = Dir::new();
    let seen =
        |id: &str, days: i64| Profile { last_update: Some(now().as_second() - days * 86_400), ..profile(id) };
    drop(registry(&dir, &[seen("a", 31), seen("b", 29), profile("c"), seen("d", 400)]));
    let expire = ["clients", "expire", "state", "--older-than", "30d", "--at", &now().to_string()];
    assert_eq!(fedmill(&dir, &expire).stdout, "a\nd\n");
    assert_eq!(fedmill(&dir, &expire).stdout, "");
    assert_eq!(fedmill(&dir, &["clients", "list", "state", "--json"]).stdout.lines().count(), 2);
}

#[test]
fn a_round_is_recorded_once() {
    let dir = Dir::new();
    let mut registry = registry(&dir, &["a", "b", "c"].map(profile));
    let merged = |client: &str, loss| Participation { loss: Some(loss), ..part(client, Outcome::Merged) };
    let held = Participation { holds: Some("f00d".to_owned()), ..merged("a", 2.0) };
    let did = [held, part("b", Outcome::Missing), merged("stranger", 1.0)];
    let later = Timestamp::from_second(now().as_second() + 60).unwrap();
    let recorded = registry.record(4, &did, later).unwrap();
    assert_eq!((recorded.was_known, recorded.unregistered), (false, vec!["stranger".to_owned()]));
    let before = registry.client("a").unwrap();
    assert!(registry.record(4, &did, now()).unwrap().was_known);
    assert_eq!(registry.client("a").unwrap(), before);
    let history = before.history;
    assert_eq!((history.selected, history.merged, history.last_round), (1, 1, 4));
    assert_eq!((history.bytes_up, history.bytes_down, history.last_loss), (10, 100, Some(2.0)));
    assert_eq!((history.loss_round, history.holds.as_deref()), (Some(4), Some("f00d")));
    assert_eq!(before.profile.last_update, Some(later.as_second()));
    let b = registry.client("b").unwrap();
    assert_eq!((b.history.missing, b.history.merged, b.profile.last_update), (1, 0, None));
    registry.record(5, &[merged("a", 1.0), merged("c", 1.0), part("b", Outcome::Rejected)], now()).unwrap();
    let counts = registry.participation_counts().unwrap();
    assert_eq!((counts.clients, counts.sum, counts.sum_of_squares), (3, 3.0, 5.0));
    assert_eq!(counts.jain(), Some(9.0 / 15.0));
    let rounds: Vec<u64> = registry.history("a", 9).unwrap().iter().map(|past| past.round).collect();
    assert_eq!(rounds, [5, 4]);
    // A client that registers now has waited since the last round on record.
    let batch = registry.batch(now()).unwrap();
    batch.put(&profile("late"), false).unwrap();
    batch.commit().unwrap();
    assert_eq!(registry.client("late").unwrap().history.last_round, 5);
    let connection = Connection::open(registry.path()).unwrap();
    let utility = |round: i64| -> f64 {
        connection
            .query_row("SELECT utility FROM rounds WHERE round = ?1", [round], |row| row.get(0))
            .unwrap()
    };
    // The mean over merged clients with a loss; an unregistered one has no data.
    assert_eq!((utility(4), utility(5)), (100.0, 100.0));
}

#[test]
fn a_killed_import_leaves_what_was_there() {
    let dir = Dir::new();
    dir.write("a.json", client("a"));
    assert_eq!(fedmill(&dir, &["clients", "add", "state", "a.json"]).code, Some(0));
    let many: Vec<String> = (0..500).map(|n| client(&format!("n{n:03}"))).collect();
    dir.write("many.jsonl", many.join("\n"));
    let import = ["clients", "import", "state", "many.jsonl"];
    let steps = (1..).take_while(|step| {
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &import);
        if run.code != Some(0) {
            assert_sound(&dir, &["a"]);
        }
        run.code != Some(0)
    });
    assert!(steps.count() >= 1);
    assert_eq!(query(&dir, "SELECT count(*) FROM clients"), ["501"]);

    // Killed while the rows still come: they are more than the cache of SQLite holds in memory only if it spills.
    let mut child = Command::new(program())
        .args(["clients", "import", "state", "-", "--format", "jsonl", "--quiet"])
        .current_dir(dir.path(""))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.as_mut().unwrap();
    for n in 0..3000 {
        writeln!(input, "{}", client(&format!("more-{n}"))).unwrap();
    }
    input.flush().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(query(&dir, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(query(&dir, "SELECT count(*) FROM clients"), ["501"]);
}

/// A new registry whose making is cut off is made again.
#[test]
fn a_killed_first_import_can_be_run_again() {
    let dir = Dir::new();
    dir.write("a.json", client("a"));
    let add = ["clients", "add", "new/state", "a.json"];
    let killed = (1..).take_while(|step| {
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &add);
        let list = fedmill(&dir, &["clients", "list", "new/state", "--json"]);
        assert!(list.stdout.lines().count() == usize::from(run.code == Some(0)), "{list:#?}");
        run.code != Some(0)
    });
    assert!(killed.count() >= 3);
}

#[test]
fn other_files_are_no_registry() {
    let dir = Dir::new();
    let list = |dir: &Dir| fedmill(dir, &["clients", "list", "state"]);
    list(&dir).assert_fails(2, &["state/clients.db: there is no registry", "clients import"]);
    dir.write("state/clients.db", "");
    list(&dir).assert_fails(2, &["there is no registry"]);
    dir.write("state/clients.db", "x".repeat(5000));
    list(&dir).assert_fails(2, &["is not a registry of clients: it is not an SQLite file"]);
    std::fs::remove_file(dir.path("state/clients.db")).unwrap();
    let other = Connection::open(dir.path("state/clients.db")).unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    list(&dir).assert_fails(2, &["an SQLite file of another program"]);
    dir.write("a.json", client("a"));
    fedmill(&dir, &["clients", "add", "state", "a.json"]).assert_fails(2, &["of another program"]);
    std::fs::remove_file(dir.path("state/clients.db")).unwrap();
    drop(registry(&dir, &[]));
    let newer = Connection::open(dir.path("state/clients.db")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    list(&dir).assert_fails(2, &["has version 99, this fedmill reads versions up to 3", "newer fedmill"]);
}

#[test]
fn ids_act_on_no_terminal_and_no_sql() {
    let dir = Dir::new();
    let hostile = ["a'; DROP TABLE clients; --", "%", "*?[x]", "\u{1f600}", "-rf", "a\"b"].map(profile);
    drop(registry(&dir, &hostile));
    for client in &hostile {
        let run = fedmill(&dir, &["clients", "show", "state", "--json", "--", &client.id]);
        let shown: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(shown["node_id"], client.id.as_str());
    }
    fedmill(&dir, &["clients", "show", "state", "a\u{1b}[2J"]).assert_fails(2, &["no client has id"]);
    assert_eq!(query(&dir, "SELECT count(*) FROM clients"), ["6"]);
}

#[test]
fn the_page_has_the_tables_of_the_code() {
    let Some(root) = source_tree() else { return };
    let page = std::fs::read_to_string(root.join("docs/clients.md")).unwrap();
    let tables = format!("```sql\n{SCHEMA}{AGENTS}```\n");
    assert!(page.contains(&tables), "docs/clients.md has other tables than SCHEMA and AGENTS");
}

#[test]
fn only_its_owner_may_read_a_registry() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    dir.write("a.json", r#"{"node_id":"a","compute_capability":1,"data_size":1,"connection_quality":1}"#);
    let add = fedmill(&dir, &["clients", "add", "fed", "a.json"]);
    assert_eq!(add.code, Some(0), "{add:#?}");
    let mode = std::fs::metadata(dir.path("fed/clients.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A registry as a fedmill before version 2 of the tables made it, with a round on record.
fn first_version(dir: &Dir) {
    drop(registry(dir, &[]));
    std::fs::remove_file(dir.path("state/clients.db")).unwrap();
    let old = Connection::open(dir.path("state/clients.db")).unwrap();
    let tables: Vec<&str> = SCHEMA.lines().filter(|line| !line.starts_with("  reason ")).collect();
    old.execute_batch(&tables.join("\n")).unwrap();
    old.execute_batch(
        "PRAGMA application_id = 0x6665646d; PRAGMA user_version = 1; INSERT INTO rounds VALUES (1, 0, NULL);
         INSERT INTO clients (id, compute_capability, data_size, connection_quality, secure_aggregation, registered_at,
         last_round, selected, missing) VALUES ('a', 1, 1, 1, 0, 0, 1, 1, 1);
         INSERT INTO participation VALUES ('a', 1, 'missing', 0, 5, NULL, NULL)",
    )
    .unwrap();
}

#[test]
fn an_older_registry_is_read_as_it_is_and_upgraded_by_its_first_change() {
    let dir = Dir::new();
    first_version(&dir);
    let show = || {
        let run = fedmill(&dir, &["clients", "show", "state", "a", "--json"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap()["rounds"].clone()
    };
    assert_eq!(show()[0]["outcome"], "missing");
    assert!(show()[0]["reason"].is_null());
    assert_eq!(query(&dir, "PRAGMA user_version"), ["1"], "reading changes nothing");
    dir.write("b.json", client("b"));
    let add = || fedmill(&dir, &["clients", "add", "state", "b.json", "--update"]);
    let run = add();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let told = "state/clients.db: the registry had version 1 and gets version 3 with this change";
    assert!(run.stderr.contains(told), "{run:#?}");
    assert_eq!(query(&dir, "PRAGMA user_version"), ["3"]);
    assert!(!add().stderr.contains("version"), "once");
    let late = Participation { reason: Some("came too late".to_owned()), ..part("a", Outcome::Late) };
    Registry::open(&dir.path("state/clients.db")).unwrap().record(2, &[late], now()).unwrap();
    assert_eq!(show()[0]["reason"], "came too late");
    assert!(show()[1]["reason"].is_null());
    let table = fedmill(&dir, &["clients", "show", "state", "a"]).stdout;
    assert!(table.contains("late") && table.contains("came too late"), "{table}");
}

/// A change that stops before its end leaves an older registry as it was.
#[test]
fn a_killed_upgrade_leaves_the_older_registry() {
    let dir = Dir::new();
    first_version(&dir);
    dir.write("b.json", client("b"));
    let run = fedmill_after(&dir, "export FEDMILL_FAIL_AT=1", &["clients", "add", "state", "b.json"]);
    assert_ne!(run.code, Some(0), "{run:#?}");
    assert_eq!(query(&dir, "PRAGMA user_version"), ["1"]);
    assert_eq!(query(&dir, "SELECT outcome FROM participation"), ["missing"]);
}

/// The warning comes while the other process holds the registry; the error after ten seconds names the file.
#[test]
fn a_registry_that_another_process_holds_is_waited_for() {
    let dir = Dir::new();
    drop(registry(&dir, &[profile("a")]));
    dir.write("b.json", client("b"));
    let hold = |seconds: f32| {
        let other = Connection::open(dir.path("state/clients.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let release = move || {
            std::thread::sleep(std::time::Duration::from_secs_f32(seconds));
            drop(other);
        };
        std::thread::spawn(release)
    };
    let add = || fedmill(&dir, &["clients", "add", "state", "b.json"]);
    let holder = hold(2.5);
    let run = add();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.starts_with("warning: state/clients.db: waits for "), "{run:#?}");
    assert!(run.stderr.contains("which holds the registry, 10 s at the longest"), "{run:#?}");
    let lists_locks = std::fs::read_to_string("/proc/locks").is_ok_and(|text| text.contains("POSIX"));
    if lists_locks {
        assert!(run.stderr.contains(&format!("process {} (", std::process::id())), "{run:#?}");
    }
    holder.join().unwrap();
    let holder = hold(13.0);
    add().assert_fails(2, &["state/clients.db: cannot be used:", "holds the registry, and did so for 10 s"]);
    assert_eq!(fedmill(&dir, &["clients", "list", "state", "--json"]).code, Some(0), "readers do not wait");
    holder.join().unwrap();
}

/// What `list --json` prints is what `import` reads: all that an operator sets, and who is retired.
#[test]
fn an_export_is_imported_again() {
    let dir = Dir::new();
    let whole = Profile {
        memory: Some(16.0),
        bandwidth: Some(0.1),
        privacy_requirements: PrivacyRequirements {
            epsilon: Some(4.5),
            secure_aggregation: true,
            min_secagg_threshold: Some(0.25),
        },
        tier: Some("high".to_owned()),
        public_key: Some("key, \"quoted\"".to_owned()),
        last_update: Some(1_700_000_000),
        ..profile("Universit\u{e0}")
    };
    let mut one = registry(&dir, &[whole, profile("plain"), profile("retired")]);
    one.record(3, &[part("plain", Outcome::Merged)], now()).unwrap();
    one.retire(&["retired".to_owned()], now()).unwrap();
    let export = |state: &str| fedmill(&dir, &["clients", "list", state, "--retired", "--json"]).stdout;
    dir.write("export.jsonl", export("state"));
    let run = fedmill(&dir, &["clients", "import", "other", "export.jsonl"]);
    assert_eq!(run.stdout, "3 clients added; 2 may be selected\n", "{run:#?}");
    let rows = |state: &str| -> Vec<serde_json::Value> {
        let mut rows: Vec<serde_json::Value> =
            export(state).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for row in &mut rows {
            let row = row.as_object_mut().unwrap();
            // A registry makes these two itself.
            assert!(row.remove("registered_at").is_some() && row.remove("history").is_some());
        }
        rows
    };
    assert_eq!(rows("other"), rows("state"));
    assert_eq!(rows("state").iter().filter(|row| !row["retired_at"].is_null()).count(), 1);
    let plain = Registry::open(&dir.path("other/clients.db")).unwrap().client("plain").unwrap();
    assert_eq!(plain.history.merged, 0, "the history stays in its registry");
    // A row that does not say that its client is retired brings it back.
    dir.write("back.jsonl", client("retired"));
    fedmill(&dir, &["clients", "import", "other", "back.jsonl", "--update"]);
    let back = Registry::open(&dir.path("other/clients.db")).unwrap().client("retired").unwrap();
    assert_eq!(back.profile.retired_at, None);
    dir.write("bad.jsonl", client("x").replace("{\"node_id\"", "{\"retired_at\":\"soon\",\"node_id\""));
    fedmill(&dir, &["clients", "import", "other", "bad.jsonl"])
        .assert_fails(2, &["retired_at is `soon`, expected"]);
}
