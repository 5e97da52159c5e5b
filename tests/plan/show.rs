//! `fedmill plan show` and `plan diff`.

use super::Workflow;
use super::lint::sound;
use crate::harness::{COLUMNS, Dir, fedmill, skip};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// A folder with the sound plan.
fn dir() -> Dir {
    let dir = Dir::new();
    dir.write("in.json", r#"{"schema": "fedmill.plan/1", "id": "in", "stages": []}"#);
    dir.write("plan.json", sound().to_string());
    dir
}

fn shown(dir: &Dir, options: &[&str]) -> String {
    let run = fedmill(dir, &[&["plan", "show", "plan.json"], options].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    run.stdout
}

#[test]
fn the_tree_shows_work_branches_loops_and_the_critical_path() {
    insta::assert_snapshot!(shown(&dir(), &[]));
}

#[test]
fn the_commands_of_a_plan_are_listed() {
    insta::assert_snapshot!(shown(&dir(), &["--commands"]));
}

#[test]
fn no_argument_forges_a_line_of_the_list() {
    let plan = json!({"schema": "fedmill.plan/1", "id": "p",
        "agents": {"sh": {"kind": "command", "argv": ["sh", "-c"], "env": ["A\nhosts: none"]},
            "m": {"kind": "ollama", "url": "http://a:1", "model": "m)\nsafe: ls"}},
        "stages": [{"id": "a", "agent": "sh", "argv": ["rm 'x'\nb: true\\ \u{202e}é"]}, {"id": "c", "agent": "m", "prompt": "x"}]});
    let dir = Dir::new();
    dir.write("plan.json", plan.to_string());
    let text = shown(&dir, &["--commands"]);
    let expected = [
        "a: sh -c $'rm \\'x\\'\\nb: true\\\\ \\U0000202eé'",
        "c: POST http://a:1/api/chat (model $'m)\\nsafe: ls')",
        "",
        "hosts: a:1",
        "variables of the runner: $'A\\nhosts: none'",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_flowchart_of_mermaid() {
    insta::assert_snapshot!(shown(&dir(), &["--format", "mermaid"]));
}

#[test]
fn graphviz_reads_the_picture() {
    let hostile = json!({"schema": "fedmill.plan/1", "id": "graph", "goal": "\u{1b}[2J", "stages": [
        {"id": "node", "agent": "a", "needs": ["edge"]},
        {"id": "edge", "kind": "decide", "cases": [{"if": "'\"\\\n' == ''", "to": "digraph"}], "else": "strict"},
        {"id": "subgraph", "agent": "a", "branch": "strict", "needs": ["edge"]},
    ], "loops": [{"id": "graph", "over": ["node", "subgraph"], "until": "'\"\\\n\t' == ''", "max_iters": 2}]});
    for plan in [sound(), hostile] {
        let dir = Dir::new();
        dir.write("in.json", r#"{"schema": "fedmill.plan/1", "id": "in", "stages": []}"#);
        dir.write("plan.json", plan.to_string());
        let text = shown(&dir, &["--format", "dot"]);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
        let dot = Command::new("dot").arg("-Tplain").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut dot) = dot else { return skip("graphviz is not installed") };
        dot.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let drawn = dot.wait_with_output().unwrap();
        assert!(drawn.status.success(), "{text}");
        let drawn = String::from_utf8(drawn.stdout).unwrap();
        let count = |word: &str| drawn.lines().filter(|line| line.starts_with(word)).count();
        assert_eq!(count("node "), plan["stages"].as_array().unwrap().len());
        assert!(count("edge ") >= 2, "{drawn}");
    }
}

#[test]
fn the_critical_path_takes_the_seconds_of_a_run() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "true"}, {"id": "b", "needs": ["a"], "sh": "true"}, {"id": "c", "sh": "sleep 0.4"},
    ]));
    assert_eq!(plan.run().code, Some(0));
    let path = |options: &[&str]| {
        let text = shown(&plan.dir, &[&["--format", "json"], options].concat());
        serde_json::from_str::<Value>(&text).unwrap()["critical_path"].clone()
    };
    assert_eq!(path(&[]), json!(["a", "b"]));
    assert_eq!(path(&["--dir", "plan.run"]), json!(["c"]));
}

#[test]
fn a_cycle_is_not_drawn() {
    let plan = Workflow::new(&json!([{"id": "a", "needs": ["b"]}, {"id": "b", "needs": ["a"]}]));
    plan.write();
    let run = fedmill(&plan.dir, &["plan", "show", "plan.json"]);
    run.assert_fails(2, &["plan.json: $.stages: found stages that wait for each other: a -> b -> a"]);
}

#[test]
fn differences_have_their_paths() {
    let dir = dir();
    let mut other = sound();
    other["params"]["f"] = json!(3);
    other["stages"][1]["argv"][1] = json!("--lr=1");
    other["stages"][1]["timeout"] = json!({"run": "5s"});
    other["stages"].as_array_mut().unwrap().swap(8, 9);
    other["stages"].as_array_mut().unwrap().remove(6);
    other["stages"].as_array_mut().unwrap().push(json!({"id": "new", "agent": "sh"}));
    other["x-note"] = json!("nothing");
    dir.write("other.json", serde_json::to_vec_pretty(&other).unwrap());
    let run = fedmill(&dir, &["plan", "diff", "--json", "plan.json", "other.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_ne!(found["from"], found["to"]);
    let changes = found["changes"].as_array().unwrap().iter();
    let changes: Vec<String> = changes
        .map(|one| format!("{} {}", one["kind"].as_str().unwrap(), one["path"].as_str().unwrap()))
        .collect();
    assert_eq!(
        changes,
        [
            "changed params.f",
            "removed stages.ask",
            "changed stages.step.argv[1]",
            "added stages.step.timeout",
            "added stages.new",
            "changed order of stages",
        ]
    );
    let run = fedmill(&dir, &["plan", "diff", "plan.json", "other.json"]);
    assert!(run.stdout.lines().all(|line| line.chars().count() <= COLUMNS), "{}", run.stdout);
    assert!(run.stdout.contains("params.f"), "{}", run.stdout);
    let run = fedmill(&dir, &["plan", "diff", "plan.json", "plan.json"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "no difference\n"));
}
