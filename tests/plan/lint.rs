//! `fedmill plan lint`: each rule is broken once, and a sound plan has no finding.

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
fn broken() -> Vec<(&'static str, Value, &'static str, &'static str, &'static str)> {
    let s = |text: &str| json!(text);
    let stage = |id: &str, more: Value| {
        let mut stage = json!({"id": id, "agent": "sh", "argv": ["x"]});
        stage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage
    };
    let agent = |key: &str, value: Value| {
        let mut agent = json!({"kind": "http", "url": "http://localhost:8080/"});
        agent[key] = value;
        agent
    };
    vec![
        // Plans inside of plans.
        (
            "/stages/11/plan/file",
            s("../in.json"),
            "nested",
            "$.stages[11].plan.file",
            "inside of the plan's folder",
        ),
        ("/stages/11/plan", Value::Null, "missing", "$.stages[11]", "found no `plan`"),
        ("/stages/11/kind", Value::Null, "field", "$.stages[11].plan", "expected `kind: plan`"),
        ("/stages/11/plan/params/x", s("{params.nn}"), "unknown", "$.stages[11].plan.params.x", "found `nn`"),
        // Reductions.
        ("/stages/10/kind", Value::Null, "work", "$.stages[10]", "found no work"),
        ("/stages/10/kind", Value::Null, "field", "$.stages[10].reduce", "expected `kind: reduce`"),
        ("/stages/10/agent", s("sh"), "work", "$.stages[10]", "found agent and kind: reduce"),
        ("/stages/10/argv", json!(["x"]), "field", "$.stages[10].argv", "without an agent"),
        ("/stages/10/reduce", Value::Null, "missing", "$.stages[10]", "found no `reduce`"),
        ("/stages/10/reduce/files", json!([]), "missing", "$.stages[10].reduce.files", "found no file"),
        ("/stages/10/out", json!([]), "missing", "$.stages[10].out", "found 0 outputs"),
        (
            "/stages/10/reduce/files/0",
            s("{params.n}"),
            "template",
            "$.stages[10].reduce.files[0]",
            "expected one reference to files",
        ),
        (
            "/stages/10/reduce/files/0",
            s("{keep.o}"),
            "order",
            "$.stages[10].reduce.files[0]",
            "does not wait for `keep`",
        ),
        // Names.
        ("/stages/9/id", s("make"), "twice", "$.stages[9].id", "found `make`, which $.stages[0].id has too"),
        ("/inputs/1/name", s("updates"), "twice", "$.inputs[1].name", "found `updates`"),
        ("/stages/3/out/1/name", s("o"), "twice", "$.stages[3].out[1].name", "found `o`"),
        (
            "/stages/5/consensus/options/1",
            s("accept"),
            "twice",
            "$.stages[5].consensus.options[1]",
            "found `accept`",
        ),
        (
            "/stages/3/needs/-",
            s("chose"),
            "unknown",
            "$.stages[3].needs[1]",
            "found `chose`, expected a stage",
        ),
        (
            "/stages/0/agent",
            s("shell"),
            "unknown",
            "$.stages[0].agent",
            "found `shell`, expected an agent of the plan",
        ),
        (
            "/stages/4/needs_capability",
            json!(["shel"]),
            "unknown",
            "$.stages[4].needs_capability[0]",
            "found `shel`",
        ),
        (
            "/stages/4/needs_capability",
            json!(["shell", "rank"]),
            "unknown",
            "$.stages[4].needs_capability",
            "no agent that has all",
        ),
        (
            "/stages/5/consensus/capability",
            s("votes"),
            "unknown",
            "$.stages[5].consensus.capability",
            "found `votes`",
        ),
        ("/stages/3/branch", s("goood"), "unknown", "$.stages[3].branch", "found `goood`, expected a case"),
        ("/on/exit/0", s("cleaner"), "unknown", "$.on.exit[0]", "found `cleaner`"),
        ("/loops/0/over/0", s("stop"), "unknown", "$.loops[0].over[0]", "found `stop`"),
        (
            "/loops/0/carry/model/init",
            s("bass"),
            "unknown",
            "$.loops[0].carry.model.init",
            "found `bass`, expected an input",
        ),
        (
            "/loops/0/carry/model/from",
            s("step.modell"),
            "unknown",
            "$.loops[0].carry.model.from",
            "an output of stage `step`",
        ),
        (
            "/stages/0/for_each",
            json!({"input": "updaets"}),
            "unknown",
            "$.stages[0].for_each.input",
            "found `updaets`",
        ),
        // Work.
        ("/stages/-", json!({"id": "idle"}), "work", "$.stages[12]", "found no work"),
        (
            "/stages/0/consensus",
            json!({"capability": "vote", "options": ["a", "b"]}),
            "work",
            "$.stages[0]",
            "found agent and consensus",
        ),
        (
            "/stages/7/argv",
            json!(["x"]),
            "field",
            "$.stages[7].argv",
            "for an agent of kind http, expected kind command",
        ),
        ("/stages/6/stdin", s("x"), "field", "$.stages[6].stdin", "without an agent"),
        ("/stages/0/else", s("x"), "field", "$.stages[0]", "is no decision"),
        ("/stages/2/out", json!([{"name": "o", "path": "-"}]), "field", "$.stages[2].out", "makes no files"),
        ("/agents/sh/argv", json!([]), "missing", "$.agents.sh.argv", "found no program"),
        ("/stages/8/prompt", Value::Null, "missing", "$.stages[8]", "found no `prompt`"),
        ("/stages/2/else", Value::Null, "missing", "$.stages[2]", "without `else`"),
        ("/stages/2/cases", json!([]), "missing", "$.stages[2].cases", "found no case"),
        (
            "/stages/2/cases/-",
            json!({"if": "params.on", "to": "good"}),
            "twice",
            "$.stages[2].cases[1].to",
            "case 0 has too",
        ),
        // Paths.
        ("/inputs/1/glob", s("x"), "path", "$.inputs[1]", "both `path` and `glob`"),
        ("/inputs/1/path", Value::Null, "path", "$.inputs[1]", "neither `path` nor `glob`"),
        ("/inputs/1/path", s("../x"), "path", "$.inputs[1].path", "found `../x`, expected a path inside"),
        (
            "/inputs/1/pin",
            json!({"base.bin": "blake3:1"}),
            "path",
            "$.inputs[1].pin.base.bin",
            "found `blake3:1`",
        ),
        ("/stages/1/out/0/path", s("/etc/x"), "path", "$.stages[1].out[0].path", "found path `/etc/x`"),
        ("/stages/3/out/1/path", s("-"), "twice", "$.stages[3].out[1].path", "found `-` again"),
        ("/safety/kill_file", s("../STOP"), "path", "$.safety.kill_file", "found path `../STOP`"),
        (
            "/safety/kill_file",
            s("lock"),
            "path",
            "$.safety.kill_file",
            "found `lock`, which the runner makes",
        ),
        ("/safety/kill_file", s("./plan.json"), "path", "$.safety.kill_file", "found `plan.json`"),
        ("/safety/kill_file", s("events.jsonl"), "path", "$.safety.kill_file", "found `events.jsonl`"),
        ("/stages/0/out/0/path", s("."), "path", "$.stages[0].out[0].path", "without `.` and `..`"),
        ("/stages/0/out/0/path", s("./a"), "path", "$.stages[0].out[0].path", "without `.` and `..`"),
        ("/stages/0/out/0/path", s("a/./b"), "path", "$.stages[0].out[0].path", "without `.` and `..`"),
        ("/inputs/0/glob", s("in/[a"), "path", "$.inputs[0].glob", "which is no pattern"),
        ("/inputs/0/glob", s("[a/b]"), "path", "$.inputs[0].glob", "which is no pattern"),
        ("/stages/0/argv/0", s("a\0b"), "template", "$.stages[0].argv[0]", "found a NUL character"),
        ("/agents/sh/argv/1", s("\0"), "template", "$.agents.sh.argv[1]", "found a NUL character"),
        (
            "/stages/0/for_each/range",
            json!(1_000_000_000),
            "limit",
            "$.stages[0].for_each",
            "at most 100000 in a plan",
        ),
        // Graph.
        ("/stages/7/needs", json!(["judge"]), "needs", "$.stages[7]", "both `needs` and `depends`"),
        ("/stages/0/needs", json!(["say"]), "cycle", "$.stages", "stages that wait for each other: make -> "),
        (
            "/stages/8/needs/-",
            s("clean"),
            "cycle",
            "$.stages[8]",
            "found a wait for `clean`, which runs at the end",
        ),
        (
            "/loops/0/over",
            json!(["choose", "redo"]),
            "carry",
            "$.loops[0].carry.model.from",
            "which the loop does not have",
        ),
        ("/stages/6/when", s("1 > 2"), "never", "$.stages[6].when", "stage `ask` never runs"),
        ("/stages/8/when", s("params.on && false"), "never", "$.stages[8].when", "never holds"),
        (
            "/stages/0/when",
            s("false"),
            "no-files",
            "$.stages[1]",
            "found `{make.part}`, whose files no stage makes",
        ),
        // Loops.
        ("/loops/0/max_iters", json!(0), "loop", "$.loops[0].max_iters", "found 0"),
        (
            "/loops/0/over",
            json!(["redo", "step"]),
            "loop",
            "$.loops[0].over[1]",
            "found `step`, which stands before",
        ),
        (
            "/loops/-",
            json!({"id": "l", "over": ["redo", "judge"], "max_iters": 2, "until": "true"}),
            "loop",
            "$.loops[1].over",
            "found stage `redo`, which loop `rounds` has too",
        ),
        ("/loops/0/until", Value::Null, "until", "$.loops[0]", "always runs 9 iterations"),
        (
            "/loops/0/carry/model/from",
            s("make.part"),
            "carry",
            "$.loops[0].carry.model.from",
            "found stage `make`",
        ),
        (
            "/loops/0/carry/model/from",
            s("step"),
            "carry",
            "$.loops[0].carry.model.from",
            "expected STAGE.OUTPUT",
        ),
        (
            "/loops/0/carry/model/init",
            Value::Null,
            "carry",
            "$.stages[1].argv[2]",
            "no file in the first iteration",
        ),
        // Time and retries.
        ("/limits/timeout", Value::Null, "timeout", "$.stages[0]", "found no timeout"),
        ("/stages/0/timeout", json!({"run": "0s"}), "timeout", "$.stages[0].timeout.run", "found 0s"),
        ("/stages/6/gate/timeout", s("0s"), "timeout", "$.stages[6].gate.timeout", "found 0s"),
        ("/agents/web/timeout", s("0s"), "timeout", "$.agents.web.timeout", "found 0s"),
        ("/stages/4/retry/max_attempts", json!(0), "retry", "$.stages[4].retry.max_attempts", "found 0"),
        (
            "/stages/4/retry/backoff",
            json!({"factor": 0.5}),
            "retry",
            "$.stages[4].retry.backoff.factor",
            "found 0.5",
        ),
        ("/stages/4/side_effects", s("once"), "retry", "$.stages[4].retry", "side_effects: once"),
        // Templates.
        ("/stages/1/argv/0", s("{make"), "template", "$.stages[1].argv[0]", "found `{` without `}`"),
        ("/stages/1/argv/0", s("{item}"), "template", "$.stages[1].argv[0]", "does not fan out"),
        ("/stages/0/argv/0", s("{carry.model}"), "template", "$.stages[0].argv[0]", "outside of a loop"),
        ("/stages/1/argv/0", s("{make}"), "template", "$.stages[1].argv[0]", "a stage that chooses nothing"),
        (
            "/stages/0/out/0/path",
            s("{out.m}"),
            "template",
            "$.stages[0].out[0].path",
            "in the path of an output",
        ),
        (
            "/stages/1/argv/0",
            s("{make.prt}"),
            "unknown",
            "$.stages[1].argv[0]",
            "found `prt`, expected an output of stage `make`",
        ),
        ("/stages/1/argv/0", s("{make.part[3]}"), "template", "$.stages[1].argv[0]", "has 3 instances"),
        ("/stages/1/argv/0", s("{make.part[index]}"), "template", "$.stages[1].argv[0]", "does not fan out"),
        (
            "/stages/1/argv/0",
            s("{params.rat}"),
            "unknown",
            "$.stages[1].argv[0]",
            "found `rat`, expected a parameter",
        ),
        (
            "/stages/1/argv/0",
            s("{in.bas}"),
            "unknown",
            "$.stages[1].argv[0]",
            "found `bas`, expected an input",
        ),
        ("/stages/1/argv/0", s("{out.modle}"), "unknown", "$.stages[1].argv[0]", "an output of the stage"),
        (
            "/stages/1/argv/2",
            s("{carry.modle}"),
            "unknown",
            "$.stages[1].argv[2]",
            "a file that the loop carries",
        ),
        ("/stages/7/body", json!({"a": ["{keep.p}"]}), "unknown", "$.stages[7].body.a[0]", "found `p`"),
        ("/stages/0/argv/0", s("{k}"), "first", "$.stages[0].argv[0]", "outside of a loop"),
        ("/stages/1/argv/0", s("a {make.part}"), "several", "$.stages[1].argv[0]", "inside a longer text"),
        (
            "/stages/1/argv/0",
            s("{keep.o}"),
            "order",
            "$.stages[1].argv[0]",
            "stage `step` does not wait for `keep`",
        ),
        (
            "/stages/-",
            stage("far", json!({"argv": ["{say.reply}"]})),
            "order",
            "$.stages[12].argv[0]",
            "does not wait for `say`",
        ),
        // Conditions.
        ("/stages/6/when", s("params.on &&"), "condition", "$.stages[6].when", "is no condition"),
        ("/stages/6/when", s("params.n"), "condition", "$.stages[6].when", "comes to a whole number"),
        (
            "/stages/6/when",
            s("params.rule > 1"),
            "condition",
            "$.stages[6].when",
            "found `>` between a text and a whole number",
        ),
        (
            "/stages/6/when",
            s("params.low * 2 > 1.0"),
            "condition",
            "$.stages[6].when",
            "write 2.0 in place of 2",
        ),
        ("/stages/6/when", s("params.on == 1"), "condition", "$.stages[6].when", "never equal"),
        ("/stages/6/when", s("mena([1, 2]) > 1.0"), "condition", "$.stages[6].when", "the nearest is `mean`"),
        (
            "/stages/6/when",
            s("mean(params.low) > 1.0"),
            "condition",
            "$.stages[6].when",
            "expected a list of numbers",
        ),
        (
            "/stages/6/when",
            s("params.lwo > 1.0"),
            "variable",
            "$.stages[6].when",
            "`lwo` is unknown, expected a parameter; the nearest is `low`",
        ),
        ("/stages/6/when", s("stages.judge.okay"), "variable", "$.stages[6].when", "`okay` is unknown"),
        ("/stages/6/when", s("iteration.k > 1"), "variable", "$.stages[6].when", "outside of a loop"),
        (
            "/stages/6/when",
            s("metrics.nothing > 1.0"),
            "variable",
            "$.stages[6].when",
            "a metric that a stage measures",
        ),
        (
            "/stages/6/when",
            s("choices.keep == 'a'"),
            "variable",
            "$.stages[6].when",
            "neither a decision nor a vote",
        ),
        ("/stages/6/when", s("choices.judge == 'acept'"), "case", "$.stages[6].when", "found `acept`"),
        (
            "/stages/1/when",
            s("metrics.score > 0.5"),
            "order",
            "$.stages[1].when",
            "does not wait for `keep` or `redo`",
        ),
        ("/stages/1/when", s("metrics.loss > 0.5"), "order", "$.stages[1].when", "does not wait for `step`"),
        ("/stages/1/when", s("stages.say.ok"), "order", "$.stages[1].when", "does not wait for `say`"),
        (
            "/loops/0/until",
            s("choices.judge == 'accept'"),
            "order",
            "$.loops[0].until",
            "neither is `judge` in the loop",
        ),
        (
            "/safety/invariants/0",
            s("metrics.loss < 1.0"),
            "order",
            "$.safety.invariants[0]",
            "before every stage",
        ),
        (
            "/stages/1/success_when",
            s("metrics.part_loss > 0.5"),
            "condition",
            "$.stages[1].success_when",
            "found `>` between a list of numbers",
        ),
        // Metrics.
        (
            "/stages/1/out/1/metrics",
            json!(false),
            "metric",
            "$.stages[1].metrics",
            "without a file of metrics",
        ),
        ("/stages/2/metrics/0", s("los"), "metric", "$.stages[2].metrics[0]", "found `los`"),
        (
            "/stages/4/branch",
            s("good"),
            "metric",
            "$.stages[4].metrics",
            "found metric `score`, which stage `keep` measures too",
        ),
        // Votes.
        (
            "/stages/5/for_each",
            json!({"range": 2}),
            "field",
            "$.stages[5].for_each",
            "found `for_each` in a vote",
        ),
        (
            "/stages/5/consensus/capability",
            s("rank"),
            "vote",
            "$.stages[5].consensus.capability",
            "found 1 voter",
        ),
        ("/stages/5/consensus/threshold", json!(1.5), "vote", "$.stages[5].consensus.threshold", "found 1.5"),
        ("/stages/5/consensus/threshold", json!(0), "vote", "$.stages[5].consensus.threshold", "found 0"),
        ("/stages/5/consensus/quorum", json!(1.1), "vote", "$.stages[5].consensus.quorum", "found 1.1"),
        (
            "/stages/5/consensus/weight_cap",
            json!(1.0 / 3.0),
            "idle",
            "$.stages[5].consensus.weight_cap",
            "found 0.333 for 3 voters",
        ),
        (
            "/stages/5/consensus/threshold",
            json!(0.72),
            "unanimous",
            "$.stages[5].consensus.threshold",
            "found 0.72 for 3 voters with weight, of which all but one carry 0.708 at most",
        ),
        ("/stages/5/consensus/weight_cap", json!(0), "vote", "$.stages[5].consensus.weight_cap", "found 0"),
        (
            "/stages/5/consensus/options",
            json!(["refuse"]),
            "vote",
            "$.stages[5].consensus.options",
            "found 1 options",
        ),
        (
            "/stages/5/consensus/weight_cap",
            json!(0.2),
            "idle",
            "$.stages[5].consensus.weight_cap",
            "more than 0.333",
        ),
        ("/limits/consensus_threshold", json!(2.0), "vote", "$.limits.consensus_threshold", "found 2"),
        (
            "/stages/5/consensus/fallback",
            Value::Null,
            "fallback",
            "$.stages[5].consensus",
            "found no `fallback`",
        ),
        (
            "/stages/5/consensus/fallback",
            s("refus"),
            "fallback",
            "$.stages[5].consensus.fallback",
            "found `refus`",
        ),
        (
            "/stages/5/consensus/on_no_consensus",
            s("gate"),
            "fallback",
            "$.stages[5].consensus.on_no_consensus",
            "without one",
        ),
        (
            "/stages/5/consensus/candidates",
            json!({"refus": "x"}),
            "unknown",
            "$.stages[5].consensus.candidates.refus",
            "found `refus`",
        ),
        ("/stages/5/consensus/min_options", json!(0), "vote", "$.stages[5].consensus.min_options", "found 0"),
        // Stages that may fail.
        ("/stages/0/min_succeeded", json!(4), "limit", "$.stages[0].min_succeeded", "at most the 3"),
        ("/stages/5/min_succeeded", json!(1), "field", "$.stages[5].min_succeeded", "a vote"),
        // Limits.
        ("/limits/max_parallel", json!(0), "limit", "$.limits.max_parallel", "found 0"),
        ("/limits/eps", json!(-1.0), "limit", "$.limits.eps", "found -1"),
        ("/limits/delta", json!(1.0), "limit", "$.limits.delta", "found 1"),
        ("/limits/delta", Value::Null, "limit", "$.limits.eps", "found no `delta`"),
        ("/limits/max_failed", json!(1.5), "limit", "$.limits.max_failed", "found 1.5"),
        ("/limits/max_failed", json!(2), "idle", "$.limits.max_failed", "keep_going"),
        ("/inputs/0/max", json!(1), "limit", "$.inputs[0].max", "found 1"),
        ("/agents/one/score", json!(1.5), "limit", "$.agents.one.score", "found 1.5"),
        ("/safety/frozen/0", s("/params/g"), "frozen", "$.safety.frozen[0]", "found `/params/g`"),
        ("/safety/frozen/0", s("params.f"), "frozen", "$.safety.frozen[0]", "expected a JSON pointer"),
        // Tuning.
        ("/loops/0/tune/param", s("/params/f"), "never-tuned", "$.loops[0].tune.param", "sets f"),
        (
            "/stages/1/argv/1",
            s("--clip={params.rate}"),
            "never-tuned",
            "$.loops[0].tune.param",
            "sets --clip of stage `step`",
        ),
        ("/loops/0/tune/param", s("/params/rates"), "tune", "$.loops[0].tune.param", "found `rates`"),
        ("/loops/0/tune/param", s("/params/rule"), "tune", "$.loops[0].tune.param", "expected a number"),
        (
            "/loops/0/tune/bounds",
            json!([0.3, 1.0]),
            "tune",
            "$.loops[0].tune.param",
            "expected one from 0.3 to 1",
        ),
        ("/loops/0/tune/bounds", json!([1.0, 0.1]), "tune", "$.loops[0].tune.bounds", "the lower first"),
        ("/safety/frozen/0", s("/params"), "tune", "$.loops[0].tune.param", "frozen by `/params`"),
        (
            "/loops/0/tune/validate/metric",
            s("score"),
            "tune",
            "$.loops[0].tune.validate.metric",
            "no shadow stage measures",
        ),
        (
            "/loops/0/tune/validate/shadow/0",
            s("make"),
            "tune",
            "$.loops[0].tune.validate.shadow[0]",
            "the loop does not have",
        ),
        (
            "/stages/1/side_effects",
            s("idempotent"),
            "tune",
            "$.loops[0].tune.validate.shadow[0]",
            "has side effects",
        ),
        ("/loops/0/tune/max_ratio", json!(1.0), "tune", "$.loops[0].tune.max_ratio", "found 1"),
        ("/loops/0/tune/bounds", Value::Null, "tune", "$.loops[0].tune.param", "found no `bounds`"),
        ("/loops/0/tune/population", json!(4), "tune", "$.loops[0].tune.population", "found 4"),
        (
            "/loops/0/tune/values",
            json!([0.5, 1.0]),
            "tune",
            "$.loops[0].tune.values",
            "with policy `ucb` alone",
        ),
        (
            "/loops/0/tune/values",
            json!(["krum:f=1"]),
            "never-tuned",
            "$.loops[0].tune.param",
            "sets f by the value",
        ),
        ("/loops/0/tune/policy", s("ucb"), "tune", "$.loops[0].tune.values", "found 0 values"),
        ("/loops/0/tune/policy", s("fedexp"), "tune", "$.loops[0].tune.policy", "reads metric `fedexp`"),
        ("/loops/0/max_iters", json!(3), "idle", "$.loops[0].tune", "none is tried"),
        // Secrets and endpoints.
        (
            "/agents/web/headers/Authorization",
            s("Bearer abc"),
            "secret",
            "$.agents.web.headers.Authorization",
            "in plain text",
        ),
        (
            "/stages/0/argv/0",
            s("sk-abcdefghijklmnopqrst1234"),
            "secret",
            "$.stages[0].argv[0]",
            "begins with `sk-`",
        ),
        ("/goal", s("AKIAIOSFODNN7EXAMPLE"), "secret", "$.goal", "begins with `AKIA`"),
        (
            "/stages/0/stdin",
            s("-----BEGIN RSA PRIVATE KEY-----\nx"),
            "secret",
            "$.stages[0].stdin",
            "a private key",
        ),
        (
            "/stages/0/argv/0",
            s("--password=hunter"),
            "likely-secret",
            "$.stages[0].argv[0]",
            "a value of `--password`",
        ),
        (
            "/stages/0/env",
            json!({"API_TOKEN": "hunter"}),
            "likely-secret",
            "$.stages[0].env.API_TOKEN",
            "in plain text",
        ),
        (
            "/agents/web",
            agent("url", s("http://other/x")),
            "endpoint",
            "$.agents.web.url",
            "found host other:80",
        ),
        (
            "/agents/web",
            agent("url", s("ftp://other/x")),
            "endpoint",
            "$.agents.web.url",
            "found `ftp://other/x`",
        ),
        (
            "/agents/model/options",
            json!({"seed": 1}),
            "repeatable",
            "$.agents.model.options",
            "found no num_ctx",
        ),
    ]
}

#[test]
fn each_rule_is_broken_once_and_its_place_is_named() {
    let mut seen = BTreeSet::new();
    for (pointer, value, rule, at, why) in broken() {
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
