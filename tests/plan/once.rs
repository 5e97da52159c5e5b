//! Stages with side effects that must not happen twice, however an attempt ended.

use super::Workflow;
use crate::harness::{Run, fedmill, fedmill_after};
use serde_json::{Value, json};

/// Runs fedmill with `$HOME` as the folder of the plan.
fn at_home(plan: &Workflow, args: &[&str]) -> Run {
    let home = format!("export HOME={}", plan.dir.path("").display());
    fedmill_after(&plan.dir, &home, &[&["plan"], args].concat())
}

fn log(plan: &Workflow) -> String {
    String::from_utf8(plan.dir.read("log")).unwrap()
}

/// A `once` stage that writes a line to `log` and then does this; with more fields of the stage.
fn pays(then: &str, more: &Value) -> Workflow {
    let mut stage =
        json!({"id": "pay", "side_effects": "once", "sh": format!("echo x >> $HOME/log; {then}")});
    stage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Workflow::new(&json!([stage, {"id": "other", "sh": "test ! -e $HOME/fails || (sleep 0.5; exit 1)"}]))
}

/// Checks that `resume` asks the operator, and that the work is not done again.
fn asks(plan: &Workflow, how: &str) {
    for _ in 0..2 {
        at_home(plan, &["resume", "plan.run"]).assert_fails(
            1,
            &[
                "stage `pay` may have done its work",
                "--settle pay=done",
                "to `fedmill plan resume /",
                "plan.run`",
            ],
        );
    }
    assert_eq!(log(plan), "x\n", "{how}");
}

#[test]
fn an_attempt_that_began_and_did_not_succeed_asks_the_operator_however_it_ended() {
    let out = json!({"out": [{"name": "o", "path": "o"}]});
    let none = json!({});
    let plans = [
        ("a status", pays("exit 3", &none)),
        ("no output", pays("true", &out)),
        (
            "no success",
            pays("true", &json!({"success_when": "params.n > 1"})).with("params", json!({"n": 1})),
        ),
        ("a timeout", pays("sleep 60", &json!({"timeout": {"run": "300ms"}}))),
        ("SIGKILL", pays("kill -9 $$", &none)),
        ("wall", pays("sleep 60", &none).with("limits.wall", json!("500ms"))),
        (
            "fail_fast",
            pays("touch $HOME/fails; sleep 60", &none).with("limits.on_failure", json!("fail_fast")),
        ),
        ("the kill file", pays("touch $FEDMILL_RUN_DIR/STOP; sleep 60", &none)),
        ("SIGTERM", pays("kill -TERM $PPID; sleep 60", &none)),
        ("SIGINT", pays("kill -INT $PPID; sleep 60", &none)),
        ("SIGHUP", pays("kill -HUP $PPID; sleep 60", &none)),
    ];
    for (how, plan) in plans {
        plan.write();
        if how == "fail_fast" {
            plan.dir.write("fails", "");
        }
        let run = at_home(&plan, &["run", "plan.json"]);
        assert!(!matches!(run.code, None | Some(0)), "{how}: {run:#?}");
        let _ = std::fs::remove_file(plan.dir.path("plan.run/STOP"));
        asks(&plan, how);
    }
}

#[test]
fn the_operator_settles_what_an_orderly_end_left_open() {
    for (word, lines, code) in [("done", "x\n", 0), ("again", "x\nx\n", 2)] {
        let plan = pays("exit 3", &json!({}));
        plan.write();
        at_home(&plan, &["run", "plan.json"]).assert_fails(2, &["stage `pay`: exited with status 3"]);
        let settle = format!("pay={word}");
        let run = at_home(&plan, &["resume", "plan.run", "--settle", &settle]);
        assert_eq!((run.code, log(&plan).as_str()), (Some(code), lines), "{run:#?}");
    }
}

#[test]
fn the_word_of_the_operator_holds_for_a_stage_of_the_end() {
    let plan = Workflow::new(&json!([
        {"id": "s", "sh": "false"},
        {"id": "mail", "side_effects": "once", "sh": "echo x >> $HOME/log; exit 3"},
    ]))
    .with("on", json!({"failure": ["mail"]}));
    plan.write();
    at_home(&plan, &["run", "plan.json"]).assert_fails(2, &["stage `mail`: exited with status 3"]);
    for settled in [&["--settle", "mail=done"][..], &[]] {
        let run = at_home(&plan, &[&["resume", "plan.run"], settled].concat());
        run.assert_fails(2, &["stage `s`: exited with status 1"]);
        assert_eq!((plan.states().as_str(), log(&plan).as_str()), ("s failed, mail ok", "x\n"));
    }
}

#[test]
fn the_operator_cannot_say_done_for_what_only_the_work_makes() {
    let next =
        |text: &str| json!({"id": "next", "needs": ["pay"], "agent": "shell", "argv": ["echo $0", text]});
    let pay = |more: &Value| {
        let mut stage =
            json!({"id": "pay", "side_effects": "once", "sh": "exit 3", "out": [{"name": "o", "path": "o"}]});
        stage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage
    };
    let metrics = json!({"out": [{"name": "o", "path": "-", "metrics": true}], "metrics": ["acc"]});
    for (stage, next, why) in [
        (
            pay(&json!({})),
            next("{pay.o}"),
            "stage `next` reads its output `o`, which only the work itself makes",
        ),
        (pay(&metrics), next("x"), "only the work itself measures its metric `acc`"),
    ] {
        let plan = Workflow::new(&json!([stage, next]));
        plan.write();
        at_home(&plan, &["run", "plan.json"]).assert_fails(2, &["stage `pay`: exited with status 3"]);
        let expected = format!("--settle pay: found `done`, expected `again`, since {why}");
        at_home(&plan, &["resume", "plan.run", "--settle", "pay=done"]).assert_fails(2, &[&expected]);
        at_home(&plan, &["resume", "plan.run", "--settle", "pay=again"])
            .assert_fails(2, &["stage `pay`: exited with status 3"]);
    }
    let plan = Workflow::new(&json!([pay(&json!({})), next("x")]));
    plan.write();
    at_home(&plan, &["run", "plan.json"]).assert_fails(2, &["stage `pay`: exited with status 3"]);
    let run = at_home(&plan, &["resume", "plan.run", "--settle", "pay=done"]);
    assert_eq!(run.code, Some(0), "no stage reads the output: {run:#?}");
    // A stage that succeeded with some of its instances waits for no word.
    let plan = Workflow::new(&json!([
        {"id": "pay", "side_effects": "once", "for_each": {"range": 2}, "min_succeeded": 1, "sh": "exit $(({index} * 3))"},
        {"id": "bad", "needs": ["pay"], "sh": "false"},
    ]));
    plan.write();
    at_home(&plan, &["run", "plan.json"]).assert_fails(2, &["stage `bad`: exited with status 1"]);
    at_home(&plan, &["resume", "plan.run", "--settle", "pay.1=done"])
        .assert_fails(2, &["--settle pay.1: ", "nothing is left to settle"]);
}

#[test]
fn the_operator_may_take_a_word_back() {
    let plan = pays("exit 3", &json!({}));
    plan.write();
    at_home(&plan, &["run", "plan.json"]).assert_fails(2, &["stage `pay`: exited with status 3"]);
    let run = at_home(&plan, &["resume", "plan.run", "--settle", "pay=done"]);
    assert_eq!((run.code, log(&plan).as_str()), (Some(0), "x\n"), "{run:#?}");
    let run = at_home(&plan, &["resume", "plan.run", "--settle", "pay=again"]);
    run.assert_fails(2, &["stage `pay`: exited with status 3"]);
    assert_eq!((log(&plan).as_str(), plan.states().as_str()), ("x\nx\n", "pay failed, other ok"));
}

#[test]
fn the_end_of_a_run_comes_again_after_a_word_is_taken_back() {
    let plan = pays("test -e $HOME/mended", &json!({}))
        .with("stages.1.argv", json!(["echo end >> $HOME/log"]))
        .with("on", json!({"exit": ["other"]}));
    plan.write();
    at_home(&plan, &["run", "plan.json"]).assert_fails(2, &["stage `pay`: exited with status 1"]);
    plan.dir.write("mended", "");
    for (word, expected) in [("pay=done", "x\nend\nend\n"), ("pay=again", "x\nend\nend\nx\nend\n")] {
        let run = at_home(&plan, &["resume", "plan.run", "--settle", word]);
        assert_eq!((run.code, log(&plan).as_str()), (Some(0), expected), "{run:#?}");
    }
}

#[test]
fn the_word_for_an_iteration_stays_once_another_one_began() {
    let plan = pays("test -e $HOME/mended", &json!({}))
        .with("loops", json!([{"id": "l", "over": ["pay"], "max_iters": 2}]));
    plan.write();
    at_home(&plan, &["run", "plan.json"]).assert_fails(2, &["stage `pay@1`: exited with status 1"]);
    plan.dir.write("mended", "");
    let run = at_home(&plan, &["resume", "plan.run", "--settle", "pay@1=done"]);
    assert_eq!((run.code, log(&plan).as_str()), (Some(0), "x\nx\n"), "{run:#?}");
    at_home(&plan, &["resume", "plan.run", "--settle", "pay@1=again"]).assert_fails(
        2,
        &["iteration 2 of loop `l` began after iteration 1, so that what came of that one stays"],
    );
}

#[test]
fn a_program_that_never_started_did_nothing() {
    let plan = Workflow::new(&json!([{"id": "pay", "side_effects": "once", "agent": "tool", "argv": ["x"]}]));
    let tool = plan.dir.path("tool");
    let plan = plan.with("agents.tool", json!({"kind": "command", "argv": [tool]}));
    // The program exists; the one that should read it does not.
    plan.dir.write("tool", "#!/no/such/shell\n");
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    plan.run().assert_fails(2, &["cannot be started"]);
    plan.dir.write("tool", "#!/bin/sh\nexit 0\n");
    let run = fedmill(&plan.dir, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
}

#[test]
fn a_receipt_holds_although_the_journal_is_lost() {
    let plan = Workflow::new(&json!([
        {"id": "pay", "side_effects": "once", "sh": "echo x >> $HOME/log; echo 7", "out": [{"name": "o", "path": "-"}]},
        {"id": "next", "needs": ["pay"], "agent": "shell", "argv": ["cat $0", "{pay.o}"], "out": [{"name": "o", "path": "-"}]},
    ]));
    plan.write();
    assert_eq!(at_home(&plan, &["run", "plan.json"]).code, Some(0));
    let journal = plan.dir.read("plan.run/events.jsonl");
    for lines in [0, 1, 2] {
        let kept: Vec<&[u8]> = journal.split_inclusive(|byte| *byte == b'\n').take(lines).collect();
        // A killed runner may leave a part of a letter.
        plan.dir.write("plan.run/events.jsonl", [kept.concat(), vec![0xc3]].concat());
        let run = at_home(&plan, &["resume", "plan.run"]);
        assert_eq!((run.code, log(&plan).as_str()), (Some(0), "x\n"), "{lines}: {run:#?}");
        assert_eq!(plan.output("next/o"), "7\n");
    }
    // The output gets its name back.
    std::fs::remove_file(plan.dir.path("plan.run/events.jsonl")).unwrap();
    std::fs::remove_dir_all(plan.dir.path("plan.run/out")).unwrap();
    let run = at_home(&plan, &["resume", "plan.run"]);
    assert_eq!((run.code, log(&plan).as_str()), (Some(0), "x\n"), "{run:#?}");
    assert_eq!((plan.output("pay/o").as_str(), plan.output("next/o").as_str()), ("7\n", "7\n"));
    // A receipt proves only what lies in the store: this one names another file.
    let receipt = String::from_utf8(plan.dir.read("plan.run/receipts/pay.json")).unwrap();
    plan.dir.write("plan.run/receipts/pay.json", receipt.replace("out/pay/o", "out/pay/../../plan.json"));
    let began = journal.split_inclusive(|byte| *byte == b'\n').take(2).collect::<Vec<_>>().concat();
    assert!(String::from_utf8_lossy(&began).contains("\"begin\""));
    plan.dir.write("plan.run/events.jsonl", began);
    at_home(&plan, &["resume", "plan.run"]).assert_fails(1, &["stage `pay` may have done its work"]);
}

#[test]
fn a_task_that_a_signal_ended_asks_the_operator() {
    let plan = pays("test -e $HOME/mended || (kill -TERM $PPID; sleep 60)", &json!({}));
    plan.write();
    let run = at_home(&plan, &["render", "plan.json", "--target", "slurm", "-o", "rendered"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(at_home(&plan, &["task", "rendered", "pay"]).code, Some(143));
    let settle = format!("to `fedmill plan task {} pay`", plan.dir.path("rendered").display());
    at_home(&plan, &["task", "rendered", "pay"])
        .assert_fails(1, &["stage `pay` may have done its work", &settle]);
    assert_eq!(log(&plan), "x\n");
    let run = at_home(&plan, &["task", "rendered", "pay", "--settle", "pay=done"]);
    assert_eq!((run.code, log(&plan).as_str()), (Some(0), "x\n"), "{run:#?}");
}

/// Runs a plan that lint refuses: the runner that goes on with a run reads the plan in its directory.
fn run_unchecked(plan: &Workflow) -> Run {
    plan.write();
    plan.dir.write("plan.run/plan.json", plan.dir.read("plan.json"));
    plan.dir.write("plan.run/lock", "");
    plan.dir.write("plan.run/inputs", format!("{}\n", plan.dir.path("").display()));
    at_home(plan, &["resume", "plan.run"])
}

/// The attempts of the first stage.
fn attempts(plan: &Workflow) -> Value {
    let run = at_home(plan, &["status", "--json", "plan.run"]);
    serde_json::from_str::<Value>(&run.stdout).unwrap()["stages"][0]["attempts"].clone()
}

#[test]
fn retry_starts_a_once_stage_again_only_if_it_never_started() {
    let retry = json!({"retry": {"max_attempts": 3, "backoff": {"initial": "10ms"}}});
    let plan = pays("exit 3", &retry);
    plan.write();
    at_home(&plan, &["run", "plan.json"])
        .assert_fails(2, &["$.stages[0].retry: found retries of a stage with"]);
    assert!(!plan.dir.exists("log"));
    for (how, then, more) in [
        ("a status", "exit 3", json!({})),
        ("a signal", "kill -9 $$", json!({})),
        ("a timeout", "sleep 60", json!({"timeout": {"run": "300ms"}})),
        ("no output", "true", json!({"out": [{"name": "o", "path": "o"}]})),
    ] {
        let mut fields = retry.clone();
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let plan = pays(then, &fields);
        run_unchecked(&plan).assert_fails(2, &["stage `pay`: "]);
        assert_eq!((log(&plan).as_str(), attempts(&plan)), ("x\n", json!(1)), "{how}");
    }
    let mut stage = json!({"id": "pay", "side_effects": "once", "agent": "tool", "argv": ["x"]});
    stage.as_object_mut().unwrap().extend(retry.as_object().unwrap().clone());
    let plan = Workflow::new(&json!([stage]));
    let tool = plan.dir.path("tool");
    plan.script("tool", "#!/no/such/shell\n");
    let plan = plan.with("agents.tool", json!({"kind": "command", "argv": [tool]}));
    run_unchecked(&plan).assert_fails(2, &["cannot be started"]);
    assert_eq!(attempts(&plan), json!(3));
}
