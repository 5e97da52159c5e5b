//! Server strategies step after the noise: from a release to the model of the oracle.

use super::*;
use crate::reference::strategies::{Adaptive, Client, Second, Strategy, simulate};

const LEN: usize = 40;
const ROUNDS: usize = 3;

fn folder() -> Dir {
    let dir = Dir::new();
    model_f64("base", &values(9, LEN)).write(&dir);
    for client in 0..4 {
        model_f32(&format!("updates/client-{client}"), &values(client, LEN))
            .meta("kind", "delta")
            .write(&dir);
    }
    start_budget(&dir, &["--clip", "0.5"]);
    dir
}

/// One round with the noise of its number.
#[track_caller]
fn round(dir: &Dir, number: usize, base: &str, output: &str, more: &[&str]) -> Model {
    let seed = number.to_string();
    let args = ["aggregate", "updates", "--dp", "dp", "--test-seed", &seed, "--base", base, "-o", output];
    fedmill(dir, &[&args, more].concat()).assert_merged(output);
    Model::read(dir, output)
}

/// The noised mean deltas of the rounds.
fn noised_means(dir: &Dir) -> Vec<Vec<f64>> {
    let base = values(9, LEN);
    let mean = |number: usize| {
        let model = round(dir, number, "base.safetensors", "plain.safetensors", &[]);
        floats(&model).iter().zip(&base).map(|(x, base)| x - base).collect()
    };
    (0..ROUNDS).map(mean).collect()
}

/// The one client that the oracle gets, whose delta is the release.
fn as_client(delta: &[f64]) -> Vec<Client> {
    let delta_c = vec![0.0; delta.len()];
    let delta = delta.to_vec();
    vec![Client {
        delta,
        weight: 1.0,
        local_steps: 1,
        momentum: 0.0,
        mu: 0.0,
        lr: 0.1,
        loss: 1.0,
        round: 0,
        delta_c,
    }]
}

#[test]
fn strategies_step_after_the_noise_and_keep_their_state() {
    let adam = Adaptive {
        second: Second::Adam,
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
        v0: 1e-6,
        exponent: None,
        tau_under_root: false,
    };
    let strategies = [
        ("fedavg:lr=0.3", Strategy::Average { lr: 0.3 }),
        ("fedprox:mu=0.1", Strategy::Average { lr: 1.0 }),
        ("fedavgm", Strategy::Momentum { lr: 1.0, momentum: 0.9 }),
        ("fedadam", Strategy::Adaptive(adam)),
        ("fedyogi", Strategy::Adaptive(Adaptive { second: Second::Yogi, lr: 0.01, ..adam })),
        ("fedadagrad", Strategy::Adaptive(Adaptive { second: Second::Adagrad, beta1: 0.0, ..adam })),
    ];
    let dir = folder();
    let (means, count) = (noised_means(&dir), strategies.len());
    let rounds: Vec<Vec<Client>> = means.iter().map(|mean| as_client(mean)).collect();
    for (place, (name, strategy)) in strategies.into_iter().enumerate() {
        let expected = simulate(&strategy, &values(9, LEN), &rounds);
        let keeps = !matches!(strategy, Strategy::Average { .. });
        let state = format!("state-{place}.safetensors");
        let with_state: &[&str] = if keeps { &["--state", &state] } else { &[] };
        let more = [&["--strategy", name], with_state].concat();
        let mut base = "base.safetensors".to_owned();
        for (number, expected) in expected.iter().enumerate() {
            let output = format!("{place}-{number}.safetensors");
            let model = round(&dir, number, &base, &output, &more);
            for (x, expected) in floats(&model).iter().zip(&expected.x) {
                assert!((x - expected).abs() < 1e-9, "{name}, round {number}: {x}, expected {expected}");
            }
            let steps = keeps.then(|| (number + 1).to_string());
            assert_eq!(model.metadata.get("fedmill.steps"), steps.as_ref(), "{name}");
            assert_eq!(model.bytes("n"), 9i64.to_le_bytes());
            base = output;
        }
    }
    let all = ROUNDS * (count + 1);
    assert_eq!(books(&dir).state.counted().count(), all, "every release is charged");
}

/// The state of another model is noticed before anything is charged.
#[test]
fn a_state_of_another_model_costs_nothing() {
    let dir = folder();
    let strategy = ["--strategy", "fedadam", "--state", "state.safetensors"];
    round(&dir, 0, "base.safetensors", "one.safetensors", &strategy);
    round(&dir, 1, "one.safetensors", "two.safetensors", &strategy);
    let before = dir.contents();
    let args =
        ["aggregate", "updates", "--dp", "dp", "--base", "plain.safetensors", "-o", "three.safetensors"];
    dir.write("plain.safetensors", model_f64("plain", &values(2, LEN)).bytes());
    let run = fedmill(&dir, &[&args, &strategy[..]].concat());
    run.assert_fails(2, &["belongs to the model"]);
    std::fs::remove_file(dir.path("plain.safetensors")).unwrap();
    dir.assert_unchanged_since(&before);
    // A missing state costs nothing either.
    let args =
        ["aggregate", "updates", "--dp", "dp", "--base", "base.safetensors", "-o", "three.safetensors"];
    fedmill(&dir, &[&args[..], &["--strategy", "fedadam"]].concat())
        .assert_fails(2, &["expected --state FILE"]);
    dir.assert_unchanged_since(&before);
}
