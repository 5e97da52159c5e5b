//! Each finding of `round check`: settings that have it, and nearly the same settings that do not.
//!
//! `budgets` has those about budgets of bytes, `secure` those about secure rounds.

mod budgets;
mod secure;

use super::config;
use crate::harness::{Dir, fedmill};
use fedmill::lint::budget_plan::budget_plan;
use fedmill::lint::{Facts, Finding, Level, lint};

/// A finding, and settings with and without it.
struct Case {
    level: Level,
    key: &'static str,
    /// A part of what is wrong.
    why: &'static str,
    /// A part of what the operator may do.
    remedy: &'static str,
    with: &'static str,
    without: &'static str,
}

/// Facts of a registry of 1000 and a model of 1 MB.
fn facts() -> Facts {
    Facts { population: Some(1000), model_bytes: Some(1_000_000), has_tier_rules: true, ..Facts::default() }
}

fn has(findings: &[Finding], case: &Case) -> bool {
    findings.iter().any(|finding| {
        (finding.level, finding.key) == (case.level, case.key)
            && finding.why.contains(case.why)
            && finding.remedy.contains(case.remedy)
    })
}

const PRIVATE: &str =
    "privacy.enabled = true\nrobustness.rule = 'mean'\nrobustness.byzantine_tolerance = 0\n";

fn check(cases: &[Case], facts: &Facts) {
    for case in cases {
        let text = |text: &str| text.replace("PRIVATE", PRIVATE);
        let (with, without) = (config(&text(case.with)), config(&text(case.without)));
        let found = lint(&with, facts);
        assert!(has(&found, case), "{}\n{found:#?}", case.with);
        let found = lint(&without, facts);
        assert!(!has(&found, case), "{}\n{found:#?}", case.without);
    }
}

#[test]
fn the_defaults_have_no_finding() {
    assert_eq!(lint(&config(""), &facts()), []);
    assert_eq!(lint(&config(""), &Facts::default()), []);
}

#[test]
fn rules_that_do_not_protect_are_found() {
    let cases = [
        Case {
            level: Level::Error,
            key: "strategy.name",
            why: "across tiers",
            remedy: "fedavg",
            with: "tiers.file = 't.json'\nstrategy.name = 'fednova'",
            without: "strategy.name = 'fednova'",
        },
        Case {
            level: Level::Error,
            key: "robustness.rule",
            why: "mean tolerates at most 0 hostile of 10 clients, byzantine_tolerance assumes 3",
            remedy: "lower byzantine_tolerance to 0, or take",
            with: "robustness.rule = 'mean'",
            without: "robustness.rule = 'median'",
        },
        Case {
            level: Level::Error,
            key: "robustness.rule",
            why: "bulyan tolerates at most 1 hostile of 10 clients",
            remedy: "lower byzantine_tolerance to 0.1, or",
            with: "robustness.rule = 'bulyan'",
            without: "robustness = { rule = 'bulyan', byzantine_tolerance = 0.1 }",
        },
        Case {
            level: Level::Error,
            key: "robustness.rule",
            why: "krum tolerates at most 2 hostile of 8 clients",
            remedy: "raise min_clients and clients to 9, or lower byzantine_tolerance to 0.25",
            with: "coordination = { clients = 8, min_clients = 8 }\n\
                   robustness = { rule = 'krum', byzantine_tolerance = 0.39 }",
            without: "coordination = { clients = 9, min_clients = 9 }\n\
                      robustness = { rule = 'krum', byzantine_tolerance = 0.34 }",
        },
        Case {
            level: Level::Warning,
            key: "robustness.rule",
            why: "at the deadline with min_clients updates: krum tolerates at most 0",
            remedy: "",
            with: "coordination = { clients = 20, min_clients = 4 }\nrobustness.rule = 'krum'",
            without: "coordination = { clients = 20, min_clients = 10 }\nrobustness.rule = 'krum'",
        },
        Case {
            level: Level::Error,
            key: "robustness.rule",
            why: "after pre bucketing:s=5, which made 2 updates of 10",
            remedy: "",
            with: "robustness.pre = ['bucketing:s=5']",
            without: "robustness = { pre = ['bucketing:s=5'], byzantine_tolerance = 0 }",
        },
        Case {
            level: Level::Error,
            key: "robustness.rule",
            why: "mean tolerates at most 0",
            remedy: "",
            with: "robustness.rule = 'mean'",
            without: "robustness = { rule = 'mean', pre = ['nnm'] }",
        },
        Case {
            level: Level::Error,
            key: "robustness.byzantine_tolerance",
            why: "rounds down to no client",
            remedy: "raise min_clients and clients to 20",
            with: "robustness.byzantine_tolerance = 0.05",
            without: "robustness.byzantine_tolerance = 0.1",
        },
        Case {
            level: Level::Error,
            key: "robustness.rule",
            why: "trimmed-mean:cut=0.05 needs at least 20 clients, found 10",
            remedy: "raise min_clients and clients to 20",
            with: "robustness = { rule = 'trimmed-mean:cut=0.05', byzantine_tolerance = 0 }",
            without: "robustness = { rule = 'trimmed-mean:cut=0.1', byzantine_tolerance = 0 }",
        },
        Case {
            level: Level::Warning,
            key: "robustness.rule",
            why: "stands against outliers",
            remedy: "pre = [\"clip:norm=1\"]",
            with: "robustness = { rule = 'mean', byzantine_tolerance = 0 }",
            without: "robustness = { rule = 'mean', byzantine_tolerance = 0, pre = ['clip:norm=1'] }",
        },
        Case {
            level: Level::Warning,
            key: "robustness.on_bad_update",
            why: "one hostile client can stop the training",
            remedy: "skip",
            with: "robustness.on_bad_update = 'fail'",
            without: "robustness = { on_bad_update = 'fail', byzantine_tolerance = 0 }",
        },
    ];
    check(&cases, &facts());
}

#[test]
fn numbers_of_clients_that_do_not_fit_are_found() {
    let cases = [
        Case {
            level: Level::Error,
            key: "coordination.min_clients",
            why: "a round wants 10 updates, and is refused with fewer than 12",
            remedy: "raise clients to 12",
            with: "coordination.min_clients = 12",
            without: "coordination = { min_clients = 12, clients = 12 }",
        },
        Case {
            level: Level::Warning,
            key: "coordination.quorum",
            why: "of 10 selected clients 5 are expected to send, fewer than the 10",
            remedy: "raise max_clients",
            with: "coordination = { dropout = 0.5, max_clients = 10 }",
            without: "coordination = { dropout = 0.5, max_clients = 20 }",
        },
        Case {
            level: Level::Error,
            key: "coordination.buffer",
            why: "a round merges 5 updates, and is refused with fewer than 10",
            remedy: "raise buffer to 10",
            with: "coordination = { mode = 'async', buffer = 5 }",
            without: "coordination = { mode = 'async', buffer = 10 }",
        },
        Case {
            level: Level::Warning,
            key: "strategy.name",
            why: "takes no updates from models of earlier rounds",
            remedy: "fedbuff",
            with: "coordination.mode = 'async'",
            without: "coordination.mode = 'async'\nstrategy.name = 'fedbuff'",
        },
        Case {
            level: Level::Error,
            key: "coordination.min_clients",
            why: "the registry has 1000 clients: every round is refused",
            remedy: "register more",
            with: "coordination = { min_clients = 1001, clients = 1001, max_clients = 2000 }",
            without: "coordination = { min_clients = 1000, clients = 1000 }",
        },
        Case {
            level: Level::Warning,
            key: "coordination.clients",
            why: "selects 1010 clients, the registry has 1000",
            remedy: "lower clients",
            with: "coordination = { clients = 1010, max_clients = 2000 }",
            without: "coordination = { clients = 1000, max_clients = 2000 }",
        },
    ];
    check(&cases, &facts());
}

#[test]
fn private_rounds_that_cannot_be_are_found() {
    let cases = [
        Case {
            level: Level::Error,
            key: "robustness.rule",
            why: "releases the noised mean alone",
            remedy: "rule = \"mean\"",
            with: "privacy.enabled = true",
            without: "PRIVATE",
        },
        Case {
            level: Level::Error,
            key: "robustness.pre",
            why: "releases the noised mean alone",
            remedy: "pre = []",
            with: "PRIVATE robustness.pre = ['nnm']",
            without: "PRIVATE",
        },
        Case {
            level: Level::Error,
            key: "robustness.byzantine_tolerance",
            why: "the clip bounds each",
            remedy: "byzantine_tolerance = 0",
            with: "privacy.enabled = true\nrobustness.rule = 'mean'",
            without: "PRIVATE",
        },
        Case {
            level: Level::Warning,
            key: "robustness.weights",
            why: "weigh the same",
            remedy: "leave out",
            with: "PRIVATE robustness.weights = 'uniform'",
            without: "PRIVATE",
        },
        Case {
            level: Level::Error,
            key: "coordination.dropout",
            why: "no round opens",
            remedy: "dropout = 0",
            with: "coordination = { selection = 'poisson', dropout = 0.2 }",
            without: "coordination = { selection = 'uniform', dropout = 0.2 }",
        },
        Case {
            level: Level::Error,
            key: "coordination.max_wait",
            why: "no round opens",
            remedy: "leave it out",
            with: "coordination = { selection = 'poisson', max_wait = 3 }",
            without: "coordination = { selection = 'uniform', max_wait = 3 }",
        },
        Case {
            level: Level::Warning,
            key: "robustness.weights",
            why: "it has no effect: the rule takes all clients alike",
            remedy: "leave it out",
            with: "robustness.weights = 'examples'",
            without: "robustness.weights = 'examples'\ntiers.file = 'tiers.json'",
        },
        Case {
            level: Level::Error,
            key: "strategy.name",
            why: "needs reports or lengths of single updates",
            remedy: "fedavgm",
            with: "PRIVATE strategy.name = 'fedexp'",
            without: "PRIVATE strategy.name = 'fedadam:lr=0.1'",
        },
        Case {
            level: Level::Error,
            key: "tiers.file",
            why: "one tier",
            remedy: "leave it out",
            with: "PRIVATE tiers.file = 'tiers.json'",
            without: "tiers.file = 'tiers.json'",
        },
        Case {
            level: Level::Error,
            key: "coordination.mode",
            why: "once a round",
            remedy: "sync",
            with: "PRIVATE coordination.mode = 'async'",
            without: "PRIVATE",
        },
        Case {
            level: Level::Warning,
            key: "privacy.enabled",
            why: "changes nothing in private rounds",
            remedy: "[adaptation]",
            with: "PRIVATE adaptation.quorum = [0.5, 1]",
            without: "adaptation.quorum = [0.5, 1]",
        },
        Case {
            level: Level::Error,
            key: "privacy.delta",
            why: "not below 1 / 1000",
            remedy: "a delta below 1.0e-3",
            with: "PRIVATE privacy.delta = 1e-3",
            without: "PRIVATE privacy.delta = 9e-4",
        },
        Case {
            level: Level::Warning,
            key: "coordination.selection",
            why: "not Poisson sampling",
            remedy: "poisson",
            with: "PRIVATE",
            without: "PRIVATE coordination.selection = 'poisson'",
        },
        Case {
            level: Level::Error,
            key: "privacy.epsilon",
            why: "100 rounds cost epsilon",
            remedy: "or noise_multiplier = ",
            with: "PRIVATE coordination.rounds = 100",
            without: "PRIVATE coordination = { rounds = 100, selection = 'poisson' }",
        },
        Case {
            level: Level::Warning,
            key: "coordination.seed",
            why: "guesses the seed",
            remedy: "round init",
            with: "PRIVATE coordination = { rounds = 2, selection = 'poisson', seed = 7 }",
            without: "PRIVATE coordination = { rounds = 2, selection = 'poisson', seed = 4417903618204715 }",
        },
        Case {
            level: Level::Warning,
            key: "privacy.epsilon",
            why: "rounds has no end",
            remedy: "rounds = ",
            with: "PRIVATE",
            without: "PRIVATE coordination.rounds = 2",
        },
    ];
    check(&cases, &facts());
}

#[test]
fn a_frozen_plan_that_differs_is_found() {
    let text =
        format!("{PRIVATE}coordination = {{ rounds = 2, selection = 'poisson', seed = 4417903618204715 }}\n");
    let plan = budget_plan(&config(&text), 1000, None);
    let frozen = Facts { plan: Some(plan), ..facts() };
    assert_eq!(lint(&config(&text), &frozen), []);
    let more = Facts { population: Some(1100), ..frozen.clone() };
    for (key, more, facts) in [
        ("privacy.epsilon", "privacy.epsilon = 11", &frozen),
        ("privacy.delta", "privacy.delta = 1e-6", &frozen),
        ("privacy.noise_multiplier", "privacy.noise_multiplier = 2", &frozen),
        ("privacy.clip", "privacy.clip = 2", &frozen),
        ("coordination.selection", "coordination.clients = 20", &frozen),
        ("privacy.enabled", "", &more),
    ] {
        let text = match more.split_once('.') {
            Some(("coordination", more)) => text.replace("{ rounds", &format!("{{ {more}, rounds")),
            _ => format!("{text}{more}"),
        };
        let found = lint(&config(&text), facts);
        let is_found = |finding: &Finding| {
            (finding.level, finding.key) == (Level::Error, key) && finding.why.contains("the frozen plan")
        };
        assert!(found.iter().any(is_found), "{key}: {found:#?}");
    }
}

#[test]
fn keys_without_effect_are_found() {
    let idle = |key, why, with, without| Case { level: Level::Warning, key, why, remedy: "", with, without };
    let cases = [
        idle("secure.enabled", "and is off", "secure.groups = 2", "secure.groups = 1"),
        idle("privacy.enabled", "and is off", "privacy.epsilon = 3", "PRIVATE privacy.epsilon = 3"),
        idle(
            "monitoring.clients_under_privacy",
            "privacy.enabled is false",
            "monitoring.clients_under_privacy = true",
            "PRIVATE monitoring.clients_under_privacy = true",
        ),
        idle(
            "compression.target",
            "no codec",
            "compression.target = 0.1",
            "compression = { target = 0.1, methods = ['u8'] }",
        ),
        idle(
            "adaptation.compression_target",
            "no codec",
            "adaptation.compression_target = [0.01, 0.1]",
            "adaptation.compression_target = [0.01, 0.1]\ncompression.methods = ['u8']",
        ),
        idle(
            "coordination.buffer",
            "mode is sync",
            "coordination.buffer = 20",
            "coordination = { buffer = 20, mode = 'async' }",
        ),
        idle(
            "evaluation.max_regression",
            "no metric",
            "evaluation.max_regression = 0.1",
            "evaluation = { max_regression = 0.1, metric = 'x' }",
        ),
        idle(
            "robustness.rule",
            "every tier names its rule",
            "robustness.rule = 'median'\ntiers.file = 't.json'",
            "tiers.file = 't.json'",
        ),
    ];
    check(&cases, &facts());
}

#[test]
fn the_command_prints_findings_and_its_status_tells_errors() {
    let dir = Dir::new();
    let check = |text: &str, more: &[&str]| {
        dir.write("fed/fedmill.toml", text);
        fedmill(&dir, &[&["round", "check", "fed"], more].concat())
    };
    let of_50 = ["--population", "50"];
    let run = check("", &of_50);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "no finding\n"));
    let run = check("", &[]);
    assert!(
        run.code == Some(1) && run.stdout.contains("no registry of clients: no round can open"),
        "{run:?}"
    );
    let run = check("evaluation.max_regression = 0.1", &["--json", "--population", "50"]);
    assert_eq!(run.code, Some(0));
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["findings"][0]["key"], "evaluation.max_regression");
    assert_eq!(json["findings"][0]["level"], "warning");
    let run = check("robustness.rule = 'mean'\nevaluation.max_regression = 0.1", &of_50);
    assert!(run.code == Some(1) && run.stderr.contains("refused: 1 error in the settings"), "{run:?}");
    assert!(run.stdout.contains("mean tolerates at most 0 hostile"), "{}", run.stdout);
    let client =
        r#"{ "node_id": "c1", "compute_capability": 1.0, "data_size": 10, "connection_quality": 1.0 }"#;
    dir.write("c1.json", client);
    let added = fedmill(&dir, &["clients", "add", "fed", "c1.json"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    let run = check("", &[]);
    assert!(run.code == Some(1) && run.stdout.contains("the registry has 1 clients"), "{run:?}");
    assert_eq!(check("", &["--population", "50"]).code, Some(0));
    dir.write("fed/first.safetensors", "x".repeat(1000));
    let run = check("model.initial = 'first.safetensors'\ncompression.bytes_per_update = 999", &[]);
    assert!(run.stdout.contains("a model of 1000 bytes"), "{run:?}");
    let plan =
        "--epsilon 10 --delta 1e-5 --population 50 --noise-multiplier 2 --rounds 2 --clip 1 --dimension 9";
    let init = [&["privacy", "init", "fed/privacy"][..], &plan.split(' ').collect::<Vec<_>>()].concat();
    assert_eq!(fedmill(&dir, &init).code, Some(0));
    let run = check(&format!("{PRIVATE}coordination.rounds = 2"), &["--population", "50"]);
    assert!(run.code == Some(1) && run.stdout.contains("the frozen plan of the budget has 2"), "{run:?}");
    let run = check("", &["--population", "5"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("the registry has 5 clients"), "{}", run.stdout);
}
