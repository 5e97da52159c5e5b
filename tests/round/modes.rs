//! Asynchronous rounds, tiers, patches for clients, and settings that adapt.

use super::federation::{Federation, STATE, update};
use crate::harness::fedmill;
use serde_json::{Value, json};

fn task(federation: &Federation, round: u64, client: u64) -> Value {
    federation.dir.json(&format!("{STATE}/tasks/{round:06}/client-{client}.json"))
}

#[test]
fn an_asynchronous_round_merges_a_buffer_with_staleness_weights() {
    let federation = Federation::new(
        6,
        "[coordination]\nmode = \"async\"\nmin_clients = 2\nclients = 6\nbuffer = 3\nround_timeout = \"1h\"\n\
         [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n[strategy]\nname = \"fedbuff\"\n",
    );
    federation.advance();
    let send = |client: u64, round: u64| {
        federation.put(round, &format!("client-{client}.safetensors"), &update(client, round).bytes());
    };
    send(0, 1);
    send(1, 1);
    federation.round("run", &[]).assert_fails(1, &["waiting: round 1 has 2 of 3 updates"]);
    send(2, 1);
    federation.advance();
    assert_eq!(federation.status()["published"], 1);
    // Two clients were slower: their updates of round 1 count in round 2, the older one less.
    send(3, 1);
    send(0, 2);
    send(4, 2);
    federation.advance();
    let history = federation.history();
    assert_eq!(history[1]["merged"], 3, "{history:?}");
    let report = federation.dir.json(&format!("{STATE}/rounds/000002/report.json"));
    let weight = |id: &str| {
        let row = report["clients"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap();
        row["weight"].as_f64().unwrap()
    };
    assert!(weight("client-3") < weight("client-0"), "{report}");
    // A client that delivers twice before a merge has its second update in the next.
    send(5, 2);
    federation.round("run", &[]);
    send(5, 3);
    federation.round("run", &[]).assert_fails(1, &["waiting: round 3 has 1 of 3 updates"]);
    assert!(federation.dir.exists(&format!("{STATE}/inbox/000003/client-5.safetensors")));
    federation.assert_sound();
}

#[test]
fn the_tasks_of_a_tier_have_its_steps_and_codec() {
    let federation = Federation::new(
        6,
        "[coordination]\nmin_clients = 2\nclients = 6\n[strategy]\nlocal_steps = 2\n[tiers]\nfile = \"tiers.json\"\n\
         [robustness]\nrule = \"meamed\"\nbyzantine_tolerance = 0.0\n",
    );
    let made = fedmill(
        &federation.dir,
        &[
            "clients",
            "tiers",
            STATE,
            "-o",
            "fed/tiers.json",
            "--quantiles",
            "--tier-rule",
            "high=median",
            "--tier-steps",
            "high=9",
            "--tier-codec",
            "low=u8",
        ],
    );
    assert_eq!(made.code, Some(0), "{made:#?}");
    federation.advance();
    let steps: Vec<Value> = [0, 5].map(|client| task(&federation, 1, client)["local_steps"].clone()).into();
    assert_eq!(steps, [json!(2), json!(9)]);
    assert_eq!(task(&federation, 1, 0)["codecs"], json!(["u8"]));
    federation.deliver(1, 0);
    federation.advance();
    let report = federation.dir.json(&format!("{STATE}/rounds/000001/report.json"));
    let tiers = report["tiers"].as_array().unwrap().iter();
    let rule =
        |tier: &Value| format!("{}={}", tier["name"].as_str().unwrap(), tier["rule"].as_str().unwrap());
    let rules: Vec<String> = tiers.map(rule).collect();
    // A tier without a rule in the file takes that of the round.
    assert!(
        rules.contains(&"high=median".to_owned()) && rules.contains(&"low=meamed".to_owned()),
        "{rules:?}"
    );
    let check = federation.round("check", &[]).stdout;
    let words = check.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("note: tiers.file is tiers.json tier high is merged by median (its own, no client assumed hostile); "),
        "{check}"
    );
    assert!(
        words.contains("tier low is merged by meamed (robustness.rule, no client assumed hostile)"),
        "{check}"
    );
}

#[test]
fn clients_that_hold_a_model_are_offered_a_patch() {
    let federation = Federation::new(
        6,
        "[coordination]\nmin_clients = 2\nclients = 6\n[robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n\
         [personalization]\nlayers = [\"b\"]\n[compression]\ndownlink_deltas = true\n",
    );
    // A model of which the rounds change a small part.
    let dir = &federation.dir;
    let large: Vec<f32> = (0..20_000_u32).map(|i| (i % 977) as f32 / 64.0).collect();
    let model = crate::harness::Update::new("large").f32("a", &[10], &[0.5; 10]).f32("b", &[20_000], &large);
    model.write(dir);
    std::fs::remove_dir_all(dir.path("fed/rounds")).unwrap();
    let init = fedmill(dir, &["round", "init", STATE, "--model", "large.safetensors"]);
    assert_eq!(init.code, Some(0), "{init:#?}");
    for round in 1..=2 {
        federation.round("run", &[]);
        for client in federation.selected(round) {
            let sent = crate::harness::Update::new("sent").f32("a", &[10], &[client as f32 * 0.25; 10]);
            let sent = sent.meta("kind", "delta").meta("round", &round.to_string());
            federation.put(round, &format!("client-{client}.safetensors"), &sent.bytes());
        }
        federation.advance();
    }
    let task = task(&federation, 3, 0);
    let (model, patch) = (&task["model"], &task["model"]["patch"]);
    assert!(patch["bytes"].as_u64().unwrap() < model["bytes"].as_u64().unwrap() / 10, "{task}");
    let path = |of: &Value| format!("{STATE}/{}", of["path"].as_str().unwrap());
    let held = format!("{STATE}/models/{}.safetensors", patch["onto"].as_str().unwrap());
    let applied = fedmill(dir, &["decompress", &path(patch), "--base", &held, "-o", "new.safetensors"]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    assert_eq!(dir.read("new.safetensors"), dir.read(&path(model)), "the patch gives the model, bit for bit");
    let show = fedmill(dir, &["clients", "show", STATE, "client-0", "--json"]);
    let shown: Value = serde_json::from_str(&show.stdout).unwrap_or_else(|why| panic!("{why}: {show:#?}"));
    assert!(shown.to_string().contains("bytes_down"), "{shown}");
    federation.assert_sound();
    // A patch that an earlier round left is made anew: it may be damaged.
    let whole = dir.read(&path(patch));
    dir.write(&path(patch), &whole[..whole.len() / 2]);
    assert_eq!(federation.round("rollback", &["--to", "2"]).code, Some(0));
    federation.advance();
    assert_eq!(dir.read(&path(patch)), whole);
}

#[test]
fn settings_adapt_within_their_bounds_and_say_why() {
    let federation = Federation::new(
        6,
        "[coordination]\nmin_clients = 2\nclients = 4\ndropout = 0.3\nquorum = 1.0\nround_timeout = \"1s\"\n\
         [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n\
         [adaptation]\nserver_learning_rate = [0.5, 1.2]\nquorum = [0.5, 1.0]\nround_timeout = [\"1s\", \"10s\"]\n\
         clients = [4, 6]\ncompression_target = [0.001, 0.5]\nbytes_per_round = 5000\n",
    );
    federation.advance();
    federation.deliver(1, 3);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    federation.advance();
    let lines = String::from_utf8(federation.dir.read(&format!("{STATE}/metrics/rounds.jsonl"))).unwrap();
    let record: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let adapted = record["adapted"].as_array().unwrap();
    let of = |name: &str| {
        let found = adapted.iter().find(|change| change["setting"] == name);
        found.unwrap_or_else(|| panic!("{name}: {adapted:?}")).clone()
    };
    assert_eq!(of("round_timeout")["to"], "1.2500", "a deadline that three missed");
    assert_eq!(of("quorum")["to"], "0.8000", "by one step, towards a half");
    assert_eq!(of("dropout")["from"], "0.3000");
    assert!(of("compression_target")["why"].as_str().unwrap().contains("of 5000"), "{adapted:?}");
    let settings = &federation.status()["settings"];
    assert_eq!(settings["timeout_s"], 1.25);
    let rate = settings["server_learning_rate"].as_f64().unwrap();
    assert!((0.5..=1.2).contains(&rate), "{rate}");
}
