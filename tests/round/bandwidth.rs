//! Tiers whose codec and compression target follow their budget of bytes.

use super::federation::{Federation, STATE};
use crate::harness::{Update, fedmill};
use serde_json::{Value, json};

/// Values of the large tensor: 80 kB as they are, 40 kB by f16, 20 kB by u8.
const LEN: usize = 20_000;

const METHODS: &str = "[\"f16\", \"u8\", \"u4\", \"topk:fraction=0.01\"]";

fn large(scale: usize) -> Vec<f32> {
    (0..LEN).map(|i| ((i * scale) % 977) as f32 / 64.0).collect()
}

/// Six clients in three tiers. Those of the tier low may send this much.
fn federation(low: &str, adaptation: &str) -> Federation {
    let federation = Federation::new(
        6,
        &format!(
            "[coordination]\nmin_clients = 2\nclients = 6\n[robustness]\nbyzantine_tolerance = 0.0\n\
             [tiers]\nfile = \"tiers.json\"\n[compression]\nmethods = {METHODS}\ntarget = 0.3\n\
             [adaptation]\ntier_codecs = true\n{adaptation}\n"
        ),
    );
    let dir = &federation.dir;
    Update::new("large").f32("b", &[LEN], &large(1)).write(dir);
    std::fs::remove_dir_all(dir.path("fed/rounds")).unwrap();
    let init = fedmill(dir, &["round", "init", STATE, "--model", "large.safetensors"]);
    assert_eq!(init.code, Some(0), "{init:#?}");
    tiers(&federation, low);
    federation
}

fn tiers(federation: &Federation, low: &str) {
    let budget = format!("low={low}");
    let rule = ["--tier-rule", "low=median", "--tier-bytes", &budget];
    let made = [&["clients", "tiers", STATE, "-o", "fed/tiers.json", "--quantiles"][..], &rule].concat();
    let made = fedmill(&federation.dir, &made);
    assert_eq!(made.code, Some(0), "{made:#?}");
}

/// All clients deliver: those of the tier low by this codec or as they are, the others by u8.
fn deliver(federation: &Federation, round: u64, low: Option<&str>) {
    deliver_but(federation, round, low, None);
}

/// The same, where one client may deliver other bytes.
fn deliver_but(federation: &Federation, round: u64, low: Option<&str>, other: Option<(u64, &[u8])>) {
    for client in federation.selected(round) {
        let bytes = match other {
            Some((id, bytes)) if id == client => bytes.to_vec(),
            _ => encoded(federation, client, round, low),
        };
        federation.put(round, &format!("client-{client}.safetensors"), &bytes);
    }
    // The round ends, and the next one opens.
    federation.advance();
}

/// The update of a client.
fn encoded(federation: &Federation, client: u64, round: u64, low: Option<&str>) -> Vec<u8> {
    let dir = &federation.dir;
    let update = Update::new(&format!("client-{client}")).f32("b", &[LEN], &large(client as usize + 3));
    let update = update.meta("kind", "delta").meta("round", &round.to_string());
    let codec = if tier_of(federation, client) == "low" { low } else { Some("u8") };
    let Some(codec) = codec else { return update.bytes() };
    update.write(dir);
    let name = format!("client-{client}.safetensors");
    let run = fedmill(dir, &["compress", &name, "--codec", codec, "-o", "small.safetensors"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    dir.read("small.safetensors")
}

fn tier_of(federation: &Federation, client: u64) -> &'static str {
    let file = federation.dir.json("fed/tiers.json");
    let has = |tier: &Value| tier["clients"].to_string().contains(&format!("client-{client}\""));
    match file["tiers"].as_array().unwrap().iter().find(|tier| has(tier)) {
        Some(tier) if tier["name"] == "high" => "high",
        Some(_) => "medium",
        None => "low",
    }
}

/// The task of the client in the tier low, and of one in the tier high.
fn tasks(federation: &Federation, round: u64) -> [Value; 2] {
    assert_eq!([0, 5].map(|client| tier_of(federation, client)), ["low", "high"]);
    [0, 5].map(|client| federation.dir.json(&format!("{STATE}/tasks/{round:06}/client-{client}.json")))
}

/// What a round changed, from its journal.
fn changes(federation: &Federation, round: u64) -> Vec<Value> {
    let journal = federation.dir.read(&format!("{STATE}/rounds/{round:06}/journal.jsonl"));
    let lines = String::from_utf8(journal).unwrap();
    let mut lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let report = lines.find_map(|line| line["event"].get("report").cloned());
    report.unwrap()["changes"].as_array().unwrap().clone()
}

#[track_caller]
fn change(federation: &Federation, round: u64, setting: &str) -> Value {
    let all = changes(federation, round);
    let found = all.iter().find(|change| change["setting"] == setting);
    found.unwrap_or_else(|| panic!("{setting}: {all:?}")).clone()
}

#[test]
fn a_tier_moves_to_a_smaller_codec_and_back() {
    let federation = federation("55kB", "compression_target = [0.25, 0.5]");
    federation.advance();
    let [low, high] = tasks(&federation, 1);
    assert_eq!((&low["codecs"], &low["upload_bytes"]), (&json!(["f16"]), &json!(55_000)));
    assert_eq!(
        (high["codecs"].to_string(), &high["upload_bytes"]),
        (METHODS.replace(", ", ","), &Value::Null)
    );

    // Updates of twice the bytes that f16 needs.
    deliver(&federation, 1, None);
    let moved = change(&federation, 1, "codec of tier `low`");
    assert_eq!((&moved["from"], &moved["to"]), (&json!("f16"), &json!("u8")));
    let why = moved["why"].as_str().unwrap();
    assert!(
        why.starts_with("half of its updates took at most 80")
            && why.contains("of 55000; u8 is expected to take"),
        "{why}"
    );
    // A step of a quarter would go to 0.24.
    let target = change(&federation, 1, "compression_target of tier `low`");
    assert_eq!((&target["from"], &target["to"]), (&json!(0.3), &json!(0.25)));
    assert_eq!(changes(&federation, 1).len(), 2, "other tiers have no budget");

    let [low, high] = tasks(&federation, 2);
    assert_eq!(
        (&low["codecs"], &low["compression_target"]),
        (&json!(["u8"]), &Value::Null),
        "u8 decides the size"
    );
    let manifest = federation.dir.json(&format!("{STATE}/tasks/round.json"));
    assert_eq!(manifest["settings"]["tiers"]["low"]["compression_target"], 0.25, "{manifest}");
    assert_eq!((high["codecs"].as_array().unwrap().len(), &high["compression_target"]), (4, &json!(0.3)));
    deliver(&federation, 2, Some("u8"));
    let moved = change(&federation, 2, "codec of tier `low`");
    assert_eq!((&moved["from"], &moved["to"]), (&json!("u8"), &json!("f16")));
    assert_eq!(tasks(&federation, 3)[0]["codecs"], json!(["f16"]));

    // The budget shrinks while round 3 is open. Only topk is small enough, and the median refuses it.
    tiers(&federation, "5kB");
    deliver(&federation, 3, Some("f16"));
    let moved = change(&federation, 3, "codec of tier `low`");
    assert_eq!(moved["to"], json!("u4"));
    assert!(
        moved["why"].as_str().unwrap().contains("no codec of compression.methods meets that: u4"),
        "{moved}"
    );
    assert_eq!(tasks(&federation, 4)[0]["codecs"], json!(["u4"]));
    let check = federation.round("check", &["--json"]);
    let found: Value = serde_json::from_str(&check.stdout).unwrap();
    let found = found["findings"].to_string();
    assert!(found.contains("no codec meets the 5000 bytes of a client in tier `low`"), "{found}");
    assert!(
        found.contains("tier `low` never gets it: each client chooses under half of its values"),
        "{found}"
    );
    let page = federation.dir.read(&format!("{STATE}/metrics/rounds.jsonl"));
    assert!(String::from_utf8(page).unwrap().contains("\"from\":\"f16\",\"to\":\"u8\""));
    federation.assert_sound();
}

#[test]
fn tiers_share_the_budget_of_the_round() {
    // Models of 80 kB for six clients leave 150 kB, of which the tier low has 30 kB.
    let federation = federation("15kB", "bytes_per_round = 630000");
    federation.advance();
    let [low, high] = tasks(&federation, 1);
    let bytes = high["upload_bytes"].as_u64().unwrap();
    assert_eq!((&low["upload_bytes"], &low["codecs"]), (&json!(15_000), &json!(["u4"])));
    assert!((29_500..=30_000).contains(&bytes), "a quarter of 120 kB: {bytes}");
    assert_eq!(high["codecs"], json!(["u8"]), "the least lossy codec within that");
    let manifest = federation.dir.json(&format!("{STATE}/tasks/round.json"));
    assert_eq!(manifest["settings"]["tiers"]["low"]["codec"], "u4", "{manifest}");
}

/// One file of 5 MB, which the round does not merge, says nothing of what a codec needs.
#[test]
fn a_file_in_quarantine_changes_no_codec() {
    let federation = federation("55kB", "");
    federation.advance();
    let low = Some("f16");
    let first = federation.selected(1)[0];
    assert_eq!(tier_of(&federation, first), "low");
    let huge = vec![f32::NAN; 1_250_000];
    let huge = Update::new("huge").f32("b", &[huge.len()], &huge).meta("kind", "delta").meta("round", "1");
    let bytes = huge.bytes();
    deliver_but(&federation, 1, low, Some((first, &bytes)));
    assert_eq!(changes(&federation, 1), Vec::<Value>::new());
    assert_eq!(tasks(&federation, 2)[0]["codecs"], json!(["f16"]));
    let past = &federation.history()[1];
    assert_eq!((&past["rejected"], &past["merged"]), (&json!(1), &json!(5)), "{past}");

    // The same in a round that the guard refused: its files in quarantine switch nothing.
    let settings = String::from_utf8(federation.dir.read(&format!("{STATE}/fedmill.toml"))).unwrap();
    let guard = "[evaluation]\ncommand = [\"sh\", \"-c\", \"echo '{\\\"loss\\\": NaN}'\"]\n";
    federation.configure(&format!("{settings}{guard}"));
    for client in federation.selected(2) {
        let name = format!("client-{client}.safetensors");
        match client == first {
            true => federation.put(2, &name, &bytes),
            false => federation.put(2, &name, &encoded(&federation, client, 2, Some("f16"))),
        }
    }
    federation.round("run", &[]).assert_fails(1, &["the metric loss is NaN"]);
    assert_eq!(changes(&federation, 2), Vec::<Value>::new());
}

#[test]
fn a_tier_that_keeps_the_smallest_codec_has_no_change() {
    let federation = federation("5kB", "");
    federation.advance();
    assert_eq!(tasks(&federation, 1)[0]["codecs"], json!(["u4"]));
    deliver(&federation, 1, Some("u4"));
    assert_eq!(changes(&federation, 1), Vec::<Value>::new(), "u4 does not meet the budget, and stays");
}
