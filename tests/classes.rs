//! The classes of tensors: statistics take the merged value, and opaque tensors are copied.
//!
//! The oracle is a weighted mean in f64, over the clients and the weights that the report names.

use crate::harness::{Dir, Model, Update, aggregate, fedmill, merge};
use crate::shards::{DECISION, combine, decide, run};
use serde_json::{Value, json};

const CLIENTS: usize = 5;
const BASE: [&str; 2] = ["--base", "base.safetensors"];
const REPORT: [&str; 2] = ["--report", "report.json"];

/// The variance of a client: some are close to zero, so that a factor or a step would make the merged one negative.
fn variance(client: usize) -> [f32; 3] {
    [0.001 + 0.002 * client as f32, 0.4 + 0.1 * client as f32, 1.1 * (client + 1) as f32]
}

fn mean(client: usize) -> [f32; 3] {
    [0.1 * client as f32, -0.3, 0.2 - 0.1 * client as f32]
}

fn counter(client: usize) -> i64 {
    1000 + 10 * client as i64
}

fn weight(client: usize) -> f64 {
    10.0 + 7.0 * client as f64
}

/// A model with batch normalisation. `w` are its parameters.
fn model(name: &str, w: f32, mean: [f32; 3], variance: [f32; 3], counter: i64) -> Update {
    Update::new(name)
        .f32("conv.weight", &[2], &[w, -2.0 * w])
        .f32("bn.weight", &[3], &[1.0, 1.0 + w, 1.0 - w])
        .f32("bn.running_mean", &[3], &mean)
        .f32("bn.running_var", &[3], &variance)
        .i64("bn.num_batches_tracked", &[], &[counter])
        .f32("head.bias", &[1], &[0.5 * w])
}

fn client(name: &str, i: usize) -> Update {
    model(name, 0.1 + 0.02 * i as f32, mean(i), variance(i), counter(i))
        .meta("num_examples", &weight(i).to_string())
        .meta("local_steps", &(1 + 100 * i).to_string())
        .meta("loss", &(0.5 + i as f64).to_string())
        .meta("round", if i == 0 { "3" } else { "7" })
}

/// A base, whose variances are far above those of the clients, and the updates.
fn batch_norm() -> Dir {
    let dir = Dir::new();
    model("base", 0.1, [0.0; 3], [5.0; 3], 100).write(&dir);
    (0..CLIENTS).for_each(|i| client(&format!("updates/c{i}"), i).write(&dir));
    dir
}

/// The weighted mean of the clients' values at one place.
fn average(weights: &[f64], of: impl Fn(usize) -> f64) -> f64 {
    let total: f64 = weights.iter().sum();
    weights.iter().enumerate().map(|(i, weight)| weight * of(i)).sum::<f64>() / total
}

#[track_caller]
fn assert_statistics(model: &Model, weights: &[f64], what: &str) {
    for j in 0..3 {
        let want = average(weights, |i| f64::from(variance(i)[j]));
        let got = f64::from(model.f32("bn.running_var")[j]);
        assert!((got - want).abs() < 1e-6 * want, "{what}: running_var[{j}] is {got}, expected {want}");
        let want = average(weights, |i| f64::from(mean(i)[j]));
        let got = f64::from(model.f32("bn.running_mean")[j]);
        assert!((got - want).abs() < 1e-6, "{what}: running_mean[{j}] is {got}, expected {want}");
    }
    let want = average(weights, |i| counter(i) as f64);
    let got = i64::from_le_bytes(model.bytes("bn.num_batches_tracked").try_into().unwrap());
    assert!((got as f64 - want).abs() <= 0.5, "{what}: the counter is {got}, expected {want}");
}

fn by_examples() -> Vec<f64> {
    (0..CLIENTS).map(weight).collect()
}

/// The parameters that a strategy steps are not the plain mean, which shows that it did step.
#[test]
fn no_strategy_steps_or_scales_statistics() {
    let state = ["--state", "state.safetensors"];
    let cases: [(&str, Vec<f64>, bool); 10] = [
        ("fednova", by_examples(), false),
        ("fednova:gmf=0.9", by_examples(), true),
        ("fedbuff", by_examples(), false),
        ("fedavgm:lr=30", by_examples(), true),
        ("fedadam:lr=3", by_examples(), true),
        ("fedyogi:lr=3", by_examples(), true),
        ("fedadagrad:lr=3", by_examples(), true),
        ("fedavg:lr=40", by_examples(), false),
        ("fedexp", by_examples(), false),
        ("qfedavg:q=2,local-lr=0.05", vec![1.0; CLIENTS], false),
    ];
    for (strategy, weights, has_state) in cases {
        let dir = batch_norm();
        let more = if has_state { &state[..] } else { &[] };
        let round = if strategy.starts_with("fedbuff") { &["--round", "7"][..] } else { &[] };
        if strategy.starts_with("fedbuff") {
            let stale = [("kind", "delta"), ("round", "3"), ("num_examples", "10")];
            let update = model("updates/c0", -0.3, mean(0), variance(0).map(|x| x - 5.0), counter(0) - 100);
            stale.iter().fold(update, |update, (key, value)| update.meta(key, value)).write(&dir);
        }
        let merged = merge(&dir, &[&["--strategy", strategy], &BASE[..], more, round].concat());
        assert_statistics(&merged, &weights, strategy);
        let first = if strategy == "fedbuff" { -0.2 } else { 0.1 };
        let plain = average(&weights, |i| if i == 0 { first } else { 0.1 + 0.02 * i as f64 });
        let got = f64::from(merged.f32("conv.weight")[0]);
        // FedExp takes a plain step here: the deltas agree.
        assert!(strategy == "fedexp" || (got - plain).abs() > 1e-6, "{strategy} takes no step: {got}");
        if has_state {
            let state = Model::read(&dir, "state.safetensors");
            assert!(!state.tensors.keys().any(|name| name.contains("running")), "{strategy}: {state:?}");
        }
    }
}

/// A rule that chooses or weighs clients decides on statistics too: the report names the weights.
#[test]
fn statistics_follow_the_clients_and_weights_of_the_rule() {
    let hostile = ["--byzantine", "1"];
    for (rule, pre) in [
        ("mean", &["--pre", "clip:norm=0.01"][..]),
        ("mean", &["--pre", "arc", "--pre", "clip:norm=0.1"]),
        ("multi-krum", &["--pre", "clip:norm=1"]),
        ("geometric-median", &[]),
        ("centered-clipping:tau=0.5", &[]),
        ("smea", &[]),
        ("caf", &[]),
    ] {
        let dir = batch_norm();
        let args = [&["--rule", rule, "--strategy", "fedavg:lr=40"], pre, &hostile, &BASE, &REPORT].concat();
        let merged = merge(&dir, &args);
        let report = dir.json("report.json");
        let shares = report["clients"].as_array().unwrap().iter().map(|c| c["weight"].as_f64().unwrap());
        let shares: Vec<f64> = shares.collect();
        let weights = match (rule, pre.is_empty()) {
            // The share of a clipped client is smaller; its statistics are not.
            ("mean", _) => by_examples(),
            (_, false) => shares.iter().map(|share| f64::from(*share > 0.0)).collect(),
            (_, true) => shares,
        };
        assert_statistics(&merged, &weights, rule);
    }
}

#[test]
fn coordinate_rules_merge_statistics_without_factors() {
    let (dir, middle) = (batch_norm(), CLIENTS / 2);
    for pre in [&["--pre", "clip:norm=0.001"][..], &[]] {
        for strategy in ["fednova", "fedavg:lr=40"] {
            let merged = merge(&dir, &[&["--rule", "median", "--strategy", strategy], pre, &BASE].concat());
            assert_eq!(merged.f32("bn.running_var"), variance(middle), "{strategy} {pre:?}");
        }
    }
}

#[test]
fn deltas_of_statistics_are_not_scaled_either() {
    let dir = batch_norm();
    for i in 0..CLIENTS {
        let away = variance(i).map(|x| x - 5.0);
        let update = model(&format!("updates/c{i}"), 0.02 * i as f32, mean(i), away, counter(i) - 100);
        let more = [("kind", "delta"), ("num_examples", &weight(i).to_string()), ("local_steps", "3")];
        more.iter().fold(update, |update, (key, value)| update.meta(key, value)).write(&dir);
    }
    let merged = merge(&dir, &[&["--strategy", "fedavg:lr=40"], &BASE[..]].concat());
    for j in 0..3 {
        let want = average(&by_examples(), |i| f64::from(variance(i)[j]));
        assert!((f64::from(merged.f32("bn.running_var")[j]) - want).abs() < 1e-5);
    }
}

/// A decision carries the recipe for statistics to all shards.
/// A variance below zero is no variance: the client that sends it is at fault, whatever the others say.
#[test]
fn a_negative_variance_or_counter_is_a_fault() {
    let cases = [
        ([0.5, -0.25, 0.5], 7, "`bn.running_var` holds -0.25 at flat index 1"),
        ([0.5; 3], -3, "`bn.num_batches_tracked` holds -3 at flat index 0"),
    ];
    for (variance, counter, fault) in cases {
        let dir = batch_norm();
        let odd = model("updates/odd", 0.1, [0.0; 3], variance, counter);
        odd.meta("num_examples", "10").meta("round", "7").meta("local_steps", "5").write(&dir);
        let fault = format!("odd.safetensors: tensor {fault}");
        for rule in ["mean", "median", "trimmed-mean:cut=1"] {
            let args = [&BASE[..], &["--rule", rule]].concat();
            aggregate(&dir, &args).assert_fails(2, &[&fault]);
            let run = aggregate(&dir, &[&args[..], &["--on-bad-update", "skip"]].concat());
            run.assert_merged("merged.safetensors");
            assert!(run.stderr.contains(&fault), "{run:#?}");
        }
        let rows = fedmill(&dir, &["inspect", "updates", "--base", "base.safetensors", "--json"]);
        assert!(rows.stdout.contains("at least 0 (1 such values"), "{rows:#?}");
    }
}

/// A plain delta may take a variance or a counter to zero, and no further.
#[test]
fn a_delta_that_makes_a_variance_or_counter_negative_is_a_fault() {
    let cases = [
        ([-5.0; 3], -100, None),
        ([0.0, -5.5, 0.0], -100, Some("`bn.running_var` brings the base to -0.5 at flat index 1")),
        ([0.0; 3], -101, Some("`bn.num_batches_tracked` brings the base to -1 at flat index 0")),
    ];
    for (variance, counter, fault) in cases {
        let dir = Dir::new();
        model("base", 0.1, [0.0; 3], [5.0; 3], 100).write(&dir);
        let delta = |name: &str, variance, counter| {
            model(name, 0.01, [0.0; 3], variance, counter).meta("kind", "delta").write(&dir);
        };
        (0..4).for_each(|i| delta(&format!("updates/c{i}"), [0.0; 3], 0));
        delta("updates/odd", variance, counter);
        for more in [&[][..], &["--rule", "median"], &["--partial"]] {
            let run = aggregate(&dir, &[&BASE[..], more].concat());
            let Some(fault) = fault else {
                run.assert_merged("merged.safetensors");
                continue;
            };
            let part =
                format!("odd.safetensors: tensor {fault}, expected a variance or counter of at least 0");
            run.assert_fails(2, &[&part]);
        }
        let rows = fedmill(&dir, &["inspect", "updates", "--base", "base.safetensors", "--json"]);
        assert_eq!(rows.stdout.contains("at least 0 (1 such values"), fault.is_some(), "{rows:#?}");
    }
}

/// The nearest F16 to a delta may take a variance a little below zero.
#[test]
fn a_short_delta_may_take_a_variance_below_zero_by_its_rounding() {
    let delta = half::f16::from_f32(-0.1);
    assert!(
        0.1 + delta.to_f32() < 0.0 || half::f16::from_f32(-0.3).to_f32() + 0.3 < 0.0,
        "a case that rounds away"
    );
    let base = if 0.1 + delta.to_f32() < 0.0 { 0.1 } else { 0.3 };
    for (sent, is_fault) in [(-base, false), (-2.0 * base, true)] {
        let dir = Dir::new();
        let model = |name: &str| Update::new(name).f32("w", &[1], &[1.0]);
        model("base").f32("bn.running_var", &[1], &[base]).write(&dir);
        let sent = half::f16::from_f32(sent).to_bits();
        let update = model("updates/a").half("bn.running_var", "F16", &[1], &[sent]);
        update.meta("kind", "delta").write(&dir);
        let run = aggregate(&dir, &BASE);
        if is_fault {
            run.assert_fails(2, &["a.safetensors: tensor `bn.running_var` brings the base to -"]);
        } else {
            run.assert_merged("merged.safetensors");
        }
    }
}

#[test]
fn shards_merge_statistics_as_one_process_does() {
    let dir = batch_norm();
    std::fs::rename(dir.path("updates"), dir.path("in")).unwrap();
    for method in [
        &["--strategy", "fednova", "--pre", "clip:norm=0.1"][..],
        &["--rule", "centered-clipping", "--strategy", "fedavg:lr=40"],
    ] {
        let options = [method, &BASE].concat();
        run(&dir, "aggregate", &options, &[], "whole.safetensors");
        decide(&dir, &options, &[], 2);
        combine(&dir, &options, &DECISION, 2);
        run(&dir, "merge", &options, &["--partials", "c", "--decision", "d.json"], "merged.safetensors");
        assert_eq!(dir.read("merged.safetensors"), dir.read("whole.safetensors"), "{method:?}");
    }
}

#[test]
fn tiers_and_trees_step_parameters_alone() {
    let dir = batch_norm();
    let tiers = json!({ "schema": "fedmill.tiers/1", "tiers": [
        { "name": "all", "clients": ["c*"], "rule": "mean", "pre": ["clip:norm=0.01"] },
    ]});
    dir.write("tiers.json", tiers.to_string());
    let step = ["--strategy", "fedadam:lr=3", "--state", "state.safetensors"];
    let merged = merge(&dir, &[&["--tiers", "tiers.json"], &step[..], &BASE].concat());
    assert_statistics(&merged, &by_examples(), "tiers");
}

fn scaffold(dir: &Dir) -> Model {
    let args = ["--strategy", "scaffold", "--population", "10", "--state", "state.safetensors"];
    let _ = std::fs::remove_file(dir.path("state.safetensors"));
    merge(dir, &[&args[..], &BASE].concat())
}

/// Clients that send a control variate of a statistic change nothing: no step uses it.
#[test]
fn scaffold_needs_control_variates_of_parameters_alone() {
    let dir = batch_norm();
    let controlled = |i: usize| {
        client(&format!("updates/c{i}"), i)
            .f32("scaffold.delta_c.conv.weight", &[2], &[0.5, -0.5])
            .f32("scaffold.delta_c.bn.weight", &[3], &[0.5; 3])
            .f32("scaffold.delta_c.head.bias", &[1], &[0.5])
    };
    (0..CLIENTS).for_each(|i| controlled(i).write(&dir));
    let merged = scaffold(&dir);
    assert_statistics(&merged, &[1.0; CLIENTS], "scaffold");
    let state = Model::read(&dir, "state.safetensors");
    let names: Vec<&String> = state.tensors.keys().collect();
    assert_eq!(names, ["c.bn.weight", "c.conv.weight", "c.head.bias"]);
    let before = dir.read("state.safetensors");
    for i in 0..CLIENTS {
        controlled(i).f32("scaffold.delta_c.bn.running_var", &[3], &[9.0; 3]).write(&dir);
    }
    assert_eq!(scaffold(&dir).tensors, merged.tensors);
    assert_eq!(dir.read("state.safetensors"), before);
}

/// A client's update for SCAFFOLD: every control variate holds `control`.
fn with_control(name: &str, i: usize, control: f32) -> Update {
    client(name, i)
        .f32("scaffold.delta_c.conv.weight", &[2], &[control; 2])
        .f32("scaffold.delta_c.bn.weight", &[3], &[control; 3])
        .f32("scaffold.delta_c.head.bias", &[1], &[control])
}

/// Statistics have no control variate, so a search for the client with a bad one passes them over.
#[test]
fn a_bad_control_variate_beside_statistics_is_its_clients_fault() {
    let dir = batch_norm();
    let population = &CLIENTS.to_string();
    let way = ["--strategy", "scaffold", "--population", population, "--state", "state.safetensors"];
    let skip = ["--on-bad-update", "skip"];
    (0..CLIENTS).for_each(|i| with_control(&format!("updates/c{i}"), i, 2e38).write(&dir));
    merge(&dir, &[&way[..], &BASE].concat());
    let state = dir.read("state.safetensors");
    dir.write("next.safetensors", dir.read("merged.safetensors"));
    let args = [&way[..], &["--base", "next.safetensors"]].concat();
    // 2e38 plus a mean of 1.72e38 overflows; of the clients alone, only the last does.
    let (good, far) = (1.3e38, 3.4e38);
    (0..CLIENTS).for_each(|i| with_control(&format!("updates/c{i}"), i, good).write(&dir));
    for (control, fault) in [
        (
            f32::NAN,
            "tensor `scaffold.delta_c.conv.weight` holds NaN at flat index 0, expected a finite number",
        ),
        (
            far,
            "tensor `scaffold.delta_c.conv.weight` brings `c` of the state to 5.399999888201503e38 at flat index 0, \
             which does not fit F32 of the state",
        ),
    ] {
        with_control("updates/c4", 4, control).write(&dir);
        aggregate(&dir, &args).assert_fails(2, &["c4.safetensors: ", fault]);
        let done = aggregate(&dir, &[&args[..], &skip].concat());
        done.assert_merged("merged.safetensors");
        assert!(done.stderr.contains(fault), "{}", done.stderr);
        let c = f64::from(Model::read(&dir, "state.safetensors").f32("c.head.bias")[0]);
        // Four of five clients take part.
        assert!((c / (2e38 + 0.8 * 1.3e38) - 1.0).abs() < 1e-6, "{c:e}");
        dir.write("state.safetensors", &state);
    }
    std::fs::rename(dir.path("updates"), dir.path("in")).unwrap();
    with_control("in/c4", 4, f32::NAN).write(&dir);
    let options = [&args[..], &["--rule", "krum", "--byzantine", "1"]].concat();
    decide(&dir, &options, &[], 1);
    let combine = ["combine", "in", "--shard", "1/1", "-o", "c.safetensors"];
    let fault = "tensor `scaffold.delta_c.conv.weight` holds NaN at flat index 0";
    fedmill(&dir, &[&combine[..], &options, &DECISION].concat())
        .assert_fails(2, &["c4.safetensors: ", fault]);
}

/// A moment that a state holds for a tensor is no longer read once the tensor is a statistic.
#[test]
fn a_state_with_moments_of_statistics_goes_on() {
    let dir = Dir::new();
    let model = |name: &str, w: f32| Update::new(name).f32("a.ema", &[1], &[w]).f32("w", &[1], &[w]);
    model("base", 1.0).write(&dir);
    model("updates/a", 2.0).write(&dir);
    let step = ["--strategy", "fedavgm:lr=3", "--state", "state.safetensors"];
    merge(&dir, &[&step[..], &BASE].concat());
    assert!(Model::read(&dir, "state.safetensors").tensors.contains_key("m.a.ema"));
    let next = ["--base", "merged.safetensors", "--statistics", "*.ema", "-o", "next.safetensors"];
    let args = [&["aggregate", "updates"][..], &step, &next].concat();
    fedmill(&dir, &args).assert_merged("next.safetensors");
    assert_eq!(Model::read(&dir, "next.safetensors").f32("a.ema"), [2.0]);
    let state = Model::read(&dir, "state.safetensors");
    assert_eq!(state.tensors.keys().collect::<Vec<_>>(), ["m.w"]);
}

fn row<'r>(report: &'r Value, class: &str) -> Option<&'r Value> {
    report["tensors"].as_array().unwrap().iter().find(|row| row["class"] == class)
}

#[test]
fn the_report_counts_and_names_the_classes() {
    let dir = batch_norm();
    merge(&dir, &[&["--statistics", "head.*"][..], &BASE, &REPORT].concat());
    let report = dir.json("report.json");
    assert_eq!(report["settings"]["statistics"], json!(["head.*"]));
    let parameters = json!({ "class": "parameter", "tensors": 2, "values": 5, "names": [] });
    assert_eq!(row(&report, "parameter"), Some(&parameters));
    let names = ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked", "head.bias"];
    assert_eq!(row(&report, "statistic").unwrap()["names"], json!(names));
    assert_eq!(row(&report, "opaque"), None);
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error() {
    let dir = batch_norm();
    for (option, message) in [("--statistics", "--statistics `nil.*`"), ("--opaque", "--opaque `nil.*`")] {
        let parts = [message, "no tensor matches, expected names such as `bn.num_batches_tracked`"];
        aggregate(&dir, &[option, "nil.*"]).assert_fails(2, &parts);
    }
}

/// A layer of packed four-bit weights beside plain ones. `codes` are the packed bytes.
fn packed(name: &str, codes: [u8; 4], scale: f32, w: f32) -> Update {
    Update::new(name)
        .raw("l.weight", "U8", &[4, 1], &codes)
        .f32("l.weight.absmax", &[1], &[scale])
        .raw("l.weight.quant_state.bitsandbytes__nf4", "U8", &[2], b"{}")
        .f32("w", &[2], &[w, -w])
}

const CODES: [u8; 4] = [0x1f, 0xf1, 0x20, 0xff];
/// The bits of a scale that is no number: its bytes count, not its value.
const NO_NUMBER: f32 = f32::from_bits(0x7fc0_1234);

fn packed_round(codes: [[u8; 4]; 3]) -> Dir {
    let dir = Dir::new();
    for (i, codes) in codes.into_iter().enumerate() {
        packed(&format!("updates/c{i}"), codes, NO_NUMBER, 1.0 + i as f32).write(&dir);
    }
    packed("base", CODES, NO_NUMBER, 0.5).write(&dir);
    dir
}

/// Opaque tensors have no part in distances, norms or steps: the plain tensors come out as without them.
#[test]
fn opaque_tensors_are_copied() {
    let (dir, plain) = (packed_round([CODES; 3]), Dir::new());
    for (name, w) in [("updates/c0", 1.0), ("updates/c1", 2.0), ("updates/c2", 3.0), ("base", 0.5)] {
        Update::new(name).f32("w", &[2], &[w, -w]).write(&plain);
    }
    for args in [&["--rule", "krum"][..], &["--rule", "multi-krum", "--pre", "clip:norm=1"], &[]] {
        for args in [args.to_vec(), [args, &BASE, &["--strategy", "fedavg:lr=3"]].concat()] {
            let merged = merge(&dir, &[&args[..], &REPORT].concat());
            let expected = merge(&plain, &[&args[..], &REPORT].concat());
            assert_eq!(merged.tensors["w"], expected.tensors["w"], "{args:?}");
            let base = Model::read(&dir, "base.safetensors");
            for name in ["l.weight", "l.weight.absmax", "l.weight.quant_state.bitsandbytes__nf4"] {
                assert_eq!(merged.tensors[name], base.tensors[name], "{args:?} {name}");
            }
            for i in 0..3 {
                let norm = |dir: &Dir| dir.json("report.json")["clients"][i]["norm"].clone();
                assert_eq!(norm(&dir), norm(&plain), "{args:?}");
            }
        }
    }
    assert_eq!(row(&dir.json("report.json"), "opaque").unwrap()["tensors"], 3);
}

#[test]
fn opaque_tensors_that_differ_end_the_run_with_the_remedy() {
    let other = [0x1e, 0xf1, 0x20, 0xff];
    let dir = packed_round([CODES, other, [0; 4]]);
    let parts = ["`l.weight`", "hint: dequantise before sending, or send adapters"];
    aggregate(&dir, &[]).assert_fails(2, &parts);
    aggregate(&dir, &["--on-bad-update", "skip"]).assert_fails(2, &parts);
    // With a base it is known which bytes are right, and without one if most clients agree.
    let parts = ["c1.safetensors: tensor `l.weight` is opaque", "those of the base", parts[1]];
    aggregate(&dir, &BASE).assert_fails(2, &parts);
    let dir = packed_round([CODES, other, CODES]);
    aggregate(&dir, &[])
        .assert_fails(2, &["c1.safetensors: tensor `l.weight` is opaque", "most other updates"]);
    let merged = merge(&dir, &["--on-bad-update", "skip"]);
    assert_eq!((merged.bytes("l.weight"), merged.f32("w")), (&CODES[..], vec![2.0, -2.0]));
    assert!(!dir.exists("other.safetensors"));
}

#[test]
fn a_pattern_makes_tensors_opaque() {
    let dir = Dir::new();
    for i in 0..3u8 {
        let update = Update::new(&format!("updates/c{i}")).f32("w", &[1], &[f32::from(i)]);
        update.raw("codes", "U8", &[2], &[7, i / 2]).write(&dir);
    }
    assert_eq!(merge(&dir, &[]).bytes("codes"), [7, 0], "the mean, rounded");
    aggregate(&dir, &["--opaque", "codes"]).assert_fails(2, &["c2.safetensors: tensor `codes` is opaque"]);
}

#[test]
fn shards_and_trees_copy_opaque_tensors() {
    let dir = packed_round([CODES; 3]);
    let whole = merge(&dir, &[]).tensors;
    let partial = ["aggregate", "updates", "--partial", "-o", "p.safetensors"];
    let message = "--partial with the opaque tensor `l.weight` cannot be done without --base";
    fedmill(&dir, &partial).assert_fails(2, &[message]);
    fedmill(&dir, &[&partial[..], &BASE].concat()).assert_merged("p.safetensors");
    let root = ["aggregate", "--partials", "p.safetensors", "-o", "root.safetensors"];
    fedmill(&dir, &[&root[..], &BASE].concat()).assert_merged("root.safetensors");
    assert_eq!(Model::read(&dir, "root.safetensors").tensors, whole);
    std::fs::rename(dir.path("updates"), dir.path("in")).unwrap();
    std::fs::create_dir(dir.path("c")).unwrap();
    combine(&dir, &[], &[], 2);
    run(&dir, "merge", &[], &["--partials", "c"], "merged.safetensors");
    assert_eq!(Model::read(&dir, "merged.safetensors").tensors, whole);
}

#[test]
fn packed_weights_cannot_be_mixed_with_those_of_another_model() {
    let dir = packed_round([CODES; 3]);
    let mix = |client: &str| {
        let args = ["personalize", "--global", "base.safetensors", "--personal", client, "--mix", "0.5"];
        fedmill(&dir, &[&args[..], &["-o", "own.safetensors"]].concat())
    };
    mix("updates/c0.safetensors").assert_merged("own.safetensors");
    let own = Model::read(&dir, "own.safetensors");
    assert_eq!((own.bytes("l.weight"), own.f32("w")), (&CODES[..], vec![0.75, -0.75]));
    packed("updates/c0", [0; 4], NO_NUMBER, 1.0).write(&dir);
    let parts = ["tensor `l.weight` is packed", "hint: dequantise both models"];
    mix("updates/c0.safetensors").assert_fails(2, &parts);
}

fn init(dir: &Dir, plan: &str, more: &[&str]) {
    let args = ["privacy", "init", plan, "--epsilon", "8", "--delta", "1e-6", "--population", "100"];
    let more =
        [&["--sampling", "all", "--denominator", "10", "--rounds", "5", "--clip", "1"][..], &BASE, more];
    let done = fedmill(dir, &[&args[..], &more.concat()].concat());
    assert_eq!(done.code, Some(0), "{done:#?}");
}

/// Under a budget the base's statistics stay, or they are coordinates of the clipped vector, with noise.
#[test]
fn a_private_round_keeps_or_releases_statistics() {
    let dir = batch_norm();
    init(&dir, "kept", &[]);
    let base = Model::read(&dir, "base.safetensors");
    let dp = |plan: &str, more: &[&str]| {
        let args = ["aggregate", "updates", "--dp", plan, "--test-seed", "1", "-o", "private.safetensors"];
        fedmill(&dir, &[&args[..], &BASE, more].concat())
    };
    dp("kept", &[]).assert_merged("private.safetensors");
    let merged = Model::read(&dir, "private.safetensors");
    for name in ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked"] {
        assert_eq!(merged.tensors[name], base.tensors[name]);
    }
    assert_ne!(merged.tensors["bn.weight"], base.tensors["bn.weight"]);
    let release = ["--dp-statistics", "release"];
    dp("kept", &release).assert_fails(2, &["updates have 12 coordinates, the plan has 6", "--dp-statistics"]);
    init(&dir, "released", &release);
    dp("released", &release).assert_merged("private.safetensors");
    let merged = Model::read(&dir, "private.safetensors");
    assert_ne!(merged.tensors["bn.running_var"], base.tensors["bn.running_var"]);
    assert_eq!(merged.tensors["bn.num_batches_tracked"], base.tensors["bn.num_batches_tracked"]);
    init(&dir, "personal", &["--personal", "fedbn"]);
    dp("personal", &["--personal", "fedbn"]).assert_merged("private.safetensors");
}
