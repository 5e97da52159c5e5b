//! `fedmill plan lint`: each rule is broken once, and a sound plan has no finding.
//!
//! `structure` and `values` have what breaks the rules.

mod structure;
mod values;

use super::Workflow;
use crate::harness::fedmill;
use fedmill::plan::read;
use fedmill::review::lint::{Finding, lint, rules::RULES};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// A plan that uses all that plans have, and has no finding.
pub(super) fn sound() -> Value {
    json!({
        "schema": "fedmill.plan/1", "id": "all", "goal": "everything once",
        "params": {"low": 0.5, "rate": 0.25, "rule": "mean", "n": 11, "f": 2, "on": true},
        "inputs": [{"name": "updates", "glob": "in/*.bin", "min": 2}, {"name": "base", "path": "base.bin"}],
        "agents": {
            "sh": {"kind": "command", "argv": ["sh", "-c"], "capabilities": ["shell"]},
            "train": {"kind": "command", "argv": ["train"]},
            "one": {"kind": "command", "argv": ["true"], "capabilities": ["vote"], "score": 0.9},
            "two": {"kind": "command", "argv": ["true"], "capabilities": ["vote", "rank"], "score": 0.8},
            "three": {"kind": "command", "argv": ["true"], "capabilities": ["vote"], "score": 0.7},
            "web": {"kind": "http", "url": "http://localhost:8080/x", "headers": {"Authorization": "env:TOKEN"}},
            "model": {"kind": "ollama", "url": "http://127.0.0.1:11434", "model": "m",
                "options": {"seed": 1, "num_ctx": 512}, "capabilities": ["judge"]},
        },
        "limits": {"timeout": {"run": "1m"}, "hosts": ["localhost:8080", "127.0.0.1"], "eps": 1.0, "delta": 1e-5},
        "safety": {"frozen": ["/params/f"], "invariants": ["params.n >= 4 * params.f + 3", "!stages.make.failed"]},
        "stages": [
            {"id": "make", "agent": "sh", "argv": ["x {item}", "{in.updates}"], "for_each": {"range": 3},
                "out": [{"name": "part", "path": "p-{index}"}, {"name": "m", "path": "-", "metrics": true}],
                "metrics": ["part_loss"]},
            {"id": "step", "needs": ["make"], "agent": "train", "argv": ["{make.part}", "--lr={params.rate}", "{carry.model}", "{k}"],
                "out": [{"name": "model", "path": "model.bin"}, {"name": "m", "path": "m.json", "metrics": true}],
                "metrics": ["loss"], "success_when": "metrics.loss < 10.0"},
            {"id": "choose", "kind": "decide", "needs": ["step"], "metrics": ["loss"],
                "cases": [{"if": "metrics.loss < params.low && history.loss.all(x, x > 0.1)", "to": "good"}], "else": "bad"},
            {"id": "keep", "needs": ["choose"], "branch": "good", "agent": "sh", "argv": ["{step.model}"],
                "out": [{"name": "o", "path": "-"}, {"name": "m", "path": "m", "metrics": true}], "metrics": ["score"]},
            {"id": "redo", "needs": ["choose"], "branch": "bad", "needs_capability": ["shell"], "argv": ["true"],
                "out": [{"name": "o", "path": "-"}, {"name": "m", "path": "m", "metrics": true}], "metrics": ["score"],
                "retry": {"max_attempts": 2}},
            {"id": "judge", "needs": ["keep", "redo"],
                "consensus": {"capability": "vote", "options": ["accept", "refuse"], "on_no_consensus": "fallback",
                    "fallback": "refuse", "threshold": 0.6, "weight_cap": 0.4}},
            {"id": "ask", "needs": ["judge"], "when": "choices.judge == 'accept'",
                "gate": {"timeout": "1h", "default": "reject"}},
            {"id": "tell", "depends": "stages.ask.ok || stages.judge.failed", "agent": "web",
                "body": {"text": "{keep.o|redo.o}", "choice": "{judge}"}},
            {"id": "say", "needs": ["tell"], "agent": "model", "prompt": "{tell.reply}"},
            {"id": "clean", "agent": "sh", "argv": ["{make.part}"]},
            {"id": "join", "kind": "reduce", "needs": ["make"], "reduce": {"by": "lines", "files": ["{make.part}"]},
                "out": [{"name": "all", "path": "all.txt"}]},
            {"id": "inside", "kind": "plan", "needs": ["make"], "plan": {"file": "in.json",
                "params": {"x": "{params.n}"}, "inputs": {"parts": ["{make.part}"]}},
                "out": [{"name": "all", "path": "join.all"}]},
        ],
        "loops": [{"id": "rounds", "over": ["step", "redo"], "carry": {"model": {"from": "step.model", "init": "base"}},
            "until": "metrics.loss < 0.1 || iteration.k > 3", "max_iters": 9,
            "tune": {"param": "/params/rate", "bounds": [0.1, 1.0],
                "validate": {"shadow": ["step"], "metric": "loss", "minimize": true}}}],
        "on": {"exit": ["clean"]},
    })
}

fn findings(plan: &Value) -> Vec<Finding> {
    lint(&read::parse(&plan.to_string(), Path::new("p.json")).unwrap())
}

/// The plan with another value at a JSON pointer; `null` takes the value out, and `-` ends a list.
fn with(pointer: &str, value: Value) -> Value {
    let mut plan = sound();
    let (outer, key) = pointer.rsplit_once('/').unwrap();
    let outer = plan.pointer_mut(outer).unwrap_or_else(|| panic!("{pointer}"));
    match (outer, value) {
        (Value::Object(object), Value::Null) => drop(object.remove(key)),
        (Value::Object(object), value) => drop(object.insert(key.to_owned(), value)),
        (Value::Array(list), value) if key == "-" => list.push(value),
        (Value::Array(list), value) => list[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer}"),
    }
    plan
}

#[test]
fn a_sound_plan_has_no_finding() {
    assert_eq!(findings(&sound()), []);
}

/// What breaks a rule: a pointer, the value there, the rule, the place of the finding, and a part of its reason.
type Break = (&'static str, Value, &'static str, &'static str, &'static str);

#[test]
fn each_rule_is_broken_once_and_its_place_is_named() {
    let mut seen = BTreeSet::new();
    for (pointer, value, rule, at, why) in structure::broken().into_iter().chain(values::broken()) {
        let found = findings(&with(pointer, value.clone()));
        let fits = |finding: &&Finding| {
            finding.rule == rule && finding.at == at && finding.explanation().contains(why)
        };
        assert!(
            found.iter().any(|finding| fits(&finding)),
            "{pointer} = {value}: expected {rule} at {at}: {why}, found {found:#?}"
        );
        seen.insert(rule);
    }
    // These look for files; tests/plan/programs.rs breaks them.
    seen.extend(["program", "installed"]);
    let all: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(seen, all);
}

#[test]
fn what_a_stage_waits_for_through_others_counts() {
    for (pointer, value) in [
        // An output of the loop, read far behind it, and by a stage that waits for another stage of the loop.
        ("/stages/-", json!({"id": "far", "needs": ["say"], "agent": "sh", "argv": ["{step.model}"]})),
        ("/stages/-", json!({"id": "far", "needs": ["step"], "agent": "sh", "argv": ["{keep.o|redo.o}"]})),
        (
            "/stages/6/when",
            json!("metrics.loss < 1.0 && stages.keep.skipped && mean(metrics.part_loss) > 0.0"),
        ),
        ("/safety/invariants/0", json!("!has(metrics.loss) || metrics.loss < 5.0")),
        (
            "/loops/0/until",
            json!("metrics.score > 0.5 && size(history.score) > 2 && mean(history.loss) < 1.0"),
        ),
        ("/stages/1/argv/3", json!("{{k}} {key} {in.base}")),
        // A stage with the condition of the gate, and one that asks how the gate ended.
        (
            "/stages/-",
            json!({"id": "far", "needs": ["ask"], "when": "choices.judge == 'accept'", "agent": "sh", "argv": ["true"]}),
        ),
        (
            "/stages/-",
            json!({"id": "far", "needs": ["ask"], "when": "stages.ask.ok", "agent": "sh", "argv": ["true"]}),
        ),
        // A file name that is an argument of the text, and a number in it.
        ("/stages/0/argv", json!(["cat \"$1\" | head -n {params.n}", "sh", "{in.updates}"])),
    ] {
        assert_eq!(findings(&with(pointer, value.clone())), [], "{value}");
    }
}

#[test]
fn a_secret_is_not_shown() {
    let plan = with("/stages/0/argv/0", json!("sk-abcdefghijklmnopqrst1234"));
    assert!(!format!("{:?}", findings(&plan)).contains("abcdefghij"));
}

#[test]
fn a_plan_with_errors_runs_nothing() {
    let plan =
        Workflow::new(&json!([{"id": "a", "sh": "touch ran"}, {"id": "b", "needs": ["c"], "sh": "true"}]));
    plan.run().assert_fails(
        2,
        &[
            "$.stages[1].needs[0]: found `c`, expected a stage",
            "plan.json:",
            "1 error in the plan, so nothing was run",
        ],
    );
    assert!(!plan.dir.exists("plan.run"));
    let run = fedmill(&plan.dir, &["plan", "lint", "plan.json"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(2), "error: plan.json: 1 error in the plan\n"));
    let text = String::from_utf8(plan.dir.read("plan.json")).unwrap();
    let (number, line) = text.lines().enumerate().find(|(_, line)| line.contains("\"c\"")).unwrap();
    let (line, column) = (number + 1, line.find('"').unwrap() + 1);
    let expected = format!(
        "plan.json:{line}:{column}: error: $.stages[1].needs[0] (unknown)\n  found `c`, expected a stage\n"
    );
    assert_eq!(run.stdout, expected);
    let run = fedmill(&plan.dir, &["plan", "lint", "--json", "plan.json"]);
    assert_eq!(run.code, Some(2));
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    let found = &found["findings"][0];
    assert_eq!((&found["at"], &found["line"]), (&json!("$.stages[1].needs[0]"), &json!(line)));
    let sound = Workflow::new(&json!([{"id": "a", "sh": "true"}]));
    sound.write();
    let run = fedmill(&sound.dir, &["plan", "lint", "plan.json"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "no finding\n"));
}

#[test]
fn a_file_that_is_no_plan_has_a_finding_too() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}]));
    plan.dir.write(
        "plan.json",
        "{\"schema\": \"fedmill.plan/1\",\n \"id\": \"p\", \"stages\": [{\"id\": \"a\", \"ned\": 1}]}",
    );
    let run = fedmill(&plan.dir, &["plan", "lint", "plan.json"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(2), "error: plan.json: 1 error in the plan\n"));
    assert!(run.stdout.starts_with("plan.json:2:36: error: $.stages[0].ned (schema)\n"), "{}", run.stdout);
    let run = fedmill(&plan.dir, &["plan", "lint", "--json", "plan.json"]);
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&found["plan"], &found["findings"][0]["rule"]), (&Value::Null, &json!("schema")));
    assert_eq!((&found["findings"][0]["line"], &found["findings"][0]["column"]), (&json!(2), &json!(36)));
}

#[test]
fn all_faults_of_a_file_that_is_no_plan_are_listed() {
    let plan =
        Workflow::new(&json!([{"id": "a", "ned": 1}, {"id": "b", "sh": "true", "needs": "a"}, {"argv": []}]));
    plan.write();
    let run = fedmill(&plan.dir, &["plan", "lint", "plan.json"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(2), "error: plan.json: 3 errors in the plan\n"));
    let heads: Vec<&str> = run.stdout.lines().filter_map(|line| line.split("error: ").nth(1)).collect();
    assert_eq!(heads, ["$.stages[0].ned (schema)", "$.stages[1].needs (schema)", "$.stages[2] (schema)"]);
    let faults = [
        "$.stages[0].ned: unknown field",
        "$.stages[1].needs: found the text",
        "$.stages[2]: missing field `id`",
    ];
    fedmill(&plan.dir, &["plan", "run", "plan.json"]).assert_fails(2, &faults);
    // A long list ends.
    let stages: Vec<Value> = (0..30).map(|_| json!({"ned": 1})).collect();
    let plan = Workflow::new(&json!(stages));
    let run = plan.run();
    run.assert_fails(2, &["plan.json: found 40 more faults"]);
    assert_eq!(run.stderr.matches("$.stages[").count(), 20, "{run:#?}");
}

#[test]
fn braces_of_other_languages_are_explained() {
    for (argument, expected) in [
        ("${HOME}", "write `{{` and `}}` for braces that are no reference"),
        ("awk '{print $1}'", "write `{{` and `}}` for braces that are no reference"),
    ] {
        let found = findings(&with("/stages/0/argv/0", json!(argument)));
        let found = found.iter().find(|finding| finding.at == "$.stages[0].argv[0]").unwrap();
        assert!(found.explanation().contains(expected), "{found:?}");
    }
    // An agent's arguments stand as they are, and may be of another language.
    assert_eq!(findings(&with("/agents/train/argv/-", json!("{print}"))), []);
    let found = findings(&with("/stages/6/gate/question", json!("publish {judge}?")));
    assert_eq!(found.iter().map(|found| found.rule).collect::<Vec<_>>(), ["plain"]);
    let found = findings(&with("/stages/2/when", json!("{step.loss} < 1.0")));
    assert!(found[0].why.contains("names values without braces"), "{found:?}");
}

#[test]
fn a_text_that_is_no_json_says_what_stands_there_and_what_to_write() {
    let dir = crate::harness::Dir::new();
    for (text, expected) in [
        ("{'id': 1}", "found `'id': 1}`; write \" before and behind a text"),
        ("{\"id\": True}", "found `True}`; write true, false or null"),
        (
            "{\"id\": 1\n \"goal\": 2}",
            "2:2: $: is no JSON: expected `,` or `}`: found `\"goal\": 2}`; a comma or a colon",
        ),
        ("{\"id\": 1, // one\n}", "found `// one`; JSON has no comments"),
    ] {
        dir.write("p.json", text);
        let run = fedmill(&dir, &["plan", "run", "p.json"]);
        run.assert_fails(2, &["p.json:", expected]);
    }
}

#[test]
fn messages_of_stages_name_what_to_change() {
    let measure = |text: &str| {
        json!([{"id": "a", "sh": format!("echo '{{{{{text}}}}}'"), "out": [{"name": "m", "path": "-", "metrics": true}],
            "metrics": ["acc"]}])
    };
    let run = |stages: &Value| Workflow::new(stages).run();
    run(&measure("\"acc\": \"0.5\""))
        .assert_fails(2, &["metric `acc`: found \"0.5\", expected a number without quotes"]);
    run(&measure("\"accuracy\": 0.5, \"loss\": 1"))
        .assert_fails(2, &["metric `acc` is missing from its outputs, which have `accuracy`, `loss`"]);
    let plan = Workflow::new(&json!([{"id": "a", "sh": "true", "timeout": {"run": "-5s"}}]));
    plan.run().assert_fails(2, &["$.stages[0].timeout.run: found -5s, expected a time longer than 0"]);
    // A path that is not there, and one in the home folder.
    for (input, expected) in [("inn/x", "found 0 files of inn/x in /"), ("~/in", "; `~` stands for itself")] {
        let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}]));
        plan.with("inputs", json!([{"name": "u", "path": input}]))
            .run()
            .assert_fails(2, &["input `u`", expected]);
    }
    // A list, and a number, where a number and a text do not fit.
    for (until, expected) in [
        ("history.acc > 0.4", "; of a list take one value"),
        ("metrics.acc < '0.9'", "; write a number without quotes"),
        ("mean(history.acc) > 0.9", "too few; ask for their number before, as in size(history.loss)"),
    ] {
        let plan = Workflow::new(&measure("\"acc\": 0.5"));
        let turns = json!([{"id": "turns", "over": ["a"], "max_iters": 2, "until": until}]);
        plan.with("loops", turns).run().assert_fails(2, &[expected]);
    }
    // A plan where the directory of a run is expected.
    for command in ["status", "resume"] {
        fedmill(&plan.dir, &["plan", command, "plan.json"]).assert_fails(2, &["plan.json: holds no run"]);
    }
    let plan = Workflow::new(&json!([{"id": "a", "agent": "script", "argv": ["x"]}]))
        .with("agents.script", json!({"kind": "command", "argv": ["./script.sh"]}));
    plan.dir.write("script.sh", "#!/bin/sh\n");
    plan.run().assert_fails(2, &["cannot be started", "chmod +x", "script.sh"]);
}

#[test]
fn each_stage_that_failed_has_a_line_and_those_not_quoted_their_logs() {
    let stages: Vec<Value> =
        (0..5).map(|place| json!({"id": format!("s{place}"), "sh": "echo bad >&2; exit 3"})).collect();
    let run = Workflow::new(&json!(stages)).with("limits.on_failure", json!("keep_going")).run();
    let lines = |text: &str| run.stderr.lines().filter(|line| line.starts_with(text)).count();
    assert_eq!((run.code, lines("error: stage `s")), (Some(2), 5), "{}", run.stderr);
    let last = "error: stage `s4`: exited with status 3; see plan.run/attempts/s4/stderr";
    assert!(lines(last) == 1 && lines("error: stage `s0`: exited with status 3; see") == 0, "{}", run.stderr);
}

#[test]
fn a_run_shows_the_warnings_of_lint() {
    let plan = Workflow::new(&json!([
        {"id": "ask", "when": "1 > 2", "gate": {"timeout": "1h", "default": "reject"}},
        {"id": "publish", "needs": ["ask"], "sh": "true"},
    ]));
    let shown = "warning: plan.json:";
    let run = plan.run();
    assert!(
        run.code == Some(0) && run.stderr.contains(shown) && run.stderr.contains("$.stages[1].needs[0]"),
        "{run:#?}"
    );
    let run = fedmill(&plan.dir, &["plan", "run", "-q", "plan.json", "--dir", "quiet.run"]);
    assert!(run.code == Some(0) && !run.stderr.contains("warning"), "{run:#?}");
}
