//! Secure rounds: masked updates, helpers, and means.

use super::federation::{Federation, STATE, update};
use crate::harness::{Model, Run, fedmill, fedmill_after};
use serde_json::Value;
use std::process::Command;

const CLIENTS: u64 = 6;
const HELPERS: u64 = 3;
const CLIP: f64 = 3.0;

const SETTINGS: &str = "[coordination]\nmin_clients = 4\nclients = 6\nround_timeout = \"1h\"\nselection = \"uniform\"\n\
                        [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n\
                        [secure]\nenabled = true\nkey = \"keys/server\"\nhelpers = \"keys/helpers\"\nclip = 3.0\n\
                        weights = \"examples:cap=100\"\n";

const GROUPS: &str = "[coordination]\nmin_clients = 6\nclients = 6\nround_timeout = \"1h\"\nselection = \"uniform\"\n\
                      [robustness]\nrule = \"median\"\nbyzantine_tolerance = 0.34\n\
                      [secure]\nenabled = true\nkey = \"keys/server\"\nhelpers = \"keys/helpers\"\nclip = 3.0\ngroups = 3\n";

/// A federation whose parties have keys.
struct Parties(Federation);

impl Parties {
    fn new(settings: &str) -> Self {
        let parties = Self(Federation::new(CLIENTS, settings));
        std::fs::create_dir_all(parties.0.dir.path(&format!("{STATE}/keys/helpers"))).unwrap();
        parties.keygen("server", "server");
        (1..=HELPERS)
            .for_each(|helper| parties.keygen(&format!("helper-{helper}"), &format!("helpers/{helper}")));
        (0..CLIENTS).for_each(|client| parties.register(client, false));
        parties
    }

    fn run(&self, args: &[&str]) -> Run {
        fedmill(&self.0.dir, args)
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:#?}");
        run
    }

    fn keygen(&self, id: &str, file: &str) {
        self.done(&["secagg", "keygen", "--id", id, "-o", &format!("{STATE}/keys/{file}")]);
    }

    /// Registers a client again, with its key.
    fn register(&self, client: u64, demands: bool) {
        let id = format!("client-{client}");
        let key = format!("{STATE}/keys/{id}");
        if !self.0.dir.exists(&key) {
            self.keygen(&id, &id);
        }
        self.0.dir.write(
            "client.json",
            format!(
                "{{\"node_id\":\"{id}\",\"compute_capability\":1,\"data_size\":10,\"connection_quality\":0.5,\
                 \"privacy_requirements\":{{\"secure_aggregation\":{demands}}}}}"
            ),
        );
        self.done(&["clients", "add", STATE, "client.json", "--update", "--key", &format!("{key}.pub")]);
    }

    /// A client masks its update as its task says.
    fn mask(&self, client: u64, round: u64) -> Run {
        let dir = &self.0.dir;
        let task = dir.json(&format!("{STATE}/tasks/{round:06}/client-{client}.json"));
        let sent = format!("update-{client}-{round}.safetensors");
        dir.write(&sent, update(client, round).bytes());
        let text = |value: &Value| format!("{STATE}/{}", value.as_str().unwrap());
        let (session, base, put) =
            (text(&task["secure"]["folder"]), text(&task["model"]["path"]), text(&task["secure"]["put"]));
        let key = format!("{STATE}/keys/client-{client}");
        let (server, helpers) = (format!("{STATE}/keys/server.pub"), format!("{STATE}/keys/helpers"));
        self.run(&[
            "secagg", "mask", &session, &sent, "--base", &base, "--key", &key, "--trust", &server, &helpers,
            "-o", &put,
        ])
    }

    fn mask_all(&self, round: u64, clients: impl IntoIterator<Item = u64>) {
        for client in clients {
            let run = self.mask(client, round);
            assert_eq!(run.code, Some(0), "{run:#?}");
        }
    }

    /// A helper runs a step.
    fn helper(&self, step: &str, helper: u64, round: u64) -> Run {
        let session = format!("{STATE}/secagg/{round:06}");
        self.run(&["secagg", step, &session, "--key", &format!("{STATE}/keys/helpers/{helper}")])
    }

    #[track_caller]
    fn help(&self, step: &str, helpers: impl IntoIterator<Item = u64>, round: u64) {
        for helper in helpers {
            let run = self.helper(step, helper, round);
            assert_eq!(run.code, Some(0), "{run:#?}");
        }
    }

    /// Opens and merges a round of all clients.
    fn whole(&self, round: u64) {
        let run = self.0.round("run", &["-q"]);
        let status = self.0.status();
        assert_eq!((&status["round"], &status["phase"]), (&round.into(), &"collect".into()), "{run:#?}");
        self.mask_all(round, 0..CLIENTS);
        self.0.round("run", &["-q"]);
        self.help("check", 1..=HELPERS, round);
        self.0.round("run", &["-q"]);
        self.help("help", 1..=HELPERS, round);
        self.0.advance();
        assert_eq!(self.0.status()["published"], round);
    }

    fn copy(&self, from: &str, to: &str) {
        let script = format!("rm -rf {to} && cp -a {from} {to}");
        let copied = Command::new("sh").args(["-c", &script]).current_dir(self.0.dir.path("")).status();
        assert!(copied.unwrap().success());
    }

    fn shown(&self, round: u64) -> Value {
        let shown = self.0.round("show", &[&round.to_string(), "--json"]);
        serde_json::from_str(&shown.stdout).unwrap_or_else(|why| panic!("{why}: {shown:#?}"))
    }

    /// The content of a signed text.
    fn signed(&self, path: &str) -> Value {
        let text = self.0.dir.read(path);
        serde_json::from_slice(text.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
    }

    /// The values of the current model.
    fn values(&self) -> Vec<f64> {
        self.0.dir.write("found.safetensors", self.0.model());
        values(&Model::read(&self.0.dir, "found.safetensors"))
    }
}

fn values(model: &Model) -> Vec<f64> {
    ["a", "b"].iter().flat_map(|tensor| model.f32(tensor)).map(f64::from).collect()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], most: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= most, "found {found}, expected {expected} within {most}");
    }
}

#[test]
fn secure_rounds_merge_the_mean_of_the_clients_and_the_server_sees_no_update() {
    let parties = Parties::new(SETTINGS);
    let dir = &parties.0.dir;
    let mut base = "model.safetensors".to_owned();
    for round in 1..=2 {
        parties.whole(round);
        let merged = format!("plain-{round}.safetensors");
        let sent: Vec<String> =
            (0..CLIENTS).map(|client| format!("update-{client}-{round}.safetensors")).collect();
        let sent = sent.iter().map(String::as_str);
        let args: Vec<&str> = ["aggregate", "--base", &base, "-o", &merged].into_iter().chain(sent).collect();
        parties.done(&args);
        // The grid has at least 2^20 levels here, and each round starts from the model before.
        assert_near(&parties.values(), &values(&Model::read(dir, &merged)), CLIP * 1e-6 + 1e-6);
        base = format!("base-{round}.safetensors");
        dir.write(&base, parties.0.model());
        let shown = parties.shown(round);
        let secure = &shown["secure"];
        let transcript = parties.signed(&format!("{STATE}/secagg/{round:06}/transcript.json"));
        assert_eq!(secure["session"], transcript["session"]);
        assert_eq!((&secure["clients"], &shown["merged"]), (&CLIENTS.into(), &CLIENTS.into()), "{shown}");
        assert_eq!(secure["answers"], serde_json::json!(["helper-1", "helper-2", "helper-3"]));
        assert_eq!(secure["wrong"], serde_json::json!([]));
        parties.done(&["secagg", "verify", &format!("{STATE}/secagg/{round:06}")]);
    }
    let lines = String::from_utf8(dir.read(&format!("{STATE}/metrics/rounds.jsonl"))).unwrap();
    let record: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(record["secure"]["clients"], CLIENTS, "{record}");
    let text = parties.0.round("show", &["2"]).stdout;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("6 clients, answers of helper-1, helper-2, helper-3"), "{text}");
    let clear = |name: &&String| name.starts_with("fed/inbox") || name.contains("/updates/client");
    assert_eq!(dir.names().iter().filter(clear).count(), 0, "no update in the clear");
    parties.0.assert_sound();
}

#[test]
fn a_secure_round_waits_for_its_helpers_and_goes_on() {
    let parties = Parties::new(SETTINGS);
    parties.0.advance();
    parties.mask_all(1, 0..2);
    parties.0.round("run", &[]).assert_fails(1, &["waiting: round 1 has 2 of 6 masked updates"]);
    parties.mask_all(1, 2..CLIENTS);
    parties.0.advance();
    let run = parties.0.round("run", &[]);
    run.assert_fails(1, &["waiting: round 1 waits for helpers: 0 of 2 checked the masked updates"]);
    assert_eq!(parties.0.status()["waits"], "round 1 waits for helpers: 0 of 2 checked the masked updates");
    parties.help("check", [1, 3], 1);
    let text = parties.0.round("status", &[]).stdout;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "6 masked updates, 2 of 3 helpers checked, 0 answered of the 2 that suffice";
    assert!(words.contains(expected), "{words}");
    parties.0.round("run", &[]).assert_fails(1, &["waiting: round 1 waits for helpers: 0 of 2 answered"]);
    parties.help("help", [3], 1);
    parties.0.round("run", &[]).assert_fails(1, &["waiting: round 1 waits for helpers: 1 of 2 answered"]);
    let status = parties.0.status();
    assert_eq!(
        (&status["secure"]["frozen"], &status["secure"]["answered"]),
        (&6.into(), &serde_json::json!(["helper-3"]))
    );
    parties.help("help", [2], 1);
    parties.0.advance();
    assert_eq!(parties.0.status()["published"], 1);
    assert_eq!(parties.shown(1)["secure"]["answers"], serde_json::json!(["helper-2", "helper-3"]));
    parties.0.assert_sound();
}

#[test]
fn a_secure_round_killed_before_every_durable_step_ends_in_the_same_bytes() {
    let parties =
        Parties::new(&SETTINGS.replace("[secure]", "[strategy]\nname = \"fedadam:lr=0.01\"\n[secure]"));
    parties.0.round("run", &["-q"]);
    parties.mask_all(1, 0..CLIENTS);
    parties.0.round("run", &["-q"]);
    parties.help("check", 1..=HELPERS, 1);
    // A kill while the set is frozen: the set stays the first one.
    parties.copy(STATE, "before");
    let mut steps = 0;
    loop {
        steps += 1;
        parties.copy("before", STATE);
        let setup = format!("export FEDMILL_FAIL_AT={steps}");
        let run = fedmill_after(&parties.0.dir, &setup, &["round", "run", STATE, "-q"]);
        let set = format!("{STATE}/secagg/000001/set.json");
        let frozen = parties.0.dir.exists(&set).then(|| parties.0.dir.read(&set));
        parties.0.round("run", &["-q"]).assert_fails(1, &[]);
        assert!(frozen.is_none_or(|frozen| frozen == parties.0.dir.read(&set)), "step {steps}");
        if run.code.is_some() {
            break;
        }
    }
    assert!(steps > 4, "{steps} steps");
    parties.help("help", 1..=HELPERS, 1);
    parties.copy(STATE, "before");
    parties.0.advance();
    let (model, state) = (parties.0.model(), parties.0.dir.read("fed/rounds/000001/state.safetensors"));
    for step in 1.. {
        parties.copy("before", STATE);
        let setup = format!("export FEDMILL_FAIL_AT={step}");
        let run = fedmill_after(&parties.0.dir, &setup, &["round", "run", STATE, "-q"]);
        if run.code.is_some() {
            assert!(step > 60, "{step} steps");
            break;
        }
        while parties.0.status()["round"] != 2 || parties.0.status()["phase"] != "collect" {
            parties.0.round("run", &["-q"]);
        }
        assert!(parties.0.model() == model, "another model after step {step}");
        assert!(
            parties.0.dir.read("fed/rounds/000001/state.safetensors") == state,
            "another state after step {step}"
        );
        parties.0.assert_sound();
    }
}

#[test]
fn a_secure_round_killed_as_it_opens_keeps_its_session() {
    let parties = Parties::new(SETTINGS);
    parties.copy(STATE, "before");
    for step in 1.. {
        parties.copy("before", STATE);
        let setup = format!("export FEDMILL_FAIL_AT={step}");
        let run = fedmill_after(&parties.0.dir, &setup, &["round", "run", STATE, "-q"]);
        let manifest = format!("{STATE}/secagg/000001/manifest.json");
        let before = parties.0.dir.exists(&manifest).then(|| parties.0.dir.read(&manifest));
        while parties.0.status()["phase"] != "collect" {
            parties.0.round("run", &["-q"]);
        }
        assert!(before.is_none_or(|before| before == parties.0.dir.read(&manifest)), "step {step}");
        if run.code.is_some() {
            assert!(step > 10, "{step} steps");
            break;
        }
    }
    // A lost session is not opened anew: clients masked for the first one.
    std::fs::remove_file(parties.0.dir.path(&format!("{STATE}/secagg/000001/manifest.json"))).unwrap();
    parties.0.round("run", &[]).assert_fails(2, &["secagg/000001/manifest.json: found no session"]);
}

#[test]
fn clients_that_demand_it_are_never_merged_in_the_clear() {
    let clear =
        SETTINGS.replace("enabled = true\nkey", "enabled = false\nkey").replace("clients = 6", "clients = 5");
    let parties = Parties::new(&clear);
    parties.register(0, true);
    let run = parties.0.advance();
    assert!(run.stderr.contains("1 clients take part under secure aggregation only"), "{run:#?}");
    assert_eq!(parties.0.selected(1), [1, 2, 3, 4, 5]);
    // One that is not selected delivers, and one demands it behind the opening.
    parties.register(5, true);
    parties.0.deliver(1, 0);
    parties.0.put(1, "client-0.safetensors", &update(0, 1).bytes());
    parties.0.round("run", &["-q"]);
    assert_eq!(parties.0.status()["phase"], "collect", "4 of 5 updates count");
    let list = String::from_utf8(parties.0.dir.read(&format!("{STATE}/rounds/000001/collect.json"))).unwrap();
    let why = "the client takes part under secure aggregation only, and this round merges in the clear";
    assert_eq!(list.matches(why).count(), 2, "{list}");
    for client in ["client-0", "client-5"] {
        let moved = list.split(&format!("inbox/000001/{client}")).nth(1).unwrap();
        assert!(moved.contains("quarantine"), "{client}: {list}");
    }
}

#[test]
fn a_client_that_demands_it_behind_the_collection_is_left_out() {
    let clear = SETTINGS.replace("enabled = true\nkey", "enabled = false\nkey");
    let parties = Parties::new(&clear);
    parties.0.advance();
    parties.0.deliver(1, 0);
    assert_eq!(parties.0.round("run", &["-q", "--phase", "collect"]).code, Some(0));
    parties.register(2, true);
    parties.0.advance();
    assert_eq!(parties.0.status()["published"], 1);
    let shown = parties.shown(1);
    let client =
        shown["clients"].as_array().unwrap().iter().find(|client| client["id"] == "client-2").unwrap();
    assert_eq!(client["outcome"], "rejected", "{client}");
    assert!(client["reason"].as_str().unwrap().contains("under secure aggregation only"), "{client}");
    assert_eq!(shown["merged"], 5);
}

#[test]
fn a_secure_round_takes_no_update_in_the_clear_and_names_bad_files() {
    let quorum = SETTINGS.replace("min_clients = 4", "min_clients = 4\nquorum = 0.8");
    let parties = Parties::new(&quorum);
    parties.register(1, true);
    parties.0.advance();
    parties.0.put(1, "client-0.safetensors", &update(0, 1).bytes());
    parties.mask_all(1, 1..5);
    // A file under the name of another client, and one that no client signed.
    let masked = |client: u64| format!("{STATE}/secagg/000001/masked/client-{client}.safetensors");
    parties.0.dir.write(&masked(5), parties.0.dir.read(&masked(1)));
    parties.0.dir.write(&masked(0), update(0, 1).bytes());
    parties.0.round("run", &[]).assert_fails(1, &["waiting: round 1 has 4 of 5 masked updates"]);
    // The last client of the quorum comes.
    std::fs::remove_file(parties.0.dir.path(&masked(0))).unwrap();
    parties.mask_all(1, 0..1);
    parties.0.advance();
    parties.help("check", 1..=2, 1);
    parties.0.round("run", &["-q"]);
    parties.help("help", 1..=2, 1);
    parties.0.advance();
    let shown = parties.shown(1);
    let of = |id: &str| {
        shown["clients"].as_array().unwrap().iter().find(|client| client["id"] == id).unwrap().clone()
    };
    assert_eq!(
        (of("client-1")["outcome"].as_str(), of("client-0")["outcome"].as_str()),
        (Some("merged"), Some("merged"))
    );
    assert_eq!(of("client-5")["outcome"], "rejected", "{shown}");
    assert!(of("client-5")["reason"].as_str().unwrap().contains("sender"), "{shown}");
    let files = shown["files"].to_string();
    assert!(files.contains("the update came in the clear"), "{files}");
    parties.0.assert_sound();
}

#[test]
fn a_rule_judges_the_means_of_groups() {
    let parties = Parties::new(GROUPS);
    parties.whole(1);
    let shown = parties.shown(1);
    assert_eq!((&shown["secure"]["groups"], &shown["merged"]), (&3.into(), &6.into()), "{shown}");
    // The median of the three means of two clients each, from the manifest's groups.
    let dir = &parties.0.dir;
    let manifest = parties.signed(&format!("{STATE}/secagg/000001/manifest.json"));
    let clients = manifest["clients"].as_array().unwrap();
    let mean = |group: u64| -> Vec<f64> {
        let of_group = clients.iter().filter(|client| client["group"] == group);
        let ids: Vec<u64> = of_group.map(|one| one["id"].as_str().unwrap()[7..].parse().unwrap()).collect();
        let sent: Vec<Vec<f64>> = ids
            .iter()
            .map(|client| values(&Model::read(dir, &format!("update-{client}-1.safetensors"))))
            .collect();
        (0..sent[0].len()).map(|j| sent.iter().map(|one| one[j]).sum::<f64>() / sent.len() as f64).collect()
    };
    let (means, base) = ([mean(0), mean(1), mean(2)], values(&Model::read(dir, "model.safetensors")));
    let median = |j: usize| {
        let mut of: Vec<f64> = means.iter().map(|mean| mean[j]).collect();
        of.sort_by(f64::total_cmp);
        base[j] + of[1]
    };
    let expected: Vec<f64> = (0..base.len()).map(median).collect();
    assert_near(&parties.values(), &expected, 1e-5);
}

#[test]
fn settings_that_cannot_be_secure_open_no_round() {
    let parties = Parties::new(&SETTINGS.replace("rule = \"mean\"", "rule = \"median\""));
    parties.0.round("run", &[]).assert_fails(1, &["refused: fedmill.toml: robustness.rule is median"]);
    parties.0.configure(SETTINGS);
    assert_eq!(parties.0.round("check", &[]).stdout, "no finding\n");
    parties.0.configure(&SETTINGS.replace("keys/server", "keys/lost"));
    let check = parties.0.round("check", &[]);
    assert!(check.code == Some(1) && check.stdout.contains("found no secret key"), "{check:#?}");
    parties.0.round("run", &[]).assert_fails(2, &["secure.key", "found no secret key"]);
    parties.0.configure(SETTINGS);
    parties.0.advance();
    parties.0.configure(&SETTINGS.replace("enabled = true", "enabled = false"));
    parties.mask_all(1, 0..CLIENTS);
    let changed = ["secure.enabled: is false, and round 1 opened with true", "round rollback"];
    parties.0.round("run", &[]).assert_fails(2, &changed);
    // The round goes on where the settings are as they were.
    parties.0.configure(SETTINGS);
    let run = parties.0.round("run", &[]);
    assert!(run.code == Some(0) && run.stderr.contains("waits for helpers: 0 of 2 checked"), "{run:#?}");
}

#[test]
fn clients_without_a_key_are_left_out_of_secure_rounds() {
    let parties = Parties::new(&SETTINGS.replace("clients = 6", "clients = 5"));
    let id = "client-3";
    parties.0.dir.write(
        "client.json",
        format!(
            "{{\"node_id\":\"{id}\",\"compute_capability\":1,\"data_size\":10,\"connection_quality\":0.5}}"
        ),
    );
    parties.done(&["clients", "add", STATE, "client.json", "--update"]);
    let check = parties.0.round("check", &[]).stdout;
    assert!(check.contains("5 of 6 clients with a key"), "{check}");
    let run = parties.0.advance();
    assert!(run.stderr.contains("1 clients have no key for secure aggregation"), "{run:#?}");
    assert_eq!(parties.0.selected(1), [0, 1, 2, 4, 5]);
    // The key of another party is refused.
    let add =
        parties.run(&["clients", "add", STATE, "client.json", "--update", "--key", "fed/keys/client-4.pub"]);
    add.assert_fails(2, &["the public key is that of `client-4`, expected that of `client-3`"]);
}

#[test]
fn a_round_whose_helpers_are_late_is_refused() {
    let parties = Parties::new(&format!("{SETTINGS}helper_timeout = \"1s\"\n"));
    parties.0.advance();
    parties.mask_all(1, 0..CLIENTS);
    parties.0.advance();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let run = parties.0.round("run", &[]);
    run.assert_fails(1, &["0 of 2 checked the masked updates", "secure.helper_timeout, 1s, passed"]);
    // The next round opens, and helpers that are in time make it whole.
    parties.0.configure(SETTINGS);
    parties.0.round("run", &["-q"]);
    parties.mask_all(2, 0..CLIENTS);
    parties.0.round("run", &["-q"]);
    parties.help("check", 1..=HELPERS, 2);
    parties.0.round("run", &["-q"]);
    parties.help("help", 1..=HELPERS, 2);
    parties.0.advance();
    let status = parties.0.status();
    assert_eq!((&status["published"], &status["refused"]), (&1.into(), &1.into()), "{status}");
    parties.0.assert_sound();
}
