//! Finds runs and what took their time: `fedmill plan history` with filters, and bottlenecks.

use super::Workflow;
use super::killed::wait_until;
use crate::harness::{COLUMNS, Dir, Run, fedmill};
use serde_json::{Value, json};

/// A folder with runs of two plans; `b` failed, `d` was never over, `e` cannot be read.
fn runs() -> Dir {
    let dir = Dir::new();
    let measure = |acc: &str| format!("echo '{{{{\"acc\": {acc}}}}}'");
    let stages = |work: &str| {
        json!([
            {"id": "merge_krum", "sh": "true"},
            {"id": "measure", "needs": ["merge_krum"], "sh": work, "out": [{"name": "m", "path": "-", "metrics": true}],
             "metrics": ["acc"]},
        ])
    };
    let run = |name: &str, workflow: &Workflow| {
        workflow.write();
        let plan = workflow.dir.path("plan.json");
        let (plan, root) = (plan.to_str().unwrap(), format!("runs/{name}"));
        fedmill(&dir, &["plan", "run", "-q", plan, "--dir", &root]).code
    };
    let good = |acc: &str| Workflow::new(&stages(&measure(acc))).with("goal", json!("Ward against Poison"));
    assert_eq!(run("a", &good("0.75").with("params", json!({"rate": 0.5}))), Some(0));
    assert_eq!(run("b", &good("0.5").with("stages", stages_that_fail())), Some(2));
    assert_eq!(run("c", &Workflow::new(&stages(&measure("0.25"))).with("id", json!("other"))), Some(0));
    assert_eq!(run("d", &Workflow::new(&stages(&measure("1"))).with("id", json!("cut"))), Some(0));
    let journal = String::from_utf8(dir.read("runs/d/events.jsonl")).unwrap();
    let kept: Vec<&str> = journal.lines().collect();
    dir.write("runs/d/events.jsonl", kept[..kept.len() - 1].join("\n") + "\n");
    dir.write("runs/e/plan.json", "{}");
    dir.write("runs/e/inputs", ".");
    dir.write("runs/e/lock", "");
    dir.write("runs/no-run/file", "");
    dir
}

fn stages_that_fail() -> Value {
    json!([{"id": "train", "agent": "shell", "argv": ["exit 41"]}])
}

fn history(dir: &Dir, args: &[&str]) -> Run {
    fedmill(dir, &[&["plan", "history", "runs"], args].concat())
}

/// The runs that a filter finds, in order of their names.
fn found(dir: &Dir, args: &[&str]) -> Vec<Value> {
    let run = history(dir, &[&["--json"], args].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    let mut rows: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["run"].to_string());
    rows
}

fn names(dir: &Dir, args: &[&str]) -> String {
    found(dir, args).iter().map(|row| row["run"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn history_finds_runs_by_what_they_say_and_did() {
    let dir = runs();
    for (args, expected) in [
        (&[][..], "a b c d e"),
        (&["--search", "POISON"], "a b"),
        (&["--search", "rate=0.5"], "a"),
        (&["--search", "krum"], "a c d"),
        (&["--search", "status 41"], "b"),
        (&["--search", "other"], "c"),
        (&["--search", "nothing like it"], ""),
        (&["--plan", "test"], "a b"),
        (&["--plan", "tes"], ""),
        (&["--state", "succeeded"], "a c"),
        (&["--state", "failed"], "b"),
        (&["--state", "interrupted"], "d"),
        (&["--state", "unreadable"], "e"),
        (&["--since", "1h"], "a b c d"),
        (&["--since", "7d"], "a b c d"),
        (&["--since", "1w 12h"], "a b c d"),
        (&["--since", "0s"], ""),
        (&["--metric", "acc"], "a c d"),
        (&["--metric", "loss"], ""),
        (&["--plan", "test", "--state", "succeeded", "--search", "poison", "--metric", "acc"], "a"),
    ] {
        assert_eq!(names(&dir, args), expected, "{args:?}");
    }
    let row = |args: &[&str]| found(&dir, args).remove(0);
    assert_eq!(row(&["--search", "poison"])["found"], json!(["goal: Ward against Poison"]));
    assert_eq!(row(&["--search", "krum"])["found"], json!(["stage: merge_krum"]));
    let failed = row(&["--search", "status 41"]);
    assert_eq!(
        failed["found"],
        json!(["why: stage `train`: exited with status 41", "train: exited with status 41"])
    );
    let values: Vec<Value> =
        found(&dir, &["--metric", "acc"]).iter().map(|row| row["value"].clone()).collect();
    assert_eq!(values, [json!(0.75), json!(0.25), json!(1.0)]);
    assert!(found(&dir, &[]).iter().all(|row| row.get("found").is_none() && row.get("value").is_none()));

    let table = history(&dir, &["--search", "krum", "--metric", "acc"]).stdout;
    let head = table.lines().next().unwrap();
    assert!(head.contains("acc") && head.contains("found") && table.contains("stage: merge_krum"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= COLUMNS), "{table}");
}

#[test]
fn filters_of_folders_are_refused_for_a_run() {
    let dir = runs();
    let of_run = |args: &[&str]| fedmill(&dir, &[&["plan", "history", "runs/b"], args].concat());
    let table = of_run(&["--search", "STATUS 41"]).stdout;
    assert_eq!(table.lines().count(), 3, "the head, failed and settled: {table}");
    assert_eq!(of_run(&["--since", "0s"]).stdout.lines().count(), 1, "the head");
    for (option, value) in [("--plan", "test"), ("--state", "failed"), ("--metric", "acc")] {
        of_run(&[option, value])
            .assert_fails(2, &[&format!("{option}: runs/b is a run, expected a folder of runs")]);
    }
    history(&dir, &["--state", "lost"]).assert_fails(2, &["interrupted"]);
    history(&dir, &["--since", "soon"]).assert_fails(2, &["found `soon`, expected a duration"]);
}

#[test]
fn export_asks_for_an_output_and_a_run() {
    let dir = runs();
    let export = |args: &[&str]| fedmill(&dir, &[&["plan", "export"], args].concat());
    export(&["runs"]).assert_fails(2, &["--prometheus", "--trace", "--events"]);
    export(&["runs/no-run", "--events", "-"]).assert_fails(2, &["runs/no-run: found no run"]);
    export(&["runs", "--trace", "t", "--trace-sample", "1.5"])
        .assert_fails(2, &["found `1.5`, expected a number from 0 to 1"]);
    export(&["runs/e", "--events", "-"]).assert_fails(2, &["plan.json"]);
    // Those that can be read are exported.
    let events = export(&["runs", "--events", "-"]).stdout;
    assert!(events.contains("fedmill/plan/other/") && events.contains("fedmill/plan/test/"), "{events}");
}

#[test]
fn a_sample_of_traces_has_the_same_runs_each_time() {
    let dir = runs();
    let traced = |share: &str| {
        let run = fedmill(&dir, &["plan", "export", "runs", "--trace", "-", "--trace-sample", share]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        run.stdout.lines().map(str::to_owned).collect::<Vec<String>>()
    };
    let all = traced("1");
    assert_eq!((all.len(), traced("0").len()), (4, 0));
    // OpenTelemetry keeps a trace if the last 56 bits of its id reach (1 - share) * 2^56.
    let random = |line: &String| {
        let id = line.split_once("\"traceId\":\"").unwrap().1;
        u64::from_str_radix(&id[18..32], 16).unwrap() as f64 / 2f64.powi(56)
    };
    for share in [0.1, 0.3, 0.5, 0.9] {
        let expected: Vec<String> = all.iter().filter(|line| random(line) >= 1.0 - share).cloned().collect();
        assert_eq!(traced(&share.to_string()), expected, "{share}");
    }
}

#[test]
fn the_bottleneck_is_the_longest_stage_of_the_critical_path() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "sleep 0.6"},
        {"id": "b", "needs": ["a"], "sh": "sleep 0.2"},
        // Eight instances, two at a time: longer than `a` in sum, not in time.
        {"id": "fan", "for_each": {"range": 8}, "sh": "sleep 0.1"},
        {"id": "live", "needs": ["b"], "sh": "test -e ../../../../go || sleep 2; test -e ../../../../go"},
    ]))
    .with("limits.max_parallel", json!(3));
    assert_eq!(plan.run().code, Some(2));
    let status = |dir: &Dir| -> Value {
        serde_json::from_str(&fedmill(dir, &["plan", "status", "--json", "plan.run"]).stdout).unwrap()
    };
    let found = status(&plan.dir);
    let (stage, share) = (&found["bottleneck"]["stage"], found["bottleneck"]["share"].as_f64().unwrap());
    assert_eq!(stage, "live", "{found}");
    assert!((0.5..0.9).contains(&share), "2 s of 2.8 s: {found}");
    let table = fedmill(&plan.dir, &["plan", "status", "plan.run"]).stdout;
    assert!(
        table.contains("bottleneck: stage live, 2.") && table.contains(" % of the critical path"),
        "{table}"
    );
    let metrics: Value =
        serde_json::from_str(&fedmill(&plan.dir, &["plan", "metrics", "--json", "plan.run"]).stdout).unwrap();
    assert_eq!((&metrics["bottleneck"], &metrics["bottleneck_share"]), (&json!("live"), &json!(share)));
    plan.dir.write("go", "");
    assert_eq!(fedmill(&plan.dir, &["plan", "resume", "-q", "plan.run"]).code, Some(0));
    let found = status(&plan.dir);
    assert_eq!((&found["bottleneck"]["stage"], &found["progress"]), (&json!("a"), &json!(1.0)), "{found}");
}

#[test]
fn a_live_run_writes_its_textfile_and_counts_the_time_of_what_runs() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "sleep 0.2"},
        {"id": "b", "needs": ["a"], "sh": "until test -e ../../../../go; do sleep 0.05; done"},
    ]));
    plan.write();
    let mut command = std::process::Command::new(crate::harness::program());
    command
        .args(["plan", "run", "-q", "plan.json", "--prometheus", "run.prom"])
        .current_dir(plan.dir.path(""));
    let mut runner = command.spawn().unwrap();
    wait_until("the textfile", || plan.dir.exists("run.prom"));
    let text = String::from_utf8(plan.dir.read("run.prom")).unwrap();
    let has = |text: &str, name: &str, end: &str| {
        text.lines().any(|line| line.starts_with(&format!("fedmill_{name}{{")) && line.ends_with(end))
    };
    assert!(has(&text, "plan_run_state", "state=\"running\"} 1.0"), "{text}");
    assert!(has(&text, "plan_stages", "state=\"running\"} 1.0"), "{text}");
    wait_until("b to run for longer than a took", || {
        let status = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]).stdout;
        serde_json::from_str::<Value>(&status).unwrap()["bottleneck"]["stage"] == "b"
    });
    plan.dir.write("go", "");
    assert_eq!(runner.wait().unwrap().code(), Some(0));
    let text = String::from_utf8(plan.dir.read("run.prom")).unwrap();
    assert!(has(&text, "plan_run_state", "state=\"succeeded\"} 1.0"), "{text}");
    assert!(has(&text, "plan_progress_ratio", "} 1.0"), "{text}");
}
