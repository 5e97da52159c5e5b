//! Plans inside of plans: values, files and outputs, crashes in the middle, and what is refused.

use super::Workflow;
use super::jobserver::noted;
use super::killed::{is_alive, wait_until};
use super::watch::start;
use crate::harness::{fedmill, fedmill_after, program};
use serde_json::{Value, json};
use std::process::{Child, Command};

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

/// Runs the plan until the second stage of the inner one wrote its id to `pid`: the runner, and that id.
fn at_second_stage(plan: &Workflow) -> (Child, String) {
    let runner = start(plan);
    wait_until("the second stage", || plan.dir.exists("pid") && plan.dir.read("pid").ends_with(b"\n"));
    (runner, String::from_utf8(plan.dir.read("pid")).unwrap())
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
    let (mut runner, child) = at_second_stage(&plan);
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
fn a_stage_that_takes_too_long_ends_without_an_inner_stage_of_its_name() {
    let plan = Workflow::new(&json!([
        {"id": "work", "sh": "sleep 60", "timeout": {"run": "1s", "kill_after": "100ms"}},
        {"id": "run", "kind": "plan", "plan": {"file": "inner.json"}, "out": [{"name": "o", "path": "work.o"}]},
    ]))
    .with("limits.on_failure", json!("keep_going"));
    let inner = json!({"schema": "fedmill.plan/1", "id": "inner", "limits": {"timeout": {"run": "1m"}},
        "agents": {"shell": {"kind": "command", "argv": ["sh", "-c"]}},
        "stages": [{"id": "work", "agent": "shell", "argv": ["sleep 3; echo fine"], "out": [{"name": "o", "path": "-"}]}]});
    plan.dir.write("inner.json", inner.to_string());
    plan.run().assert_fails(2, &["stage `work`", "took longer than 1 s"]);
    assert_eq!(plan.states(), "work timeout, run ok");
}

#[test]
fn the_runner_of_an_inner_plan_that_a_killed_one_left_behind_ends_its_own_commands() {
    let slow = "trap 'sleep 3; echo cleaned >> $HOME/log; exit 1' TERM; while :; do sleep 0.01; done";
    let plan = workflow(&inner(&format!("echo $$ > $HOME/pid; if ! test -e $HOME/mended; then {slow}; fi")));
    let (mut runner, _) = at_second_stage(&plan);
    runner.kill().unwrap();
    runner.wait().unwrap();
    plan.dir.write("mended", "");
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(log(&plan), "make\nfirst\ncleaned\nsecond\n");
    let journal = String::from_utf8(plan.dir.read("plan.run/plans/run/events.jsonl")).unwrap();
    assert!(journal.contains("\"cancelled\"") && !journal.contains("\"exit\""), "{journal}");
}

#[test]
fn a_run_waits_for_the_runner_that_works_on_its_inner_run() {
    let plan = workflow(&inner("echo $$ > $HOME/pid; sleep 300"));
    let (mut runner, _) = at_second_stage(&plan);
    assert!(Command::new("kill").arg(runner.id().to_string()).status().unwrap().success());
    assert_eq!(runner.wait().unwrap().code(), Some(143));
    std::fs::remove_file(plan.dir.path("pid")).unwrap();
    let mut command = Command::new(program());
    let command = command.args(["plan", "resume", "-q", "plan.run/plans/run"]).current_dir(plan.dir.path(""));
    let mut runner = command.env("HOME", plan.dir.path("")).spawn().unwrap();
    wait_until("the second stage", || plan.dir.exists("pid") && plan.dir.read("pid").ends_with(b"\n"));
    let child = String::from_utf8(plan.dir.read("pid")).unwrap();
    let expected = format!("plan.run/plans/run: process {} works on this run", runner.id());
    fedmill(&plan.dir, &["plan", "resume", "plan.run"]).assert_fails(1, &[&expected]);
    assert!(is_alive(&child), "the command of the other runner was ended");
    assert!(Command::new("kill").arg(runner.id().to_string()).status().unwrap().success());
    assert_eq!(runner.wait().unwrap().code(), Some(143));
}

#[test]
fn an_inner_run_goes_on_although_the_outer_one_got_another_name() {
    let plan = workflow(&inner("echo $$ > $HOME/pid; test -e $HOME/mended || sleep 300"));
    let (mut runner, _) = at_second_stage(&plan);
    runner.kill().unwrap();
    runner.wait().unwrap();
    std::fs::rename(plan.dir.path("plan.run"), plan.dir.path("moved.run")).unwrap();
    plan.dir.write("mended", "");
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "resume", "moved.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(log(&plan), "make\nfirst\nsecond\n");
    assert_eq!(plan.dir.read("moved.run/out/after/o"), b"made\n7\n");
}

#[test]
fn an_inner_plan_of_the_end_runs_at_each_end() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo a", "out": [{"name": "t", "path": "-"}]},
        {"id": "work", "needs": ["a"], "sh": "test -e $HOME/mended && echo worked", "out": [{"name": "t", "path": "-"}]},
        {"id": "bye", "kind": "plan", "plan": {"file": "note.json", "inputs": {"src": ["{work.t|a.t}"]}}},
    ]))
    .with("on", json!({"exit": ["bye"]}));
    let note = json!({"schema": "fedmill.plan/1", "id": "note", "inputs": [{"name": "src", "path": "none", "min": 0}],
        "agents": {"shell": {"kind": "command", "argv": ["sh", "-c"]}}, "limits": {"timeout": {"run": "1m"}},
        "stages": [{"id": "n", "agent": "shell", "argv": ["cat $0 >> $HOME/log", "{in.src}"]}]});
    plan.dir.write("note.json", note.to_string());
    plan.write();
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "run", "plan.json"]);
    run.assert_fails(2, &["stage `work`: exited with status 1"]);
    assert_eq!((plan.states().as_str(), log(&plan).as_str()), ("a ok, work failed, bye ok", "a\n"));
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "resume", "plan.run"]);
    run.assert_fails(2, &["stage `work`: exited with status 1"]);
    assert_eq!(log(&plan), "a\na\n");
    plan.dir.write("mended", "");
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "resume", "plan.run"]);
    assert_eq!((run.code, log(&plan).as_str()), (Some(0), "a\na\nworked\n"), "{run:#?}");
}

#[test]
fn the_kill_file_of_the_outer_run_ends_the_inner_one() {
    let plan = workflow(&inner("echo $$ > $HOME/pid; sleep 300"));
    let (mut runner, child) = at_second_stage(&plan);
    plan.dir.write("plan.run/STOP", "");
    assert_eq!(runner.wait().unwrap().code(), Some(1));
    assert!(!is_alive(&child), "the command of the inner plan is still there");
    assert_eq!(plan.states(), "make ok, run cancelled, after not run");
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
    let calls = json!({"asks": {"kind": "http", "url": "http://h/x"}});
    for limit in ["http_calls", "tokens"] {
        // The limit of the outermost plan counts for the third, too.
        let plan = workflow(&with(
            "/stages",
            json!([{"id": "second", "kind": "plan", "plan": {"file": "b.json"},
            "out": [{"name": "o", "path": "x.o"}, {"name": "m", "path": "x.m", "metrics": true}], "metrics": ["acc"]}]),
        ));
        let b = json!({"schema": "fedmill.plan/1", "id": "b", "agents": calls, "stages": [{"id": "x", "agent": "asks"}]});
        plan.dir.write("b.json", b.to_string());
        let expected = "inner.json: $.stages[0].plan.file: found endpoints in a plan inside of one with";
        plan.with(&format!("limits.{limit}"), json!(9))
            .run()
            .assert_fails(2, &[expected, "so nothing was run"]);
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
fn the_number_of_inner_plans_is_bounded() {
    let many = |file: &str, count: u32| {
        let stages =
            (0..count).map(|n| json!({"id": format!("s{n}"), "kind": "plan", "plan": {"file": file}}));
        json!({"schema": "fedmill.plan/1", "id": "x", "limits": {"timeout": {"run": "1m"}},
            "stages": stages.collect::<Vec<_>>()})
    };
    let dir = crate::harness::Dir::new();
    dir.write("leaf.json", json!({"schema": "fedmill.plan/1", "id": "leaf", "stages": []}).to_string());
    for (inner, expected) in [(19, None), (20, Some("found more than 1000 stages that run a plan"))] {
        // 50 stages, each with a plan of 19 or 20 stages that run one.
        dir.write("middle.json", many("leaf.json", inner).to_string());
        dir.write("outer.json", many("middle.json", 50).to_string());
        let lint = fedmill(&dir, &["plan", "lint", "outer.json"]);
        assert_eq!(lint.stdout.contains("found more than 1000"), expected.is_some(), "{lint:#?}");
        if let Some(expected) = expected {
            fedmill(&dir, &["plan", "run", "outer.json"]).assert_fails(2, &[expected]);
        }
    }
}

#[test]
fn a_path_that_leaves_the_folder_is_found_once() {
    let plan = Workflow::new(&json!([{"id": "a", "kind": "plan", "plan": {"file": "../inner.json"}}]));
    plan.write();
    let lint = fedmill(&plan.dir, &["plan", "lint", "plan.json"]);
    assert_eq!(lint.stdout.matches("$.stages[0].plan.file (nested)").count(), 1, "{lint:#?}");
    assert_eq!(lint.stderr, "error: plan.json: 1 error in the plan\n");
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

/// A plan with a loop that tunes `rate`, inside of one that freezes `frozen`.
fn tuning(frozen: &str) -> Workflow {
    let plan = Workflow::new(&json!([{"id": "run", "kind": "plan", "plan": {"file": "inner.json"}}]))
        .with("params", json!({"rate": 1.0, "other": 1.0}))
        .with("safety", json!({"frozen": [frozen]}));
    let inner = json!({"schema": "fedmill.plan/1", "id": "inner", "params": {"rate": 1.0},
        "agents": {"measure": {"kind": "command", "argv": ["./measure.sh"]}}, "limits": {"timeout": {"run": "1m"}},
        "stages": [{"id": "s", "agent": "measure", "argv": ["--rate", "{params.rate}"],
            "out": [{"name": "m", "path": "-", "metrics": true}], "metrics": ["m"]}],
        "loops": [{"id": "l", "over": ["s"], "max_iters": 2, "tune": {"param": "/params/rate", "bounds": [0.5, 2.0],
            "every": 2, "validate": {"shadow": ["s"], "metric": "m", "replay_rounds": 2}}}]});
    plan.dir.write("inner.json", inner.to_string());
    plan.script("measure.sh", "#!/bin/sh\necho '{\"m\": 1}'\n");
    plan
}

#[test]
fn what_the_outer_plan_freezes_is_frozen_inside() {
    for frozen in ["/params/rate", "/params"] {
        let expected = format!("$.stages[0].plan.file: found loop `l`, which tunes `{frozen}`");
        tuning(frozen)
            .run()
            .assert_fails(2, &[&expected, "`safety.frozen` of a plan around it", "so nothing was run"]);
    }
    let plan = tuning("/params/other");
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    // The inner run holds the pointers of both plans, so that plans inside of it see them too.
    let kept: Value = serde_json::from_slice(&plan.dir.read("plan.run/plans/run/plan.json")).unwrap();
    assert_eq!(kept["safety"]["frozen"], json!(["/params/other"]));
}

#[test]
fn the_outer_runner_shows_the_gates_of_inner_plans() {
    let gated = json!({"schema": "fedmill.plan/1", "id": "gated", "stages": [
        {"id": "ask", "gate": {"timeout": "1s", "default": "approve", "question": "Is it good?"}}]});
    let middle = json!({"schema": "fedmill.plan/1", "id": "middle", "limits": {"timeout": {"run": "1m"}}, "stages": [
        {"id": "deep", "kind": "plan", "plan": {"file": "gated.json"}}]});
    let plan = Workflow::new(&json!([
        {"id": "near", "kind": "plan", "plan": {"file": "gated.json"}},
        {"id": "far", "kind": "plan", "plan": {"file": "middle.json"}},
    ]));
    plan.dir.write("gated.json", gated.to_string());
    plan.dir.write("middle.json", middle.to_string());
    plan.write();
    for (more, times) in [(&[][..], 1), (&["-v"], 1), (&["-q"], 1)] {
        let args = [&["plan", "run", "plan.json", "--dir", "a.run"], more].concat();
        let run = fedmill(&plan.dir, &args);
        assert_eq!(run.code, Some(0), "{run:#?}");
        for (place, answer) in [
            ("stage `near`: stage `ask` waits for an answer", "a.run/plans/near/gates/ask` lets it go on"),
            (
                "stage `far`: stage `deep`: stage `ask` waits",
                "a.run/plans/far/plans/deep/gates/ask` lets it go on",
            ),
        ] {
            assert_eq!(run.stderr.matches(place).count(), times, "{run:#?}");
            assert_eq!(run.stderr.matches(answer).count(), times, "{run:#?}");
        }
        assert_eq!(run.stderr.matches("Is it good?").count(), 2 * times, "{run:#?}");
        std::fs::remove_dir_all(plan.dir.path("a.run")).unwrap();
    }
}

#[test]
fn the_attempts_of_all_runs_share_the_places_of_the_outer_one() {
    let note = "echo +1 >> $HOME/log; sleep 0.4; echo -1 >> $HOME/log";
    let plan = Workflow::new(&json!([
        {"id": "own", "for_each": {"range": 4}, "sh": note},
        {"id": "a", "kind": "plan", "plan": {"file": "inner.json"}},
        {"id": "b", "kind": "plan", "plan": {"file": "inner.json"}},
    ]))
    .with("limits.max_parallel", json!(3));
    let inner = json!({"schema": "fedmill.plan/1", "id": "inner",
        "agents": {"shell": {"kind": "command", "argv": ["sh", "-c"]}}, "limits": {"timeout": {"run": "1m"}},
        "stages": [{"id": "s", "for_each": {"range": 4}, "agent": "shell", "argv": [note]}]});
    plan.dir.write("inner.json", inner.to_string());
    plan.write();
    let run = fedmill_after(&plan.dir, &home(&plan), &["plan", "run", "plan.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(noted(&plan.dir), (3, 12));
}

#[test]
fn the_status_of_a_run_shows_the_gates_of_its_inner_plans() {
    let gated = json!({"schema": "fedmill.plan/1", "id": "gated", "stages": [
        {"id": "ask", "gate": {"timeout": "1m", "default": "reject", "question": "Is it good?"}}]});
    let middle = json!({"schema": "fedmill.plan/1", "id": "middle", "limits": {"timeout": {"run": "1m"}}, "stages": [
        {"id": "deep", "kind": "plan", "plan": {"file": "gated.json"}}]});
    let plan = Workflow::new(&json!([
        {"id": "near", "kind": "plan", "for_each": {"range": 1}, "plan": {"file": "gated.json"}},
        {"id": "far", "kind": "plan", "plan": {"file": "middle.json"}},
    ]));
    plan.dir.write("gated.json", gated.to_string());
    plan.dir.write("middle.json", middle.to_string());
    let mut runner = start(&plan);
    let answers = ["plans/near.0/gates/ask", "plans/far/plans/deep/gates/ask"];
    let is_open = |answer: &&str| plan.dir.exists(&format!("plan.run/{answer}.question"));
    wait_until("both gates", || answers.iter().all(is_open));
    let status = || {
        let run = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    };
    let found = status();
    for (stage, answer) in found["stages"].as_array().unwrap().iter().zip(answers) {
        let gate = &stage["gates"][0];
        assert_eq!((&gate["stage"], &gate["answer"]), (&json!("ask"), &json!(answer)), "{found}");
        assert_eq!((&gate["question"], &stage["gates"][1]), (&json!("Is it good?"), &Value::Null));
    }
    let table = fedmill(&plan.dir, &["plan", "status", "plan.run"]).stdout;
    // A path may be cut at the end of a line.
    let words: String = table.split_whitespace().collect();
    for answer in answers {
        assert!(words.contains(&format!("waitsforapproveorrejectin{answer}until20")), "{table}");
    }
    assert_eq!(words.matches("asks:Isitgood?").count(), 2, "{table}");
    answers.iter().for_each(|answer| plan.dir.write(&format!("plan.run/{answer}"), "approve"));
    assert_eq!(runner.wait().unwrap().code(), Some(0));
    assert_eq!(status()["stages"][0]["gates"], Value::Null);
}

#[test]
fn a_comparison_of_plans_compares_the_plans_inside_of_them() {
    let plan = Workflow::new(&json!([
        {"id": "near", "kind": "plan", "plan": {"file": "inner.json"}},
        {"id": "far", "kind": "plan", "plan": {"file": "middle.json"}},
    ]));
    let middle = json!({"schema": "fedmill.plan/1", "id": "middle", "limits": {"timeout": {"run": "1m"}}, "stages": [
        {"id": "deep", "kind": "plan", "plan": {"file": "inner.json"}}]});
    plan.write();
    for folder in ["", "new/"] {
        plan.dir.write(&format!("{folder}plan.json"), plan.dir.read("plan.json"));
        plan.dir.write(&format!("{folder}middle.json"), middle.to_string());
        plan.dir.write(&format!("{folder}inner.json"), inner(":").to_string());
    }
    let diff = |args: &[&str]| {
        let run = fedmill(&plan.dir, &[&["plan", "diff", "plan.json", "new/plan.json"], args].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        run.stdout
    };
    assert_eq!(diff(&[]), "no difference\n");
    let mut changed = inner(":");
    changed["params"]["n"] = json!(2);
    plan.dir.write("new/inner.json", changed.to_string());
    let text = diff(&[]);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for stage in ["stages.far.stages.deep", "stages.near"] {
        assert!(words.contains(&format!("changed the plan of {stage} inner.json inner.json")), "{text}");
        assert!(words.contains(&format!("changed {stage}: params.n 1 2")), "{text}");
    }
    assert!(!words.contains("the plan of stages.far inner.json"), "{text}");
    let found: Value = serde_json::from_str(&diff(&["--json"])).unwrap();
    assert_eq!(found["changes"], json!([]));
    assert_eq!(
        found["inner"][1],
        json!({"stage": "stages.near", "kind": "changed", "from": "inner.json", "to": "inner.json",
            "changes": [{"kind": "changed", "path": "params.n", "from": 1, "to": 2}]})
    );
    // The stage that names the deepest plan is gone.
    plan.dir.write("new/inner.json", inner(":").to_string());
    plan.dir.write(
        "new/middle.json",
        json!({"schema": "fedmill.plan/1", "id": "middle", "stages": []}).to_string(),
    );
    let found: Value = serde_json::from_str(&diff(&["--json"])).unwrap();
    let removed =
        json!({"stage": "stages.far.stages.deep", "kind": "removed", "from": "inner.json", "changes": []});
    assert_eq!((&found["inner"][1], &found["inner"][2]), (&removed, &Value::Null), "{found}");
    std::fs::remove_file(plan.dir.path("new/inner.json")).unwrap();
    let text = diff(&[]);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "no difference, the plans inside of them left out the plans inside were not compared: new/plan.json: $.stages[0].plan.file:";
    assert!(words.starts_with(expected), "{text}");
}

#[test]
fn a_name_that_begins_like_that_of_a_tuned_parameter_is_another_one() {
    let lint = |name: &str| {
        let plan = Workflow::new(&json!([
            {"id": "a", "agent": "train", "argv": ["--rate", "{params.rate}"], "metrics": ["loss"],
                "out": [{"name": "m", "path": "-", "metrics": true}]},
            {"id": "sub", "kind": "plan", "needs": ["a"],
                "plan": {"file": "inner.json", "params": {"n": format!("{{params.{name}}}")}}},
        ]))
        .with("params", json!({"rate": 1.0, "rate_two": 2.0}))
        .with("agents.train", json!({"kind": "command", "argv": ["true"]}))
        .with(
            "loops",
            json!([{"id": "l", "over": ["a"], "max_iters": 3, "tune": {"param": "/params/rate", "bounds": [0.5, 2],
                "validate": {"shadow": ["a"], "metric": "loss", "minimize": true}}}]),
        );
        plan.dir.write("inner.json", inner("true").to_string());
        plan.write();
        fedmill(&plan.dir, &["plan", "lint", "plan.json"])
    };
    let run = lint("rate_two");
    assert_eq!(run.code, Some(0), "{run:#?}");
    let run = lint("rate");
    assert!(run.code == Some(2) && run.stdout.contains("found `rate`, which a loop tunes"), "{run:#?}");
}
