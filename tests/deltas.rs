//! Updates that are deltas, and the parts of a base that a merged file keeps.

use crate::harness::{Dir, Model, Update, aggregate, fedmill, merge};

const ONTO_BASE: [&str; 4] = ["--rule", "median", "--base", "base.safetensors"];

/// A delta of client `number` with one tensor.
fn delta(number: usize, values: &[f32]) -> Update {
    weights(number, values).meta("kind", "delta")
}

fn weights(number: usize, values: &[f32]) -> Update {
    Update::new(&format!("updates/client-{number}")).f32("w", &[values.len()], values)
}

fn base(values: &[f32]) -> Update {
    Update::new("base").f32("w", &[values.len()], values)
}

#[test]
fn deltas_are_added_to_the_base() {
    let dir = Dir::new();
    base(&[10.0, 20.0]).write(&dir);
    delta(0, &[1.0, -1.0]).write(&dir);
    delta(1, &[2.0, -3.0]).write(&dir);
    delta(2, &[9.0, -2.0]).write(&dir);
    let merged = merge(&dir, &ONTO_BASE);
    assert_eq!(merged.f32("w"), [12.0, 18.0]);
    assert!(!merged.metadata.contains_key("kind"));
    let mean = ["--rule", "mean", "--weights", "uniform", "--base", "base.safetensors"];
    assert_eq!(merge(&dir, &mean).f32("w"), [14.0, 18.0]);
}

#[test]
fn deltas_of_integers_are_added_to_the_base() {
    let dir = Dir::new();
    Update::new("base").i64("steps", &[2], &[100, -7]).write(&dir);
    for (number, steps) in [[1, 5], [2, -6], [4, 2]].iter().enumerate() {
        let update = Update::new(&format!("updates/client-{number}")).i64("steps", &[2], steps);
        update.meta("kind", "delta").write(&dir);
    }
    let merged = merge(&dir, &ONTO_BASE);
    let steps: Vec<u8> = [102i64, -5].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(merged.bytes("steps"), steps);
}

#[test]
fn deltas_and_weights_meet_on_the_base() {
    let dir = Dir::new();
    base(&[10.0, 20.0]).write(&dir);
    delta(0, &[1.0, -1.0]).write(&dir);
    weights(1, &[12.0, 17.0]).write(&dir);
    delta(2, &[9.0, -2.0]).write(&dir);
    assert_eq!(merge(&dir, &ONTO_BASE).f32("w"), [12.0, 18.0]);
    let trimmed = ["--rule", "trimmed-mean:cut=1", "--base", "base.safetensors"];
    assert_eq!(merge(&dir, &trimmed).f32("w"), [12.0, 18.0]);
    let mean = ["--rule", "mean", "--base", "base.safetensors"];
    assert_eq!(merge(&dir, &mean).f32("w"), [14.0, 18.0]);
}

#[test]
fn deltas_without_a_base_merge_into_a_delta() {
    let dir = Dir::new();
    for (number, value) in [1.0, 5.0, 3.0].into_iter().enumerate() {
        delta(number, &[value]).write(&dir);
    }
    let merged = merge(&dir, &["--rule", "median"]);
    assert_eq!(merged.f32("w"), [3.0]);
    assert_eq!(merged.metadata["kind"], "delta");
}

#[test]
fn deltas_merged_into_one_are_a_delta_again() {
    let dir = Dir::new();
    base(&[10.0]).write(&dir);
    delta(0, &[1.0]).write(&dir);
    delta(1, &[3.0]).write(&dir);
    let direct = merge(&dir, &["--base", "base.safetensors"]);
    fedmill(&dir, &["aggregate", "updates", "-o", "delta.safetensors"]).assert_merged("delta.safetensors");
    let args = ["aggregate", "delta.safetensors", "--base", "base.safetensors", "-o", "merged.safetensors"];
    fedmill(&dir, &args).assert_merged("merged.safetensors");
    assert_eq!(Model::read(&dir, "merged.safetensors").f32("w"), direct.f32("w"));
}

#[test]
fn delta_among_weights_that_is_rejected_changes_nothing() {
    // In f64, (x - base) + base differs from x here. So the run must merge the remaining weights unchanged.
    let of = |name: &str, value: f64| Update::new(name).f64("w", &[1], &[value]);
    let dir = Dir::new();
    of("base", 1e9).write(&dir);
    for number in 0..3 {
        of(&format!("updates/client-{number}"), 0.1).meta("kind", "weights").write(&dir);
    }
    let alone = merge(&dir, &ONTO_BASE);
    assert_eq!(alone.f64("w"), [0.1]);
    of("updates/client-9", f64::NAN).meta("kind", "delta").write(&dir);
    let skip = [&ONTO_BASE[..], &["--on-bad-update", "skip"]].concat();
    assert_eq!(merge(&dir, &skip), alone);
}

#[test]
fn deltas_that_push_the_base_past_its_dtype() {
    let dir = Dir::new();
    let sixty_thousand = half::f16::from_f32(60_000.0).to_bits();
    Update::new("base").half("w", "F16", &[3], &[0, 0, sixty_thousand]).write(&dir);
    let delta = Update::new("updates/client-0").half("w", "F16", &[3], &[0, 0, sixty_thousand]);
    delta.meta("kind", "delta").write(&dir);
    let before = dir.contents();
    for rule in ["mean", "median", "trimmed-mean"] {
        let run = aggregate(&dir, &["--rule", rule, "--base", "base.safetensors"]);
        let value = 2.0 * half::f16::from_f32(60_000.0).to_f64();
        let part = format!("client-0.safetensors: tensor `w` brings the base to {value} at flat index 2");
        run.assert_fails(2, &[&part, "does not fit F16", "hint: "]);
        dir.assert_unchanged_since(&before);
    }
}

#[test]
fn weights_too_large_for_the_base_dtype() {
    let dir = Dir::new();
    Update::new("base").half("w", "F16", &[2], &[0, 0]).write(&dir);
    weights(0, &[65_519.0, 1.0]).write(&dir);
    let merged = merge(&dir, &["--base", "base.safetensors"]);
    assert_eq!(merged.bytes("w"), [0xff, 0x7b, 0x00, 0x3c], "the last float that rounds to a finite one");
    weights(0, &[1.0, 65_520.0]).write(&dir);
    let part = "client-0.safetensors: tensor `w` holds 65520 at flat index 1, which does not fit F16";
    aggregate(&dir, &["--base", "base.safetensors"]).assert_fails(2, &[part]);
}

#[test]
fn tensors_in_another_order_than_the_base() {
    let dir = Dir::new();
    let (a, b, c) = ([1.0f32, 2.0], [3.0f64; 3], [4i64]);
    Update::new("base").f32("a", &[2], &a).f64("b", &[3], &b).i64("c", &[1], &c).write(&dir);
    Update::new("updates/x").i64("c", &[1], &c).f64("b", &[3], &b).f32("a", &[2], &a).write(&dir);
    Update::new("updates/y").f64("b", &[3], &b).f32("a", &[2], &a).i64("c", &[1], &c).write(&dir);
    for args in [&ONTO_BASE[..2], &ONTO_BASE] {
        let merged = merge(&dir, args);
        assert_eq!(merged.tensors, Model::read(&dir, "base.safetensors").tensors);
    }
    let order = |name: &str| {
        let bytes = dir.read(name);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        ["\"a\"", "\"b\"", "\"c\""].map(|tensor| text.find(tensor).unwrap())
    };
    assert!(order("merged.safetensors").is_sorted(), "the base's order of tensors is kept");
}

#[test]
fn metadata_of_the_base_is_kept_and_that_of_clients_is_not() {
    let dir = Dir::new();
    base(&[0.0]).meta("format", "pt").meta("licence", "MIT").meta("num_examples", "7").write(&dir);
    for number in 0..2 {
        let client = weights(number, &[1.0]).meta("format", "np").meta("client_id", &format!("id-{number}"));
        client.meta("num_examples", "5").meta("round", "3").meta("local_steps", "10").write(&dir);
    }
    let merged = merge(&dir, &["--base", "base.safetensors"]);
    let metadata: Vec<(&str, &str)> = merged.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected = [
        ("fedmill.clients", "2"),
        ("fedmill.rule", "mean"),
        ("fedmill.version", env!("CARGO_PKG_VERSION")),
        ("fedmill.weights", "examples"),
        ("format", "pt"),
        ("licence", "MIT"),
    ];
    assert_eq!(metadata, expected);
    let merged = merge(&dir, &["--rule", "median"]);
    assert_eq!(merged.metadata["format"], "np");
    assert!(!merged.metadata.contains_key("client_id"));
}
