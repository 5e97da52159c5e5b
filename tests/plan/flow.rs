//! What runs, in which order, and with which files: needs, decisions, loops, failures, retries.

use super::Workflow;
use crate::harness::fedmill;
use serde_json::json;

#[test]
fn files_flow_from_stage_to_stage() {
    let plan = Workflow::new(&json!([
        {"id": "make", "sh": "printf %s {item} > {out.part}", "for_each": {"values": ["a", "b", "c"]},
         "out": [{"name": "part", "path": "part-{index}.txt"}]},
        {"id": "join", "needs": ["make"], "agent": "shell", "argv": ["cat \"$@\"", "sh", "{make.part}"],
         "out": [{"name": "all", "path": "-"}]},
    ]));
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(run.stdout, "plan.run/out/join/all\n");
    assert_eq!(plan.output("join/all"), "abc");
    assert_eq!(plan.states(), "make ok, join ok");
    // A run that is over does nothing again.
    let before = plan.dir.read("plan.run/events.jsonl");
    assert_eq!(plan.run().code, Some(0));
    assert_eq!(plan.dir.read("plan.run/events.jsonl"), before);
}

#[test]
fn a_decision_leaves_the_other_branch_out() {
    let stages = json!([
        {"id": "measure", "sh": "echo '{{\"acc\": 0.7, \"text\": \"x\"}}'", "metrics": ["acc"],
         "out": [{"name": "m", "path": "-", "metrics": true}]},
        {"id": "choose", "kind": "decide", "needs": ["measure"], "metrics": ["acc"],
         "cases": [{"if": "metrics.acc < params.low", "to": "robust"}], "else": "plain"},
        {"id": "krum", "branch": "robust", "needs": ["choose"], "sh": "echo krum", "out": [{"name": "o", "path": "-"}]},
        {"id": "mean", "branch": "plain", "needs": ["choose"], "sh": "echo mean", "out": [{"name": "o", "path": "-"}]},
        {"id": "end", "needs": ["krum", "mean"], "agent": "shell", "argv": ["cat $0", "{krum.o|mean.o}"],
         "out": [{"name": "o", "path": "-"}]},
    ]);
    for (low, states, text) in [
        (0.8, "measure ok, choose ok, krum ok, mean skipped, end ok", "krum\n"),
        (0.5, "measure ok, choose ok, krum skipped, mean ok, end ok", "mean\n"),
    ] {
        let plan = Workflow::new(&stages).with("params", json!({"low": low}));
        assert_eq!(plan.run().code, Some(0));
        assert_eq!((plan.states().as_str(), plan.output("end/o").as_str()), (states, text));
    }
}

#[test]
fn a_loop_carries_a_file_until_its_condition_holds() {
    let plan = Workflow::new(&json!([
        {"id": "step", "agent": "shell", "argv": ["n=$(cat $0); echo $((n + 2)) | tee {out.n} | sed 's/.*/{{\"n\": &}}/'", "{carry.n}"],
         "out": [{"name": "n", "path": "n.txt"}, {"name": "m", "path": "-", "metrics": true}], "metrics": ["n"]},
        {"id": "after", "needs": ["step"], "agent": "shell", "argv": ["cat $0", "{step.n}"], "out": [{"name": "o", "path": "-"}]},
    ]))
    .with("inputs", json!([{"name": "start", "path": "start.txt"}]))
    .with(
        "loops",
        json!([{"id": "rounds", "over": ["step"], "carry": {"n": {"from": "step.n", "init": "start"}},
            "until": "metrics.n >= 6.0 && history.n.all(x, x < 6.0)", "max_iters": 10}]),
    );
    plan.dir.write("start.txt", "1\n");
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(plan.states(), "step@1 ok, step@2 ok, step@3 ok, after ok");
    assert_eq!(plan.output("after/o"), "7\n");
}

#[test]
fn a_failure_blocks_what_needs_it() {
    let stages = json!([
        {"id": "a", "sh": "exit 3"},
        {"id": "b", "needs": ["a"], "sh": "true"},
        {"id": "c", "sh": "sleep 0.3"},
        {"id": "d", "needs": ["c"], "sh": "true"},
        {"id": "told", "sh": "echo failed", "out": [{"name": "o", "path": "-"}]},
        {"id": "last", "sh": "true"},
    ]);
    let on = json!({"failure": ["told"], "exit": ["last"]});
    for (mode, states) in [
        ("keep_going", "a failed, b blocked, c ok, d ok, told ok, last ok"),
        ("finish_running", "a failed, b not run, c ok, d not run, told ok, last ok"),
        ("fail_fast", "a failed, b not run, c cancelled, d not run, told ok, last ok"),
    ] {
        let plan = Workflow::new(&stages).with("limits.on_failure", json!(mode)).with("on", on.clone());
        let run = plan.run();
        run.assert_fails(2, &["stage `a`: exited with status 3", "fedmill plan status plan.run"]);
        assert_eq!(plan.states(), states, "{mode}");
    }
}

#[test]
fn a_stage_may_wait_for_a_failure() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "exit 1"},
        {"id": "mend", "depends": "stages.a.failed", "sh": "true"},
        {"id": "cheer", "depends": "stages.a.ok", "sh": "true"},
    ]));
    assert_eq!(plan.run().code, Some(0));
    assert_eq!(plan.states(), "a failed, mend ok, cheer skipped");
}

#[test]
fn attempts_are_made_again_as_the_plan_says() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "test $FEDMILL_ATTEMPT = 3 || exit 75",
         "retry": {"max_attempts": 3, "on": ["exit:75"], "backoff": {"initial": "10ms", "factor": 1.0}}},
        {"id": "b", "sh": "exit 74", "retry": {"max_attempts": 3, "on": ["exit:75"]}},
    ]))
    .with("limits.on_failure", json!("keep_going"));
    plan.run().assert_fails(2, &["stage `b`: exited with status 74"]);
    assert_eq!(plan.states(), "a ok, b failed");
}

#[test]
fn a_retry_goes_to_an_agent_that_has_not_failed() {
    let stage = json!([{"id": "a", "needs_capability": ["work"], "argv": [],
        "retry": {"max_attempts": 5, "backoff": {"initial": "10ms"}}}]);
    let agent = |score: f64, script: &str| json!({"kind": "command", "argv": ["sh", "-c", script], "capabilities": ["work"], "score": score});
    let tried = |last: &str, code: i32| {
        let agents =
            json!({"best": agent(0.9, "exit 1"), "second": agent(0.5, "exit 1"), "third": agent(0.1, last)});
        let plan = Workflow::new(&stage).with("agents", agents);
        assert_eq!(plan.run().code, Some(code));
        let events = String::from_utf8(plan.dir.read("plan.run/events.jsonl")).unwrap();
        let agents =
            events.split("\"agent\":\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        agents.collect::<Vec<_>>()
    };
    assert_eq!(tried("true", 0), ["best", "second", "third"]);
    // Where all failed, the best begins again.
    assert_eq!(tried("exit 1", 2), ["best", "second", "third", "best", "second"]);
}

#[test]
fn an_attempt_that_takes_too_long_is_ended_with_its_children() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "sh -c 'sleep 97' & wait", "timeout": {"run": "200ms", "kill_after": "1s"}},
        {"id": "b", "sh": "trap '' TERM; while :; do sleep 0.1; done", "timeout": {"run": "200ms", "kill_after": "300ms"}},
        {"id": "c", "sh": "sleep 5", "timeout": {"run": "20s", "idle": "200ms"}},
    ]))
    .with("limits.on_failure", json!("keep_going"));
    plan.run()
        .assert_fails(2, &["stage `a`: took longer than 0.2 s", "stage `c`: printed nothing for 0.2 s"]);
    assert_eq!(plan.states(), "a timeout, b timeout, c timeout");
}

#[test]
fn an_output_must_be_a_file_of_the_attempt() {
    for (command, path, expected) in [
        ("true", "x", "output `o`, x: the command did not make it"),
        ("ln -s /etc/passwd x", "x", "output `o`, x: not a regular file"),
        ("rmdir d; ln -s /etc d", "d/passwd", "d is no folder, or a link to one"),
        ("mkdir x", "x", "output `o`, x: not a regular file"),
        ("true", "../x", "found path `../x`, expected one inside of the folder"),
        ("true", "/etc/passwd", "expected one inside of the folder"),
    ] {
        let plan = Workflow::new(&json!([{"id": "a", "sh": command, "out": [{"name": "o", "path": path}]}]));
        plan.run().assert_fails(2, &[expected]);
    }
}

#[test]
fn a_command_inherits_no_secret() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "env", "out": [{"name": "o", "path": "-"}]}]));
    plan.write();
    let run = crate::harness::fedmill_after(
        &plan.dir,
        "export SECRET_TOKEN=hunter2",
        &["plan", "run", "plan.json"],
    );
    assert_eq!(run.code, Some(0), "{run:#?}");
    let found = plan.output("a/o");
    assert!(found.contains("FEDMILL_STAGE=a") && !found.contains("hunter2"), "{found}");
}

#[test]
fn a_loop_that_ends_without_its_condition_fails_unless_the_plan_says_otherwise() {
    let stages = json!([{"id": "step", "sh": "echo '{{\"n\": 1}}'", "metrics": ["n"],
        "out": [{"name": "m", "path": "-", "metrics": true}]}]);
    let plan = |more: serde_json::Value| {
        let mut looped = json!({"id": "l", "over": ["step"], "max_iters": 2});
        looped.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Workflow::new(&stages).with("loops", json!([looped]))
    };
    let failing = plan(json!({"until": "metrics.n > 1.0"}));
    failing
        .run()
        .assert_fails(2, &["loop `l` ended without its condition: `until` held in none of 2 iterations"]);
    let going_on = plan(json!({"until": "metrics.n > 1.0", "on_exhausted": "continue"}));
    let run = going_on.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.contains("loop `l` ended without its condition"), "{run:#?}");
    let told = |plan: &Workflow, command: &str| {
        let run = crate::harness::fedmill(&plan.dir, &["plan", command, "plan.run"]);
        let words: Vec<&str> = run.stdout.split_whitespace().collect();
        words.join(" ").contains("ended without its condition")
    };
    for (plan, expected) in [
        (&failing, true),
        (&going_on, true),
        (&plan(json!({"until": "metrics.n >= 1.0"})), false),
        (&plan(json!({})), false),
    ] {
        plan.run();
        assert_eq!((told(plan, "status"), told(plan, "history")), (expected, expected));
    }
}

/// A loop that fails at its second iteration beside stages that do not need it; the condition is `until`.
fn failing_loop(until: &str) -> Workflow {
    let measures = json!([{"name": "m", "path": "-", "metrics": true}]);
    Workflow::new(&json!([
        {"id": "step", "sh": "echo '{{\"n\": 1}}'", "metrics": ["n"], "out": measures},
        {"id": "behind", "needs": ["step"], "sh": "true"},
        {"id": "sees", "depends": "stages.step.ok", "sh": "true"},
        {"id": "slow", "sh": "sleep 1"},
        {"id": "other", "needs": ["slow"], "sh": "true"},
        {"id": "told", "sh": "true"},
    ]))
    .with("on", json!({"failure": ["told"]}))
    .with("loops", json!([{"id": "l", "over": ["step"], "max_iters": 2, "until": until}]))
}

#[test]
fn a_loop_that_fails_is_a_failure_like_that_of_a_stage() {
    let why = "loop `l` ended without its condition: `until` held in none of 2 iterations";
    let steps = "step@1 ok, step@2 ok";
    for (mode, states) in [
        ("keep_going", "behind blocked, sees ok, slow ok, other ok, told ok"),
        ("finish_running", "behind not run, sees not run, slow ok, other not run, told ok"),
        ("fail_fast", "behind not run, sees not run, slow cancelled, other not run, told ok"),
    ] {
        let plan = failing_loop("metrics.n > 1.0").with("limits.on_failure", json!(mode));
        plan.run().assert_fails(2, &[why]);
        assert_eq!(plan.states(), format!("{steps}, {states}"), "{mode}");
        // The loop is over: what waited for it is blocked, and the rest has another chance.
        let run = crate::harness::fedmill(&plan.dir, &["plan", "resume", "plan.run"]);
        run.assert_fails(2, &[why]);
        let states = "behind blocked, sees ok, slow ok, other ok, told ok";
        assert_eq!(plan.states(), format!("{steps}, {states}"), "{mode}");
    }
    let plan = failing_loop("metrics.n > 1.0")
        .with("limits.on_failure", json!("keep_going"))
        .with("limits.max_failed", json!(1));
    plan.run().assert_fails(2, &[why]);
    assert_eq!(
        plan.states(),
        format!("{steps}, behind not run, sees not run, slow ok, other not run, told ok")
    );
    let plan = failing_loop("1 / (iteration.k - 1) == 5").with("limits.on_failure", json!("keep_going"));
    plan.run().assert_fails(2, &["loop `l` ended since `until` has no value: "]);
    assert_eq!(plan.states(), "step@1 ok, behind blocked, sees ok, slow ok, other ok, told ok");
    let status = crate::harness::fedmill(&plan.dir, &["plan", "status", "plan.run"]).stdout;
    assert!(status.contains("loop l ended since `until` has no value"), "{status}");
}

#[test]
fn a_loop_in_the_middle_of_its_iterations_goes_on_after_a_failure_elsewhere() {
    let plan = Workflow::new(&json!([
        {"id": "step", "sh": "test -e ../../../../mended || sleep 1"},
        {"id": "behind", "needs": ["step"], "sh": "true"},
        {"id": "bad", "sh": "test -e ../../../../mended"},
    ]))
    .with("loops", json!([{"id": "l", "over": ["step"], "max_iters": 3}]));
    plan.run().assert_fails(2, &["stage `bad`: exited with status 1"]);
    assert_eq!(plan.states(), "step@1 ok, behind not run, bad failed");
    plan.dir.write("mended", "");
    let run = crate::harness::fedmill(&plan.dir, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(plan.states(), "step@1 ok, step@2 ok, step@3 ok, behind ok, bad ok");
}

#[test]
fn the_kill_file_and_invariants_end_a_run() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "sleep 60"}]));
    plan.dir.write("plan.run/STOP", "");
    plan.run().assert_fails(1, &["refused: the file STOP exists"]);
    let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}]))
        .with("params", json!({"f": 3, "n": 10}))
        .with("safety", json!({"invariants": ["params.n >= 4 * params.f + 3"]}));
    plan.run().assert_fails(
        1,
        &["refused: the invariant `params.n >= 4 * params.f + 3` does not hold before stage `a`"],
    );
    assert_eq!(plan.states(), "a not run");
}

#[test]
fn equal_work_is_done_once() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "date +%N", "cache": "content", "out": [{"name": "o", "path": "-"}]},
    ]))
    .with("loops", json!([{"id": "l", "over": ["a"], "max_iters": 3}]));
    assert_eq!(plan.run().code, Some(0));
    assert_eq!(plan.output("a@1/o"), plan.output("a@3/o"));
}

#[test]
fn an_input_that_changed_is_refused() {
    let stages = json!([{"id": "a", "sh": "exit 1"}]);
    let plan = Workflow::new(&stages).with("inputs", json!([{"name": "x", "glob": "in/*.txt", "min": 2}]));
    plan.dir.write("in/a.txt", "1");
    plan.run().assert_fails(2, &["input `x`: found 1 files of in/*.txt in "]);
    plan.dir.write("in/b.txt", "1");
    plan.run().assert_fails(2, &["stage `a`"]);
    plan.dir.write("in/b.txt", "2");
    plan.run().assert_fails(2, &["input `x`: ", "in/b.txt: changed since the run started"]);
    let other = Workflow::new(&stages).with("inputs", json!([{"name": "x", "path": "../secret"}]));
    other.run().assert_fails(
        2,
        &["$.inputs[0].path: found `../secret`, expected a path inside of the plan's folder"],
    );
}

#[test]
fn a_stage_that_a_failure_left_out_runs_once_it_is_mended() {
    let plan = Workflow::new(&json!([
        {"id": "b", "sh": "test -e $FEDMILL_PLAN_DIR/mended"},
        {"id": "m", "needs": ["b"], "sh": "true"},
        {"id": "choose", "kind": "decide", "depends": "stages.m.ok || stages.m.blocked",
         "cases": [{"if": "stages.m.ok", "to": "good"}], "else": "bad"},
        {"id": "publish", "branch": "good", "needs": ["choose"], "sh": "true"},
        {"id": "alarm", "depends": "stages.m.blocked", "sh": "true"},
    ]))
    .with("limits.on_failure", json!("keep_going"));
    plan.run().assert_fails(2, &["stage `b`"]);
    assert_eq!(plan.states(), "b failed, m blocked, choose ok, publish skipped, alarm ok");
    plan.dir.write("mended", "");
    let run = fedmill(&plan.dir, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    // What the alarm did stays done.
    assert_eq!(plan.states(), "b ok, m ok, choose ok, publish ok, alarm ok");
}

#[test]
fn what_stands_behind_a_loop_waits_until_the_loop_comes_to_its_end() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo '{{\"n\": {k}}}'", "out": [{"name": "m", "path": "-", "metrics": true}], "metrics": ["n"]},
        {"id": "b", "needs": ["a"], "sh": "test {k} -ne 2 || test -e $FEDMILL_PLAN_DIR/mended"},
        {"id": "choose", "kind": "decide", "needs": ["a"], "cases": [{"if": "metrics.n >= 3.0", "to": "good"}], "else": "bad"},
        {"id": "good", "branch": "good", "needs": ["choose"], "agent": "shell", "argv": ["cat $0", "{a.m}"],
         "out": [{"name": "o", "path": "-"}]},
    ]))
    .with("limits.on_failure", json!("keep_going"))
    .with("loops", json!([{"id": "l", "over": ["a", "b"], "max_iters": 3}]));
    plan.run().assert_fails(2, &["stage `b@2`: exited with status 1"]);
    let states = "a@1 ok, b@1 ok, a@2 ok, b@2 failed, choose blocked, good blocked";
    let sorted = |states: &str| {
        let mut states: Vec<String> = states.split(", ").map(str::to_owned).collect();
        states.sort();
        states
    };
    assert_eq!(sorted(&plan.states()), sorted(states));
    let status = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]).stdout;
    assert!(status.contains("needs `a` of loop `l`, which ended early: `b@2` did not succeed"), "{status}");
    plan.dir.write("mended", "");
    let run = fedmill(&plan.dir, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(plan.output("good/o"), "{\"n\": 3}\n");
}

#[test]
fn a_task_that_a_failure_left_out_runs_once_it_is_mended() {
    let plan = Workflow::new(&json!([
        {"id": "b", "sh": "test -e $FEDMILL_PLAN_DIR/mended"},
        {"id": "m", "needs": ["b"], "sh": "true"},
        {"id": "publish", "depends": "stages.m.ok", "sh": "echo published >> $FEDMILL_PLAN_DIR/log"},
    ]))
    .with("limits.on_failure", json!("keep_going"));
    plan.write();
    let fedmill = |args: &[&str]| fedmill(&plan.dir, &[&["plan"], args].concat());
    assert_eq!(fedmill(&["render", "plan.json", "--target", "slurm", "-o", "r"]).code, Some(0));
    assert_eq!(fedmill(&["task", "r", "b"]).code, Some(2));
    assert_eq!(fedmill(&["task", "r", "publish"]).code, Some(0));
    assert!(!plan.dir.exists("log"));
    plan.dir.write("mended", "");
    for task in ["b", "m", "publish", "publish"] {
        let run = fedmill(&["task", "r", task]);
        assert_eq!(run.code, Some(0), "{task}: {run:#?}");
    }
    assert_eq!(plan.dir.read("log"), b"published\n");
}
