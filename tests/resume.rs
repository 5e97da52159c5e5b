//! Rounds that keep a state, killed at every durable step.
//!
//! A killed round leaves a model with its state. Run again, it ends in the same bytes.

use crate::harness::{Dir, Model, Update, fedmill, fedmill_after};
use std::collections::BTreeMap;
use std::process::Command;

const STATE: &str = "state.safetensors";

/// A series of rounds; round N publishes `round-N.safetensors`.
struct Rounds {
    dir: Dir,
    rule: &'static str,
    more: &'static [&'static str],
}

impl Rounds {
    fn new(rule: &'static str, more: &'static [&'static str]) -> Self {
        let rounds = Self { dir: Dir::new(), rule, more };
        let values = |scale: usize| (0..40).map(move |j| ((j * scale + 3) % 17) as f32 / 8.0 - 1.0);
        let model = |name: &str, scale: usize| {
            let values: Vec<f32> = values(scale).collect();
            Update::new(name).f32("a", &[10], &values[..10]).f32("b", &[5, 6], &values[10..]).i64(
                "n",
                &[1],
                &[9],
            )
        };
        model("round-0", 5).write(&rounds.dir);
        for client in 0..5 {
            model(&format!("in/client-{client}"), 7 + client).meta("kind", "delta").write(&rounds.dir);
        }
        rounds
    }

    fn arguments(&self, round: usize) -> Vec<String> {
        let base = match self.dir.path(&format!("round-{}.safetensors", round - 1)).exists() {
            true => format!("round-{}.safetensors", round - 1),
            false => format!("round-{}.safetensors.index.json", round - 1),
        };
        let output = format!("round-{round}.safetensors");
        let fixed =
            ["aggregate", "-q", "in", "--rule", self.rule, "--base", &base, "--state", STATE, "-o", &output];
        fixed.iter().chain(self.more).map(ToString::to_string).collect()
    }

    #[track_caller]
    fn run(&self, round: usize) {
        let arguments = self.arguments(round);
        let run = fedmill(&self.dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(run.code, Some(0), "{run:#?}");
    }

    /// Runs a round that dies before the given durable step. Returns whether the run reached that step.
    fn run_until(&self, round: usize, step: usize) -> bool {
        let arguments = self.arguments(round);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = fedmill_after(&self.dir, &format!("export FEDMILL_FAIL_AT={step}"), &arguments);
        assert!(run.code != Some(1) && run.code != Some(2), "{run:#?}");
        run.code != Some(0)
    }

    /// All files, except temporary ones of a killed run.
    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let mut contents = self.dir.contents();
        contents.retain(|name, _| !name.ends_with(".fedmill-tmp"));
        contents
    }

    /// Fails if a round has a model but no state.
    fn assert_paired(&self, round: usize) {
        let model = format!("round-{round}.safetensors");
        if self.dir.path(&model).exists() {
            let digest = blake3(&self.dir.read(&model));
            assert_eq!(Model::read(&self.dir, STATE).metadata["fedmill.model"], digest);
        }
    }
}

fn blake3(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Kills the third round, or the first, at every durable step, and runs it again. Returns the number of steps.
fn killed_everywhere(rule: &'static str, more: &'static [&'static str], killed: usize) -> usize {
    let whole = Rounds::new(rule, more);
    (1..=4).for_each(|round| whole.run(round));
    let mut step = 1;
    loop {
        let rounds = Rounds::new(rule, more);
        (1..killed).for_each(|round| rounds.run(round));
        let before = rounds.contents();
        if !rounds.run_until(killed, step) {
            return step - 1;
        }
        for (name, bytes) in before.iter().filter(|(name, _)| name.starts_with("round-")) {
            assert_eq!(rounds.contents().get(name), Some(bytes), "step {step} touched {name}");
        }
        rounds.assert_paired(killed);
        (killed..=4).for_each(|round| rounds.run(round));
        let reports_aside = |mut all: BTreeMap<String, Vec<u8>>| {
            all.retain(|name, _| !name.ends_with(".json") || name.contains("index"));
            all
        };
        assert_eq!(
            reports_aside(rounds.contents()),
            reports_aside(whole.contents()),
            "killed before step {step}"
        );
        step += 1;
    }
}

#[test]
fn fedadam_killed_before_every_durable_step() {
    let strategy = &["--strategy", "fedadam", "--report", "report.json"];
    assert!(killed_everywhere("median", strategy, 3) >= 9);
    assert!(killed_everywhere("median", strategy, 1) >= 8);
}

#[test]
fn a_centre_and_a_momentum_in_one_state() {
    assert!(killed_everywhere("centered-clipping:tau=1", &["--strategy", "fedavgm"], 2) >= 6);
}

#[test]
fn models_in_shards() {
    assert!(killed_everywhere("mean", &["--strategy", "fedyogi", "--max-shard-size", "100B"], 3) >= 10);
}

/// The same round twice, and a round on an earlier model: each finds the state that it starts from.
#[test]
fn rounds_that_are_run_again() {
    let rounds = Rounds::new("mean", &["--strategy", "fedadam"]);
    (1..=3).for_each(|round| rounds.run(round));
    let after = rounds.contents();
    rounds.run(3);
    assert_eq!(rounds.contents(), after);
    let arguments = rounds.arguments(2);
    let run = fedmill(&rounds.dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    run.assert_fails(
        2,
        &["state.safetensors: belongs to the model blake3:", "hint: pass the model of digest"],
    );
    assert_eq!(rounds.contents(), after, "the state before the last is gone, and nothing else is touched");
}

#[test]
fn no_model_is_paired_with_the_state_of_another() {
    let rounds = Rounds::new("mean", &["--strategy", "fedadam"]);
    (1..=2).for_each(|round| rounds.run(round));
    std::fs::copy(rounds.dir.path("state.safetensors.previous"), rounds.dir.path(STATE)).unwrap();
    let before = rounds.contents();
    let arguments = rounds.arguments(3);
    let run = fedmill(&rounds.dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    run.assert_fails(2, &["belongs to the model blake3:", "expected that of the base, blake3:"]);
    assert_eq!(rounds.contents(), before);
}

/// A run does not use a state that another run is working on.
#[test]
fn two_runs_on_one_state_are_kept_apart() {
    let rounds = Rounds::new("mean", &["--strategy", "fedadam"]);
    rounds.run(1);
    let name = format!(".{STATE}.1-0.fedmill-tmp");
    rounds.dir.write(&name, b"half a state");
    let before = rounds.dir.contents();
    let other = std::fs::File::options().write(true).open(rounds.dir.path(&name)).unwrap();
    other.lock().unwrap();
    let arguments = rounds.arguments(2);
    let run = fedmill(&rounds.dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    run.assert_fails(2, &["state.safetensors: another run is writing it"]);
    rounds.dir.assert_unchanged_since(&before);
    drop(other);
    rounds.run(2);
    assert!(!rounds.dir.exists(&name), "what a killed run left is removed");
}

/// The script of the README: ten rounds from the shell, one of them killed again and again.
#[test]
fn ten_rounds_from_the_shell() {
    let dir = Dir::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist-round/ten_rounds.sh");
    let output =
        Command::new("bash").arg(script).arg(crate::harness::program()).arg(dir.path("")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("the same model, and the same state\n"), "{said}");
}
