//! Rounds cut into shards give the bytes of one process, for every rule and any number of shards.
//!
//! Files that do not belong together, or that changed, are refused.

mod refused;

use crate::harness::{Dir, Update, fedmill, shortest};
use fedmill::rules::{RULES, parse};
use fedmill::settings::Definition;
use serde_json::Value;
use std::fs;

/// Numbers of shards: one, and more than there are sections.
const SHARDS: [usize; 4] = [1, 2, 7, 16];

/// The kind of a round's updates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Weights,
    Deltas,
    Mixed,
}

/// A number between -1 and 1.
pub(crate) fn value(i: usize, j: usize) -> f64 {
    let mut bits = (i as u64 * 1_000_003 + j as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 32;
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// A model of five sections, in several dtypes; tensors straddle sections.
pub(crate) fn model(name: &str, i: usize) -> Update {
    let scale = if i % 4 == 3 { 3.0 } else { 1.0 };
    let long: Vec<f32> = (0..150_000).map(|j| (scale * value(i, j)) as f32).collect();
    let half: Vec<u16> =
        (0..90_000).map(|j| half::bf16::from_f64(scale * value(i, 200_000 + j)).to_bits()).collect();
    let wide: Vec<f64> = (0..60_001).map(|j| scale * value(i, 300_000 + j) / 3.0).collect();
    let counts: Vec<i64> = (0..5_000).map(|j| (value(i, 400_000 + j) * 1000.0) as i64).collect();
    Update::new(name)
        .f32("a.long", &[300, 500], &long)
        .half("b.half", "BF16", &[1000, 90], &half)
        .i64("c.count", &[], &[i as i64 * 3])
        .f64("d.wide", &[60_001], &wide)
        .i64("e.counts", &[5, 1000], &counts)
        .f32("f.empty", &[0, 4], &[])
        .f32("z.short", &[3], &long[..3])
}

/// Writes `clients` updates into `in`, and a base.
pub(crate) fn write_round(dir: &Dir, clients: usize, kind: Kind) {
    model("base", 1000).write(dir);
    for i in 0..clients {
        let update =
            model(&format!("in/client-{i:02}"), i).meta("num_examples", &format!("{}", 10.1 + i as f64));
        let is_delta = kind == Kind::Deltas || kind == Kind::Mixed && i % 3 == 0;
        if is_delta { update.meta("kind", "delta") } else { update }.write(dir);
    }
}

/// Runs a command of a round. Fails unless it succeeds and prints its output.
#[track_caller]
pub(crate) fn run(dir: &Dir, command: &str, options: &[&str], more: &[&str], output: &str) {
    let args = [&[command, "-q", "in", "-o", output], options, more].concat();
    fedmill(dir, &args).assert_merged(output);
}

/// Measures all shards, and decides.
#[track_caller]
pub(crate) fn decide(dir: &Dir, options: &[&str], reporting: &[&str], shards: usize) {
    let _ = fs::remove_dir_all(dir.path("g"));
    fs::create_dir(dir.path("g")).unwrap();
    let reporting = [options, reporting].concat();
    for shard in 1..=shards {
        let (shard, output) = (format!("{shard}/{shards}"), format!("g/{shard}.safetensors"));
        run(dir, "gram", &reporting, &["--shard", &shard], &output);
    }
    run(dir, "decide", &reporting, &["--partials", "g"], "d.json");
}

/// Merges all shards, one command each.
#[track_caller]
pub(crate) fn combine(dir: &Dir, options: &[&str], decision: &[&str], shards: usize) {
    let _ = fs::remove_dir_all(dir.path("c"));
    fs::create_dir(dir.path("c")).unwrap();
    for shard in 1..=shards {
        let (shard, output) = (format!("{shard}/{shards}"), format!("c/{shard}.safetensors"));
        run(dir, "combine", options, &[&["--shard", &shard], decision].concat(), &output);
    }
}

pub(crate) const DECISION: [&str; 2] = ["--decision", "d.json"];

#[test]
fn merging_ends_in_the_line_of_one_process() {
    let dir = Dir::new();
    write_round(&dir, 6, Kind::Weights);
    let options = ["--rule", "multi-krum", "--byzantine", "1"];
    let without_time = |line: &str| {
        let (start, end) = (line.find(" in ").unwrap(), line.find(" s").unwrap());
        format!("{}{}", &line[..start], &line[end..])
    };
    let one = fedmill(&dir, &[&["aggregate", "in", "-o", "one.safetensors"], &options[..]].concat());
    assert_eq!(without_time(&one.stderr), "merged 3 of 6 updates by multi-krum s\n", "{one:#?}");
    decide(&dir, &options, &[], 2);
    combine(&dir, &options, &DECISION, 2);
    let merge = ["merge", "in", "-o", "all.safetensors", "--partials", "c", "--decision", "d.json"];
    let all = fedmill(&dir, &[&merge[..], &options].concat());
    assert_eq!(without_time(&all.stderr), without_time(&one.stderr), "{all:#?}");
    let quiet = fedmill(&dir, &[&merge[..], &options, &["-q"]].concat());
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
}

/// The fields of a report on the round, without those on how it ran.
fn report_on_round(dir: &Dir, report: &str) -> Value {
    let mut report = dir.json(report);
    let parts = ["timings", "bytes", "output", "peak_resident_bytes", "backend"];
    let fields = report.as_object_mut().unwrap();
    for part in parts {
        assert!(fields.remove(part).is_some(), "no {part}");
    }
    report
}

/// Fails unless one process and shards give the same model and the same report.
#[track_caller]
fn assert_same_when_cut(dir: &Dir, options: &[&str], reporting: &[&str]) {
    run(dir, "aggregate", &[options, reporting].concat(), &["--report", "one.json"], "one.safetensors");
    let (model, report_of_one) = (dir.read("one.safetensors"), report_on_round(dir, "one.json"));
    for shards in SHARDS {
        decide(dir, options, reporting, shards);
        combine(dir, options, &DECISION, shards);
        let merging = ["--partials", "c", "--decision", "d.json", "--report", "all.json"];
        run(dir, "merge", options, &merging, "all.safetensors");
        assert!(dir.read("all.safetensors") == model, "{options:?}: {shards} shards show in the model");
        assert_eq!(
            report_on_round(dir, "all.json"),
            report_of_one,
            "{options:?}: {shards} shards show in the report"
        );
    }
}

fn hostile(rule: &str) -> &'static [&'static str] {
    if parse(rule, Definition::Paper).unwrap().tolerates(11) == 0 { &[] } else { &["--byzantine", "2"] }
}

/// Each test takes half of the rules, because there are two processors.
fn every_rule(part: usize) {
    let dir = Dir::new();
    write_round(&dir, 11, Kind::Weights);
    for entry in RULES.iter().skip(part).step_by(2) {
        let rule = shortest(entry, "client-03");
        let options = [&["--rule", &*rule], hostile(&rule)].concat();
        assert_same_when_cut(&dir, &options, &["--metrics", "signs"]);
    }
}

#[test]
fn every_other_rule_gives_the_bytes_of_one_process() {
    every_rule(0);
}

#[test]
fn and_so_do_the_others() {
    every_rule(1);
}

#[test]
fn bases_deltas_and_steps_before_rules_change_nothing() {
    let ways: [&[&str]; 4] = [
        &["--rule", "krum", "--distances", "gram"],
        &["--rule", "trimmed-mean", "--pre", "nnm"],
        &["--rule", "geometric-median", "--pre", "bucketing:s=2", "--pre", "arc", "--seed", "7"],
        &["--rule", "mean", "--pre", "clip:norm=100", "--strategy", "fedavg:lr=0.5"],
    ];
    for kind in [Kind::Weights, Kind::Deltas, Kind::Mixed] {
        let dir = Dir::new();
        write_round(&dir, 11, kind);
        for way in ways {
            let options = [way, &["--base", "base.safetensors", "--byzantine", "1"]].concat();
            assert_same_when_cut(&dir, &options, &["--shadow-rules", "krum,caf"]);
        }
    }
}

/// Many clients in close pairs, with distances from the Gram matrix: f32 cannot order the pairs.
#[test]
fn close_calls_are_settled_in_f64_as_in_one_process() {
    let dir = Dir::new();
    for i in 0..21 {
        let twin = i - i % 2;
        let of = |j: usize| (value(977, j) + value(twin, j) + 1e-6 * value(i + 100, j)) as f32;
        let values: Vec<f32> = (0..100_000).map(of).collect();
        Update::new(&format!("in/client-{i:02}")).f32("w", &[100_000], &values).write(&dir);
    }
    assert_same_when_cut(&dir, &["--rule", "krum", "--byzantine", "3"], &[]);
    let warnings = dir.json("all.json")["warnings"].to_string();
    assert!(warnings.contains("computed again in f64"), "{warnings}");
}

#[test]
fn rules_by_coordinate_need_no_geometry() {
    let dir = Dir::new();
    write_round(&dir, 11, Kind::Weights);
    for rule in ["mean", "median", "trimmed-mean:cut=0.2", "meamed"] {
        let options = [&["--rule", rule, "--base", "base.safetensors"], hostile(rule)].concat();
        let reporting = ["--report", "one.json", "--metrics", "none"];
        run(&dir, "aggregate", &options, &reporting, "one.safetensors");
        for shards in SHARDS {
            combine(&dir, &options, &[], shards);
            run(&dir, "merge", &options, &["--partials", "c", "--report", "all.json"], "all.safetensors");
            assert!(dir.read("all.safetensors") == dir.read("one.safetensors"), "{rule}: {shards} shards");
            assert_eq!(
                report_on_round(&dir, "all.json"),
                report_on_round(&dir, "one.json"),
                "{rule}: {shards} shards"
            );
        }
        assert!(dir.json("all.json")["clients"][0]["norm"].as_f64().unwrap() > 1.0);
    }
}

/// Shard files are joined by their sections, not by their names. Geometry and merge may use different numbers of
/// shards.
#[test]
fn partials_come_in_any_order() {
    let dir = Dir::new();
    write_round(&dir, 9, Kind::Weights);
    let options = ["--rule", "multi-krum", "--byzantine", "2"];
    run(&dir, "aggregate", &options, &[], "one.safetensors");
    decide(&dir, &options, &[], 3);
    let backwards = ["--partials", "g/3.safetensors", "g/1.safetensors", "g/2.safetensors"];
    let decision = dir.read("d.json");
    run(&dir, "decide", &options, &backwards, "d.json");
    assert!(dir.read("d.json") == decision, "the order of partials shows in the decision");
    combine(&dir, &options, &DECISION, 4);
    let mixed = ["c/2", "c/4", "c/1", "c/3"].map(|name| format!("{name}.safetensors"));
    let mixed: Vec<&str> = ["--partials"].into_iter().chain(mixed.iter().map(String::as_str)).collect();
    run(&dir, "merge", &options, &[&mixed[..], &DECISION].concat(), "all.safetensors");
    assert!(dir.read("all.safetensors") == dir.read("one.safetensors"));
}

/// The same command gives the same shard file, so a shard that died can be run again.
#[test]
fn a_shard_run_again_leaves_the_same_bytes() {
    let dir = Dir::new();
    write_round(&dir, 9, Kind::Mixed);
    let options = ["--rule", "krum", "--byzantine", "2", "--base", "base.safetensors"];
    decide(&dir, &options, &[], 2);
    combine(&dir, &options, &DECISION, 2);
    for (command, more, name) in
        [("gram", &[][..], "g/2.safetensors"), ("combine", &DECISION, "c/2.safetensors")]
    {
        let before = dir.read(name);
        run(&dir, command, &options, &[&["--shard", "2/2", "--threads", "3"], more].concat(), name);
        assert!(dir.read(name) == before, "{command}");
    }
}

/// Runs two rounds in one process and in shards. The second round starts from the state of the first.
fn assert_same_rounds_when_cut(dir: &Dir, way: &[&str]) {
    let mut base = "base.safetensors".to_owned();
    for round in 0..2 {
        let options = [way, &["--base", &base]].concat();
        let one = [&options[..], &["--state", "one-state.safetensors"]].concat();
        let all = [&options[..], &["--state", "all-state.safetensors"]].concat();
        run(dir, "aggregate", &one, &[], "one.safetensors");
        decide(dir, &all, &[], 3);
        combine(dir, &all, &DECISION, 2);
        let output = format!("all-{round}.safetensors");
        run(dir, "merge", &all, &[&["--partials", "c"], &DECISION[..]].concat(), &output);
        assert!(dir.read(&output) == dir.read("one.safetensors"), "{way:?}: the model of round {round}");
        let (all, one) = (dir.read("all-state.safetensors"), dir.read("one-state.safetensors"));
        assert!(all == one, "{way:?}: the state of round {round}");
        base = output;
    }
}

#[test]
fn states_go_from_round_to_round_in_shards() {
    let ways: [&[&str]; 3] = [
        &["--rule", "centered-clipping:tau=100"],
        &["--strategy", "fedadam", "--rule", "median"],
        &["--strategy", "fedyogi", "--rule", "krum", "--byzantine", "2"],
    ];
    for way in ways {
        let dir = Dir::new();
        write_round(&dir, 7, Kind::Deltas);
        assert_same_rounds_when_cut(&dir, way);
    }
}

/// Control variates are cut like the model. Integers have no control variate.
#[test]
fn control_variates_go_from_round_to_round_in_shards() {
    let dir = Dir::new();
    let values = |i: usize, len: usize| (0..len).map(|j| value(i, j) as f32).collect::<Vec<f32>>();
    let model = |name: &str, i: usize| {
        Update::new(name).f32("a", &[70_000], &values(i, 70_000)).i64("b", &[3], &[1, 2, i as i64]).f32(
            "c",
            &[90_000],
            &values(i + 50, 90_000),
        )
    };
    model("base", 900).write(&dir);
    for i in 0..5 {
        let update = model(&format!("in/client-{i}"), i).meta("kind", "delta");
        let update = update.f32("scaffold.delta_c.a", &[70_000], &values(i + 100, 70_000));
        update.f32("scaffold.delta_c.c", &[90_000], &values(i + 150, 90_000)).write(&dir);
    }
    let way = ["--strategy", "scaffold:lr=0.5", "--population", "9", "--rule", "krum", "--byzantine", "1"];
    assert_same_rounds_when_cut(&dir, &way);
}
