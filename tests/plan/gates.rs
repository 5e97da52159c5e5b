//! Gates: what a person sees, how an answer is taken, and what the run comes to.

use super::Workflow;
use super::killed::wait_until;
use super::watch::start;
use crate::harness::fedmill;
use serde_json::{Value, json};

fn plan(gate: &Value) -> Workflow {
    Workflow::new(&json!([
        {"id": "a", "gate": gate, "sh": "true"},
        {"id": "b", "needs": ["a"], "sh": "true"},
    ]))
}

#[test]
fn an_answer_is_taken_once() {
    let plan = plan(&json!({"timeout": "20s", "default": "reject"}));
    plan.dir.write("plan.run/gates/a", "reject\n");
    plan.run().assert_fails(1, &["refused: stage `a`: the answer at the gate is reject"]);
    assert!(!plan.dir.exists("plan.run/gates/a"));
    assert_eq!(plan.dir.read("plan.run/gates/a.1"), b"reject\n");
    plan.dir.write("plan.run/gates/a", "approve\n");
    let run = fedmill(&plan.dir, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(plan.states(), "a ok, b ok");
    assert_eq!(plan.dir.read("plan.run/gates/a.2"), b"approve\n");
}

#[test]
fn a_gate_without_an_answer_names_the_time_and_the_default() {
    let plan = plan(&json!({"timeout": "100ms", "default": "reject"}));
    plan.run().assert_fails(
        1,
        &["refused: stage `a`: the gate had no answer within 100ms, and its default is reject"],
    );
    assert_eq!(plan.states(), "a failed, b not run");
}

#[test]
fn a_rejected_gate_beside_a_failed_stage_is_a_failure() {
    let plan = Workflow::new(&json!([
        {"id": "a", "gate": {"timeout": "100ms", "default": "reject"}, "sh": "true"},
        {"id": "b", "sh": "exit 3"},
    ]))
    .with("limits.on_failure", json!("keep_going"));
    plan.run().assert_fails(2, &["stage `b`: exited with status 3"]);
}

#[test]
fn a_person_sees_the_question_and_where_to_answer_it() {
    let plan = plan(&json!({"timeout": "30s", "default": "reject", "question": "Is the model good?"}));
    let mut runner = start(&plan);
    wait_until("the gate", || plan.dir.exists("plan.run/gates/a.question"));
    let question = String::from_utf8(plan.dir.read("plan.run/gates/a.question")).unwrap();
    assert!(question.contains("until 20") && question.contains(": Is the model good?\n"), "{question}");
    let status = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["stages"][0]["question"], "Is the model good?", "{status}");
    let table = fedmill(&plan.dir, &["plan", "status", "plan.run"]).stdout;
    let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(table.contains("asks: Is the model good?"), "{table}");
    let history = fedmill(&plan.dir, &["plan", "history", "plan.run"]).stdout;
    assert!(history.contains("Is the model good?"), "{history}");
    // The command that the file names.
    let answer = question.lines().nth(1).unwrap().split('`').nth(1).unwrap().to_owned();
    assert!(answer.starts_with("echo approve > /"), "{question}");
    assert!(std::process::Command::new("sh").args(["-c", &answer]).status().unwrap().success());
    assert_eq!(runner.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_no_answer_is_named_and_the_gate_goes_on_waiting() {
    let plan = plan(&json!({"timeout": "1s", "default": "approve", "question": "Go on?"}));
    plan.dir.write("plan.run/gates/a", "yes\n");
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(
        run.stderr.contains("plan.run/gates/a: found `yes`, which is no answer: expected approve or reject")
    );
    assert_eq!(run.stderr.matches("which is no answer").count(), 1, "{run:#?}");
    assert!(run.stderr.contains("stage `a` waits for an answer until "), "{run:#?}");
    assert!(
        run.stderr.contains("Go on?") && run.stderr.contains("without an answer it is approve"),
        "{run:#?}"
    );
}

#[test]
fn the_question_stands_once_in_quiet_runs_too() {
    for (option, times) in [("-v", 1), ("-q", 1)] {
        let plan = plan(&json!({"timeout": "1s", "default": "approve", "question": "Go on?"}));
        plan.write();
        let run = fedmill(&plan.dir, &["plan", "run", option, "plan.json"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        assert_eq!(run.stderr.matches("stage `a` waits for an answer until ").count(), times, "{run:#?}");
        assert_eq!(run.stderr.matches("Go on?").count(), times, "{run:#?}");
    }
}
