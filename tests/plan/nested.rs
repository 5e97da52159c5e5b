//! Plans inside of plans: values, files and outputs, crashes in the middle, and what is refused.

use super::Workflow;
use super::killed::{is_alive, wait_until};
use crate::harness::{fedmill, fedmill_after, program};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A plan whose second stage runs `inner.json`, on the output of the first.
fn workflow(inner: &Value) -> Workflow {
    let plan = Workflow::new(&json!([
        {"id": "make", "sh": "echo made; echo make >> $HOME/log", "out": [{"name": "o", "path": "-"}]},
        {"id": "run", "kind": "plan", "needs": ["make"],
         "plan": {"file": "inner.json", "params": {"n": "{params.m}"}, "inputs": {"text": ["{make.o}"]}},
         "out": [{"name": "all", "path": "second.o"}, {"name": "m", "path": "second.m", "metrics": true}],
         "metrics": ["acc"]},
        {"id": "after", "needs": ["run"], "when": "metrics.acc > 0.5", "agent": "shell", "argv": ["cat $0", "{run.all}"],
         "out": [{"name": "o", "path": "-"}]},
    ]))
    .with("params", json!({"m": 7}));
    plan.dir.write("inner.json", serde_json::to_vec_pretty(inner).unwrap());
    plan.write();
    plan
}

/// Two stages; the second one runs `middle` first.
fn inner(middle: &str) -> Value {
    let second = format!(
        "{middle}; cat $0 > {{out.o}}; echo {{params.n}} >> {{out.o}}; echo second >> $HOME/log; echo '{{{{\"acc\": 0.9}}}}'"
    );
    json!({"schema": "fedmill.plan/1", "id": "inner", "params": {"n": 1},
    "inputs": [{"name": "text", "path": "nothing.txt"}],
    "agents": {"shell": {"kind": "command", "argv": ["sh", "-c"]}}, "limits": {"timeout": {"run": "1m"}, "hosts": []},
    "stages": [
        {"id": "first", "agent": "shell", "argv": ["cat $0; echo first >> $HOME/log", "{in.text}"],
         "out": [{"name": "o", "path": "-"}]},
        {"id": "second", "needs": ["first"], "agent": "shell", "argv": [second, "{first.o}"],
         "out": [{"name": "o", "path": "o.txt"}, {"name": "m", "path": "-", "metrics": true}]},
    ]})
}

fn home(plan: &Workflow) -> String {
    format!("export HOME={}", plan.dir.path("").display())
}

fn log(plan: &Workflow) -> String {
    String::from_utf8(plan.dir.read("log")).unwrap()
}

#[test]
fn values_go_in_and_files_and_metrics_come_out() {
    let plan = workflow(&inner(":"));
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "run", "plan.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(plan.output("after/o"), "made\n7\n");
    assert_eq!(plan.states(), "make ok, run ok, after ok");
    assert_eq!(log(&plan), "make\nfirst\nsecond\n");
    let inside = fedmill(&plan.dir, &["plan", "status", "plan.run/plans/run"]);
    assert_eq!(inside.code, Some(0), "{inside:#?}");
}

#[test]
fn stages_of_an_inner_plan_that_are_done_stay_done_after_a_kill() {
    let plan = workflow(&inner("echo $$ > $HOME/pid; test -e $HOME/mended || sleep 300"));
    let mut command = Command::new(program());
    command
        .args(["plan", "run", "-q", "plan.json"])
        .current_dir(plan.dir.path(""))
        .env("HOME", plan.dir.path(""));
    let mut runner =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the second stage", || plan.dir.exists("pid") && plan.dir.read("pid").ends_with(b"\n"));
    let child = String::from_utf8(plan.dir.read("pid")).unwrap();
    runner.kill().unwrap();
    runner.wait().unwrap();
    plan.dir.write("mended", "");
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(!is_alive(&child), "the command of the inner plan is still there");
    assert_eq!(log(&plan), "make\nfirst\nsecond\n");
    assert_eq!(plan.output("after/o"), "made\n7\n");
}

#[test]
fn the_kill_file_of_the_outer_run_ends_the_inner_one() {
    let plan = workflow(&inner("echo $$ > $HOME/pid; sleep 300"));
    let mut command = Command::new(program());
    command
        .args(["plan", "run", "-q", "plan.json"])
        .current_dir(plan.dir.path(""))
        .env("HOME", plan.dir.path(""));
    let mut runner =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the second stage", || plan.dir.exists("pid") && plan.dir.read("pid").ends_with(b"\n"));
    plan.dir.write("plan.run/STOP", "");
    assert_eq!(runner.wait().unwrap().code(), Some(1));
    let child = String::from_utf8(plan.dir.read("pid")).unwrap();
    assert!(!is_alive(&child), "the command of the inner plan is still there");
    assert_eq!(plan.states(), "make ok, run cancelled, after waiting");
}

#[test]
fn what_a_plan_does_not_leave_to_an_inner_one_is_refused() {
    let sound = inner(":");
    let with = |pointer: &str, value: Value| {
        let mut plan = sound.clone();
        *plan.pointer_mut(pointer).unwrap() = value;
        plan
    };
    let itself = json!([{"id": "x", "kind": "plan", "plan": {"file": "inner.json"}}]);
    for (inner, change, expected) in [
        (with("/limits/hosts", json!(["h"])), None, "$.stages[1].plan.file: found host `h`"),
        (
            with("/params", json!({"nn": 1})),
            None,
            "$.stages[1].plan.params.n: found `n`, expected a parameter",
        ),
        (with("/inputs", json!([])), None, "$.stages[1].plan.inputs.text: found `text`, expected an input"),
        (with("/stages/1/id", json!("other")), None, "$.stages[1].out[0].path: found `second.o`"),
        (with("/stages/1/needs/0", json!("frist")), None, "inner.json: $.stages[1].needs[0]: found `frist`"),
        (with("/stages", itself), None, "plans that run each other: plan.json -> inner.json -> inner.json"),
        (
            sound.clone(),
            Some(("limits.eps", json!(1.0))),
            "$.stages[1].plan.file: found a plan inside of one",
        ),
    ] {
        let mut plan = workflow(&inner);
        if let Some((key, value)) = change {
            plan = plan.with(key, value).with("limits.delta", json!(1e-5));
        }
        plan.run().assert_fails(2, &[expected, "so nothing was run"]);
    }
    let plan =
        workflow(&with("/stages", json!([{"id": "second", "kind": "plan", "plan": {"file": "b.json"}}])));
    for (file, next) in [("b", "c"), ("c", "d"), ("d", "e")] {
        let stages = json!([{"id": "x", "kind": "plan", "plan": {"file": format!("{next}.json")}}]);
        let text = json!({"schema": "fedmill.plan/1", "id": "x", "stages": stages}).to_string();
        plan.dir.write(&format!("{file}.json"), text);
    }
    // The fifth file is the first that is one too many.
    let chain = "plan.json -> inner.json -> b.json -> c.json -> d.json\n";
    plan.run().assert_fails(2, &[&format!("found more than 4 plans inside each other: {chain}")]);
}

#[test]
fn an_inner_plan_that_changed_is_refused() {
    let plan = workflow(&inner("false || exit 3"));
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "run", "plan.json"]);
    run.assert_fails(2, &["stage `run`: exited with status 2"]);
    plan.dir.write("inner.json", serde_json::to_vec(&inner(":")).unwrap());
    let run = fedmill(&plan.dir, &["plan", "resume", "plan.run"]);
    run.assert_fails(2, &["input `plan inner.json`: ", "changed since the run started"]);
}

#[test]
fn the_commands_of_inner_plans_are_listed() {
    let plan = workflow(&inner(":"));
    let run = fedmill(&plan.dir, &["plan", "show", "--commands", "plan.json"]);
    assert!(run.stdout.contains("run: the plan inner.json\n"), "{run:#?}");
    assert!(run.stdout.contains("\ninner.json:\nfirst: sh -c"), "{run:#?}");
    let run = fedmill(&plan.dir, &["plan", "show", "plan.json"]);
    assert!(run.stdout.contains("plan inner.json"), "{run:#?}");
}
