//! Programs and scripts beside the plan, and agents that get work.

use super::Workflow;
use super::new::{make, round};
use crate::harness::{Dir, Update, fedmill, source_tree};
use serde_json::{Value, json};

fn script(dir: &Dir, name: &str, text: &str) {
    dir.write(name, format!("#!/bin/sh\n{text}\n"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(name), mode).unwrap();
}

#[test]
fn the_first_example_of_the_page_runs_as_it_is_printed() {
    let Some(root) = source_tree() else { return };
    let page = std::fs::read_to_string(root.join("docs/plans.md")).unwrap();
    let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    for (accuracy, states) in [
        (0.7, "mean ok, measure ok, choose ok, krum ok"),
        (0.9, "mean ok, measure ok, choose ok, krum skipped"),
    ] {
        let dir = Dir::new();
        for client in 0..11_i16 {
            Update::new(&format!("p/in/c{client}")).f32("w", &[2], &[f32::from(client), 1.0]).write(&dir);
        }
        dir.write("p/plan.json", example);
        script(&dir, "p/eval.sh", &format!("test -s \"$1\" && echo '{{\"acc\": {accuracy}}}'"));
        let run = fedmill(&dir, &["plan", "run", "p/plan.json"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let run = fedmill(&dir, &["plan", "status", "--json", "p/plan.run"]);
        let status: Value = serde_json::from_str(&run.stdout).unwrap();
        let stages = status["stages"].as_array().unwrap().iter();
        let found: Vec<String> = stages
            .map(|stage| format!("{} {}", stage["name"].as_str().unwrap(), stage["state"].as_str().unwrap()))
            .collect();
        assert_eq!(found.join(", "), states);
    }
}

#[test]
fn a_program_that_is_not_there_is_an_error_before_the_run() {
    let plan = |program: &str| {
        Workflow::new(&json!([{"id": "a", "agent": "tool"}]))
            .with("agents.tool", json!({"kind": "command", "argv": [program]}))
    };
    for (program, expected) in [
        ("./eval.sh", "found `./eval.sh`, expected a program: ./eval.sh is not there"),
        ("../eval.sh", "found `../eval.sh`, expected a program below the plan's folder"),
        ("/no/such/program", "found `/no/such/program`, expected a program"),
    ] {
        plan(program).run().assert_fails(2, &["$.agents.tool.argv[0]", expected]);
    }
    let missing = plan("no-such-program");
    missing.write();
    let run = fedmill(&missing.dir, &["plan", "lint", "plan.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("warning: $.agents.tool.argv[0] (installed)"), "{run:#?}");
    // With the script there the plan runs, wherever the runner was started.
    let there = plan("./tools/eval.sh");
    there.write();
    script(&there.dir, "tools/eval.sh", "pwd");
    let run = fedmill(&there.dir, &["plan", "lint", "plan.json"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "no finding\n"));
    let path = there.dir.path("plan.json");
    let elsewhere = Dir::new();
    let run = fedmill(&elsewhere, &["plan", "run", path.to_str().unwrap()]);
    assert_eq!(run.code, Some(0), "{run:#?}");
}

#[test]
fn scripts_are_arguments_by_the_folder_of_the_plan() {
    let plan = Workflow::new(&json!([{"id": "a", "agent": "sh", "argv": ["{plan.dir}/say.sh", "x"],
        "out": [{"name": "o", "path": "-"}]}]))
    .with("agents.sh", json!({"kind": "command", "argv": ["sh"]}));
    plan.dir.write("say.sh", "echo \"$1 $FEDMILL_PLAN_DIR\"");
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let folder = plan.dir.path("").canonicalize().unwrap();
    let found = plan.output("a/o");
    let found = found.trim_end().strip_prefix("x ").unwrap();
    assert_eq!(std::path::Path::new(found).canonicalize().unwrap(), folder);
}

#[test]
fn commands_of_templates_run_in_the_folder_of_the_plan() {
    let dir = round();
    dir.write("tools/loss.sh", "test \"$1\" = --json && test -s \"$2\" && echo '{\"loss\": 0.5}'");
    make(&dir, "round", &["updates=in", "base=base.safetensors", "evaluate=sh tools/loss.sh --json"]);
    let run = fedmill(&dir, &["plan", "run", "p.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");

    script(&dir, "agent.sh", "case $1 in vote) echo '{\"option\": \"p1\"}';; *) echo proposal;; esac");
    make(&dir, "swarm", &["goal=g", "capability=c", "command=./agent.sh", "rounds=1"]);
    std::fs::remove_dir_all(dir.path("p.run")).unwrap();
    let run = fedmill(&dir, &["plan", "run", "p.json"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "p.run/out/take_1/proposal\n"), "{run:#?}");

    dir.write("draft.txt", "x");
    script(&dir, "better.sh", "cat \"$1\" > \"$2\"; printf x >> \"$2\"");
    script(&dir, "judge.sh", "test -s \"$1\" && echo '{\"score\": 1}'");
    make(&dir, "refine", &["start=draft.txt", "propose=./better.sh", "review=./judge.sh"]);
    std::fs::remove_dir_all(dir.path("p.run")).unwrap();
    let run = fedmill(&dir, &["plan", "run", "p.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(dir.read("p.run/out/propose@1/draft"), b"xx");
}

#[test]
fn a_new_agent_takes_each_fifth_piece_of_work_until_it_is_known() {
    let plan = |attempts: Value| {
        let agent = |name: &str, score: f64, attempts: &Value| {
            let mut agent =
                json!({"kind": "command", "argv": ["echo", name], "capabilities": ["work"], "score": score});
            if !attempts.is_null() {
                agent["attempts"] = attempts.clone();
            }
            agent
        };
        Workflow::new(&json!([{"id": "a", "needs_capability": ["work"], "for_each": {"range": 30},
            "out": [{"name": "o", "path": "-"}]}]))
        .with("limits.max_parallel", json!(1))
        .with("agents.old", agent("old", 0.473, &json!(40)))
        .with("agents.new", agent("new", 0.05, &attempts))
    };
    for (attempts, expected) in [
        (json!(0), vec![4, 9, 14, 19, 24]),
        (json!(3), vec![4, 9]),
        (json!(5), vec![]),
        (Value::Null, vec![]),
    ] {
        let plan = plan(attempts);
        let run = plan.run();
        assert_eq!(run.code, Some(0), "{run:#?}");
        let found: Vec<usize> = (0..30).filter(|at| plan.output(&format!("a.{at}/o")) == "new\n").collect();
        assert_eq!(found, expected);
    }
}
