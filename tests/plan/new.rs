//! Plans from templates, run on the updates of a small round.

use crate::harness::{Dir, Model, Update, fedmill};
use fedmill::templates::TEMPLATES;
use std::fs;

/// Five clients and their base; the updates of clients 3 and 4 are far off.
pub(super) fn round() -> Dir {
    let dir = Dir::new();
    Update::new("base").f32("w", &[4], &[0.0; 4]).write(&dir);
    for client in 0..5_i16 {
        let far = if client > 2 { 50.0 } else { 1.0 };
        let values: Vec<f32> = (0..4_i16).map(|at| far + f32::from(client * at) / 8.0).collect();
        Update::new(&format!("in/c{client}")).f32("w", &[4], &values).write(&dir);
    }
    dir
}

pub(super) fn make(dir: &Dir, template: &str, settings: &[&str]) {
    let mut args = vec!["plan", "new", "--template", template, "-o", "p.json"];
    settings.iter().for_each(|setting| args.extend(["--set", setting]));
    let run = fedmill(dir, &args);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "p.json\n"), "{run:#?}");
}

#[test]
fn shards_merge_to_the_bytes_of_one_process() {
    for rule in ["krum", "median", "geometric-median"] {
        let dir = round();
        let rule_set = format!("rule={rule}");
        make(&dir, "shards", &["updates=in", "base=base.safetensors", &rule_set, "byzantine=1", "shards=3"]);
        let run = fedmill(&dir, &["plan", "run", "-q", "p.json"]);
        assert_eq!(
            run.code,
            Some(0),
            "{run:#?} {}",
            String::from_utf8_lossy(&dir.read("p.run/attempts/gram.0/stderr"))
        );
        let whole = [
            "aggregate",
            "-q",
            "in",
            "--rule",
            rule,
            "--byzantine",
            "1",
            "--base",
            "base.safetensors",
            "-o",
            "w.safetensors",
        ];
        assert_eq!(fedmill(&dir, &whole).code, Some(0));
        assert_eq!(dir.read("p.run/out/merge/merged.safetensors"), dir.read("w.safetensors"), "{rule}");
    }
}

/// A command that prints the largest byte of a model's values as its loss: a far model has a larger one.
const EVALUATE: &str =
    "evaluate=sh -c 'n=$(tail -c 1 \"$0\" | od -An -tu1 | tr -d \" \"); printf \"{\\\"loss\\\": %s}\" $n'";

#[test]
fn a_round_fails_if_its_model_is_not_good_enough() {
    for (bound, code) in [("at_most=255", 0), ("at_most=1", 2)] {
        let dir = round();
        make(&dir, "round", &["updates=in", "base=base.safetensors", "rule=median", EVALUATE, bound]);
        let run = fedmill(&dir, &["plan", "run", "p.json"]);
        assert_eq!(run.code, Some(code), "{run:#?}");
        let expected = "p.run/out/aggregate/merged.safetensors\np.run/out/aggregate/report.json\n";
        assert_eq!(run.stdout, if code == 0 { expected } else { "" });
        if code == 2 {
            assert!(run.stderr.contains("stage `evaluate`: success_when does not hold"), "{}", run.stderr);
        }
    }
}

#[test]
fn a_sweep_takes_the_rule_with_the_best_model() {
    let dir = round();
    make(&dir, "sweep", &["updates=in", "rules=krum; median; trimmed-mean:cut=0.4", "byzantine=1", EVALUATE]);
    let run = fedmill(&dir, &["plan", "run", "p.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let taken = run.stdout.lines().filter(|line| line.ends_with("best.safetensors")).count();
    assert_eq!((taken, run.stdout.lines().count()), (1, 1), "{run:#?}");
    let loss = |place: u32| {
        let text = dir.read(&format!("p.run/out/evaluate.{place}/metrics"));
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        value["loss"].as_f64().unwrap()
    };
    let best = (0..3).min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap();
    let expected = dir.read(&format!("p.run/out/merge.{best}/merged.safetensors"));
    assert_eq!(dir.read(&format!("p.run/out/take_{best}/best.safetensors")), expected);
}

#[test]
fn a_draft_is_refined_until_its_review_is_good() {
    let dir = Dir::new();
    dir.write("draft.txt", "x");
    let propose = "propose=sh -c 'cat \"$0\" > \"$1\"; printf x >> \"$1\"'";
    let review = "review=sh -c 'printf \"{\\\"score\\\": 0.%s}\" $(wc -c < \"$0\")'";
    make(&dir, "refine", &["start=draft.txt", propose, review, "score=0.4", "max_iters=5"]);
    let run = fedmill(&dir, &["plan", "run", "p.json"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "p.run/out/propose@3/draft\n"), "{run:#?}");
    assert_eq!(dir.read("p.run/out/propose@3/draft"), b"xxxx");
    make(&dir, "refine", &["start=draft.txt", propose, review, "score=0.9", "max_iters=2"]);
    fs::remove_dir_all(dir.path("p.run")).unwrap();
    let run = fedmill(&dir, &["plan", "run", "p.json"]);
    run.assert_fails(2, &["loop `turns` ended without its condition: `until` held in none of 2 iterations"]);
}

/// Settings with which the plan of a template runs in the folder of a round.
fn example(template: &str) -> &'static [&'static str] {
    match template {
        "round" => &["updates=in", "rule=median", EVALUATE],
        "sweep" => &["updates=in", "rules=krum; median", "byzantine=1", EVALUATE],
        "refine" => &["start=base.safetensors", "propose=cp", "review=sh -c 'echo \"{\\\"score\\\": 1}\"'"],
        "shards" => &["updates=in", "shards=2"],
        "secagg" => &[
            "base=base.safetensors",
            "key=keys/server",
            "clients=keys/clients",
            "helpers=keys/helpers",
            "helper_keys=keys/helpers/h1; keys/helpers/h2",
            "masks=c0; c1; c2",
            "client_keys=keys/clients",
            "updates=in",
            "clip=4",
            concat!("program=", env!("CARGO_BIN_EXE_fedmill")),
        ],
        "map-reduce" => &["files=in/*.safetensors", "map=wc -c", "reduce=lines"],
        "swarm" => &[
            "goal=x",
            "size=3",
            "threshold=0.6",
            "capability=think",
            "command=sh -c 'test $0 = vote && echo \"{\\\"option\\\": \\\"p1\\\"}\" || echo text'",
        ],
        other => panic!("no example of template {other}"),
    }
}

/// The keys of a server, five clients and three helpers.
fn keys(dir: &Dir) {
    let parties = ["c0", "c1", "c2", "c3", "c4"].map(|id| (id, format!("keys/clients/{id}")));
    let helpers = ["h1", "h2", "h3"].map(|id| (id, format!("keys/helpers/{id}")));
    fs::create_dir_all(dir.path("keys/clients")).unwrap();
    fs::create_dir_all(dir.path("keys/helpers")).unwrap();
    let server = [("server", "keys/server".to_owned())];
    for (id, file) in parties.into_iter().chain(helpers).chain(server) {
        let run = fedmill(dir, &["secagg", "keygen", "--id", id, "-o", &file]);
        assert_eq!(run.code, Some(0), "{run:#?}");
    }
}

/// The mean of three of five clients, from the masked updates that a plan made.
#[test]
fn a_session_of_secure_aggregation_merges_the_mean_of_its_clients() {
    let dir = round();
    keys(&dir);
    make(&dir, "secagg", example("secagg"));
    let run = fedmill(&dir, &["plan", "run", "-q", "p.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let plain = ["aggregate", "in/c0.safetensors", "in/c1.safetensors", "in/c2.safetensors"];
    let plain = [&plain[..], &["--base", "base.safetensors", "-o", "plain.safetensors"]].concat();
    assert_eq!(fedmill(&dir, &plain).code, Some(0));
    let values = |name: &str| Model::read(&dir, name).f32("w");
    let pairs = values("p.run/out/merge/merged.safetensors").into_iter().zip(values("plain.safetensors"));
    for (found, expected) in pairs {
        assert!((found - expected).abs() < 1e-5, "found {found}, expected {expected}");
    }
    assert_eq!(fedmill(&dir, &["secagg", "verify", "session"]).code, Some(0));
    // Where clients mask by themselves, a person says when they did.
    let own: Vec<&str> = example("secagg").iter().copied().filter(|one| !one.starts_with("masks")).collect();
    make(&dir, "secagg", &own);
    let plan = dir.json("p.json");
    assert_eq!(plan["stages"][1]["gate"]["default"], "reject", "{plan}");
}

#[test]
fn the_plan_of_each_template_has_no_finding_and_runs() {
    for template in TEMPLATES {
        let dir = round();
        if template.name == "secagg" {
            keys(&dir);
        }
        make(&dir, template.name, example(template.name));
        let run = fedmill(&dir, &["plan", "lint", "p.json"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), "no finding\n"), "{}: {run:#?}", template.name);
        let run = fedmill(&dir, &["plan", "run", "-q", "p.json"]);
        assert_eq!(run.code, Some(0), "{}: {run:#?}", template.name);
    }
}

#[test]
fn a_map_and_its_reduction_give_one_file() {
    let json_of = "map=sh -c 'printf \"{\\\"%s\\\": 1}\" \"$0\"'";
    for (settings, expected) in [
        (&["values=b;a", "map=printf '%s'", "reduce=concat"][..], "ba"),
        (&["values=b; a", "map=printf '%s'", "reduce=lines"], "b\na\n"),
        (&["values=b;a", json_of, "reduce=json-merge"], "{\"a\":1,\"b\":1}\n"),
        (&["files=in/*", "map=basename", "reduce=cat"], "c1\nc2\n"),
    ] {
        let dir = Dir::new();
        fs::create_dir(dir.path("in")).unwrap();
        dir.write("in/c1", "");
        dir.write("in/c2", "");
        make(&dir, "map-reduce", settings);
        let run = fedmill(&dir, &["plan", "run", "-q", "p.json"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        assert_eq!(String::from_utf8(dir.read(run.stdout.trim())).unwrap(), expected, "{settings:?}");
    }
}

#[test]
fn settings_that_make_no_plan_are_refused() {
    let dir = Dir::new();
    for (args, expected) in [
        (
            &["--template", "krum"][..],
            "found template `krum`, expected one of round, sweep, swarm, refine, map-reduce, secagg, shards",
        ),
        (
            &["--template", "map-reduce", "--set", "map=wc"],
            "--set files: found `neither`, expected files or values",
        ),
        (&["--template", "shards"], "template shards: --set updates=... is missing: the updates"),
        (&["--template", "shards", "--set", "updates"], "--set updates: expected key=value"),
        (&["--template", "shards", "--set", "rool=x"], "has no setting `rool`; it has id, updates"),
        (
            &["--template", "shards", "--set", "updates=a", "--set", "shards=0"],
            "--set shards: found `0`, expected a whole number from 1 on",
        ),
        (&["--template", "sweep", "--set", "updates=a", "--set", "rules=mean"], "expected two rules or more"),
        (
            &[
                "--template",
                "sweep",
                "--set",
                "updates=a",
                "--set",
                "rules=krum;mean",
                "--set",
                "byzantine=4",
            ],
            "--set rules: found `mean`, which tolerates no hostile client",
        ),
        (
            &["--template", "shards", "--set", "updates=a", "--set", "rule=krum", "--set", "passes=1"],
            "--set passes: found 1, expected 2: rule `krum` compares whole updates",
        ),
        (
            &["--template", "map-reduce", "--set", "files=a", "--set", "map=wc", "--set", "reduce=line"],
            "--set reduce: found `line`, expected concat, lines, json-merge or a command; the nearest is `lines`",
        ),
        (
            &["--template", "shards", "--set", "updates=a", "--set", "timeout=5"],
            "error: template shards: $.limits.timeout.run: found",
        ),
        (
            &["--template", "refine", "--set", "start=a", "--set", "review=true"],
            "has the capability `propose`",
        ),
        (&["--template", "round", "--set", "updates=a"], "--set evaluate=... runs a command"),
    ] {
        fedmill(&dir, &[&["plan", "new"], args].concat()).assert_fails(2, &[expected]);
    }
}
