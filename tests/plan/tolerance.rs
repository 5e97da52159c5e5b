//! Stages that may fail, in part or as a whole: who goes on, and with what.

use super::Workflow;
use crate::harness::fedmill;
use serde_json::{Value, json};

/// A fan-out whose instance 2 fails, and a stage that reads the files and metrics of the others.
fn fan_out(least: &Value, instances: u32) -> Workflow {
    Workflow::new(&json!([
        {"id": "part", "agent": "shell", "for_each": {"range": instances}, "metrics": ["n"], "min_succeeded": least,
         "argv": ["test $0 != 2 || exit 3; echo $0 > $1; echo \"{{\\\"n\\\": $0}}\"", "{item}", "{out.o}"],
         "out": [{"name": "o", "path": "o.txt"}, {"name": "m", "path": "-", "metrics": true}]},
        {"id": "join", "needs": ["part"], "when": "metrics.n == [0.0, 1.0, 3.0] && stages.part.ok", "agent": "shell",
         "argv": ["cat \"$@\"", "sh", "{part.o}"], "out": [{"name": "all", "path": "-"}]},
    ]))
}

fn why(plan: &Workflow, stage: usize) -> String {
    let run = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
    let status: Value = serde_json::from_str(&run.stdout).unwrap();
    status["stages"][stage]["why"].as_str().unwrap().to_owned()
}

#[test]
fn a_fan_out_succeeds_with_as_many_instances_as_it_needs() {
    let plan = fan_out(&json!(3), 4);
    let run = plan.run();
    assert_eq!((run.code, plan.states().as_str()), (Some(0), "part ok, join ok"), "{run:#?}");
    assert_eq!(plan.output("join/all"), "0\n1\n3\n");
    assert_eq!(why(&plan, 0), "1 of 4 instances failed: part.2 (exited with status 3)");
    let expected = "stage `part`: 1 of 4 instances failed: part.2 (exited with status 3)";
    let at_least = format!("{expected}; expected at least 4 to succeed");
    fan_out(&json!(4), 4).run().assert_fails(2, &[&at_least]);
    fan_out(&Value::Null, 4).run().assert_fails(2, &[expected]);
}

#[test]
fn the_instances_that_failed_are_named() {
    let plan = Workflow::new(
        &json!([{"id": "s", "sh": "test {item} -lt 3 || exit {item}", "for_each": {"range": 13}}]),
    );
    let expected = "10 of 13 instances failed: s.3 (exited with status 3), s.4, s.5, s.6, s.7, s.8, s.9, s.10 and 2 more";
    plan.run().assert_fails(2, &[&format!("stage `s`: {expected}")]);
    let of = |args: &[&str]| fedmill(&plan.dir, &[&["plan", "status", "plan.run"], args].concat()).stdout;
    let words = of(&[]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(expected), "{words}");
    let status: Value = serde_json::from_str(&of(&["--json"])).unwrap();
    let failed = status["stages"][0]["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 10, "{status}");
    assert_eq!(failed[9], json!({"instance": "s.12", "why": "exited with status 12"}));
    // The one that made the stage a timeout stands first.
    let slow = json!([{"id": "s", "sh": "test {item} = 0 && exit 3; sleep 30", "for_each": {"range": 2}, "timeout": {"run": "300ms"}}]);
    let expected = "stage `s`: 2 of 2 instances failed: s.1 (took longer than 0.3 s), s.0";
    Workflow::new(&slow).run().assert_fails(2, &[expected]);
}

#[test]
fn a_fan_out_that_may_fail_succeeds_only_with_an_instance() {
    let plan = fan_out(&json!(0), 4);
    assert_eq!(plan.run().code, Some(0));
    assert_eq!(plan.states(), "part ok, join ok");
    let plan = fan_out(&json!(0), 3)
        .with("stages.0.argv.1", json!("2"))
        .with("stages.1.when", json!("stages.part.failed && !has(metrics.n)"))
        .with("stages.1.argv.2", json!("{part.o?}"));
    let run = plan.run();
    assert_eq!((run.code, plan.states().as_str()), (Some(0), "part failed, join ok"), "{run:#?}");
    assert_eq!(plan.output("join/all"), "");
}

#[test]
fn stages_go_on_behind_one_that_may_fail() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo tried >> $FEDMILL_RUN_DIR/tried; exit 3", "min_succeeded": 0, "out": [{"name": "o", "path": "-"}]},
        {"id": "b", "sh": "echo b", "out": [{"name": "o", "path": "-"}]},
        {"id": "c", "needs": ["a", "b"], "agent": "shell",
         "argv": ["printf '%s.' $# \"$1\"; cat \"$2\"", "sh", "{a.o?}", "x={a.o?}", "{a.o|b.o}"],
         "out": [{"name": "o", "path": "-"}]},
        {"id": "d", "needs": ["c"], "sh": "test -e $FEDMILL_RUN_DIR/d"},
    ]));
    plan.run().assert_fails(2, &["stage `d`: exited with status 1"]);
    assert_eq!(plan.states(), "a failed, b ok, c ok, d failed");
    assert_eq!(plan.output("c/o"), "2.x=.b\n");
    // A resumed run has the failure as a result, and tries what failed the run.
    plan.dir.write("plan.run/d", "");
    assert_eq!(fedmill(&plan.dir, &["plan", "resume", "plan.run"]).code, Some(0));
    assert_eq!(plan.states(), "a failed, b ok, c ok, d ok");
    assert_eq!(plan.dir.read("plan.run/tried"), b"tried\n");
}

/// An attempt that the runner ended says nothing about the work.
#[test]
fn what_the_end_of_a_run_cut_off_is_tried_again() {
    let first =
        "test -e $FEDMILL_RUN_DIR/again || { touch $FEDMILL_RUN_DIR/again $FEDMILL_RUN_DIR/STOP; sleep 20; }"
            .replace('{', "{{")
            .replace('}', "}}");
    for (field, value) in [("min_succeeded", json!(0)), ("min_succeeded", json!(1)), ("depends", Value::Null)]
    {
        let mut stages = json!([
            {"id": "a", "sh": format!("test {{item}} = 1 || exit 0; {first}"), "for_each": {"range": 2}},
            {"id": "b", "sh": "true"},
        ]);
        if field == "depends" {
            stages[1]["depends"] = json!("stages.a.ok || stages.a.failed");
        } else {
            stages[0][field] = value.clone();
            stages[1]["needs"] = json!(["a"]);
        }
        let plan = Workflow::new(&stages);
        let run = plan.run();
        assert_eq!(run.code, Some(1), "{field} {value}: {run:#?}");
        assert_eq!(plan.states(), "a cancelled, b not run", "{field} {value}");
        std::fs::remove_file(plan.dir.path("plan.run/STOP")).unwrap();
        let run = fedmill(&plan.dir, &["plan", "resume", "plan.run"]);
        assert_eq!((run.code, plan.states().as_str()), (Some(0), "a ok, b ok"), "{field} {value}: {run:#?}");
    }
}

/// A vote between two drafts, the second of which may be missing.
fn choice(second: &str, vote: &Value) -> Workflow {
    let mut consensus = json!({"capability": "v", "options": ["one", "two", "three"], "weight_cap": 1, "weight": "equal",
        "threshold": 0.5, "candidates": {"one": "{a.o}", "two": "{b.o}"}});
    consensus.as_object_mut().unwrap().extend(vote.as_object().unwrap().clone());
    let mut plan = Workflow::new(&json!([
        {"id": "a", "sh": "exit 3", "min_succeeded": 0, "out": [{"name": "o", "path": "-"}]},
        {"id": "b", "sh": second, "min_succeeded": 0, "out": [{"name": "o", "path": "-"}]},
        {"id": "vote", "needs": ["a", "b"], "consensus": consensus},
    ]));
    for (name, option) in [("v1", "one"), ("v2", "one"), ("v3", "three")] {
        let argv =
            json!(["sh", "-c", format!("echo $0 >> $HOME/asked; echo '{{\"option\": \"{option}\"}}'")]);
        plan = plan
            .with(&format!("agents.{name}"), json!({"kind": "command", "argv": argv, "capabilities": ["v"]}));
    }
    plan
}

#[test]
fn an_option_without_its_file_is_left_out_of_the_vote() {
    let plan = choice("echo b", &json!({"quorum": 0.2, "threshold": 0.3}));
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let run = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
    let status: Value = serde_json::from_str(&run.stdout).unwrap();
    let vote = &status["stages"][2];
    assert_eq!(vote["choice"], "three");
    let why = vote["ballots"][0]["why"].as_str().unwrap();
    assert!(why.contains(r#"found "one", expected one of "two", "three""#), "{why}");
    let table = fedmill(&plan.dir, &["plan", "status", "plan.run"]).stdout;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
    assert!(table.contains("votes in vote:\n") && lines.contains(&vec!["v3", "0.333", "three"]), "{table}");
    assert!(lines.contains(&vec!["v1", "0.333", "abstains:", "the"]), "{table}");
}

#[test]
fn what_holds_without_a_winner_is_an_option_that_is_left() {
    let fallback = json!({"on_no_consensus": "fallback", "fallback": "one", "quorum": 1.0});
    let plan = choice("echo b", &fallback);
    assert_eq!(plan.run().code, Some(0));
    let run = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
    let status: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(status["stages"][2]["choice"], "two", "{run:#?}");
    // The person approves where no ballot counts: the first that is left.
    let plan = choice("echo b", &json!({"on_no_consensus": "gate", "options": ["one", "two", "four"]}))
        .with("stages.2.gate", json!({"timeout": "20s", "default": "reject"}));
    plan.dir.write("plan.run/gates/vote", "approve");
    assert_eq!(plan.run().code, Some(0));
    let run = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
    let status: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(status["stages"][2]["choice"], "two", "{run:#?}");
}

#[test]
fn a_vote_over_too_few_options_asks_no_agent() {
    let plan = choice("exit 4", &json!({}));
    let expected = "stage `vote`: 1 of 3 options are left (three), expected at least 2";
    plan.write();
    let home = format!("export HOME={}", plan.dir.path("").display());
    let run = crate::harness::fedmill_after(&plan.dir, &home, &["plan", "run", "plan.json"]);
    run.assert_fails(2, &[expected]);
    assert!(!plan.dir.exists("asked"));
    let plan = choice("exit 4", &json!({"min_options": 1, "threshold": 0.3, "quorum": 0.3}));
    assert_eq!(plan.run().code, Some(0));
}
