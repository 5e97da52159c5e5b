//! Runs that end in the middle: at every durable step, and by signals with live children.

use super::Workflow;
use crate::harness::{fedmill, fedmill_after, program};
use serde_json::json;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A fan-out, a decision, a loop with a carried file, and a stage that joins them.
fn workflow() -> Workflow {
    let workflow = Workflow::new(&json!([
        {"id": "part", "sh": "printf %s {item} > {out.o}", "for_each": {"range": 3}, "out": [{"name": "o", "path": "o.txt"}]},
        {"id": "choose", "kind": "decide", "needs": ["part"], "cases": [{"if": "inputs.start == 1", "to": "one"}], "else": "many"},
        {"id": "step", "branch": "one", "needs": ["choose"], "agent": "shell",
         "argv": ["n=$(cat $0); echo $((n + 1)) > {out.n}; echo \"{{\\\"n\\\": $((n + 1))}}\"", "{carry.n}"],
         "out": [{"name": "n", "path": "n.txt"}, {"name": "m", "path": "-", "metrics": true}], "metrics": ["n"]},
        {"id": "join", "needs": ["part", "step"], "agent": "shell", "argv": ["cat \"$@\"", "sh", "{part.o}", "{step.n}"],
         "out": [{"name": "all", "path": "-"}]},
    ]))
    .with("inputs", json!([{"name": "start", "path": "start.txt"}]))
    .with(
        "loops",
        json!([{"id": "l", "over": ["step"], "carry": {"n": {"from": "step.n", "init": "start"}}, "until": "metrics.n >= 3.0",
            "max_iters": 5}]),
    );
    workflow.dir.write("start.txt", "1\n");
    workflow.write();
    workflow
}

const JOINED: &str = "0123\n";

#[test]
fn a_run_aborted_at_any_durable_step_ends_in_the_same_files() {
    let whole = workflow();
    assert_eq!(whole.run().code, Some(0));
    assert_eq!(whole.output("join/all"), JOINED);
    let states = whole.states();
    for step in 1.. {
        let plan = workflow();
        let run = fedmill_after(
            &plan.dir,
            &format!("export FEDMILL_FAIL_AT={step}"),
            &["plan", "run", "-q", "plan.json"],
        );
        if run.code == Some(0) {
            assert!(step > 40, "a run has more durable steps than {step}");
            return;
        }
        assert_eq!(run.code, None, "{run:#?}");
        // A crash may also meet the runner that resumes.
        let again = format!("export FEDMILL_FAIL_AT={}", 1 + step % 7);
        fedmill_after(&plan.dir, &again, &["plan", "run", "-q", "plan.json"]);
        let run = fedmill(&plan.dir, &["plan", "run", "-q", "plan.json"]);
        assert_eq!(run.code, Some(0), "step {step}: {run:#?}");
        assert_eq!(
            (plan.output("join/all").as_str(), plan.states()),
            (JOINED, states.clone()),
            "step {step}"
        );
    }
}

#[test]
fn a_finished_stage_is_not_run_again() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo a >> $HOME/log"},
        {"id": "b", "needs": ["a"], "sh": "echo b >> $HOME/log; test -e $HOME/mended"},
    ]));
    plan.write();
    let home = format!("export HOME={}", plan.dir.path("").display());
    fedmill_after(&plan.dir, &home, &["plan", "run", "plan.json"]).assert_fails(2, &["stage `b`"]);
    plan.dir.write("mended", "");
    let run = fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(String::from_utf8(plan.dir.read("log")).unwrap(), "a\nb\nb\n");
}

/// Starts the plan in the background.
fn start(plan: &Workflow) -> std::process::Child {
    let mut command = Command::new(program());
    command.args(["plan", "run", "-q", "plan.json"]).current_dir(plan.dir.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub(super) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what} did not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn is_alive(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn the_children_of_a_killed_runner_are_ended_before_the_next_attempt() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "(sleep 300 & echo $! > $HOME/child; wait) & test -e $HOME/mended || sleep 300"},
    ]));
    plan.write();
    let mut command = Command::new(program());
    command
        .args(["plan", "run", "-q", "plan.json"])
        .current_dir(plan.dir.path(""))
        .env("HOME", plan.dir.path(""));
    let mut runner =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the child", || plan.dir.exists("child") && !plan.dir.read("child").is_empty());
    let child = String::from_utf8(plan.dir.read("child")).unwrap();
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(is_alive(&child), "the child outlives the runner");
    plan.dir.write("mended", "");
    let home = format!("export HOME={}", plan.dir.path("").display());
    let run = fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(!is_alive(&child), "the child of the killed runner is still there");
}

#[test]
fn a_second_runner_ends_at_once() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "sleep 30"}]));
    plan.write();
    let mut first = start(&plan);
    wait_until("the first runner", || plan.dir.exists("plan.run/attempts/a/stdout"));
    let run = fedmill(&plan.dir, &["plan", "run", "plan.json"]);
    run.assert_fails(1, &["plan.run: process ", " works on this run"]);
    plan.dir.write("plan.run/STOP", "");
    assert_eq!(first.wait().unwrap().code(), Some(1));
    assert_eq!(plan.states(), "a cancelled");
}

#[test]
fn a_signal_ends_the_commands_and_the_run_goes_on_later() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "test -e $HOME/mended || sleep 30"}]));
    plan.write();
    let mut command = Command::new(program());
    command
        .args(["plan", "run", "-q", "plan.json"])
        .current_dir(plan.dir.path(""))
        .env("HOME", plan.dir.path(""));
    let mut runner =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the runner", || plan.dir.exists("plan.run/attempts/a/stdout"));
    assert!(Command::new("kill").args(["-TERM", &runner.id().to_string()]).status().unwrap().success());
    assert_eq!(runner.wait().unwrap().code(), Some(143));
    assert_eq!(plan.states(), "a waiting");
    plan.dir.write("mended", "");
    let home = format!("export HOME={}", plan.dir.path("").display());
    assert_eq!(fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run"]).code, Some(0));
}

/// A stage that may fail, which first does this and leaves its id in `pid`; and one that says what the first one made.
fn tolerant(first: &str) -> Workflow {
    let command = format!("if ! test -e $HOME/mended; then echo $$ > $HOME/pid; {first}; fi; echo made > o");
    let plan = Workflow::new(&json!([
        {"id": "a", "min_succeeded": 0, "sh": command, "out": [{"name": "o", "path": "o"}]},
        {"id": "use", "needs": ["a"], "agent": "shell", "argv": ["cat \"$@\"", "sh", "{a.o?}"],
         "out": [{"name": "o", "path": "-"}]},
    ]));
    plan.write();
    plan
}

/// Starts the plan, and waits for the id that the first stage leaves.
fn with_first_stage(plan: &Workflow) -> (std::process::Child, String) {
    let runner = super::watch::start(plan);
    wait_until("the first stage", || plan.dir.exists("pid") && plan.dir.read("pid").ends_with(b"\n"));
    (runner, String::from_utf8(plan.dir.read("pid")).unwrap().trim().to_owned())
}

/// Checks that the stage that a signal cut short succeeds in the run that goes on.
fn goes_on_as_if_undisturbed(plan: &Workflow, how: &str) {
    assert_eq!(plan.states(), "a waiting, use waiting", "{how}");
    plan.dir.write("mended", "");
    let home = format!("export HOME={}", plan.dir.path("").display());
    let run = fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run"]);
    assert_eq!((run.code, plan.output("use/o").as_str()), (Some(0), "made\n"), "{how}: {run:#?}");
}

#[test]
fn commands_that_a_signal_ends_just_before_their_runner_did_not_fail() {
    for (signal, code, first) in [
        ("TERM", 143, "exec sleep 30"),
        ("INT", 130, "exec sleep 30"),
        ("HUP", 129, "exec sleep 30"),
        ("TERM", 143, "trap 'exit 143' TERM; while :; do sleep 0.01; done"),
    ] {
        let plan = tolerant(first);
        let (mut runner, command) = with_first_stage(&plan);
        thread::sleep(Duration::from_millis(100));
        let both = format!("kill -{signal} {command}; sleep 0.05; kill -{signal} {}", runner.id());
        assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
        assert_eq!(runner.wait().unwrap().code(), Some(code), "{signal}: {first}");
        goes_on_as_if_undisturbed(&plan, &format!("{signal}: {first}"));
    }
    let plan = tolerant("exec sleep 30");
    let (mut runner, command) = with_first_stage(&plan);
    assert!(Command::new("kill").arg(command).status().unwrap().success());
    assert_eq!(runner.wait().unwrap().code(), Some(0));
    assert_eq!((plan.states().as_str(), plan.output("use/o").as_str()), ("a failed, use ok", ""));
}

#[test]
fn a_signal_while_an_output_is_read_does_not_make_its_stage_fail() {
    let plan = tolerant("truncate -s 20G o; exit");
    let (mut runner, command) = with_first_stage(&plan);
    wait_until("the end of the command", || !is_alive(&command));
    thread::sleep(Duration::from_millis(100));
    assert!(Command::new("kill").arg(runner.id().to_string()).status().unwrap().success());
    assert_eq!(runner.wait().unwrap().code(), Some(143));
    goes_on_as_if_undisturbed(&plan, "a large output");
}

#[test]
fn a_stage_that_must_not_happen_twice_asks_the_operator() {
    let interrupted = || {
        let plan = Workflow::new(&json!([
            {"id": "a", "side_effects": "once", "sh": "echo x >> $HOME/log; test $(wc -l < $HOME/log) -gt 1 || kill -9 $PPID"},
        ]));
        plan.write();
        let home = format!("export HOME={}", plan.dir.path("").display());
        assert_eq!(fedmill_after(&plan.dir, &home, &["plan", "run", "plan.json"]).code, None);
        (plan, home)
    };
    for (word, lines) in [("done", "x\n"), ("again", "x\nx\n")] {
        let (plan, home) = interrupted();
        let run = fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run"]);
        run.assert_fails(1, &["stage `a` may have done its work", "--settle a=done"]);
        let settle = format!("a={word}");
        let run = fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run", "--settle", &settle]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        assert_eq!(String::from_utf8(plan.dir.read("log")).unwrap(), lines);
    }
    let (plan, home) = interrupted();
    let run = fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run", "--settle", "b=done"]);
    run.assert_fails(2, &["--settle b: no attempt of that name may have happened"]);
}

#[test]
fn a_damaged_journal_is_refused() {
    let plan = workflow();
    assert_eq!(plan.run().code, Some(0));
    let text = String::from_utf8(plan.dir.read("plan.run/events.jsonl")).unwrap();
    // The part of a line that a killed runner leaves is none.
    plan.dir.write("plan.run/events.jsonl", format!("{text}{{\"seq\":"));
    assert_eq!(plan.run().code, Some(0));
    plan.dir.write("plan.run/events.jsonl", text.replacen("\"attempt\":1", "\"attempt\":2", 1));
    plan.run().assert_fails(2, &["events.jsonl: line ", "the digest is "]);
    plan.dir.write("plan.run/events.jsonl", text);
    let other = plan.with("params", json!({"x": 1}));
    other.write();
    fedmill(&other.dir, &["plan", "run", "plan.json", "--dir", "plan.run"])
        .assert_fails(2, &["holds a run of another plan", "--dir names"]);
}
