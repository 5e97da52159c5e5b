//! What others put in the way of a run: links, pipes and devices in place of files.
//!
//! Conditions and loops may cost too much, too. No run may wait for them without end, and none reads what its plan may not name.

use super::Workflow;
use super::killed::is_alive;
use crate::harness::{Run, fedmill, fedmill_after};
use serde_json::json;
use std::os::unix::fs::symlink;

/// Writes a plan, and runs it after a line of shell.
fn run_after(plan: &Workflow, setup: &str) -> Run {
    plan.write();
    fedmill_after(&plan.dir, setup, &["plan", "run", "plan.json"])
}

#[test]
fn an_input_lies_in_the_folder_of_the_plan_whatever_its_links() {
    let copy = json!([{"id": "copy", "agent": "shell", "argv": ["cat \"$@\"", "sh", "{in.i}"], "out": [{"name": "o", "path": "-"}]}]);
    let with = |key: &str, value: &str| {
        let plan = Workflow::new(&copy).with("inputs", json!([{"name": "i", key: value}]));
        plan.dir.write("outside/secret", "s\n");
        plan.dir.write("plan/inside", "i\n");
        plan
    };
    let run_in = |plan: &Workflow, more: &[&str]| {
        plan.write();
        std::fs::rename(plan.dir.path("plan.json"), plan.dir.path("plan/plan.json")).unwrap();
        fedmill(&plan.dir, &[&["plan", "run", "plan/plan.json", "--dir", "plan.run"], more].concat())
    };
    for (key, value, link, target) in [
        ("path", "l", "plan/l", "../outside/secret"),
        ("path", "l", "plan/l", "/proc/self/environ"),
        ("path", "l", "plan/l", "../outside"),
        ("path", "l/secret", "plan/l", "../outside"),
        ("glob", "*.x", "plan/l.x", "../outside/secret"),
        ("glob", "l/*", "plan/l", "../outside"),
    ] {
        let plan = with(key, value);
        symlink(target, plan.dir.path(link)).unwrap();
        let run = run_in(&plan, &[]);
        run.assert_fails(2, &["input `i`: ", "leads to ", "expected a file inside of the plan's folder"]);
        assert!(!plan.dir.exists("plan.run/out"), "{value}");
    }
    // A link that stays inside, and files that the operator names.
    let plan = with("path", "l");
    symlink("inside", plan.dir.path("plan/l")).unwrap();
    assert_eq!(run_in(&plan, &[]).code, Some(0));
    assert_eq!(plan.output("copy/o"), "i\n");
    let plan = with("path", "l");
    assert_eq!(run_in(&plan, &["--input", "i=outside/secret"]).code, Some(0));
    assert_eq!(plan.output("copy/o"), "s\n");
    // No program reads a pipe or a device to its end.
    for named in ["i=/dev/zero", "i=pipe"] {
        let plan = with("path", "l");
        assert_eq!(fedmill_after(&plan.dir, "mkfifo pipe", &["--version"]).code, Some(0));
        run_in(&plan, &["--input", named]).assert_fails(2, &["not a regular file"]);
    }
}

#[test]
fn an_output_is_a_regular_file() {
    for (command, expected) in [
        ("mkfifo {out.m}", "not a regular file"),
        ("ln -s /dev/zero {out.m}", "not a regular file"),
        ("mkdir {out.m}", "not a regular file"),
        ("truncate -s 3G {out.m}", "expected at most 67108864"),
        ("echo '{{\"a\": 1, \"a\": 2}}' > {out.m}", "found the key `a` twice"),
    ] {
        let out = json!([{"name": "m", "path": "m.json", "metrics": true}]);
        let plan = Workflow::new(&json!([{"id": "a", "sh": command, "out": out}]));
        plan.run().assert_fails(2, &["output `m`, m.json: ", expected]);
    }
    // A pipe in place of the log does not stop the next attempt.
    let plan = Workflow::new(
        &json!([{"id": "a", "sh": "echo x; rm ../stdout ../stderr; mkfifo ../stdout ../stderr; exit 3",
        "retry": {"max_attempts": 2, "backoff": {"initial": "1ms"}}, "out": [{"name": "o", "path": "-"}]}]),
    );
    plan.run().assert_fails(2, &["stage `a`"]);
}

#[test]
fn a_ballot_with_a_key_twice_is_an_abstention() {
    let ballot = |text: &str| json!({"kind": "command", "argv": ["echo", text], "capabilities": ["vote"], "score": 0.9});
    let vote = json!({"capability": "vote", "options": ["yes", "no"], "quorum": 0.9, "weight_cap": 0.5});
    let plan = Workflow::new(&json!([{"id": "v", "consensus": vote}]))
        .with("agents.one", ballot("{\"option\": \"yes\"}"))
        .with("agents.two", ballot("{\"option\": \"no\", \"option\": \"yes\"}"));
    plan.run().assert_fails(2, &["no consensus: those who answered carry 0.5 of all weight"]);
}

#[test]
fn a_loop_of_skipped_stages_heeds_limits_signals_and_the_kill_file() {
    let plan = |wall: &str| {
        Workflow::new(&json!([{"id": "s", "sh": "true", "when": "false"}]))
            .with("loops", json!([{"id": "l", "over": ["s"], "max_iters": u32::MAX, "until": "1 > 2"}]))
            .with("limits.wall", json!(wall))
    };
    run_after(&plan("500ms"), "true").assert_fails(1, &["limits.wall"]);
    run_after(&plan("10m"), "{ (sleep 1; touch plan.run/STOP) > log 2>&1 & }")
        .assert_fails(1, &["STOP exists"]);
    let run = run_after(&plan("10m"), "{ (sleep 1; kill -TERM $$) > log 2>&1 & }");
    assert_eq!(run.code, Some(143), "{run:#?}");
}

#[test]
fn a_gate_ends_at_its_timeout_whatever_stands_in_place_of_the_answer() {
    for setup in [
        "mkfifo plan.run/gates/g",
        "truncate -s 3G plan.run/gates/g",
        "ln -s /dev/zero plan.run/gates/g",
        "mkdir plan.run/gates/g",
        "printf '\\377' > plan.run/gates/g",
    ] {
        let gate = json!({"timeout": "500ms", "default": "reject"});
        let plan = Workflow::new(&json!([{"id": "g", "gate": gate}]));
        let run = run_after(&plan, &format!("mkdir -p plan.run/gates && {setup}"));
        run.assert_fails(1, &["the gate had no answer within 500ms, and its default is reject"]);
    }
}

#[test]
fn a_pipe_in_the_directory_of_a_run_is_an_error() {
    for file in ["events.jsonl", "receipts/a.json", "lock", "inputs"] {
        let plan = Workflow::new(&json!([{"id": "a", "sh": "kill -9 $PPID", "side_effects": "idempotent"}]));
        plan.run();
        let setup = format!("rm -f plan.run/{file} && mkdir -p plan.run/receipts && mkfifo plan.run/{file}");
        let run = fedmill_after(&plan.dir, &setup, &["plan", "resume", "plan.run"]);
        run.assert_fails(2, &[file, "not a regular file"]);
    }
}

#[test]
fn a_plan_has_a_most_of_instances() {
    let fan = |range: u32| {
        json!([{"id": "a", "sh": "true"}, {"id": "b", "sh": "true", "for_each": {"range": range}},
        {"id": "c", "sh": "true", "for_each": {"values": [1, 2]}}])
    };
    let plan = Workflow::new(&fan(99_999));
    let expected =
        "$.stages[2].for_each: with the stages before it, found 100001 instances, expected at most 100000";
    plan.run().assert_fails(2, &[expected]);
    let plan = Workflow::new(&fan(99_998));
    plan.write();
    assert_eq!(fedmill(&plan.dir, &["plan", "lint", "plan.json"]).code, Some(0));
}

#[test]
fn a_condition_that_costs_too_much_is_refused() {
    let list = "[1,1,1,1,1,1,1,1,1,1]";
    let all =
        |depth: usize| (0..depth).fold("true".to_owned(), |inner, at| format!("{list}.all(x{at}, {inner})"));
    let map = format!("['{}']{} == []", "a".repeat(300), ".map(x, x + x + x + x)".repeat(11));
    for (condition, expected) in [
        (all(8), "steps on these lists, expected at most 10000000"),
        (map, "steps on these lists, expected at most 10000000"),
    ] {
        let plan = Workflow::new(&json!([{"id": "a", "sh": "true", "when": condition}]));
        plan.run().assert_fails(2, &["$.stages[0].when: ", expected]);
    }
}

#[test]
fn a_process_that_leaves_its_group_ends_with_its_stage() {
    let command = "setsid sh -c 'echo $$ > $HOME/child; exec sleep 300' & sleep 300";
    let plan =
        Workflow::new(&json!([{"id": "a", "sh": command, "timeout": {"run": "1s", "kill_after": "200ms"}},
        {"id": "b", "sh": "setsid sleep 0.1 & true"}]))
        .with("limits.on_failure", json!("keep_going"));
    plan.write();
    let home = format!("export HOME={}", plan.dir.path("").display());
    fedmill_after(&plan.dir, &home, &["plan", "run", "plan.json"]).assert_fails(2, &["took longer than 1 s"]);
    let child = String::from_utf8(plan.dir.read("child")).unwrap();
    assert!(!is_alive(&child), "the child outlives the timeout");
    assert_eq!(plan.states(), "a timeout, b ok");
}

#[test]
fn a_runner_that_ends_by_an_error_ends_its_commands() {
    let plan = Workflow::new(&json!([
        {"id": "long", "sh": "trap '' TERM; echo $$ > $HOME/child; while :; do sleep 0.1; done"},
        {"id": "b", "sh": "until test -s $HOME/child; do sleep 0.1; done; rm -rf $FEDMILL_RUN_DIR/receipts; \
            echo > $FEDMILL_RUN_DIR/receipts"},
    ]));
    plan.write();
    let home = format!("export HOME={}", plan.dir.path("").display());
    let run = fedmill_after(&plan.dir, &home, &["plan", "run", "plan.json"]);
    run.assert_fails(2, &["plan.run/receipts/b.json: cannot be written"]);
    let child = String::from_utf8(plan.dir.read("child")).unwrap();
    assert!(!is_alive(&child), "the command outlives its runner");
    std::fs::remove_file(plan.dir.path("plan.run/receipts")).unwrap();
    assert_eq!(plan.states(), "long interrupted, b interrupted");
}

#[test]
fn a_failure_says_what_its_command_printed() {
    let plan = Workflow::new(
        &json!([{"id": "a", "sh": "test {index} -eq 0 || {{ seq 9 >&2; printf 'no \\033 space\\n' >&2; exit 2; }}",
        "for_each": {"range": 2}}]),
    );
    let run = plan.run();
    run.assert_fails(
        2,
        &[
            "stage `a`: 1 of 2 instances failed: a.1 (exited with status 2)",
            "plan.run/attempts/a.1/stderr ends with:",
            "  9\n",
            "  no \\u{1b} space\n",
        ],
    );
    assert!(!run.stderr.contains("  5\n"), "{}", run.stderr);
}
