//! The output of a run: the merged model in one file or in shards, reports, temporary files.

use crate::harness::{Dir, Model, Run, Update, fedmill, fedmill_after, fedmill_with_stdin};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;

/// Three clients with three tensors of 24, 16 and 8 bytes.
fn round() -> Dir {
    let dir = Dir::new();
    for (number, (seed, examples)) in [(3.0, "10"), (1.0, "30"), (2.0, "20")].into_iter().enumerate() {
        let w = |scale: f32| [seed * scale, -seed, 0.0, 1.0, 2.0, scale].to_vec();
        Update::new(&format!("updates/client-{number}"))
            .f32("a", &[2, 3], &w(1.0))
            .f32("b", &[4], &w(0.5)[..4])
            .i64("steps", &[1], &[number as i64])
            .meta("num_examples", examples)
            .write(&dir);
    }
    dir
}

fn aggregate(dir: &Dir, args: &[&str]) -> Run {
    fedmill(dir, &[&["aggregate", "updates", "-o", "merged.safetensors"], args].concat())
}

const INDEX: &str = "merged.safetensors.index.json";
const SHARDS: [&str; 2] = ["merged-00001-of-00002.safetensors", "merged-00002-of-00002.safetensors"];

#[track_caller]
fn merge_into_shards(dir: &Dir, size: &str) -> Value {
    aggregate(dir, &["--max-shard-size", size]).assert_merged(INDEX);
    dir.json(INDEX)
}

#[test]
fn shards_and_their_index() {
    let dir = round();
    let index = merge_into_shards(&dir, "40B");
    assert_eq!(dir.names(), [SHARDS[0], SHARDS[1], INDEX, "updates"]);
    assert_eq!(index["metadata"]["total_size"], 48);
    assert_eq!(index["weight_map"], json!({"a": SHARDS[0], "b": SHARDS[0], "steps": SHARDS[1]}));
}

#[test]
fn shards_hold_what_one_file_would() {
    let dir = round();
    merge_into_shards(&dir, "24B");
    let mut shards = SHARDS.map(|name| Model::read(&dir, name)).into_iter();
    let (mut all, second) = (shards.next().unwrap(), shards.next().unwrap());
    assert_eq!(all.metadata, second.metadata);
    all.tensors.extend(second.tensors);
    aggregate(&dir, &[]).assert_merged("merged.safetensors");
    assert_eq!(all, Model::read(&dir, "merged.safetensors"));
}

#[test]
fn shards_of_one_tensor_each_even_if_it_is_larger() {
    let dir = round();
    let index = merge_into_shards(&dir, "1B");
    let shard = |number: usize| format!("merged-0000{number}-of-00003.safetensors");
    assert_eq!(index["weight_map"], json!({"a": shard(1), "b": shard(2), "steps": shard(3)}));
    assert_eq!(dir.names().len(), 5);
}

#[test]
fn shards_not_needed_are_not_made() {
    let dir = round();
    aggregate(&dir, &["--max-shard-size", "48B"]).assert_merged("merged.safetensors");
    assert_eq!(dir.names(), ["merged.safetensors", "updates"]);
}

#[test]
fn shards_are_read_back_as_base_and_as_update() {
    let dir = round();
    aggregate(&dir, &[]).assert_merged("merged.safetensors");
    let whole = Model::read(&dir, "merged.safetensors");
    dir.write("whole/one.safetensors", dir.read("merged.safetensors"));
    std::fs::create_dir(dir.path("sharded")).unwrap();
    let shards = ["aggregate", "updates", "-o", "sharded/one.safetensors", "--max-shard-size", "24B"];
    let index = "sharded/one.safetensors.index.json";
    fedmill(&dir, &shards).assert_merged(index);
    for update in [index, "sharded"] {
        fedmill(&dir, &["aggregate", update, "-o", "again.safetensors"]).assert_merged("again.safetensors");
        assert_eq!(Model::read(&dir, "again.safetensors").tensors, whole.tensors, "{update}");
    }
    for (base, output) in [("whole/one.safetensors", "x"), (index, "y")] {
        fedmill(&dir, &["aggregate", "updates", "--base", base, "-o", output]).assert_merged(output);
    }
    assert!(dir.read("x") == dir.read("y"), "a base in shards is the same base");
}

#[test]
fn shards_replaced_leave_nothing_stale() {
    let dir = round();
    merge_into_shards(&dir, "1B");
    merge_into_shards(&dir, "24B");
    assert_eq!(dir.names(), [SHARDS[0], SHARDS[1], INDEX, "updates"]);
    aggregate(&dir, &[]).assert_merged("merged.safetensors");
    assert_eq!(dir.names(), ["merged.safetensors", "updates"]);
    merge_into_shards(&dir, "24B");
    assert_eq!(dir.names(), [SHARDS[0], SHARDS[1], INDEX, "updates"]);
}

#[test]
fn shards_of_another_model_stay() {
    let dir = round();
    let others = ["merged-a-00001-of-00002.safetensors", "merged2.safetensors", "merged-1-of-2.safetensors"];
    others.iter().for_each(|name| dir.write(name, "not ours"));
    merge_into_shards(&dir, "24B");
    aggregate(&dir, &[]).assert_merged("merged.safetensors");
    others.iter().for_each(|name| assert_eq!(dir.read(name), b"not ours", "{name}"));
}

#[test]
fn output_path_is_printed_as_it_was_named() {
    let dir = round();
    let absolute = dir.path("x.safetensors").to_str().unwrap().to_owned();
    for path in ["./updates/../x.safetensors", "model", "a b.safetensors", &absolute] {
        fedmill(&dir, &["aggregate", "updates", "-o", path]).assert_merged(path);
        assert_eq!(Model::read(&dir, path).tensors.len(), 3);
    }
}

fn report(dir: &Dir, args: &[&str]) -> Value {
    let run = aggregate(dir, &[args, &["--report", "report.json"]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    dir.json("report.json")
}

#[test]
fn report_of_every_client() {
    let dir = round();
    let report = report(&dir, &["--metrics", "none"]);
    assert_eq!(report["schema"], "fedmill.report/1");
    assert_eq!(report["tool"], json!({"name": "fedmill", "version": env!("CARGO_PKG_VERSION")}));
    assert_eq!((&report["published"], &report["rejected"]), (&json!(true), &json!([])));
    // For client-0: (3, -3, 0, 1, 2, 1) and (1.5, -3, 0, 1). Integers do not count.
    let norm = (24.0f64 + 12.25).sqrt();
    let file = "updates/client-0.safetensors";
    let first = json!({
        "id": "client-0", "id_from": "stem", "file": file, "bytes": dir.read(file).len(), "examples": 10.0,
        "weight": 10.0 / 60.0, "norm": norm, "score": null, "kept": true, "reason": "every client has its weight",
        "influence": null, "cluster": null,
    });
    assert_eq!(report["clients"][0], first);
    assert_eq!(report["clients"][1]["weight"], json!(0.5));
    let output = &report["output"];
    assert_eq!(output["path"], "merged.safetensors");
    assert_eq!((&output["tensors"], &output["parameters"]), (&json!(3), &json!(11)));
    assert_eq!(output["files"], json!(["merged.safetensors"]));
    assert_eq!(report["bytes"], json!({"read": 3 * 48, "written": dir.read("merged.safetensors").len()}));
}

#[test]
fn report_of_the_settings() {
    let dir = round();
    let args = ["--rule", "trimmed-mean", "--byzantine", "0.4", "--threads", "2", "--on-bad-update", "skip"];
    let report = report(&dir, &[&args[..], &["--max-shard-size", "24B", "--round", "9"]].concat());
    let expected = json!({
        "rule": "trimmed-mean", "byzantine": 1, "weights": "uniform", "base": null, "min_clients": 1,
        "on_bad_update": "skip", "round": 9, "max_shard_size": 24, "threads": 2, "pre": [], "seed": 0,
        "definition": "paper", "distances": "direct", "personal": [], "kind": "auto", "client_id_from": "auto",
        "on_duplicate_content": "keep", "max_examples": null, "statistics": [], "opaque": [],
    });
    assert_eq!(report["settings"], expected);
    assert_eq!(report["backend"]["name"], "cpu");
    assert_eq!(report["clients"][0]["weight"], Value::Null, "trimmed mean works by coordinate");
    assert_eq!(report["output"]["files"], json!(SHARDS));
}

#[test]
fn report_of_norms_of_deltas() {
    let dir = Dir::new();
    Update::new("base").f64("w", &[2], &[1.0, 1.0]).write(&dir);
    Update::new("updates/a").f64("w", &[2], &[4.0, 5.0]).write(&dir);
    Update::new("updates/b").f64("w", &[2], &[6.0, 8.0]).meta("kind", "delta").write(&dir);
    let with_base = report(&dir, &["--base", "base.safetensors", "--rule", "median"]);
    assert_eq!(
        [&with_base["clients"][0]["norm"], &with_base["clients"][1]["norm"]],
        [&json!(5.0), &json!(10.0)]
    );
    std::fs::remove_file(dir.path("updates/b.safetensors")).unwrap();
    let without = report(&dir, &["--rule", "median"]);
    assert_eq!(without["clients"][0]["norm"], json!(41f64.sqrt()));
}

#[test]
fn report_says_what_the_user_was_warned_of() {
    let dir = round();
    let report = report(&dir, &["--rule", "trimmed-mean"]);
    let warning = "trimmed-mean cuts nothing: neither cut=.. nor --byzantine is given";
    assert_eq!(report["warnings"], json!([warning]));
}

/// The first value of tensor `a` in the mean with these weights. Clients hold 3, 1 and 2.
#[track_caller]
fn mean_by(dir: &Dir, args: &[&str]) -> f32 {
    aggregate(dir, args).assert_merged("merged.safetensors");
    Model::read(dir, "merged.safetensors").f32("a")[0]
}

#[test]
fn weights_of_every_source() {
    let dir = round();
    let by_examples = (3.0 * 10.0 + 1.0 * 30.0 + 2.0 * 20.0) / 60.0;
    assert_eq!(mean_by(&dir, &[]), by_examples);
    assert_eq!(mean_by(&dir, &["--weights", "examples"]), by_examples);
    assert_eq!(mean_by(&dir, &["--weights", "uniform"]), 2.0);
    for text in [
        "client-0 3\nclient-1 1\nclient-2 0\n",
        "# made by hand\n\nclient-0, 3\r\nclient-1,\t1.0\nclient-2\t0e0\nclient-9 100\n",
        r#"{"client-0": 3, "client-1": 1, "client-2": 0, "client-9": 100}"#,
    ] {
        dir.write("weights", text);
        assert_eq!(mean_by(&dir, &["--weights", "weights"]), 2.5, "{text}");
    }
    let args = ["aggregate", "updates", "-o", "merged.safetensors", "--weights", "-"];
    fedmill_with_stdin(&dir, &args, "client-0 1\nclient-1 0\nclient-2 0\n")
        .assert_merged("merged.safetensors");
    assert_eq!(Model::read(&dir, "merged.safetensors").f32("a")[0], 3.0);
}

#[test]
fn weight_of_zero_is_reported() {
    let dir = round();
    dir.write("weights", "client-0 0\nclient-1 1\nclient-2 1\n");
    let report = report(&dir, &["--weights", "weights"]);
    let client = &report["clients"][0];
    assert_eq!((&client["kept"], &client["reason"]), (&json!(false), &json!("its weight is zero")));
}

#[test]
fn unused_weights_warn() {
    let dir = round();
    let run = aggregate(&dir, &["--rule", "median", "--weights", "uniform"]);
    let warning = run.stderr.lines().next();
    assert_eq!(warning, Some("warning: median is unweighted: it ignores --weights"));
}

#[test]
fn files_from_a_list_and_from_standard_input() {
    let dir = round();
    let list = "updates/client-0.safetensors\n\nupdates/client-1.safetensors\r\n";
    dir.write("list", list);
    let args = ["aggregate", "-o", "merged.safetensors", "--files-from"];
    fedmill(&dir, &[&args[..], &["list"]].concat()).assert_merged("merged.safetensors");
    let from_list = dir.read("merged.safetensors");
    fedmill_with_stdin(&dir, &[&args[..], &["-"]].concat(), list).assert_merged("merged.safetensors");
    assert!(dir.read("merged.safetensors") == from_list);
    let files = ["updates/client-1.safetensors", "updates/client-0.safetensors"];
    fedmill(&dir, &[&args[..3], &files].concat()).assert_merged("merged.safetensors");
    assert!(dir.read("merged.safetensors") == from_list);
    let more = [&args[..], &["list", "updates/client-2.safetensors"]].concat();
    fedmill(&dir, &more).assert_merged("merged.safetensors");
    assert_eq!(Model::read(&dir, "merged.safetensors").metadata["fedmill.clients"], "3");
}

#[test]
fn more_updates_than_files_may_be_open() {
    let dir = Dir::new();
    for number in 0..200 {
        Update::new(&format!("updates/{number}")).f32("w", &[1], &[number as f32]).write(&dir);
    }
    let args = ["aggregate", "updates", "-o", "merged.safetensors", "--rule", "median"];
    for limit in ["ulimit -n 80", "ulimit -n 24"] {
        fedmill_after(&dir, limit, &args).assert_merged("merged.safetensors");
        assert_eq!(Model::read(&dir, "merged.safetensors").f32("w"), [99.5], "{limit}");
    }
}

#[test]
fn messages_for_people_have_no_colour_codes() {
    let dir = round();
    let run = aggregate(&dir, &["--rule", "trimmed-mean"]);
    let (warning, made) = run.stderr.split_once('\n').unwrap();
    assert_eq!(warning, "warning: trimmed-mean cuts nothing: neither cut=.. nor --byzantine is given");
    assert!(made.starts_with("merged ") && made.ends_with(" s\n"), "{made}");
    let run = aggregate(&dir, &["--base", "nowhere"]);
    assert!(run.stderr.starts_with("error: nowhere: ") && !run.stderr.contains('\x1b'), "{}", run.stderr);
}

#[test]
fn messages_by_verbosity() {
    let dir = round();
    let made = aggregate(&dir, &["--rule", "median"]).stderr;
    assert!(made.starts_with("merged ") && made.contains(" updates by median in 0."), "{made}");
    assert_eq!(aggregate(&dir, &["--rule", "median", "-q"]).stderr, "");
    assert_eq!(aggregate(&dir, &["--rule", "trimmed-mean", "--quiet"]).stderr, "");
    assert!(aggregate(&dir, &["--base", "nowhere", "-q"]).stderr.starts_with("error: nowhere"));
    let verbose = aggregate(&dir, &["--rule", "median", "--verbose", "--threads", "1"]).stderr;
    assert!(verbose.starts_with("info: backend: cpu with ") && verbose.contains("on 1 threads"), "{verbose}");
}

#[test]
fn messages_as_json_lines() {
    let dir = round();
    let lines = |args: &[&str]| -> Vec<BTreeMap<String, Value>> {
        let run = aggregate(&dir, &[args, &["--log-format", "json"]].concat());
        run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let warned = lines(&["--rule", "trimmed-mean"]);
    assert_eq!((warned.len(), &warned[0]["level"]), (2, &json!("WARN")));
    assert!(warned[0]["message"].as_str().unwrap().starts_with("trimmed-mean cuts nothing"));
    assert_eq!((&warned[1]["level"], &warned[1]["target"]), (&json!("INFO"), &json!("result")));
    let usage = lines(&["--seed", "x"]);
    let said = usage[0]["message"].as_str().unwrap();
    assert!(said.contains("--seed") && said.contains("expected a whole number"), "{said}");
    Update::new("updates/client-9").cut_to(3).write(&dir);
    let failed = lines(&["--rule", "median"]);
    assert_eq!(failed[0]["level"], "ERROR");
    let hint = failed[0]["hint"].as_str().unwrap();
    assert!(
        hint.starts_with("pass --on-bad-update skip to merge the other ") && hint.ends_with(" updates"),
        "{hint}"
    );
    let too_few = lines(&["--rule", "median", "--min-clients", "4"]);
    assert!(too_few[0]["level"] == "ERROR" && !too_few[0].contains_key("hint"), "{too_few:?}");
    let misspelt = lines(&["--rul", "median"]);
    assert_eq!(misspelt[0]["hint"], "a similar argument exists: '--rule'");
}

#[test]
fn leftovers_of_killed_runs_are_removed() {
    let dir = round();
    let left = [".merged.safetensors.123-0.fedmill-tmp", ".merged.safetensors.99999-17.fedmill-tmp"];
    let others = [
        ".other.safetensors.123-0.fedmill-tmp",
        ".merged.safetensors.x.fedmill-tmp",
        ".merged.safetensors.123-0",
        ".merged.safetensors.old.safetensors.1-0.fedmill-tmp",
    ];
    left.iter().chain(&others).for_each(|name| dir.write(name, "half a model"));
    aggregate(&dir, &[]).assert_merged("merged.safetensors");
    let mut expected: Vec<&str> = others.into_iter().chain(["merged.safetensors", "updates"]).collect();
    expected.sort_unstable();
    assert_eq!(dir.names(), expected);
}

#[test]
fn leftovers_of_the_report_are_removed() {
    let dir = round();
    dir.write(".report.json.123-0.fedmill-tmp", "half a report");
    report(&dir, &[]);
    assert_eq!(dir.names(), ["merged.safetensors", "report.json", "updates"]);
}

#[test]
fn temporary_of_a_living_run_stays() {
    let dir = round();
    let name = ".merged.safetensors.123-0.fedmill-tmp";
    dir.write(name, "half a model");
    let living = File::options().write(true).open(dir.path(name)).unwrap();
    living.lock().unwrap();
    aggregate(&dir, &[]).assert_merged("merged.safetensors");
    assert_eq!(dir.read(name), b"half a model");
    drop(living);
    aggregate(&dir, &[]).assert_merged("merged.safetensors");
    assert!(!dir.exists(name));
}
