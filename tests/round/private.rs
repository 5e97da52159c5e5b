//! Rounds under a privacy budget.

use super::federation::{Federation, STATE};
use crate::harness::{fedmill, fedmill_after};
use serde_json::Value;

const SETTINGS: &str = "[coordination]\nmin_clients = 2\nclients = 6\nrounds = 3\nround_timeout = \"1h\"\n\
                        [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n\
                        [privacy]\nenabled = true\nepsilon = 20.0\ndelta = 1e-5\nnoise_multiplier = 2.0\nclip = 0.5\n";

fn budget(federation: &Federation) -> Value {
    let status = fedmill(&federation.dir, &["privacy", "status", &format!("{STATE}/privacy"), "--json"]);
    serde_json::from_str(&status.stdout).unwrap_or_else(|why| panic!("{why}: {status:#?}"))
}

#[test]
fn private_rounds_charge_once_and_tell_nothing_of_single_clients() {
    let federation = Federation::new(6, SETTINGS);
    for round in 1..=3 {
        federation.round("run", &["-q"]);
        let (status, selected) = (federation.status(), federation.selected(round).len());
        assert_eq!(status["quorum"], selected, "what closes the round, and no share: {status}");
        let text = federation.round("status", &[]).stdout;
        assert!(text.contains(&format!("{selected} updates close the round")), "{text}");
        federation.deliver(round, usize::from(round == 2));
        if round == 2 {
            federation.put(
                2,
                "client-0.safetensors",
                &crate::harness::Update::new("x").f32("z", &[1], &[0.0]).bytes(),
            );
        }
        let run = federation.round("run", &["-q"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
    }
    let charged = budget(&federation);
    assert_eq!((charged["charges"].as_u64(), charged["releases"].as_u64()), (Some(3), Some(3)), "{charged}");
    assert_eq!(charged["open"], serde_json::json!([]));
    federation.round("run", &[]).assert_fails(0, &["all planned rounds are over"]);
    let exported = ["metrics/rounds.jsonl", "metrics/fedmill.prom", "metrics/events.out.tfevents.0.fedmill"];
    for name in exported {
        let bytes = federation.dir.read(&format!("{STATE}/{name}"));
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("client-"), "{name} names a client");
        assert!(!text.contains("norm_median\":0"), "{name} has a norm of updates");
    }
    let line = String::from_utf8(federation.dir.read(&format!("{STATE}/metrics/rounds.jsonl"))).unwrap();
    let record: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(record["privacy"]["epsilon_spent"], charged["epsilon_spent"]);
    federation.assert_sound();
}

#[test]
fn a_private_round_killed_before_every_durable_step_is_charged_once() {
    let federation = Federation::new(6, &SETTINGS.replace("rounds = 3", "rounds = 1"));
    federation.round("run", &["-q"]);
    federation.deliver(1, 0);
    let copy = |from: &str, to: &str| {
        let script = format!("rm -rf {to} && cp -a {from} {to}");
        let shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(federation.dir.path(""))
            .status();
        assert!(shell.unwrap().success());
    };
    copy(STATE, "before");
    for step in 1.. {
        copy("before", STATE);
        let setup = format!("export FEDMILL_FAIL_AT={step}");
        let run = fedmill_after(&federation.dir, &setup, &["round", "run", STATE, "-q"]);
        if run.code.is_some() {
            assert!(step > 60, "{step} steps");
            break;
        }
        let again = federation.round("run", &["-q"]);
        assert_eq!(again.code, Some(0), "step {step}: {again:#?}");
        let charged = budget(&federation);
        let found = (
            charged["charges"].as_u64(),
            charged["releases"].as_u64(),
            federation.status()["published"].as_u64(),
        );
        assert_eq!(found, (Some(1), Some(1), Some(1)), "step {step}: {charged}");
        federation.assert_sound();
    }
}

#[test]
fn a_budget_that_is_spent_ends_the_rounds() {
    let federation =
        Federation::new(6, &SETTINGS.replace("rounds = 3\n", "").replace("epsilon = 20.0", "epsilon = 3.0"));
    federation.round("run", &["-q"]);
    federation.deliver(1, 0);
    federation.round("run", &["-q"]);
    let check = federation.round("check", &[]).stdout;
    assert!(check.contains("spent after 2 rounds"), "{check}");
    assert_eq!(budget(&federation)["rounds_left"], 1, "as the forecast says");
    federation.deliver(2, 0);
    federation.round("run", &["-q"]);
    federation.deliver(3, 0);
    let run = federation.round("run", &[]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("over the privacy budget"), "{run:#?}");
    assert_eq!(federation.status()["published"], 2);
}

#[test]
fn settings_that_break_privacy_open_no_round() {
    let federation = Federation::new(6, &SETTINGS.replace("rule = \"mean\"", "rule = \"median\""));
    let run = federation.round("run", &[]);
    run.assert_fails(
        1,
        &["refused: fedmill.toml: robustness.rule is median", "hint: `fedmill round check DIR`"],
    );
    assert_eq!(federation.status()["round"], 0);
}

#[test]
fn a_round_that_opened_private_is_not_merged_without_privacy() {
    let federation = Federation::new(6, SETTINGS);
    federation.round("run", &["-q"]);
    federation.deliver(1, 0);
    federation.configure(&SETTINGS.replace("enabled = true", "enabled = false"));
    let run = federation.round("run", &[]);
    run.assert_fails(1, &["refused: privacy.enabled changed after the round opened"]);
    assert_eq!(federation.status()["published"], 0);
}

#[test]
fn private_rounds_may_have_personal_layers() {
    let federation = Federation::new(6, &format!("{SETTINGS}[personalization]\nlayers = [\"a\"]\n"));
    federation.round("run", &["-q"]);
    federation.deliver(1, 0);
    let run = federation.round("run", &["-q"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(federation.status()["published"], 1);
}
