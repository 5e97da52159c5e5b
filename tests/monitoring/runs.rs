//! What runs of plans export, read by the programs and packages that take it.

use super::exporter::{Exporter, PROGRAM};
use super::{is_there, script};
use crate::harness::{Dir, fedmill, source_tree};
use crate::plan::Workflow;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A run with a retry, a loop, a fan-out, a skipped stage and a failure.
fn failed() -> Workflow {
    Workflow::new(&json!([
        {"id": "flaky", "sh": "test -e ../../../../again || (touch ../../../../again; exit 7)",
         "retry": {"max_attempts": 2, "backoff": {"initial": "10ms"}}},
        {"id": "step", "needs": ["flaky"], "sh": "sleep 0.2; echo '{{\"loss\": 0.5}}'",
         "out": [{"name": "m", "path": "-", "metrics": true}], "metrics": ["loss"]},
        {"id": "fan", "needs": ["step"], "for_each": {"range": 2}, "sh": "true"},
        {"id": "never", "needs": ["flaky"], "when": "inputs.none > 0", "sh": "true"},
        {"id": "bad", "needs": ["fan"], "sh": "exit 3"},
        {"id": "behind", "needs": ["bad"], "sh": "true"},
    ]))
    .with("loops", json!([{"id": "l", "over": ["step"], "max_iters": 2}]))
    .with("limits.http_calls", json!(10))
    .with("inputs", json!([{"name": "none", "glob": "*.none", "min": 0}]))
}

/// How the stages of [`failed`] end.
const ENDS: &str = "flaky ok, step@1 ok, step@2 ok, fan ok, never skipped, bad failed, behind not run";

fn export(dir: &Dir, args: &[&str]) -> String {
    let run = fedmill(dir, &[&["plan", "export"], args].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    run.stdout
}

/// The samples of a textfile, by name and labels, as `prometheus_client` reads them.
fn samples(dir: &Dir, file: &str) -> BTreeMap<String, f64> {
    let read = script("read_textfile.py", &[dir.path(file).to_str().unwrap()]);
    serde_json::from_str(&read).unwrap()
}

/// The sum of the samples whose name and labels have all of these parts.
#[track_caller]
fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let mut found = samples
        .iter()
        .filter(|(key, _)| key.starts_with(&format!("fedmill_{name} ")))
        .filter(|(key, _)| labels.iter().all(|label| key.contains(label)))
        .peekable();
    assert!(found.peek().is_some(), "no {name} {labels:?} in {samples:#?}");
    found.map(|(_, value)| value).sum()
}

#[test]
fn prometheus_client_reads_the_figures_of_runs() {
    if source_tree().is_none() || !is_there("python3", &["-c", "import prometheus_client"]) {
        return;
    }
    let plan = failed();
    assert_eq!(plan.run().code, Some(2));
    assert_eq!(plan.states(), ENDS);
    let dir = &plan.dir;
    export(dir, &["plan.run", "--prometheus", "run.prom"]);
    let run = samples(dir, "run.prom");
    let folder = format!(
        "\"folder\":{}",
        json!(dir.path("").canonicalize().unwrap().to_str().unwrap().trim_end_matches('/'))
    );
    assert!(
        run.keys().all(|key| key.contains("\"plan\":\"test\"") && key.contains("\"run\":\"plan.run\"")),
        "{run:?}"
    );
    assert!(run.keys().all(|key| key.contains(&folder)), "{folder} {run:?}");
    let of = |name: &str, labels: &[&str]| sum(&run, name, labels);
    assert_eq!(of("plan_run_state", &["\"state\":\"failed\""]), 1.0);
    assert_eq!(of("plan_run_state", &[]), 1.0);
    for (state, count) in [("ok", 3.0), ("skipped", 1.0), ("failed", 1.0), ("not run", 1.0)] {
        assert_eq!(of("plan_stages", &[&format!("\"state\":\"{state}\"")]), count, "{state}");
    }
    // Twice `flaky`, twice `step`, two instances of `fan`, and `bad`.
    assert_eq!((of("plan_attempts_total", &[]), of("plan_retries_total", &[])), (7.0, 1.0));
    assert_eq!((of("plan_requests_total", &[]), of("plan_limit_ratio", &["http_calls"])), (0.0, 0.0));
    assert!(of("plan_stage_seconds", &["\"stage\":\"step\""]) >= 0.4);
    let share = of("plan_bottleneck_ratio", &["\"stage\":\"step\""]);
    assert!((0.4..=1.0).contains(&share), "{share}");
    let progress = of("plan_progress_ratio", &[]);
    assert!(progress > 0.3 && progress < 1.0, "{progress}");
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
        - of("plan_last_event_timestamp_seconds", &[]);
    assert!((0.0..120.0).contains(&age), "{age}");
    for absent in ["plan_success_timestamp_seconds", "plan_privacy_spent_epsilon", "plan_runs"] {
        assert!(!run.keys().any(|key| key.contains(absent)), "{absent} in {run:?}");
    }

    // The folder counts all runs, and has the figures of the last one of each plan and the last that succeeded.
    for name in ["runs/one", "runs/two", "runs/three"] {
        let fails = name == "runs/three";
        let work = if fails { "exit 1" } else { "true" };
        let other = Workflow::new(&json!([{"id": "a", "sh": work}])).with("id", json!("other"));
        other.write();
        let file = other.dir.path("plan.json");
        let run = fedmill(dir, &["plan", "run", "-q", file.to_str().unwrap(), "--dir", name]);
        assert_eq!(run.code, Some(if fails { 2 } else { 0 }), "{run:#?}");
    }
    dir.write("runs/broken/plan.json", "{}");
    dir.write("runs/broken/inputs", ".");
    dir.write("runs/broken/lock", "");
    export(dir, &["runs", "--prometheus", "runs.prom"]);
    let runs = samples(dir, "runs.prom");
    let of = |name: &str, labels: &[&str]| sum(&runs, name, labels);
    assert_eq!(of("plan_runs", &["\"plan\":\"other\"", "\"state\":\"succeeded\""]), 2.0);
    assert_eq!(of("plan_runs", &["\"plan\":\"other\"", "\"state\":\"failed\""]), 1.0);
    assert_eq!(of("plan_runs", &["\"state\":\"unreadable\""]), 1.0);
    assert_eq!(of("plan_run_state", &[]), 2.0);
    assert_eq!(of("plan_run_state", &["\"run\":\"three\"", "\"state\":\"failed\""]), 1.0);
    assert!(of("plan_success_timestamp_seconds", &["\"run\":\"two\""]) > 1.7e9);
    assert!(!runs.keys().any(|key| key.contains("\"run\":\"one\"")), "{runs:?}");
}

#[test]
fn node_exporter_takes_the_textfiles_of_runs_beside_each_other() {
    if !is_there(PROGRAM, &["--version"]) {
        return;
    }
    let plan = failed();
    let dir = &plan.dir;
    plan.write();
    dir.write("prom/none", "");
    let run = fedmill(dir, &["plan", "run", "-q", "plan.json", "--prometheus", "prom/a.prom"]);
    assert_eq!(run.code, Some(2), "{run:#?}");
    let sound = Workflow::new(&json!([{"id": "a", "sh": "true"}]));
    sound.write();
    let file = sound.dir.path("plan.json");
    let args = ["plan", "run", "-q", file.to_str().unwrap(), "--prometheus", "prom/b.prom"];
    assert_eq!(fedmill(dir, &args).code, Some(0));
    dir.write("prom/hostile.prom", {
        let name = "a\"b\\c\nd";
        std::fs::create_dir(dir.path(name)).unwrap();
        assert_eq!(
            fedmill(dir, &["plan", "run", "-q", "plan.json", "--dir", &format!("{name}/run")]).code,
            Some(2)
        );
        export(dir, &[name, "--prometheus", "-"])
    });
    let page = Exporter::start(&dir.path("prom")).scrape();
    assert!(page.lines().any(|line| line == "node_textfile_scrape_error 0"), "{page}");
    let count = |text: &str| text.lines().filter(|line| line.starts_with("fedmill_")).count();
    let files = ["a", "b", "hostile"].map(|name| dir.read(&format!("prom/{name}.prom")));
    let written: usize = files.iter().map(|text| count(std::str::from_utf8(text).unwrap())).sum();
    assert_eq!(count(&page), written, "{page}");
    assert!(page.contains("# HELP fedmill_plan_stages Stages of the run, by state"), "{page}");
}

/// The traces of a file, as OpenTelemetry's messages read them.
fn traces(dir: &Dir, file: &str) -> Vec<Vec<Value>> {
    serde_json::from_str(&script("read_trace.py", &[dir.path(file).to_str().unwrap()])).unwrap()
}

#[test]
fn opentelemetry_reads_a_span_for_the_run_each_stage_and_each_attempt() {
    if source_tree().is_none()
        || !is_there("python3", &["-c", "import opentelemetry.proto.trace.v1.trace_pb2"])
    {
        return;
    }
    let plan = failed();
    let dir = &plan.dir;
    plan.write();
    assert_eq!(fedmill(dir, &["plan", "run", "-q", "plan.json", "--trace", "trace.json"]).code, Some(2));
    assert_eq!(plan.states(), ENDS);
    let [spans] = traces(dir, "trace.json").try_into().unwrap();
    let told = |span: &Value| {
        let parent = spans
            .iter()
            .find(|other| other["id"] == span["parent"])
            .map_or("", |parent| parent["name"].as_str().unwrap());
        format!(
            "{parent}/{} {}",
            span["name"].as_str().unwrap(),
            span["status"].as_str().unwrap().trim_start_matches("STATUS_CODE_")
        )
    };
    let found: Vec<String> = spans.iter().map(told).collect();
    let stages = [
        "/test ERROR",
        "test/flaky OK",
        "test/step@1 OK",
        "test/step@2 OK",
        "test/fan OK",
        "test/never UNSET",
        "test/bad ERROR",
    ];
    assert_eq!(found[..7], stages);
    let mut attempts = found[7..].to_vec();
    attempts.sort();
    assert_eq!(
        attempts,
        [
            "bad/bad ERROR",
            "fan/fan.0 OK",
            "fan/fan.1 OK",
            "flaky/flaky ERROR",
            "flaky/flaky OK",
            "step@1/step@1 OK",
            "step@2/step@2 OK"
        ]
    );
    let of = |name: &str| spans.iter().find(|span| told(span) == name).unwrap();
    let attributes = |name: &str| &of(name)["attributes"];
    assert_eq!(attributes("/test ERROR")["fedmill.run.state"], "failed");
    assert_eq!(of("/test ERROR")["message"], "stage `bad` failed");
    assert_eq!(attributes("test/never UNSET")["fedmill.outcome"], "skipped");
    assert_eq!(attributes("test/step@2 OK")["fedmill.iteration"], 2);
    assert_eq!(attributes("flaky/flaky ERROR")["process.exit.code"], 7);
    assert_eq!(
        (&attributes("flaky/flaky OK")["fedmill.attempt"], &attributes("flaky/flaky OK")["fedmill.agent"]),
        (&json!(2), &json!("shell"))
    );
    assert_eq!(attributes("step@1/step@1 OK")["fedmill.metric.loss"], 0.5);
    assert_eq!(of("bad/bad ERROR")["message"], "exited with status 3");
    let seconds = of("step@1/step@1 OK")["seconds"].as_f64().unwrap();
    assert!((0.2..10.0).contains(&seconds), "{seconds}");

    // The trace of the same run is the same one; another run has other ids.
    export(dir, &["plan.run", "--trace", "again.json"]);
    assert_eq!(dir.read("again.json"), dir.read("trace.json"));
    assert_eq!(fedmill(dir, &["plan", "run", "-q", "plan.json", "--dir", "other.run"]).code, Some(2));
    export(dir, &[".", "--trace", "both.json"]);
    let both = traces(dir, "both.json");
    assert_eq!(both.len(), 2);
    assert_ne!(both[0][0]["trace"], both[1][0]["trace"]);

    // A resumed run has one span for each stage, and one for each attempt of both runners.
    assert_eq!(fedmill(dir, &["plan", "resume", "-q", "plan.run"]).code, Some(2));
    export(dir, &["plan.run", "--trace", "resumed.json"]);
    let [resumed] = traces(dir, "resumed.json").try_into().unwrap();
    assert_eq!((resumed.len(), &resumed[0]["trace"]), (spans.len() + 1, &spans[0]["trace"]));
}

#[test]
fn the_official_package_reads_the_events_of_runs() {
    if source_tree().is_none() || !is_there("python3", &["-c", "import cloudevents.core.v1.event"]) {
        return;
    }
    let plan = failed();
    let dir = &plan.dir;
    assert_eq!(plan.run().code, Some(2));
    assert_eq!(fedmill(dir, &["plan", "run", "-q", "plan.json", "--dir", "other.run"]).code, Some(2));
    export(dir, &["plan.run", "--events", "of-run.jsonl"]);
    let read = |file: &str| -> Vec<Value> {
        serde_json::from_str(&script("read_cloudevents.py", &[dir.path(file).to_str().unwrap()])).unwrap()
    };
    let events = read("of-run.jsonl");
    let journal = String::from_utf8(dir.read("plan.run/events.jsonl")).unwrap();
    let journal: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), journal.len());
    for (event, line) in events.iter().zip(&journal) {
        assert_eq!(
            (&event["id"], &event["type"], &event["data"]["event"]),
            (&line["id"], &line["type"], &line["data"])
        );
    }
    let failure = events.iter().find(|event| event["type"] == "fedmill.plan.failed").unwrap();
    assert_eq!(failure["subject"], "flaky");
    assert!(failure["data"]["what"].as_str().unwrap().contains("exited with status 7"), "{failure}");
    assert!(failure["source"].as_str().unwrap().starts_with("fedmill/plan/test/"), "{failure}");
    // Two runs of the same plan have no two events with the same source and id, which the script checks.
    dir.write("both.jsonl", export(dir, &[".", "--events", "-"]));
    assert!(read("both.jsonl").len() > events.len());
}
