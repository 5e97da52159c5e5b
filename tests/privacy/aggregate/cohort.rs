//! The clients of a round must not show in its output.
//!
//! Neither their number and order, nor threads, instruction sets and the metadata of updates may change it.

use super::*;
use crate::harness::le;
use std::collections::BTreeSet;

/// Number of values of the larger models.
const MANY: usize = 4096;

fn many_f64(name: &str, values: &[f64]) -> Update {
    Update::new(name).f64("w", &[MANY], values)
}

/// A folder with a base, a budget and no updates.
fn no_clients(more: &[&str]) -> Dir {
    let dir = Dir::new();
    many_f64("base", &values(3, MANY)).write(&dir);
    std::fs::create_dir(dir.path("updates")).unwrap();
    start_budget(&dir, more);
    dir
}

#[test]
fn without_clients_the_release_is_noise() {
    let dir = no_clients(&["--clip", "2", "--noise-multiplier", "1.5"]);
    let base = values(3, MANY);
    let noise: Vec<f64> = released(&dir, &[]).f64("w").iter().zip(&base).map(|(x, base)| x - base).collect();
    let expected = 1.5 * 2.0 / DENOMINATOR as f64;
    let moment = |power: i32| noise.iter().map(|x| (x / expected).powi(power)).sum::<f64>() / MANY as f64;
    // Four standard errors each. For Gaussians these are 1, sqrt 2 and sqrt 96, divided by sqrt MANY.
    let error = 4.0 / (MANY as f64).sqrt();
    assert!(moment(1).abs() < error, "mean {}", moment(1));
    assert!((moment(2) - 1.0).abs() < 2f64.sqrt() * error, "variance {}", moment(2));
    assert!((moment(4) - 3.0).abs() < 96f64.sqrt() * error, "fourth moment {}", moment(4));
    let distinct: BTreeSet<u64> = noise.iter().map(|x| x.to_bits()).collect();
    assert!(distinct.len() > MANY * 9 / 10, "{} distinct values", distinct.len());
    // Neighbouring coordinates are not correlated.
    let product: f64 = noise.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / expected.powi(2);
    assert!(product.abs() / (MANY as f64) < error, "{product}");
}

/// Noise does not repeat across tiles, tensors and threads.
#[test]
fn no_coordinate_has_the_noise_of_another() {
    const LEN: usize = 200_000;
    let dir = Dir::new();
    Update::new("base").f64("a", &[LEN], &[0.0; LEN]).f64("b", &[LEN / 2], &[0.0; LEN / 2]).write(&dir);
    std::fs::create_dir(dir.path("updates")).unwrap();
    start_budget(&dir, &[]);
    let model = released(&dir, &[]);
    let noise = [model.f64("a"), model.f64("b")].concat();
    let distinct: BTreeSet<u64> = noise.iter().map(|x| x.to_bits()).collect();
    // By chance one in fifty has the value of another coordinate.
    assert!(distinct.len() > noise.len() * 95 / 100, "{} of {} values", distinct.len(), noise.len());
}

/// All ways to have no clients give the same release.
#[test]
fn all_ways_to_have_no_clients_are_the_same_release() {
    let dir = no_clients(&[]);
    let empty = released(&dir, &[]).tensors;
    let without_paths =
        ["aggregate", "--dp", "dp", "--base", "base.safetensors", "--allow-empty", "-o", "none.safetensors"];
    fedmill(&dir, &[&without_paths[..], &SEEDED].concat()).assert_merged("none.safetensors");
    assert!(Model::read(&dir, "none.safetensors").tensors == empty);
    dir.write("list", "\n");
    fedmill(&dir, &[&without_paths[..], &SEEDED, &["--files-from", "list"]].concat())
        .assert_merged("none.safetensors");
    assert!(Model::read(&dir, "none.safetensors").tensors == empty);
    many_f64("updates/x", &[f64::NAN; MANY]).write(&dir);
    Update::new("updates/y").cut_to(3).write(&dir);
    assert!(released(&dir, &[]).tensors == empty);
}

/// Without a seed every release has other noise.
#[test]
fn every_release_has_another_key() {
    let dir = no_clients(&[]);
    let noise = |output: &str| {
        release_to(&dir, output, &["--release-again"]).assert_merged(output);
        Model::read(&dir, output).f64("w")
    };
    let (one, other) = (noise("one.safetensors"), noise("other.safetensors"));
    let same = one.iter().zip(&other).filter(|(x, y)| x == y).count();
    assert!(same < MANY / 100, "{same} values are the same");
    release_to(&dir, "other.safetensors", &["--test-seed", "8"]).assert_merged("other.safetensors");
    assert!(released(&dir, &[]).f64("w") != Model::read(&dir, "other.safetensors").f64("w"));
}

/// A model of several tiles, with all float types and integers.
fn mixed(name: &str, which: usize) -> Update {
    const LONG: usize = 60_000;
    let by = if which.is_multiple_of(3) { 0.001 } else { 0.1 };
    let values: Vec<f64> = values(which, LONG).into_iter().map(|x| x * by).collect();
    let f16: Vec<u16> = values.iter().map(|x| half::f16::from_f64(*x).to_bits()).collect();
    let bf16: Vec<u16> = values.iter().map(|x| half::bf16::from_f64(*x).to_bits()).collect();
    Update::new(name)
        .f32("a", &[LONG], &narrow(&values))
        .half("b", "F16", &[300], &f16[..300])
        .half("c", "BF16", &[LONG / 2], &bf16[..LONG / 2])
        .f64("d", &[LONG / 2], &values[..LONG / 2])
        .i64("n", &[3], &[which as i64, i64::MIN, i64::MAX])
        .raw("bits", "U8", &[2], &[which as u8, 255])
}

fn mixed_folder() -> Dir {
    let dir = Dir::new();
    mixed("base", 1).write(&dir);
    (2..7)
        .for_each(|which| mixed(&format!("updates/client-{which}"), which).meta("kind", "delta").write(&dir));
    start_budget(&dir, &["--clip", "0.5"]);
    dir
}

#[test]
fn threads_instruction_sets_and_the_order_of_files_change_no_bit() {
    let dir = mixed_folder();
    let expected = released(&dir, &[]).tensors;
    assert_eq!(expected["n"].2, le([1, i64::MIN, i64::MAX].map(i64::to_le_bytes)), "integers are the base's");
    assert_eq!(expected["bits"].2, [1, 255]);
    for isa in fedmill::kernels::lanes::Isa::available() {
        for threads in ["1", "2", "3"] {
            let found = released(&dir, &["--isa", &isa.to_string(), "--threads", threads]);
            assert!(found.tensors == expected, "{isa} on {threads} threads");
        }
    }
    let paths: Vec<String> =
        (2..7).rev().map(|which| format!("updates/client-{which}.safetensors")).collect();
    let backward: Vec<&str> = paths.iter().map(String::as_str).collect();
    let args = ["aggregate", "--dp", "dp", "--base", "base.safetensors", "-o", "released.safetensors"];
    fedmill(&dir, &[&args[..], &SEEDED, &backward].concat()).assert_merged("released.safetensors");
    assert!(Model::read(&dir, "released.safetensors").tensors == expected);
    // Shards do not change a bit either.
    let run = release_to(&dir, "cut.safetensors", &[&SEEDED[..], &["--max-shard-size", "200KB"]].concat());
    run.assert_merged("cut.safetensors.index.json");
    let index = dir.json("cut.safetensors.index.json");
    for (tensor, file) in index["weight_map"].as_object().unwrap() {
        let cut = Model::read(&dir, file.as_str().unwrap());
        assert!(cut.tensors[tensor] == expected[tensor], "{tensor}");
    }
}

/// The metadata does not depend on the clients.
#[test]
fn the_model_reveals_nothing_about_the_cohort() {
    let dir = Dir::new();
    model_f32("base", &values(1, 40)).meta("format", "pt").meta("num_examples", "9").write(&dir);
    for client in 0..3 {
        let update = model_f32(&format!("updates/client-{client}"), &values(client, 40));
        update.meta("num_examples", "12345").meta("round", "1").meta("local_steps", "77").write(&dir);
    }
    start_budget(&dir, &[]);
    let model = released(&dir, &["--round", "1", "--strategy", "fedavg:lr=0.5"]);
    let known: BTreeSet<&str> = [
        "fedmill.privacy.ledger",
        "fedmill.privacy.plan",
        "fedmill.privacy.release",
        "fedmill.privacy.test_seed",
        "fedmill.rule",
        "fedmill.strategy",
        "fedmill.version",
        "format",
    ]
    .into();
    let unknown: Vec<_> = model.metadata.iter().filter(|(key, _)| !known.contains(key.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // Without clients the metadata is the same, except for the keys that name the charge.
    let common = |model: Model| {
        let mut metadata = model.metadata;
        metadata
            .retain(|key, _| !["fedmill.privacy.ledger", "fedmill.privacy.release"].contains(&key.as_str()));
        metadata
    };
    let all = common(model);
    std::fs::remove_dir_all(dir.path("updates")).unwrap();
    std::fs::create_dir(dir.path("updates")).unwrap();
    assert_eq!(common(released(&dir, &["--round", "1", "--strategy", "fedavg:lr=0.5"])), all);
}

/// Neither the printed text nor the size of the file reveals the number of clients.
#[test]
fn nothing_printed_reveals_the_number_of_clients() {
    let dir = mixed_folder();
    let quiet = |output: &str| {
        let run = release_to(&dir, output, &["-q"]);
        run.assert_merged(output);
        run.stderr
    };
    let all = quiet("all.safetensors");
    std::fs::remove_dir_all(dir.path("updates")).unwrap();
    std::fs::create_dir(dir.path("updates")).unwrap();
    let none = quiet("new.safetensors");
    assert_eq!((all.as_str(), none.as_str()), ("", ""));
    assert_eq!(dir.read("all.safetensors").len(), dir.read("new.safetensors").len());
}
