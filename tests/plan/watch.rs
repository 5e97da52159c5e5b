//! Looks at runs, and ends them: `fedmill plan status`, `history` and `cancel`, and signals.

use super::Workflow;
use super::killed::{is_alive, wait_until};
use crate::harness::{COLUMNS, Run, fedmill, fedmill_after, program};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts the plan in the background; `$HOME` is its folder.
pub(super) fn start(plan: &Workflow) -> Child {
    plan.write();
    let mut command = Command::new(program());
    command
        .args(["plan", "run", "-q", "plan.json"])
        .current_dir(plan.dir.path(""))
        .env("HOME", plan.dir.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn resume(plan: &Workflow) -> Run {
    let home = format!("export HOME={}", plan.dir.path("").display());
    fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run"])
}

fn told(plan: &Workflow, args: &[&str]) -> Run {
    let run = fedmill(&plan.dir, &[&["plan"], args].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    run
}

fn status(plan: &Workflow) -> Value {
    serde_json::from_str(&told(plan, &["status", "--json", "plan.run"]).stdout).unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// A plan whose stage `b` works until `$HOME/mended` exists, and does not end at SIGTERM.
fn stubborn() -> Workflow {
    let work = "trap '' TERM; touch $HOME/began; until test -e $HOME/mended; do sleep 0.05; done";
    Workflow::new(&json!([
        {"id": "a", "sh": "sleep 0.2"},
        {"id": "b", "needs": ["a"], "for_each": {"range": 2}, "sh": work},
        {"id": "c", "needs": ["b"], "sh": "true"},
        {"id": "last", "sh": "echo last >> $HOME/log"},
    ]))
    .with("on", json!({"exit": ["last"]}))
    .with("limits.wall", json!("1h"))
}

#[test]
fn the_status_of_a_live_run_says_what_runs_and_what_waits() {
    let plan = stubborn();
    let mut runner = start(&plan);
    wait_until("stage b", || plan.dir.exists("began"));
    let status = status(&plan);
    let [a, b, c, last] = status["stages"].as_array().unwrap().as_slice() else { panic!("{status}") };
    assert_eq!(
        (&status["state"], &status["over"], &a["state"]),
        (&json!("running"), &json!(1), &json!("ok"))
    );
    assert_eq!(status["runner"], json!(format!("process {}", runner.id())));
    assert_eq!(
        (&b["state"], &b["running"], &b["attempts"]),
        (&json!("running"), &json!(["b.0", "b.1"]), &json!(2))
    );
    assert_eq!((&c["waits_for"], &last["waits_for"]), (&json!(["b"]), &json!(["the end of the run"])));
    let used = |limit: &str| {
        let rows = status["limits"].as_array().unwrap().iter();
        rows.filter(|row| row["limit"] == limit)
            .map(|row| (row["used"].as_f64(), row["bound"].as_f64()))
            .next()
    };
    assert_eq!(used("max_parallel"), Some((Some(2.0), Some(2.0))));
    let wall = used("wall").unwrap();
    assert!(wall.0.unwrap() > 0.1 && wall.1 == Some(3600.0), "{wall:?}");
    // Stages of the end are no part of the rest.
    assert_eq!((&status["rest"]["seconds"], &status["rest"]["unknown"]), (&Value::Null, &json!(2)));
    let table = told(&plan, &["status", "plan.run"]).stdout;
    assert!(table.contains("0 of 2 over; now b.0 b.1"), "{table}");
    assert!(table.contains("1 of 4 stages are over"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= COLUMNS), "{table}");

    let run = fedmill(&plan.dir, &["plan", "cancel", "plan.run", "--timeout", "100ms"]);
    run.assert_fails(1, &["plan.run: process ", " still works on it"]);
    let run = told(&plan, &["cancel", "plan.run"]);
    // The first of the two left the kill file.
    assert_eq!(run.stdout, "plan.run: refused: the file STOP exists\n");
    assert_eq!(self::status(&plan)["why"], "the file STOP exists");
    assert_eq!(runner.wait().unwrap().code(), Some(1));
    assert_eq!(plan.states(), "a ok, b cancelled, c not run, last ok");
    assert_eq!(plan.dir.read("log"), b"last\n");
    // The operator removes it before the run goes on.
    std::fs::remove_file(plan.dir.path("plan.run/STOP")).unwrap();
    plan.dir.write("mended", "");
    assert_eq!(resume(&plan).code, Some(0));
    assert_eq!(plan.states(), "a ok, b ok, c ok, last ok");
    let run = told(&plan, &["cancel", "plan.run", "--json"]);
    let cancelled: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&cancelled["was"], &cancelled["state"]), (&json!("succeeded"), &json!("succeeded")));
}

#[test]
fn the_status_counts_instances_and_attempts_that_a_signal_ended() {
    let plan = Workflow::new(&json!([
        {"id": "a", "for_each": {"range": 8}, "sh": "touch $HOME/began; sleep 60"},
        {"id": "b", "needs": ["a"], "sh": "true"},
    ]));
    let mut runner = start(&plan);
    wait_until("stage a", || plan.dir.exists("began"));
    wait_until("two attempts", || status(&plan)["stages"][0]["attempts"] == 2);
    let text = told(&plan, &["status", "--json", "plan.run"]).stdout;
    assert!(text.contains("\"instances\":8,") && !text.contains("-0.0"), "{text}");
    let table = told(&plan, &["status", "plan.run"]).stdout;
    assert!(table.contains("0 of 8 over") && !table.contains("-0.00"), "{table}");
    signal(&runner, "-INT");
    assert_eq!(runner.wait().unwrap().code(), Some(130));
    let row = status(&plan)["stages"][0].clone();
    assert_eq!(row["attempts"], 2, "{row}");
    assert!(row["seconds"].as_f64().unwrap() > 0.0, "{row}");
}

#[test]
fn the_kill_file_of_cancel_does_not_hold_up_a_later_resume() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "test -e $HOME/mended || sleep 60"}]));
    let mut runner = start(&plan);
    wait_until("stage a", || plan.dir.exists("plan.run/attempts/a/stdout"));
    told(&plan, &["cancel", "plan.run"]);
    assert_eq!(runner.wait().unwrap().code(), Some(1));
    plan.dir.write("mended", "");
    assert_eq!(resume(&plan).code, Some(0));
}

#[test]
fn the_run_of_a_killed_runner_is_cancelled_with_what_it_left_behind() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo a >> $HOME/log"},
        {"id": "b", "needs": ["a"], "sh": "test -e $HOME/mended || (echo $$ > $HOME/child; sleep 300)"},
    ]));
    let mut runner = start(&plan);
    wait_until("the child", || plan.dir.exists("child") && !plan.dir.read("child").is_empty());
    let child = String::from_utf8(plan.dir.read("child")).unwrap();
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert_eq!(status(&plan)["state"], "interrupted");
    assert_eq!(plan.states(), "a ok, b interrupted");
    assert!(is_alive(&child));
    let run = told(&plan, &["cancel", "plan.run"]);
    assert_eq!(run.stdout, "plan.run: refused: the operator cancelled the run\n");
    assert!(!is_alive(&child), "cancel ends the child");
    assert_eq!(status(&plan)["state"], "refused");
    let run = told(&plan, &["cancel", "plan.run"]);
    assert_eq!(run.stdout, "plan.run: refused before: the operator cancelled the run\n");
    plan.dir.write("mended", "");
    assert_eq!(resume(&plan).code, Some(0));
    assert_eq!((plan.states().as_str(), plan.dir.read("log").as_slice()), ("a ok, b ok", b"a\n".as_slice()));
}

#[test]
fn a_second_signal_ends_the_runner_at_once() {
    for name in ["-TERM", "-INT"] {
        let plan = stubborn().with("limits.timeout", json!({"run": "5m", "kill_after": "5m"}));
        let mut runner = start(&plan);
        wait_until("stage b", || plan.dir.exists("began"));
        signal(&runner, name);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(runner.try_wait().unwrap(), None, "the commands may take kill_after to end");
        let asked = Instant::now();
        signal(&runner, name);
        assert_eq!(runner.wait().unwrap().code(), Some(if name == "-TERM" { 143 } else { 130 }));
        assert!(asked.elapsed() < Duration::from_secs(20));
        assert_eq!(plan.states(), "a ok, b waiting, c waiting, last waiting");
        plan.dir.write("mended", "");
        assert_eq!(resume(&plan).code, Some(0));
    }
}

#[test]
fn cancel_now_does_not_wait_for_commands() {
    let plan = stubborn().with("limits.timeout", json!({"run": "5m", "kill_after": "5m"}));
    let mut runner = start(&plan);
    wait_until("stage b", || plan.dir.exists("began"));
    let run = told(&plan, &["cancel", "--now", "plan.run"]);
    assert_eq!(run.stdout, "plan.run: refused: the operator cancelled the run\n");
    assert_eq!(runner.wait().unwrap().code(), Some(143));
    assert!(!plan.dir.exists("log"), "no stage of on.exit runs");
}

/// A plan whose stage starts a process in a separate session, and waits: their ids stand in `child` and `orphan`.
fn with_orphan() -> Workflow {
    let work = "setsid sh -c 'echo $$ > $HOME/orphan.part; mv $HOME/orphan.part $HOME/orphan; exec sleep 300' & \
        echo $$ > $HOME/child.part; mv $HOME/child.part $HOME/child; sleep 300";
    Workflow::new(&json!([
        {"id": "a", "sh": work},
        {"id": "b", "needs": ["a"], "sh": "true"},
        {"id": "last", "sh": "echo last >> $HOME/log"},
    ]))
    .with("on", json!({"exit": ["last"]}))
}

#[test]
fn cancel_leaves_no_process_of_the_run() {
    for (how, said, code, states, log) in [
        (&[][..], "the kill file ended the run, and is gone", 1, "a cancelled, b not run, last ok", true),
        (
            &["--timeout", "20s"],
            "the kill file ended the run, and is gone",
            1,
            "a cancelled, b not run, last ok",
            true,
        ),
        (&["--now"], "the operator cancelled the run", 143, "a not run, b not run, last not run", false),
    ] {
        let plan = with_orphan();
        let mut runner = start(&plan);
        wait_until("both processes", || plan.dir.exists("child") && plan.dir.exists("orphan"));
        let ids = ["child", "orphan"].map(|name| String::from_utf8(plan.dir.read(name)).unwrap());
        assert!(ids.iter().all(|id| is_alive(id)));
        let run = told(&plan, &[&["cancel", "plan.run"], how].concat());
        assert_eq!(run.stdout, format!("plan.run: refused: {said}\n"), "{how:?}");
        // Once the command says that the run is over, none of its processes is alive.
        assert!(ids.iter().all(|id| !is_alive(id)), "{how:?}");
        assert_eq!(runner.wait().unwrap().code(), Some(code), "{how:?}");
        assert_eq!(
            (status(&plan)["state"].as_str(), plan.states().as_str()),
            (Some("refused"), states),
            "{how:?}"
        );
        assert_eq!(plan.dir.exists("log"), log, "{how:?}");
        assert!(!plan.dir.exists("plan.run/STOP"), "{how:?}: cancel removes the kill file that it made");
        let again = told(&plan, &["cancel", "plan.run"]);
        assert_eq!(again.stdout, format!("plan.run: refused before: {said}\n"), "{how:?}");
        let shown = told(&plan, &["status", "plan.run"]).stdout;
        assert!(shown.starts_with(&format!("test: refused: {said}\n")), "{shown}");
        assert!(!told(&plan, &["history", "."]).stdout.contains("STOP"));
    }
    let plan = Workflow::new(&json!([{"id": "a", "sh": "exit 3"}]));
    assert_eq!(plan.run().code, Some(2));
    let run = told(&plan, &["cancel", "plan.run"]);
    assert_eq!(run.stdout, "plan.run: failed before: stage `a` failed\n");
    assert_eq!(status(&plan)["state"], "failed");
}

#[test]
fn the_rest_is_the_longest_chain_of_past_times() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "sleep 0.3; test -e $HOME/mended"},
        {"id": "b", "needs": ["a"], "sh": "sleep 0.6"},
        {"id": "c", "needs": ["a"], "sh": "true"},
    ]));
    plan.write();
    assert_eq!(fedmill(&plan.dir, &["plan", "run", "plan.json"]).code, Some(2));
    assert_eq!(status(&plan)["rest"]["seconds"], Value::Null);
    plan.dir.write("mended", "");
    let home = format!("export HOME={}", plan.dir.path("").display());
    assert_eq!(
        fedmill_after(&plan.dir, &home, &["plan", "run", "plan.json", "--dir", "other"]).code,
        Some(0)
    );
    let run = told(&plan, &["status", "--json", "plan.run", "--times", "other"]);
    let status: Value = serde_json::from_str(&run.stdout).unwrap();
    let seconds = status["rest"]["seconds"].as_f64().unwrap();
    assert!((0.6..5.0).contains(&seconds), "b alone, since a is over: {seconds}");
    assert_eq!((&status["state"], &status["rest"]["unknown"]), (&json!("failed"), &json!(0)));
}

#[test]
fn history_lists_events_and_runs() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "exit 3", "retry": {"max_attempts": 2, "backoff": {"initial": "10ms"}}},
        {"id": "b", "needs": ["a"], "sh": "true"},
    ]));
    assert_eq!(plan.run().code, Some(2));
    let run = told(&plan, &["history", "--json", "plan.run"]);
    let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["start", "begin", "failed", "begin", "failed", "settled", "stop", "end"]);
    let what: Vec<&str> = events.iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert!(what[2].ends_with("exited with status 3; another attempt may follow"), "{what:?}");
    assert_eq!(what[5..], ["failed: exited with status 3", "stage `a` failed", "failed"]);
    let table = told(&plan, &["history", "plan.run", "--limit", "2"]).stdout;
    assert!(table.contains("stage `a` failed") && table.lines().count() == 3, "{table}");

    plan.dir.write("runs/broken/plan.json", "{}");
    plan.dir.write("runs/broken/inputs", ".");
    plan.dir.write("runs/plans/plan.json", "{}");
    plan.dir.write("runs/broken/lock", "");
    let other = plan.dir.path("runs/good");
    fedmill(&plan.dir, &["plan", "run", "plan.json", "--dir", other.to_str().unwrap()]);
    plan.dir.write("runs/no-run/file", "");
    let table = told(&plan, &["history", "runs"]).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[1].trim_start().starts_with("good") && lines[1].contains("failed"), "{table}");
    assert!(table.contains("broken") && table.contains("unreadable") && !table.contains("no-run"), "{table}");
    assert!(!table.contains("plans"), "a plan beside its runs is no run: {table}");
    assert!(table.lines().all(|line| line.chars().count() <= COLUMNS), "{table}");
    let run = told(&plan, &["history", "--json", "runs"]);
    let first: Value = serde_json::from_str(run.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&first["run"], &first["stages"], &first["over"]), (&json!("good"), &json!(2), &json!(1)));
    assert!(told(&plan, &["history", "."]).stdout.contains("plan.run"), "the run beside the plan");
    fedmill(&plan.dir, &["plan", "history", "runs/no-run"]).assert_fails(2, &["runs/no-run: found no run"]);
}

#[test]
fn a_folder_of_runs_has_a_limit() {
    let plan = stubborn().with("limits.max_parallel_workflows", json!(1));
    let mut runner = start(&plan);
    wait_until("stage b", || plan.dir.exists("began"));
    let run = fedmill(&plan.dir, &["plan", "run", "plan.json", "--dir", "other.run"]);
    run.assert_fails(1, &["1 runs are at work, and limits.max_parallel_workflows is 1: plan.run (process "]);
    plan.dir.write("mended", "");
    assert_eq!(runner.wait().unwrap().code(), Some(0));
    let home = format!("export HOME={}", plan.dir.path("").display());
    assert_eq!(
        fedmill_after(&plan.dir, &home, &["plan", "run", "plan.json", "--dir", "other.run"]).code,
        Some(0)
    );
}

#[test]
fn the_part_that_is_done_never_falls_and_is_whole_at_the_end_alone() {
    // Stages with times that differ, a fan-out, a loop that may end early, and a stage of the end that never runs.
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "true"},
        {"id": "fan", "needs": ["a"], "for_each": {"range": 4}, "sh": "sleep 0.1"},
        {"id": "turn", "needs": ["fan"], "sh": "sleep 0.1"},
        {"id": "b", "needs": ["turn"], "sh": "until test -e $HOME/mended; do sleep 0.05; done"},
        {"id": "mend", "sh": "true"},
    ]))
    .with("loops", json!([{"id": "turns", "over": ["turn"], "max_iters": 4}]))
    .with("limits.max_parallel", json!(1))
    .with("on", json!({"failure": ["mend"]}));
    let mut runner = start(&plan);
    wait_until("the run", || plan.dir.exists("plan.run/plan.json"));
    let parts = std::cell::RefCell::new(vec![0.0]);
    wait_until("stage b", || {
        let run = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
        let Ok(found) = serde_json::from_str::<Value>(&run.stdout) else { return false };
        parts.borrow_mut().push(found["progress"].as_f64().unwrap());
        found["stages"].as_array().unwrap().iter().any(|row| row["name"] == "b" && row["state"] == "running")
    });
    let parts = parts.into_inner();
    assert!(parts.is_sorted(), "{parts:?}");
    assert_eq!(parts.last(), Some(&0.75), "three of four stages: {parts:?}");
    let table = told(&plan, &["status", "plan.run"]).stdout;
    assert!(table.contains("75 % by count"), "{table}");
    plan.dir.write("mended", "");
    assert_eq!(runner.wait().unwrap().code(), Some(0));
    assert_eq!(status(&plan)["progress"], json!(1.0));
}

#[test]
fn a_run_ends_at_its_longest_time() {
    let plan =
        Workflow::new(&json!([{"id": "a", "sh": "sleep 60"}, {"id": "b", "needs": ["a"], "sh": "true"}]))
            .with("limits.wall", json!("1s"));
    let began = Instant::now();
    plan.run().assert_fails(1, &["the run took longer than limits.wall, 1s"]);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(plan.states(), "a cancelled, b not run");
}

#[test]
fn the_status_of_a_run_that_is_over_promises_nothing() {
    let measure = "echo '{{\"loss\": 0.5}}' > m.json";
    let stages = json!([
        {"id": "a", "for_each": {"range": 2}, "sh": measure, "out": [{"name": "m", "path": "m.json", "metrics": true}],
         "metrics": ["loss"]},
        {"id": "mend", "sh": "true"},
    ]);
    let plan = Workflow::new(&stages).with("on.failure", json!(["mend"]));
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let found = status(&plan);
    assert_eq!((&found["state"], &found["progress"]), (&json!("succeeded"), &json!(1.0)));
    let [a, mend] = found["stages"].as_array().unwrap().as_slice() else { panic!("{found}") };
    assert_eq!((&mend["state"], &mend["waits_for"]), (&json!("not run"), &json!([])));
    assert_eq!(a["metrics"], json!({"loss": [0.5, 0.5]}));
    let table = told(&plan, &["status", "plan.run"]).stdout;
    assert!(
        table.contains("loss 0.5") && !table.contains("rest:") && !table.contains("waits for"),
        "{table}"
    );
}

#[test]
fn a_rendered_plan_shows_its_tasks_and_is_cancelled() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo {item}", "for_each": {"range": 2}, "out": [{"name": "o", "path": "-"}]},
        {"id": "b", "needs": ["a"], "sh": "exit 3"},
    ]));
    plan.write();
    let fedmill = |args: &[&str]| fedmill(&plan.dir, &[&["plan"], args].concat());
    assert_eq!(fedmill(&["render", "plan.json", "--target", "slurm", "-o", "rendered"]).code, Some(0));
    let status = || {
        let run = fedmill(&["status", "--json", "rendered"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let status: Value = serde_json::from_str(&run.stdout).unwrap();
        let rows = status["stages"].as_array().unwrap().iter();
        let rows = rows.map(|row| format!("{} {} {}", row["name"], row["state"], row["instances_over"]));
        format!("{}: {}", status["state"], rows.collect::<Vec<_>>().join(", ")).replace('"', "")
    };
    let runs = || fedmill(&["history", "rendered", "--json"]).stdout.lines().count();
    assert_eq!((status().as_str(), runs()), ("waiting: a waiting 0, b waiting 0", 0));
    assert_eq!(fedmill(&["task", "rendered", "a.1"]).code, Some(0));
    assert_eq!((status().as_str(), runs()), ("waiting: a waiting 1, b waiting 0", 1));
    assert_eq!(fedmill(&["task", "rendered", "a.0"]).code, Some(0));
    assert_eq!(fedmill(&["task", "rendered", "b"]).code, Some(2));
    assert_eq!((status().as_str(), runs()), ("failed: a ok 2, b failed 1", 3));
    let table = fedmill(&["history", "rendered"]).stdout;
    assert!(["a.0", "a.1", "b"].iter().all(|task| table.contains(task)), "{table}");
    assert_eq!(table.matches(" 1/1").count(), 3, "a task is one stage that is over: {table}");
    fedmill(&["resume", "rendered"])
        .assert_fails(2, &["holds a rendered plan", "rendered/submit.sh`", "Snakefile"]);
    fedmill(&["cancel", "rendered", "--now"]).assert_fails(2, &["--now ends a runner on this machine"]);
    assert!(!plan.dir.exists("rendered/STOP"));
    let run = fedmill(&["cancel", "rendered"]);
    assert!(run.code == Some(0) && run.stdout.contains("STOP exists; remove it to go on"), "{run:#?}");
    assert!(plan.dir.exists("rendered/STOP"));
    assert_eq!(fedmill(&["task", "rendered", "b"]).code, Some(1));
    fedmill(&["cancel", "rendered/tasks/b"]).assert_fails(2, &["holds a task of the rendered plan"]);
}

#[test]
fn files_of_another_program_with_the_names_of_a_run_are_no_run() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}]));
    assert_eq!(plan.run().code, Some(0));
    plan.dir.write("runs/foreign/plan.json", plan.dir.read("plan.json"));
    plan.dir.write("runs/foreign/events.jsonl", "{\"event\":\"begin\"}\n");
    plan.dir.write("runs/foreign/lock", "");
    let of = |args: &[&str]| fedmill(&plan.dir, &[&["plan"], args].concat());
    of(&["status", "runs/foreign"]).assert_fails(2, &["runs/foreign: holds no run"]);
    of(&["history", "runs"]).assert_fails(2, &["runs: found no run"]);
    of(&["export", "runs", "--format", "cloudevents"]).assert_fails(2, &[]);
    // Without a lock, and with a part of a line, the journal of a run still counts.
    let journal = plan.dir.read("plan.run/events.jsonl");
    plan.dir.write("runs/copy/plan.json", plan.dir.read("plan.run/plan.json"));
    plan.dir.write("runs/copy/inputs", plan.dir.read("plan.run/inputs"));
    plan.dir.write("runs/copy/events.jsonl", [&journal[..], b"{"].concat());
    assert!(of(&["history", "runs"]).stdout.contains("copy"));
    plan.dir.write("runs/copy/events.jsonl", &journal[..100]);
    of(&["history", "runs"]).assert_fails(2, &["runs: found no run"]);
    plan.dir.write("runs/copy/lock", "");
    assert!(of(&["history", "runs"]).stdout.contains("interrupted"));
}

/// A list of runs reads the ends of the journal of a run that succeeded; a look at the run reads all of it.
#[test]
fn a_list_of_runs_shows_what_a_look_at_each_shows() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "true"}, {"id": "sorry", "sh": "true"}, {"id": "last", "sh": "true"},
    ]))
    .with("on", json!({"failure": ["sorry"], "exit": ["last"]}));
    assert_eq!(plan.run().code, Some(0));
    let of = |args: &[&str]| fedmill(&plan.dir, &[&["plan"], args].concat());
    let brief: Value = serde_json::from_str(&of(&["history", ".", "--json"]).stdout).unwrap();
    // A search reads all of a run.
    let mut whole: Value =
        serde_json::from_str(&of(&["history", ".", "--json", "--search", "test"]).stdout).unwrap();
    whole.as_object_mut().unwrap().remove("found");
    assert_eq!(brief, whole);
    let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}]));
    assert_eq!(plan.run().code, Some(0));
    let of = |args: &[&str]| fedmill(&plan.dir, &[&["plan"], args].concat());
    let journal = String::from_utf8(plan.dir.read("plan.run/events.jsonl")).unwrap();
    plan.dir.write("plan.run/events.jsonl", journal.replacen("begin", "BEGIN", 1));
    assert!(of(&["history", "."]).stdout.contains("succeeded"));
    of(&["status", "plan.run"]).assert_fails(2, &["line 2"]);
    plan.dir.write("plan.run/events.jsonl", journal.replace("succeeded", "sUcceeded"));
    assert!(of(&["history", "."]).stdout.contains("unreadable"));
}
