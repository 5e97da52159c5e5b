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
    let spent = "the privacy budget is spent: epsilon";
    // No client is asked for an update that no budget pays for.
    let run = federation.advance();
    assert!(run.stderr.contains(spent), "{run:#?}");
    federation.round("run", &[]).assert_fails(0, &[spent]);
    let status = federation.status();
    assert_eq!(
        (&status["published"], &status["round"], &status["phase"]),
        (&2.into(), &2.into(), &"closed".into())
    );
    assert!(status["over"].as_str().unwrap().contains(spent), "{status}");
    assert!(federation.round("status", &[]).stdout.contains("no round opens: the privacy budget is spent"));
    let foreseen = federation.round("run", &["--dry-run"]).stdout;
    assert!(foreseen.contains("would do nothing: the privacy budget is spent"), "{foreseen}");
}

#[test]
fn the_plan_of_the_next_private_round_charges_once_and_stops_at_the_budget() {
    let federation =
        Federation::new(6, &SETTINGS.replace("rounds = 3\n", "").replace("epsilon = 20.0", "epsilon = 3.0"));
    let plan = |args: &[&str]| fedmill(&federation.dir, &[&["plan"], args].concat());
    let next = format!("{STATE}/next.plan.json");
    let charges = || budget(&federation)["charges"].as_u64().unwrap();
    federation.advance();
    federation.deliver(1, 0);
    federation.advance();
    assert_eq!((charges(), budget(&federation)["rounds_left"].as_u64()), (1, Some(1)));
    let (_, limits) = (federation.dir.read(&next), federation.dir.json(&next)["limits"].clone());
    assert_eq!((limits["eps"].as_f64(), limits["delta"].as_f64()), (Some(3.0), Some(1e-5)));
    let lint = plan(&["lint", &next]);
    assert_eq!((lint.code, lint.stdout.as_str()), (Some(0), "no finding\n"));
    federation.round("run", &["--phase", "open"]);
    federation.deliver(2, 0);
    std::fs::copy(federation.dir.path(&next), federation.dir.path(&format!("{STATE}/second.json"))).unwrap();
    let second = format!("{STATE}/second.json");
    let run = plan(&["run", "-q", &second, "--dir", "second"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!((charges(), federation.status()["published"].as_u64()), (2, Some(2)));
    // A run that is over does nothing, and in another directory the plan would pass the budget.
    let run = plan(&["run", "-q", &second, "--dir", "second"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let expected = ["the ledgers of the run come to epsilon ", "past limits.eps, 3, with stage `round`"];
    plan(&["run", &second, "--dir", "past"]).assert_fails(1, &expected);
    assert_eq!(charges(), 2);
    // One more round would pass it too: the plan of it starts no round.
    let lint = plan(&["lint", &next]);
    assert_eq!((lint.code, lint.stdout.as_str()), (Some(0), "no finding\n"));
    plan(&["run", &next, "--dir", "third"]).assert_fails(1, &expected);
    assert_eq!((charges(), federation.status()["published"].as_u64()), (2, Some(2)));
    federation.assert_sound();
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

/// Half of all clients take part, each by an independent coin.
fn poisson(selection: &str) -> String {
    SETTINGS.replace(
        "clients = 6",
        &format!("clients = 6\nselection = \"{selection}\"\nseed = 610048653413327563"),
    )
}

/// Twelve clients, of which half may not take part.
fn demanding(settings: &str) -> Federation {
    let federation = Federation::new(12, settings);
    let row = |client: u64| {
        let demand = if client.is_multiple_of(2) { "\"epsilon\":1" } else { "\"secure_aggregation\":true" };
        format!(
            "{{\"node_id\":\"client-{client}\",\"compute_capability\":1,\"data_size\":10,\"connection_quality\":0.5,\
             \"privacy_requirements\":{{{demand}}}}}\n"
        )
    };
    federation.dir.write("demanding.jsonl", (0..6).map(row).collect::<String>());
    let import = fedmill(&federation.dir, &["clients", "import", STATE, "--update", "demanding.jsonl"]);
    assert_eq!(import.code, Some(0), "{import:#?}");
    federation
}

/// Makes a budget by hand whose plan has this sampling.
fn make_budget(federation: &Federation, sampling: &[&str]) {
    let (budget, base) = (format!("{STATE}/privacy"), format!("{STATE}/current.safetensors"));
    let common =
        "--epsilon 20 --delta 1e-5 --population 12 --rounds 3 --noise-multiplier 2 --clip 0.5 --base";
    let args: Vec<&str> = ["privacy", "init", &budget]
        .into_iter()
        .chain(common.split(' '))
        .chain([base.as_str()])
        .chain(sampling.iter().copied())
        .collect();
    let made = fedmill(&federation.dir, &args);
    assert_eq!(made.code, Some(0), "{made:#?}");
}

fn remove_budget(federation: &Federation) {
    std::fs::remove_dir_all(federation.dir.path(&format!("{STATE}/privacy"))).unwrap();
}

fn opening(federation: &Federation) -> Value {
    let journal = federation.dir.read(&format!("{STATE}/rounds/000001/journal.jsonl"));
    let line: Value = serde_json::from_slice(journal.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    line["event"]["open"].clone()
}

#[test]
fn clients_that_may_not_take_part_raise_no_rate_above_that_of_the_budget() {
    let federation = demanding(&poisson("poisson"));
    federation.round("run", &["-q"]);
    let selection = &opening(&federation)["selection"];
    assert_eq!((&selection["eligible"], &selection["rate"]), (&6.into(), &0.5.into()), "{selection}");
    let status =
        fedmill(&federation.dir, &["privacy", "status", &format!("{STATE}/privacy"), "--json"]).stdout;
    let plan: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(plan["sampling_rate"], selection["rate"]);
    federation.deliver(1, 0);
    federation.round("run", &["-q"]);
    assert_eq!(federation.status()["published"], 1);
}

#[test]
fn a_charge_for_a_smaller_rate_than_that_of_the_opening_is_refused() {
    let federation = Federation::new(12, &poisson("poisson"));
    federation.round("run", &["-q"]);
    remove_budget(&federation);
    make_budget(&federation, &["--sampling", "poisson", "--sampling-rate", "0.2"]);
    federation.deliver(1, 0);
    let run = federation.round("run", &[]);
    let why =
        "drawn independently at a rate of 0.5, and the budget pays for poisson sampling at a rate of 0.2";
    run.assert_fails(1, &[why]);
    assert_eq!(federation.status()["published"], 0);
    assert_eq!(budget(&federation)["charges"], 0);
}

#[test]
fn a_round_does_not_open_under_a_plan_of_another_sampling() {
    let federation = Federation::new(12, &poisson("poisson"));
    make_budget(
        &federation,
        &["--sampling", "fixed", "--sampling-rate", "0.5", "--adjacency", "replace-one"],
    );
    federation.round("run", &[]).assert_fails(1, &["the budget pays for fixed sampling at a rate of 0.5"]);
    assert_eq!(federation.status()["round"], 0);
}

#[test]
fn a_retired_client_changes_the_rate_of_the_settings_and_check_names_the_remedy() {
    let federation = Federation::new(12, &poisson("poisson"));
    federation.round("run", &["-q"]);
    federation.deliver(1, 0);
    let retired = fedmill(&federation.dir, &["clients", "retire", STATE, "client-3"]);
    assert_eq!(retired.code, Some(0), "{retired:#?}");
    assert_eq!(federation.round("run", &["-q"]).code, Some(1));
    let check = federation.round("check", &[]).stdout;
    assert!(check.contains("remedy: selection = \"poisson:rate=0.5\""), "{check}");
    federation.configure(&poisson("poisson:rate=0.5"));
    federation.advance();
    assert_eq!(federation.status()["round"], 2);
}

#[test]
fn a_lost_ledger_does_not_start_anew() {
    let federation = Federation::new(6, &SETTINGS.replace("rounds = 3", "rounds = 1"));
    federation.round("run", &["-q"]);
    federation.deliver(1, 0);
    federation.round("run", &["-q"]);
    federation.configure(SETTINGS);
    let (ledger, backup) = (federation.dir.path(&format!("{STATE}/privacy")), federation.dir.path("backup"));
    std::fs::rename(&ledger, &backup).unwrap();
    let assert_lost = |found: &str| {
        let wanted =
            ["the ledger that round 1 charged", "restore the folder privacy/ from the newest backup", found];
        federation.round("run", &[]).assert_fails(2, &wanted);
        federation.round("verify", &[]).assert_fails(2, &wanted);
        let check = federation.round("check", &[]);
        assert_eq!(check.code, Some(1), "{check:#?}");
        assert!(check.stdout.contains(&format!("error: privacy is {found}")), "{check:#?}");
        assert_eq!(
            (&federation.status()["round"], &federation.status()["phase"]),
            (&1.into(), &"closed".into())
        );
    };
    assert_lost("no ledger");
    make_budget(&federation, &["--sampling", "all", "--denominator", "6"]);
    assert_lost("a ledger of 0 releases");
    std::fs::remove_dir_all(&ledger).unwrap();
    std::fs::rename(&backup, &ledger).unwrap();
    federation.assert_sound();
    federation.advance();
    federation.deliver(2, 0);
    // An open round goes no further without the ledger either.
    std::fs::rename(&ledger, &backup).unwrap();
    federation.round("run", &[]).assert_fails(2, &["no ledger"]);
    std::fs::rename(&backup, &ledger).unwrap();
    federation.advance();
    assert_eq!(federation.status()["published"], 2);
}

#[test]
fn clients_that_may_not_take_part_are_counted_with_the_reason() {
    let federation = demanding(SETTINGS);
    federation.round("run", &["-q"]);
    let text = "6 excluded: 3 by the epsilon cap of the client, 3 because the client demands secure aggregation; \
                6 could be selected, 6 wanted";
    let words = |command: &str| {
        let text = federation.round(command, &[]).stdout;
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(words("status").contains(text), "{}", words("status"));
    assert!(words("show").contains(text), "{}", words("show"));
    assert!(words("history").contains("; 6 clients excluded"), "{}", words("history"));
    let json = &federation.status()["shortfall"]["excluded"];
    assert_eq!(json, &serde_json::json!({ "epsilon": 3, "secure aggregation": 3 }));
}

#[test]
fn settings_without_privacy_open_no_round_beside_a_ledger() {
    let federation = Federation::new(6, SETTINGS);
    federation.round("run", &["-q"]);
    federation.deliver(1, 0);
    federation.round("run", &["-q"]);
    federation.configure(&SETTINGS.replace("enabled = true", "enabled = false"));
    // The open round was drawn for privacy.
    federation.deliver(2, 0);
    federation.round("run", &["-q"]).assert_fails(1, &["refused: privacy.enabled changed"]);
    let wanted = [
        "privacy.enabled = false",
        "a ledger that charged rounds (1 in all)",
        "move the folder privacy/ away",
    ];
    federation.round("run", &["-q"]).assert_fails(2, &wanted);
    federation.round("run", &["-q"]).assert_fails(2, &wanted);
    assert_eq!(federation.status()["published"], 1);
    let check = federation.round("check", &[]);
    assert_eq!(check.code, Some(1), "{check:#?}");
    assert!(check.stdout.contains("error: privacy is privacy.enabled = false"), "{check:#?}");
    std::fs::rename(federation.dir.path(&format!("{STATE}/privacy")), federation.dir.path("away")).unwrap();
    federation.advance();
}
