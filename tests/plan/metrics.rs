//! `fedmill plan metrics` against definitions in f64 on vectors, and in conditions of a plan.

use super::Workflow;
use crate::harness::{Dir, Update, fedmill, fedmill_with_stdin};
use crate::rng::Rng;
use fedmill::measures::series::{Changes, Sensitivity, changes};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// A normal number, by the sum of twelve uniform ones.
pub(super) fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.below(1 << 30) as f64 / (1u64 << 30) as f64).sum::<f64>() - 6.0
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mean(rows: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    (0..rows[0].len())
        .map(|k| rows.iter().zip(weights).map(|(row, weight)| weight / total * row[k]).sum())
        .collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// The metrics of a round by their definitions on vectors: no Gram matrix.
fn defined(rows: &[Vec<f64>], weights: &[f64]) -> Vec<(&'static str, f64)> {
    let n = rows.len() as f64;
    let length = |row: &[f64]| dot(row, row).sqrt();
    let plain = mean(rows, &vec![1.0; rows.len()]);
    // The variance between clients, and the squared length of the mean less what is noise of it.
    let variance = rows.iter().map(|row| distance(row, &plain).powi(2)).sum::<f64>() / (n - 1.0);
    let signal = dot(&plain, &plain) - variance / n;
    let pairs = (0..rows.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let cosines: Vec<f64> =
        pairs.map(|(i, j)| dot(&rows[i], &rows[j]) / (length(&rows[i]) * length(&rows[j]))).collect();
    let total: f64 = weights.iter().sum();
    let merged = mean(rows, weights);
    let lengths: f64 = rows.iter().zip(weights).map(|(row, weight)| weight / total * length(row)).sum();
    let without = |i: usize| {
        let mut weights = weights.to_vec();
        weights[i] = 0.0;
        mean(rows, &weights)
    };
    let influence = (0..rows.len()).map(|i| distance(&merged, &without(i))).fold(0.0, f64::max);
    let turn = |i: usize| {
        let other = without(i);
        1.0 - dot(&merged, &other) / (length(&merged) * length(&other))
    };
    vec![
        ("signal_fraction", (signal / (signal + variance / n)).clamp(0.0, 1.0)),
        ("noise_scale", variance / signal),
        ("coherence", cosines.iter().sum::<f64>() / cosines.len() as f64),
        ("alignment", length(&merged) / lengths),
        ("largest_influence", influence),
        ("largest_turn", (0..rows.len()).map(turn).fold(0.0, f64::max)),
    ]
}

fn metrics(dir: &Dir, args: &[&str]) -> Value {
    let run = fedmill(dir, &[&["plan", "metrics", "--json"], args].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    serde_json::from_str(&run.stdout).unwrap()
}

#[track_caller]
fn assert_close(found: &Value, name: &str, expected: f64, tolerance: f64) {
    let found = found[name].as_f64().unwrap_or_else(|| panic!("{name}: {found}"));
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{name}: {found}, {expected}");
}

#[test]
fn a_gram_matrix_gives_the_metrics_of_its_vectors() {
    let mut rng = Rng::new(18);
    for n in [2, 5, 11] {
        let common: Vec<f64> = (0..300).map(|_| normal(&mut rng)).collect();
        let rows: Vec<Vec<f64>> =
            (0..n).map(|_| common.iter().map(|x| x + 1.5 * normal(&mut rng)).collect()).collect();
        let weights: Vec<f64> = (1..=n).map(|i| f64::from(i) / 3.0).collect();
        let gram: Vec<Vec<f64>> = rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect();
        let dir = Dir::new();
        dir.write("g.json", json!({"gram": gram, "weights": weights}).to_string());
        let found = metrics(&dir, &["g.json"]);
        for (name, expected) in defined(&rows, &weights) {
            assert_close(&found, name, expected, 1e-9);
        }
        let rank = found["effective_rank"].as_f64().unwrap();
        assert!((1.0..=f64::from(n) + 1e-9).contains(&rank), "{rank}");
    }
}

/// A round of `data/vectors/clusters.json`.
#[derive(Deserialize)]
struct Round {
    gram: Vec<Vec<f64>>,
    members: Vec<u64>,
    silhouette: f64,
    inside: Option<f64>,
    between: Option<f64>,
}

#[test]
fn clusters_are_those_of_scipy() {
    let text = fs::read_to_string("data/vectors/clusters.json").unwrap();
    let mut vectors: Value = serde_json::from_str(&text).unwrap();
    let rounds: Vec<Round> = serde_json::from_value(vectors["rounds"].take()).unwrap();
    assert!(rounds.iter().any(|round| round.between.is_none()), "no round has a single cluster");
    for (place, round) in rounds.iter().enumerate() {
        let dir = Dir::new();
        dir.write("g.json", json!({"gram": round.gram}).to_string());
        let found = metrics(&dir, &["g.json"]);
        let clients = found["clients"].as_array().unwrap();
        let members: Vec<u64> = clients.iter().map(|client| client["cluster"].as_u64().unwrap()).collect();
        assert_eq!(members, round.members, "round {place}");
        assert_eq!(found["clusters"].as_f64(), round.members.iter().max().map(|most| *most as f64));
        assert_close(&found, "cluster_silhouette", round.silhouette, 1e-9);
        for (name, expected) in [("cosine_inside", round.inside), ("cosine_between", round.between)] {
            match expected {
                Some(expected) => assert_close(&found, name, expected, 1e-9),
                None => assert!(found[name].is_null(), "round {place}: {name}: {}", found[name]),
            }
        }
    }
}

#[test]
fn shard_files_a_report_and_a_decision_have_the_metrics_of_their_updates() {
    let dir = Dir::new();
    let mut rng = Rng::new(3);
    // Longer than a section of 65,536 coordinates, so that two shards hold something.
    let length = 90_000;
    let zeros = vec![0.0f32; length];
    Update::new("base").f32("w", &[length], &zeros).write(&dir);
    let rows: Vec<Vec<f64>> = (0..4)
        .map(|_| (0..length).map(|k| f64::from((k as f32).sin() + normal(&mut rng) as f32)).collect())
        .collect();
    for (i, row) in rows.iter().enumerate() {
        let values: Vec<f32> = row.iter().map(|x| *x as f32).collect();
        Update::new(&format!("in/c{i}")).f32("w", &[length], &values).meta("num_examples", "1").write(&dir);
    }
    let options = ["--base", "base.safetensors", "--rule", "krum", "--byzantine", "0"];
    let run = |args: &[&str]| {
        let run = fedmill(&dir, args);
        assert_eq!(run.code, Some(0), "{run:#?}");
    };
    for shard in ["1/2", "2/2"] {
        let output = format!("g{}.safetensors", &shard[..1]);
        run(&[&["gram", "-q", "in", "-o", &output, "--shard", shard], &options[..]].concat());
    }
    let partials = ["--partials", "g1.safetensors", "g2.safetensors"];
    run(&[&["decide", "-q", "in", "-o", "d.json"], &options[..], &partials[..]].concat());
    run(&[&["aggregate", "-q", "in", "-o", "m.safetensors", "--report", "r.json"], &options[..]].concat());
    for sources in [&["g2.safetensors", "g1.safetensors"][..], &["d.json"], &["r.json"]] {
        let found = metrics(&dir, sources);
        for (name, expected) in defined(&rows, &[1.0; 4]) {
            assert_close(&found, name, expected, 1e-5);
        }
        let clients = found["clients"].as_array().unwrap();
        assert_eq!(clients.len(), 4, "{sources:?}");
        // All clients share one direction.
        assert!(clients.iter().all(|client| client["cluster"] == 1), "{sources:?}: {clients:?}");
        assert_eq!(found["clusters"].as_f64(), Some(1.0), "{sources:?}");
        assert_close(&found, "cosine_inside", found["coherence"].as_f64().unwrap(), 1e-12);
    }
    fedmill(&dir, &["plan", "metrics", "g1.safetensors"]).assert_fails(2, &["no shard file is of shard 2/2"]);
    fedmill(&dir, &["plan", "metrics", "base.safetensors"]).assert_fails(2, &["base.safetensors"]);
    fedmill(&dir, &["plan", "metrics", "r.json", "d.json"])
        .assert_fails(2, &["two sources have `alignment`"]);
}

/// The mean of Jaccard's index over all pairs of supports, by sorted magnitudes and sets of places.
fn defined_overlap(rows: &[Vec<f32>], largest: usize) -> f64 {
    let support = |row: &Vec<f32>| {
        let mut magnitudes: Vec<f32> = row.iter().map(|x| x.abs()).collect();
        magnitudes.sort_by(|a, b| b.total_cmp(a));
        let least = magnitudes[largest - 1];
        let places = row.iter().enumerate().filter(|(_, x)| x.abs() >= least && **x != 0.0);
        places.map(|(place, _)| place).collect::<BTreeSet<usize>>()
    };
    let supports: Vec<BTreeSet<usize>> = rows.iter().map(support).collect();
    let pairs = (0..rows.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    let indices: Vec<f64> = pairs
        .map(|(a, b)| {
            let [a, b] = [&supports[a], &supports[b]];
            a.intersection(b).count() as f64 / a.union(b).count() as f64
        })
        .collect();
    indices.iter().sum::<f64>() / indices.len() as f64
}

#[test]
fn the_overlap_of_the_largest_values_is_as_defined() {
    let dir = Dir::new();
    let mut rng = Rng::new(41);
    // Longer than a section of 65,536 coordinates, and no multiple of 64.
    let length = 70_001;
    let base: Vec<f32> = (0..length).map(|k| (k % 7) as f32 / 4.0).collect();
    Update::new("base").f32("w", &[length], &base).write(&dir);
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for client in 0..5 {
        let row: Vec<f32> = (0..length)
            .map(|k| match client {
                // Few values are not zero, fewer than the largest 1 %.
                0 => {
                    if k % 500 == 3 {
                        -8.0
                    } else {
                        0.0
                    }
                }
                // Many equal magnitudes.
                1 => {
                    if k % 50 == 3 {
                        2.0
                    } else {
                        0.25
                    }
                }
                // Exact in f32 on top of the base.
                _ => (normal(&mut rng) * if k % 100 < 3 { 64.0 } else { 16.0 }).round() as f32 / 4.0,
            })
            .collect();
        let name = format!("in/c{client}");
        match client % 2 {
            0 => {
                let values: Vec<f32> = row.iter().zip(&base).map(|(x, base)| x + base).collect();
                Update::new(&name).f32("w", &[length], &values).write(&dir);
            }
            _ => {
                Update::new(&name).f32("w", &[length], &row).meta("kind", "delta").write(&dir);
            }
        }
        rows.push(row);
    }
    for share in [0.01, 0.1, 1.0] {
        let text = share.to_string();
        let options =
            ["--base", "base.safetensors", "--rule", "mean", "--report", "r.json", "--overlap", &text];
        let run = fedmill(&dir, &[&["aggregate", "-q", "in", "-o", "m.safetensors"], &options[..]].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        let expected = defined_overlap(&rows, (share * length as f64).ceil() as usize);
        assert!(expected > 0.0 && expected < 1.0, "{expected}");
        assert_close(&dir.json("r.json")["metrics"], "support_overlap", expected, 1e-12);
        assert_close(&metrics(&dir, &["r.json"]), "support_overlap", expected, 1e-12);
    }
    // Without deltas beside them, weights are read as they are.
    let weights = ["in/c0.safetensors", "in/c2.safetensors", "in/c4.safetensors"];
    let options =
        ["-o", "m.safetensors", "--base", "base.safetensors", "--report", "r.json", "--overlap", "0.1"];
    let run = fedmill(&dir, &[&["aggregate", "-q"], &weights[..], &options].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    let of_weights = [0, 2, 4].map(|client: usize| rows[client].clone());
    let expected = defined_overlap(&of_weights, 7001);
    assert_close(&dir.json("r.json")["metrics"], "support_overlap", expected, 1e-12);
    let refused = |options: &[&str], expected: &str| {
        let args = [&["aggregate", "in", "-o", "m.safetensors", "--overlap"], options].concat();
        fedmill(&dir, &args).assert_fails(2, &[expected]);
    };
    refused(&["0", "--report", "r.json"], "expected a number above 0");
    refused(&["0.1"], "--report");
    refused(&["0.1", "--report", "r.json", "--metrics", "none"], "expected --metrics geometry");
}

/// The values of the `count` largest magnitudes in their places, and zeros.
fn largest(row: &[f32], count: usize) -> Vec<f32> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*b].abs().total_cmp(&row[*a].abs()));
    let mut kept = vec![0.0; row.len()];
    order[..count].iter().for_each(|place| kept[*place] = row[*place]);
    kept
}

#[test]
fn the_overlap_of_updates_that_send_few_values_is_that_of_what_they_send() {
    let dir = Dir::new();
    let mut rng = Rng::new(43);
    let length = 3001;
    let base: Vec<f32> = (0..length).map(|_| normal(&mut rng) as f32).collect();
    Update::new("base").f32("w", &[length], &base).write(&dir);
    dir.write("in/.keep", "");
    let common: Vec<f64> = (0..length).map(|_| normal(&mut rng)).collect();
    let mut rows = Vec::new();
    for (client, sent) in [40, 300, 1200].into_iter().enumerate() {
        let row: Vec<f32> = common.iter().map(|x| (x + 0.5 * normal(&mut rng)) as f32).collect();
        let (name, codec) = (format!("c{client}"), format!("topk:k={sent}"));
        Update::new(&name).f32("w", &[length], &row).meta("kind", "delta").write(&dir);
        let (from, to) = (format!("{name}.safetensors"), format!("in/{name}.safetensors"));
        let run = fedmill(&dir, &["compress", "-q", &from, "-o", &to, "--codec", &codec]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        rows.push(largest(&row, sent));
    }
    // A dense update beside them.
    let dense: Vec<f32> = common.iter().map(|x| *x as f32).collect();
    Update::new("in/c3").f32("w", &[length], &dense).meta("kind", "delta").write(&dir);
    rows.push(dense);
    // The first update sends fewer values than the largest 5 %, two of them fewer than 20 %.
    for (share, count) in [("0.01", 31), ("0.05", 151), ("0.2", 601), ("1", 3001)] {
        let options = ["--base", "base.safetensors", "--report", "r.json", "--overlap", share];
        let run = fedmill(&dir, &[&["aggregate", "-q", "in", "-o", "m.safetensors"], &options[..]].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        let expected = defined_overlap(&rows, count);
        assert!(expected > 0.0 && expected < 1.0, "{expected}");
        assert_close(&dir.json("r.json")["metrics"], "support_overlap", expected, 1e-12);
    }
}

#[test]
fn measurements_that_are_none_are_refused() {
    let dir = Dir::new();
    for (text, expected) in [
        ("{", "is no JSON"),
        (r#"{"grams": []}"#, "unknown field `grams`"),
        (r#"{"gram": [[1.0]], "weights": [1.0, 2.0]}"#, "$.weights: found 2 values, expected 1"),
        (r#"{"gram": [[1.0]], "weights": [0.0]}"#, "$.weights: found only zeros"),
        (r#"{"gram": [[1.0, 2.0], [2.0, 1.0]]}"#, "$.gram[0][1]: found 2, expected at most 1"),
        (r#"{"merged": 1.0}"#, "found one of `merged` and `alone`"),
        (r#"{"schema": "other/1"}"#, "$.schema: found `other/1`"),
        (r#"{"schema": "fedmill.report/1", "metrics": null}"#, "its `metrics` are null"),
    ] {
        dir.write("m.json", text);
        fedmill(&dir, &["plan", "metrics", "m.json"]).assert_fails(2, &["m.json", expected]);
    }
    fedmill(&dir, &["plan", "metrics", "missing.json"]).assert_fails(2, &["missing.json"]);
    fedmill(&dir, &["plan", "metrics", "m.json", "--drift=-1"]).assert_fails(2, &["--drift -1"]);
}

#[test]
fn a_table_has_each_number_beside_its_formula() {
    let text = r#"{"merged": 0.5, "alone": [0.25, 0.75], "series": {"loss": [4, 3, 2.5, 1]}}"#;
    let run = fedmill_with_stdin(&Dir::new(), &["plan", "metrics", "-", "--minimize"], text);
    assert_eq!(run.code, Some(0), "{run:#?}");
    for expected in ["gain_over_best  -0.25", "loss_slope", "-1", "median over i < j", "loss_rose_at"] {
        assert!(run.stdout.contains(expected), "{}", run.stdout);
    }
}

#[test]
fn false_alarms_of_change_points_are_rare_and_large_jumps_are_found() {
    for length in [10, 30, 100] {
        let mut rng = Rng::new(length as u64);
        let (mut alarms, mut found) = (0, 0);
        for _ in 0..1000 {
            let mut series: Vec<f64> = (0..length).map(|_| normal(&mut rng)).collect();
            let none = Changes { rose_at: 0, fell_at: 0 };
            alarms += u32::from(changes(&series, Sensitivity::default()) != Some(none));
            series[length / 2..].iter_mut().for_each(|value| *value += 5.0);
            let rose = changes(&series, Sensitivity::default()).unwrap().rose_at;
            found += u32::from(rose > length / 2 && rose <= length / 2 + 5);
        }
        assert!(alarms <= 60, "{length}: {alarms} false alarms in 1,000");
        assert!(found >= 700, "{length}: {found} jumps found in 1,000");
    }
}

#[test]
fn a_decision_reads_the_metrics_of_a_gram_matrix_and_a_run_shows_its_series() {
    let plan = Workflow::new(&json!([
        {"id": "gram", "sh": "echo '{{\"gram\": [[1, 0.9], [0.9, 1]], \"series\": {{\"loss\": [3, 2, 1]}}}}'",
         "out": [{"name": "g", "path": "-"}]},
        {"id": "measure", "agent": "fedmill", "needs": ["gram"], "argv": ["plan", "metrics", "--json", "{gram.g}"],
         "out": [{"name": "m", "path": "-", "metrics": true}], "metrics": ["coherence", "signal_fraction", "loss_slope"]},
        {"id": "choose", "kind": "decide", "needs": ["measure"], "metrics": ["coherence", "loss_slope"],
         "cases": [{"if": "metrics.coherence > 0.8 && metrics.loss_slope < 0.0", "to": "go"}], "else": "stop"},
        {"id": "step", "needs": ["choose"], "branch": "go", "agent": "shell",
         "argv": ["sleep 0.05; echo \"{{\\\"acc\\\": {k}}}\""],
         "out": [{"name": "m", "path": "-", "metrics": true}], "metrics": ["acc"]},
    ]))
    .with("agents.fedmill", json!({"kind": "command", "argv": ["fedmill"]}))
    .with("loops", json!([{"id": "l", "over": ["step"], "max_iters": 4}]));
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(plan.states().ends_with("step@1 ok, step@2 ok, step@3 ok, step@4 ok"), "{}", plan.states());
    let found = metrics(&plan.dir, &["plan.run"]);
    assert_eq!((&found["acc_slope"], &found["acc_last"]), (&json!(1.0), &json!(4.0)));
    assert!(found["bottleneck"].is_string() && found["bottleneck_share"].as_f64().unwrap() <= 1.0, "{found}");
    let recent = metrics(&plan.dir, &["plan.run", "--window", "1"]);
    assert_eq!((&recent["acc_slope"], &recent["acc_last"]), (&Value::Null, &json!(4.0)));
}
