//! Rounds that are killed: before every durable step, and by SIGKILL at random moments.

use super::federation::{Federation, STATE};
use crate::harness::{fedmill_after, program};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SETTINGS: &str = "[coordination]\nmin_clients = 2\nclients = 4\nround_timeout = \"1h\"\n\
                        [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n\
                        [strategy]\nname = \"fedadam:lr=0.01\"\n\
                        [evaluation]\ncommand = [\"sh\", \"-c\", \"echo '{\\\"loss\\\": 0.5}'\"]\n";

/// Runs this many rounds; `run` runs the program once.
fn rounds(federation: &Federation, rounds: u64, mut run: impl FnMut(&Federation)) {
    for round in 1..=rounds {
        while federation.status()["round"] != round || federation.status()["phase"] != "collect" {
            run(federation);
        }
        federation.deliver(round, 0);
        while federation.status()["published"] != round {
            run(federation);
        }
    }
}

fn undisturbed(count: u64) -> Vec<u8> {
    let federation = Federation::new(4, SETTINGS);
    rounds(&federation, count, |federation| drop(federation.round("run", &["-q"])));
    federation.model()
}

#[test]
fn a_round_killed_before_every_durable_step_ends_in_the_same_bytes() {
    let federation = Federation::new(4, SETTINGS);
    rounds(&federation, 1, |federation| drop(federation.round("run", &["-q"])));
    federation.deliver(2, 0);
    let copy = |from: &str, to: &str| {
        let script = format!("rm -rf {to} && cp -a {from} {to}");
        let copied = Command::new("sh").args(["-c", &script]).current_dir(federation.dir.path("")).status();
        assert!(copied.unwrap().success());
    };
    copy(STATE, "before");
    federation.advance();
    let (model, state) = (federation.model(), federation.dir.read("fed/rounds/000002/state.safetensors"));
    let mut step = 0;
    loop {
        step += 1;
        copy("before", STATE);
        let setup = format!("export FEDMILL_FAIL_AT={step}");
        let run = fedmill_after(&federation.dir, &setup, &["round", "run", STATE, "-q"]);
        if run.code.is_some() {
            break;
        }
        while federation.status()["round"] != 3 || federation.status()["phase"] != "collect" {
            federation.round("run", &["-q"]);
        }
        assert!(federation.model() == model, "another model after step {step}");
        let found = federation.dir.read("fed/rounds/000002/state.safetensors");
        assert!(found == state, "another state after step {step}");
        federation.assert_sound();
    }
    assert!(step > 60, "{step} steps");
}

#[test]
fn a_round_killed_at_random_moments_ends_in_the_same_bytes() {
    let federation = Federation::new(4, SETTINGS);
    let started = Instant::now();
    let mut kills = 0;
    rounds(&federation, 3, |federation| {
        let mut command = Command::new(program());
        let command = command.current_dir(federation.dir.path("")).args(["round", "run", STATE, "-q"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Times that no run repeats, from nothing on. They grow, so that a slow machine comes to an end too.
        let most = 60_000 + 3_000 * u64::from(kills);
        std::thread::sleep(Duration::from_micros(u64::from(started.elapsed().subsec_nanos()) % most));
        child.kill().unwrap();
        kills += u32::from(child.wait().unwrap().code().is_none());
    });
    assert!(kills > 0);
    assert_eq!(federation.model(), undisturbed(3), "after {kills} kills");
    federation.assert_sound();
}

#[test]
fn a_second_run_ends_at_once_and_says_who_is_at_work() {
    let federation = Federation::new(4, &SETTINGS.replace("echo", "sleep 3; echo"));
    federation.advance();
    federation.deliver(1, 0);
    let mut command = Command::new(program());
    let command = command.current_dir(federation.dir.path("")).args(["round", "run", STATE, "-q"]);
    let mut first = command.stdout(Stdio::null()).spawn().unwrap();
    let waits = Instant::now();
    while federation.status()["phase"] != "evaluate" {
        assert!(waits.elapsed() < Duration::from_secs(60), "the first run evaluates");
    }
    let begun = Instant::now();
    let second = federation.round("run", &[]);
    second.assert_fails(1, &[&format!("another command runs here: process {}", first.id())]);
    assert!(first.try_wait().unwrap().is_none(), "the first run is still at work");
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(first.wait().unwrap().success());
}
