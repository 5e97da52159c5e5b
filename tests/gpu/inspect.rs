//! `inspect` on a GPU: the table of the CPU, with angles that differ by rounding alone.

use super::rounds::{Round, on_gpus};
use crate::harness::{Dir, Run, Update, fedmill};
use fedmill::gpu::job::Options;
use serde_json::Value;

/// The options that name the base of a round.
const WITH_BASE: &[&str] = &["--base", "base.safetensors"];

fn rows(run: &Run) -> Vec<Value> {
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Takes the angle out of a row.
fn angle(row: &mut Value) -> Option<f64> {
    row["cosine_to_median"].take().as_f64()
}

#[test]
fn angles_are_those_of_the_cpu_and_the_rest_has_the_same_bits() {
    for (dtype, base) in [("F32", true), ("BF16", false), ("F16", true)] {
        // One hostile client, whose angle differs from that of the others.
        let round = Round::new(7, 1, dtype, base);
        let args = [&["inspect", "--json", "updates"][..], if base { WITH_BASE } else { &[] }].concat();
        let of = |backend: &[&str]| rows(&fedmill(&round.dir, &[&args, backend].concat()));
        let mut cpu = of(&["--backend", "cpu"]);
        let angles: Vec<f64> = cpu.iter_mut().map(|row| angle(row).unwrap()).collect();
        assert!(angles.iter().any(|x| *x < 0.9) && angles.iter().all(|x| x.abs() <= 1.0), "{angles:?}");
        for backend in on_gpus(&Options::default()) {
            let adapter = backend.options.adapter.unwrap();
            let mut gpu = of(&["--backend", "gpu", "--adapter", &adapter]);
            for (row, expected) in gpu.iter_mut().zip(&angles) {
                let found = angle(row).unwrap();
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{dtype} on {adapter}: {found}, expected {expected}"
                );
            }
            assert_eq!(gpu, cpu, "{dtype} on {adapter}");
        }
    }
}

/// Updates whose squares vanish in f32: alone, several alike, and one whose delta is the median between two far ones.
#[test]
fn angles_of_tiny_updates_are_those_of_the_cpu() {
    let value = |client: usize, place: usize| ((client * 31 + place * 7 + 1) as f64 * 0.37).sin();
    for scale in [1e-10, 1e-19, 1e-22, 1e-30, 1e-38, 1e-41, 1e-44] {
        for (clients, far) in [(1, false), (3, false), (3, true)] {
            let dir = Dir::new();
            for client in 0..clients {
                let values: Vec<f32> = (0..3000)
                    .map(|place| match client {
                        1 if far => 1.0 + value(client, place).abs(),
                        2 if far => -1.0 - value(client, place).abs(),
                        _ => scale * (1.0 + value(client, place)),
                    })
                    .map(|x| x as f32)
                    .collect();
                Update::new(&format!("updates/client-{client}")).f32("w", &[3000], &values).write(&dir);
            }
            let of = |backend: &[&str]| {
                rows(&fedmill(&dir, &[&["inspect", "--json", "updates"][..], backend].concat()))
            };
            let cpu = of(&["--backend", "cpu"]);
            for backend in on_gpus(&Options::default()) {
                let adapter = backend.options.adapter.unwrap();
                let gpu = of(&["--backend", "gpu", "--adapter", &adapter]);
                for (row, expected) in
                    gpu.into_iter().zip(cpu.clone()).map(|(mut a, mut b)| (angle(&mut a), angle(&mut b)))
                {
                    let what = format!(
                        "{clients} at {scale:e}, far: {far}, on {adapter}: {row:?}, expected {expected:?}"
                    );
                    assert!((row.unwrap_or(9.0) - expected.unwrap()).abs() < 1e-5, "{what}");
                }
            }
        }
    }
}

/// Lengths so different that a product is lost in that of the difference.
#[test]
fn angles_of_very_unequal_updates_are_those_of_the_cpu() {
    for far in [1.0, 1e3, 1e9, 1e16, 1e18, 1e25] {
        let dir = Dir::new();
        for client in 0..6 {
            let scale = if client < 3 { 1.0 } else { far };
            let value =
                |place: usize| (scale * (1.0 + 0.5 * ((client * 37 + place * 11) as f64).sin())) as f32;
            let values: Vec<f32> = (0..1000).map(value).collect();
            Update::new(&format!("updates/c{client}"))
                .meta("kind", "delta")
                .f32("w", &[1000], &values)
                .write(&dir);
        }
        let of = |backend: &[&str]| {
            rows(&fedmill(&dir, &[&["inspect", "--json", "updates"][..], backend].concat()))
        };
        let cpu = of(&["--backend", "cpu"]);
        for backend in on_gpus(&Options::default()) {
            let adapter = backend.options.adapter.unwrap();
            let gpu = of(&["--backend", "gpu", "--adapter", &adapter]);
            for (mut found, mut expected) in gpu.into_iter().zip(cpu.clone()) {
                let (found, expected) = (angle(&mut found).unwrap(), angle(&mut expected).unwrap());
                assert!(
                    (found - expected).abs() < 1e-3,
                    "{far:e} on {adapter}: {found}, expected {expected}"
                );
            }
        }
    }
}

/// Weights that lie so near each other that the rounding of their median is a part of their distance from it.
#[test]
fn updates_near_each_other_are_compared() {
    for clients in [2, 3, 4, 8] {
        let dir = Dir::new();
        for client in 0..clients {
            let value = |place: usize| (1.0 + 1e-6 * ((client * 37 + place * 11) as f64).sin()) as f32;
            let values: Vec<f32> = (0..4096).map(value).collect();
            Update::new(&format!("updates/c{client}")).f32("w", &[4096], &values).write(&dir);
        }
        for backend in on_gpus(&Options::default()) {
            let adapter = backend.options.adapter.unwrap();
            let args = [
                "aggregate",
                "updates",
                "--rule",
                "distance-trim",
                "-o",
                "m.safetensors",
                "--backend",
                "gpu",
            ];
            let run = fedmill(&dir, &[&args[..], &["--adapter", &adapter]].concat());
            assert_eq!(run.code, Some(0), "{clients} on {adapter}: {}", run.stderr);
        }
    }
}

#[test]
fn an_adapter_that_there_is_not_ends_the_command() {
    let round = Round::new(2, 0, "F32", true);
    let run =
        fedmill(&round.dir, &["inspect", "updates", "--backend", "gpu", "--adapter", "no such adapter"]);
    run.assert_fails(
        2,
        &["no adapter is called `no such adapter`", "hint: `fedmill doctor` lists the adapters"],
    );
}
