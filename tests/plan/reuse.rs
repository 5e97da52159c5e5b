//! Results of an earlier run that a run of an edited plan takes over.

use super::Workflow;
use super::killed::wait_until;
use super::watch::start;
use crate::harness::{Run, fedmill, fedmill_after};
use serde_json::{Value, json};
use std::fs;

/// Four kinds of work, each of which notes its name; `mend` is the command of a stage behind them.
fn plan(mend: &str) -> Workflow {
    let note = |name: &str| format!("echo {name} >> $HOME/log; echo {name}");
    let out = json!([{"name": "o", "path": "-"}]);
    Workflow::new(&json!([
        {"id": "make", "agent": "shell", "argv": ["echo make >> $HOME/log; cat $0", "{in.i}"], "out": out},
        {"id": "parts", "sh": "echo part{item} >> $HOME/log; echo part{item}", "for_each": {"values": ["a", "b"]}, "out": out},
        {"id": "once", "sh": note("once"), "side_effects": "once", "out": out},
        {"id": "tell", "sh": note("tell"), "side_effects": "idempotent", "out": out},
        {"id": "gated", "sh": note("gated"), "gate": {"timeout": "1ms", "default": "approve"}, "out": out},
        {"id": "join", "kind": "reduce", "needs": ["make", "parts"], "reduce": {"by": "concat", "files": ["{make.o}", "{parts.o}"]},
         "out": [{"name": "o", "path": "all"}]},
        {"id": "script", "agent": "script", "argv": ["x"], "out": out},
        {"id": "mend", "needs": ["join", "once", "tell", "gated", "script"], "agent": "shell", "argv": [mend, "{join.o}"], "out": out},
        {"id": "last", "sh": note("last")},
    ]))
    .with("inputs", json!([{"name": "i", "path": "i.txt"}]))
    .with("agents.script", json!({"kind": "command", "argv": ["./work.sh"]}))
    .with("on", json!({"exit": ["last"]}))
}

fn run(plan: &Workflow, args: &[&str]) -> Run {
    plan.write();
    let home = format!("export HOME={}", plan.dir.path("").display());
    fedmill_after(&plan.dir, &home, &[&["plan", "run", "plan.json"], args].concat())
}

/// The names that commands noted since the last call, sorted.
fn log(plan: &Workflow) -> String {
    let text = if plan.dir.exists("log") { plan.dir.read("log") } else { Vec::new() };
    plan.dir.write("log", "");
    let text = String::from_utf8(text).unwrap();
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    names.join(" ")
}

/// The directory of the run whose plan has a digest in its name.
fn second(plan: &Workflow) -> String {
    let names = fs::read_dir(plan.dir.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let name = names.map(|name| name.into_string().unwrap()).find(|name| name.matches('.').count() == 2);
    name.filter(|name| name.ends_with(".run")).unwrap()
}

/// A run of the plan whose stage behind the others failed, and the plan with that stage mended.
fn mended() -> Workflow {
    let mut failing = plan("exit 3");
    failing.script("work.sh", "#!/bin/sh\necho script >> $HOME/log; echo script\n");
    failing.dir.write("i.txt", "input\n");
    let failed = run(&failing, &[]);
    failed.assert_fails(2, &["stage `mend`: exited with status 3"]);
    assert_eq!(log(&failing), "gated last make once parta partb script tell");
    failing = failing.with("stages.7.argv.0", json!("cat $0"));
    failing
}

#[test]
fn a_run_of_an_edited_plan_repeats_no_work_that_is_the_same() {
    let plan = mended();
    let refused = run(&plan, &[]);
    refused.assert_fails(2, &["holds a run of another plan", "--reuse ", "plan.run` takes the results"]);
    let again = run(&plan, &["--reuse", "plan.run"]);
    assert_eq!(again.code, Some(0), "{again:#?}");
    assert!(again.stderr.contains("9 stages: 9 ok, 4 of them reused"), "{again:#?}");
    // Effects happen, and people are asked, in each run; what failed runs.
    assert_eq!(log(&plan), "gated last once tell");
    let dir = second(&plan);
    assert_eq!(plan.dir.read(&format!("{dir}/out/mend/o")), b"input\nparta\npartb\n");
    assert_eq!(plan.dir.read(&format!("{dir}/out/parts.1/o")), b"partb\n");

    let of = |args: &[&str]| {
        let run = fedmill(&plan.dir, &[&["plan"], args, &[&dir]].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        run.stdout
    };
    let status: Value = serde_json::from_str(&of(&["status", "--json"])).unwrap();
    let reused: Vec<u64> =
        status["stages"].as_array().unwrap().iter().map(|stage| stage["reused"].as_u64().unwrap()).collect();
    assert_eq!((&status["reused"], reused), (&json!(4), vec![1, 2, 0, 0, 0, 1, 1, 0, 0]));
    let table = of(&["status"]);
    assert!(table.contains("9 of 9 stages are over, 4 reused") && table.contains("2 of 2 reused"), "{table}");
    let from = format!("{}: parts.1", plan.dir.path("plan.run").canonicalize().unwrap().display());
    let events: Vec<Value> =
        of(&["history", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let made =
        |name: &str| events.iter().find(|event| event["event"] == "made" && event["name"] == name).unwrap();
    assert_eq!(made("parts.1")["data"]["made"]["made"]["from"], json!(from));
    assert!(made("parts.1")["what"].as_str().unwrap().ends_with(&format!("the result of {from}")));
    assert_eq!(made("mend")["data"]["made"]["made"]["from"], Value::Null);
    // The run needs nothing of the earlier one.
    fs::remove_dir_all(plan.dir.path("plan.run")).unwrap();
    assert_eq!(fedmill(&plan.dir, &["plan", "resume", &dir]).code, Some(0));
}

#[test]
fn work_with_other_files_values_or_programs_runs_again() {
    let plan = mended();
    plan.dir.write("i.txt", "changed\n");
    let again = run(&plan, &["--reuse", "plan.run", "--dir", "a"]);
    assert_eq!((again.code, log(&plan).as_str()), (Some(0), "gated last make once tell"), "{again:#?}");
    plan.dir.write("i.txt", "input\n");
    // A value before the others moves their places.
    let plan = plan.with("stages.1.for_each.values", json!(["c", "a", "b"]));
    let again = run(&plan, &["--reuse", "plan.run", "--dir", "b"]);
    assert_eq!((again.code, log(&plan).as_str()), (Some(0), "gated last once partc tell"), "{again:#?}");
    assert_eq!(plan.dir.read("b/out/mend/o"), b"input\npartc\nparta\npartb\n");
    plan.script("work.sh", "#!/bin/sh\necho other >> $HOME/log; echo script\n");
    let again = run(&plan, &["--reuse", "plan.run", "--dir", "c"]);
    assert_eq!(
        (again.code, log(&plan).as_str()),
        (Some(0), "gated last once other partc tell"),
        "{again:#?}"
    );
    // A result whose file is damaged proves nothing.
    let object = fs::read_dir(plan.dir.path("plan.run/store"))
        .unwrap()
        .flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap());
    for object in
        object.map(|entry| entry.unwrap().path()).filter(|path| fs::read(path).unwrap() == b"parta\n")
    {
        fs::remove_file(&object).unwrap();
        fs::write(&object, "pargs\n").unwrap();
    }
    let again = run(&plan, &["--reuse", "plan.run", "--dir", "d"]);
    assert_eq!(
        (again.code, log(&plan).as_str()),
        (Some(0), "gated last once other parta partc tell"),
        "{again:#?}"
    );
}

#[test]
fn a_run_that_is_at_work_is_not_reused() {
    let plan = Workflow::new(
        &json!([{"id": "a", "sh": "touch $HOME/began; until test -e $HOME/mended; do sleep 0.05; done"}]),
    );
    let mut runner = start(&plan);
    wait_until("stage a", || plan.dir.exists("began"));
    let of = |args: &[&str]| fedmill(&plan.dir, &[&["plan", "run", "plan.json"], args].concat());
    of(&["--reuse", "plan.run", "--dir", "b"]).assert_fails(1, &["plan.run: process ", " works on this run"]);
    assert!(!plan.dir.exists("b"));
    plan.dir.write("mended", "");
    assert_eq!(runner.wait().unwrap().code(), Some(0));
    of(&["--reuse", "nothing", "--dir", "b"]).assert_fails(2, &["nothing: holds no run"]);
    assert_eq!(
        fedmill(&plan.dir, &["plan", "render", "plan.json", "--target", "slurm", "-o", "r"]).code,
        Some(0)
    );
    of(&["--reuse", "r", "--dir", "b"]).assert_fails(2, &["r: holds a rendered plan"]);
}
