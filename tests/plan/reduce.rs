//! Stages of kind `reduce`: the bytes that they make, what they refuse, and what a crash leaves.

use super::Workflow;
use crate::harness::{fedmill, fedmill_after};
use serde_json::{Value, json};

/// A fan-out over texts of which the first ends last, and a stage that makes one file of what they print.
fn workflow(parts: &[&str], by: &str) -> Workflow {
    let last = parts.len().saturating_sub(1);
    let print = format!("sleep $(({last} - $1)); printf \"$0\"");
    Workflow::new(&json!([
        {"id": "part", "agent": "shell", "argv": [print, "{item}", "{index}"], "for_each": {"values": parts},
         "out": [{"name": "o", "path": "-"}]},
        {"id": "all", "kind": "reduce", "needs": ["part"], "reduce": {"by": by, "files": ["{part.o}"]},
         "out": [{"name": "o", "path": "deep/all"}]},
    ]))
}

#[test]
fn files_are_joined_in_the_order_of_the_instances() {
    for (by, parts, expected) in [
        ("concat", ["a", "b\\n", "c"], "ab\nc"),
        ("lines", ["a", "b\\n", "c"], "a\nb\nc\n"),
        ("lines", ["", "\\n", "\\377\\000"], "\n\u{fffd}\0\n"),
        ("concat", ["\\377", "", "\\000"], "\u{fffd}\0"),
    ] {
        let plan = workflow(&parts, by).with("limits.max_parallel", json!(3));
        let run = plan.run();
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), "plan.run/out/all/deep/all\n"), "{run:#?}");
        let found = plan.dir.read("plan.run/out/all/deep/all");
        assert_eq!(String::from_utf8_lossy(&found), expected, "{by} {parts:?}");
    }
}

#[test]
fn objects_are_merged_and_their_numbers_are_metrics() {
    let parts = [r#"{"a": 1, "b": {"x": 1, "y": 2}}"#, r#"{"b": {"x": null, "z": 3}, "a": 0.5}"#];
    let plan = workflow(&parts, "json-merge")
        .with("stages.1.out.0.metrics", json!(true))
        .with("stages.1.metrics", json!(["a"]))
        .with("stages.1.success_when", json!("metrics.a < 0.6"));
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let found: Value = serde_json::from_str(&plan.output("all/deep/all")).unwrap();
    assert_eq!(found, json!({"a": 0.5, "b": {"y": 2, "z": 3}}));
}

#[test]
fn integers_of_64_bits_keep_their_digits() {
    let part = r#"{"a\\"": [18446744073709551615, -9223372036854775808, 1e30, "99999999999999999999999"]}"#;
    let plan = workflow(&["{}", part], "json-merge");
    assert_eq!(plan.run().code, Some(0));
    let found = plan.output("all/deep/all");
    assert!(
        found.contains("[18446744073709551615,-9223372036854775808,1e+30,\"99999999999999999999999\"]"),
        "{found}"
    );
}

#[test]
fn what_is_no_object_is_named() {
    for (part, expected) in [
        ("[1]", "out/part.1/o: $: found no JSON object, expected one for json-merge"),
        (r#"{"k": 1, "k": 2}"#, "out/part.1/o: $: is no JSON: found the key `k` twice in one object"),
        ("{", "out/part.1/o: $: is no JSON: EOF"),
        (
            r#"{"n": "12345678901234567890123", "m": [2, 12345678901234567890123]}"#,
            "out/part.1/o: line 1 column 65: found the integer 12345678901234567890123, expected one of 64 bits",
        ),
        (
            r#"{"m": -9223372036854775809}"#,
            "out/part.1/o: line 1 column 26: found the integer -9223372036854775809",
        ),
    ] {
        let plan = workflow(&["{}", part], "json-merge");
        plan.run().assert_fails(2, &["stage `all`: ", expected]);
        assert_eq!(plan.states(), "part ok, all failed");
    }
}

#[test]
fn references_may_name_files_that_are_not_there() {
    for (work, expected) in [("test {index} = 9 && echo x", ""), ("test {index} = 1 && echo x", "x\n")] {
        let plan = Workflow::new(&json!([
            {"id": "part", "for_each": {"range": 3}, "min_succeeded": 0, "sh": work, "out": [{"name": "t", "path": "-"}]},
            {"id": "all", "kind": "reduce", "needs": ["part"], "reduce": {"by": "lines", "files": ["{part.t?}"]},
                "out": [{"name": "o", "path": "o"}]},
        ]));
        let run = plan.run();
        assert_eq!((run.code, plan.output("all/o").as_str()), (Some(0), expected), "{run:#?}");
    }
}

#[test]
fn a_run_that_ended_in_a_reduction_goes_on_with_it() {
    for step in 1.. {
        let plan = workflow(&["a", "b"], "concat").with("stages.0.argv.0", json!("printf $0"));
        plan.write();
        let fail = format!("export FEDMILL_FAIL_AT={step}");
        let run = fedmill_after(&plan.dir, &fail, &["plan", "run", "-q", "plan.json"]);
        if run.code == Some(0) {
            assert!(step > 20, "a run has more durable steps than {step}");
            return;
        }
        assert_eq!(run.code, None, "{run:#?}");
        assert_eq!(fedmill(&plan.dir, &["plan", "run", "-q", "plan.json"]).code, Some(0), "step {step}");
        assert_eq!(plan.output("all/deep/all"), "ab", "step {step}");
    }
}

#[test]
fn what_a_run_would_execute_names_the_reducer() {
    let plan = workflow(&["a"], "lines");
    plan.write();
    let run = fedmill(&plan.dir, &["plan", "show", "--commands", "plan.json"]);
    assert!(run.stdout.contains("all: lines {part.o} (fedmill itself)\n"), "{run:#?}");
    let run = fedmill(&plan.dir, &["plan", "show", "plan.json"]);
    assert!(run.stdout.contains("lines"), "{run:#?}");
}
