//! Finite values that the merged model cannot hold are the fault of their client, for all rules.

use crate::harness::{Dir, Model, Update, aggregate, fedmill, merge};

const BASE: [&str; 2] = ["--base", "base.safetensors"];
const SKIP: [&str; 4] = ["--base", "base.safetensors", "--on-bad-update", "skip"];
const RULES: [&[&str]; 6] = [
    &["--rule", "mean"],
    &["--rule", "median"],
    &["--rule", "trimmed-mean", "--byzantine", "1"],
    &["--rule", "meamed", "--byzantine", "1"],
    &["--rule", "krum", "--byzantine", "1"],
    &["--rule", "geometric-median"],
];

/// A base of f16, two clients beside it, and a client whose bf16 no f16 can hold.
fn round() -> Dir {
    let dir = Dir::new();
    half("base", "F16", half::f16::ONE.to_bits()).write(&dir);
    for name in ["a", "b", "c", "d", "e", "f"] {
        half(&format!("updates/{name}"), "BF16", half::bf16::ONE.to_bits()).write(&dir);
    }
    hostile().write(&dir);
    dir
}

fn half(name: &str, dtype: &str, bits: u16) -> Update {
    Update::new(name).half("w", dtype, &[2], &[bits, bits]).meta("num_examples", "10")
}

fn hostile() -> Update {
    let [one, large] = [1.0, 1e6].map(|x| half::bf16::from_f64(x).to_bits());
    Update::new("updates/hostile").half("w", "BF16", &[2], &[one, large]).meta("num_examples", "10")
}

const ONES: [u8; 4] = [0x00, 0x3c, 0x00, 0x3c];
const FAULT: &str =
    "updates/hostile.safetensors: tensor `w` holds 999424 at flat index 1, which does not fit F16";

#[test]
fn every_rule_leaves_the_client_out_by_name() {
    for rule in RULES {
        let run = aggregate(&round(), &[&SKIP[..], rule].concat());
        assert_eq!(run.code, Some(0), "{rule:?}: {run:#?}");
        assert!(run.stderr.contains(FAULT), "{rule:?}: {}", run.stderr);
        let dir = round();
        assert_eq!(merge(&dir, &[&SKIP[..], rule].concat()).bytes("w"), ONES, "{rule:?}");
        aggregate(&round(), &[&BASE[..], rule].concat()).assert_fails(2, &[FAULT, "hint: "]);
    }
}

#[test]
fn all_such_clients_are_named_at_once() {
    let dir = round();
    Update::new("updates/other").f64("w", &[2], &[-7e4, f64::MAX]).meta("num_examples", "10").write(&dir);
    Update::new("updates/zz").f64("w", &[2], &[f64::NAN, 1.0]).meta("num_examples", "10").write(&dir);
    let parts = [
        FAULT,
        "updates/other.safetensors: tensor `w` holds -70000 at flat index 0, which does not fit F16 of the merged model (2 such values in the update)",
        "updates/zz.safetensors: tensor `w` holds NaN at flat index 0",
    ];
    aggregate(&dir, &BASE).assert_fails(2, &parts);
    assert_eq!(merge(&dir, &SKIP).bytes("w"), ONES);
}

#[test]
fn a_delta_counts_with_the_base_under_it() {
    let dir = Dir::new();
    let sixty = half::f16::from_f32(6e4).to_bits();
    half("base", "F16", sixty).write(&dir);
    let delta = |name: &str, value: f32| {
        let update = Update::new(&format!("updates/{name}")).f32("w", &[2], &[value, 0.0]);
        update.meta("num_examples", "10").meta("kind", "delta").write(&dir);
    };
    // Far below the base: only the sum must fit.
    for (name, value) in [("a", -1e5), ("b", 0.0), ("c", -1e5), ("hostile", 1e4)] {
        delta(name, value);
    }
    let part = "updates/hostile.safetensors: tensor `w` brings the base to 70000 at flat index 0";
    for rule in ["mean", "median", "geometric-median"] {
        aggregate(&dir, &[&BASE[..], &["--rule", rule]].concat())
            .assert_fails(2, &[part, "does not fit F16"]);
        assert_eq!(aggregate(&dir, &[&SKIP[..], &["--rule", rule]].concat()).code, Some(0), "{rule}");
    }
}

#[test]
fn a_double_beyond_a_base_of_f32() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[2], &[0.5, 0.5]).write(&dir);
    for name in ["a", "b"] {
        Update::new(&format!("updates/{name}")).f32("w", &[2], &[1.0, 2.0]).write(&dir);
    }
    Update::new("updates/evil").f64("w", &[2], &[1.0, 1e300]).write(&dir);
    let run = aggregate(&dir, &SKIP);
    assert!(
        run.stderr.contains("skipped updates/evil.safetensors: tensor `w` holds 1e300"),
        "{}",
        run.stderr
    );
    assert_eq!(merge(&dir, &SKIP).f32("w"), [1.0, 2.0]);
}

#[test]
fn the_last_values_that_round_to_a_number_fit() {
    let dir = Dir::new();
    half("base", "F16", 0).write(&dir);
    Update::new("updates/a").f64("w", &[2], &[65_519.999, -65_519.999]).write(&dir);
    assert_eq!(merge(&dir, &BASE).bytes("w"), [0xff, 0x7b, 0xff, 0xfb]);
}

#[test]
fn inspect_shows_the_fault_and_compares_the_others() {
    let dir = round();
    let run = fedmill(&dir, &["inspect", "--json", "--base", "base.safetensors", "updates"]);
    let rows: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let faults = |row: &serde_json::Value| row["faults"].as_array().unwrap().len();
    assert_eq!(rows.iter().map(faults).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 1]);
    assert!(rows[6]["faults"][0].as_str().unwrap().contains("does not fit F16"), "{run:#?}");
}

#[test]
fn shards_and_leafs_and_tiers_name_the_client() {
    let dir = round();
    let shard = ["--shard", "1/1", "-o", "shard.safetensors", "updates"];
    for command in ["gram", "combine"] {
        let rule = if command == "gram" { RULES[4] } else { RULES[1] };
        let args = [&[command][..], rule, &BASE, &shard].concat();
        fedmill(&dir, &args).assert_fails(2, &[FAULT]);
    }
    let leaf = ["aggregate", "--partial", "updates", "-o", "leaf.safetensors"];
    let run = fedmill(&dir, &[&leaf[..], &SKIP].concat());
    assert!(run.code == Some(0) && run.stderr.contains(FAULT), "{run:#?}");
    dir.write(
        "tiers.json",
        r#"{"schema": "fedmill.tiers/1", "tiers": [{"name": "all", "clients": ["*"], "rule": "median"}]}"#,
    );
    let run = aggregate(&dir, &[&SKIP[..], &["--tiers", "tiers.json"]].concat());
    assert!(run.code == Some(0) && run.stderr.contains(FAULT), "{run:#?}");
    assert_eq!(Model::read(&dir, "merged.safetensors").bytes("w"), ONES);
}

#[test]
fn a_step_that_is_too_large_is_no_clients_fault() {
    let dir = Dir::new();
    half("base", "F16", half::f16::ONE.to_bits()).write(&dir);
    Update::new("updates/a").f32("w", &[2], &[100.0, 1.0]).write(&dir);
    Update::new("updates/b").f32("w", &[2], &[100.0, 1.0]).write(&dir);
    let parts = [
        "tensor `w`: the merged value 99001 at flat index 0 does not fit F16, after the server's step of fedavg:lr=1000",
        "hint: ",
    ];
    aggregate(&dir, &[&SKIP[..], &["--strategy", "fedavg:lr=1000"]].concat()).assert_fails(2, &parts);
}

/// A base of one dtype and two clients of f32, whose mean is 1.0005.
fn small_step(dtype: &str, one: u16) -> Dir {
    let dir = Dir::new();
    half("base", dtype, one).write(&dir);
    for (name, value) in [("a", 1.0), ("b", 1.001)] {
        let update = Update::new(&format!("updates/{name}")).f32("w", &[2], &[value, value]);
        update.meta("num_examples", "10").write(&dir);
    }
    dir
}

#[test]
fn a_step_below_the_resolution_of_bf16_is_a_warning() {
    let dir = small_step("BF16", half::bf16::ONE.to_bits());
    let run = aggregate(&dir, &["--base", "base.safetensors", "--report", "report.json"]);
    let warning = "rounding to BF16 loses 100.000 % of the merged delta's norm";
    assert!(run.code == Some(0) && run.stderr.contains(warning), "{run:#?}");
    assert_eq!(dir.json("report.json")["output"]["lost_to_rounding"], 1.0);
    let run = aggregate(&dir, &["--base", "base.safetensors", "--dtype", "f32", "--report", "report.json"]);
    assert!(run.code == Some(0) && !run.stderr.contains("rounding"), "{run:#?}");
    assert_eq!(dir.json("report.json")["output"]["lost_to_rounding"], serde_json::Value::Null);
    let mean = (1.0_f64 + f64::from(1.001_f32)) / 2.0;
    assert_eq!(Model::read(&dir, "merged.safetensors").f32("w"), [mean as f32; 2]);
}

#[test]
fn the_share_that_rounding_loses_is_that_of_the_definition() {
    let dir = small_step("F16", half::f16::ONE.to_bits());
    let args = ["--base", "base.safetensors", "--report", "report.json", "--strategy", "fedavg:lr=0.7"];
    assert_eq!(aggregate(&dir, &args).code, Some(0));
    let delta = 0.7 * ((1.0_f64 + f64::from(1.001_f32)) / 2.0 - 1.0);
    let stored = half::f16::from_f64(1.0 + delta).to_f64();
    let expected = ((stored - (1.0 + delta)) / delta).abs();
    let found = dir.json("report.json")["output"]["lost_to_rounding"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-9 && expected > 0.01, "{found} {expected}");
}

#[test]
fn dtype_of_the_merged_model() {
    let dir = small_step("BF16", half::bf16::ONE.to_bits());
    Update::new("base").half("w", "BF16", &[2], &[half::bf16::ONE.to_bits(); 2]).write(&dir);
    for (dtype, stored) in
        [("f64", "F64"), ("F32", "F32"), ("f16", "F16"), ("bf16", "BF16"), ("f8_e4m3", "F8_E4M3")]
    {
        let run = aggregate(&dir, &["--base", "base.safetensors", "--dtype", dtype]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        assert_eq!(Model::read(&dir, "merged.safetensors").dtype("w"), stored);
    }
    let run = aggregate(&dir, &["--base", "base.safetensors", "--dtype", "i64"]);
    assert!(run.code == Some(2) && run.stderr.contains("expected f64, f32, f16"), "{run:#?}");
}

#[test]
fn a_tie_of_dtypes_goes_to_the_wider_one() {
    let dir = Dir::new();
    Update::new("updates/a").raw("w", "F8_E5M2", &[2], &[0x3c, 0x3c]).write(&dir);
    Update::new("updates/b").f32("w", &[2], &[1.4, 1.4]).write(&dir);
    let merged = merge(&dir, &[]);
    assert_eq!(merged.f32("w"), [((1.0 + f64::from(1.4_f32)) / 2.0) as f32; 2]);
    // A majority still decides.
    Update::new("updates/c").raw("w", "F8_E5M2", &[2], &[0x3c, 0x3c]).write(&dir);
    assert_eq!(aggregate(&dir, &[]).code, Some(0));
    assert_eq!(Model::read(&dir, "merged.safetensors").dtype("w"), "F8_E5M2");
}
