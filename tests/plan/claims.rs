//! Directories: which hold runs, which a run may take, and one run under several names.

use super::Workflow;
use super::killed::{is_alive, wait_until};
use crate::harness::{fedmill, program};
use serde_json::json;
use std::process::{Command, Stdio};

fn small() -> Workflow {
    Workflow::new(&json!([{"id": "a", "sh": "echo 1", "out": [{"name": "o", "path": "-"}]}]))
}

#[test]
fn the_children_of_a_killed_runner_are_found_under_each_name_of_the_directory() {
    for (first, then) in [("sub/../p.run", "p.run"), ("link/p.run", "sub/p.run"), ("p.run", "q.run")] {
        let plan = Workflow::new(&json!([
            {"id": "a", "sh": "test -e $HOME/mended || (echo $$ > $HOME/child; exec setsid sleep 300)"},
        ]));
        plan.write();
        std::fs::create_dir(plan.dir.path("sub")).unwrap();
        std::os::unix::fs::symlink("sub", plan.dir.path("link")).unwrap();
        let mut command = Command::new(program());
        command.args(["plan", "run", "-q", "plan.json", "--dir", first]).current_dir(plan.dir.path(""));
        command.env("HOME", plan.dir.path(""));
        let mut runner =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the child", || plan.dir.exists("child") && !plan.dir.read("child").is_empty());
        runner.kill().unwrap();
        runner.wait().unwrap();
        let child = String::from_utf8(plan.dir.read("child")).unwrap();
        assert!(is_alive(&child), "the child outlives the runner");
        if then == "q.run" {
            std::fs::rename(plan.dir.path("p.run"), plan.dir.path("q.run")).unwrap();
        }
        plan.dir.write("mended", "");
        let home = format!("export HOME={}", plan.dir.path("").display());
        let run = crate::harness::fedmill_after(&plan.dir, &home, &["plan", "resume", then]);
        assert_eq!(run.code, Some(0), "{first}: {run:#?}");
        assert!(!is_alive(&child), "{first}: the child of the killed runner is still there");
    }
}

#[test]
fn processes_of_the_operator_outlive_resume() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "test -e $FEDMILL_RUN_DIR/../mended"}]));
    plan.run().assert_fails(2, &["stage `a`"]);
    plan.dir.write("mended", "");
    let operated = |program: &str| {
        let mut command = Command::new(program);
        command.env("FEDMILL_RUN_DIR", plan.dir.path("plan.run")).current_dir(plan.dir.path("plan.run"));
        command
    };
    let mut other = operated("sleep").arg("300").spawn().unwrap();
    let script = format!("'{}' plan resume -q . && echo alive", program());
    // Even a shell that carries all that an attempt carries is no attempt where it runs `resume` itself.
    let output = operated("sh").env("FEDMILL_RUNNER", "1-0").args(["-c", &script]).output().unwrap();
    let lives = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("alive"), "{output:?}");
    assert!(lives, "resume ended a process of the operator");
}

#[test]
fn files_of_others_are_not_overwritten() {
    let plan = small();
    plan.write();
    plan.dir.write("mine/submit.sh", "mine");
    plan.dir.write("plans/plan.json", "mine");
    let before = plan.dir.contents();
    let render = |dir: &str| {
        let args = ["plan", "render", "plan.json", "--target", "slurm", "-o", dir];
        fedmill(&plan.dir, &args)
    };
    let run = |dir: &str| fedmill(&plan.dir, &["plan", "run", "plan.json", "--dir", dir]);
    for dir in ["mine", "plans", "."] {
        let file = match dir {
            "mine" => "mine/submit.sh: is no part",
            "plans" => "plans/plan.json: is no part",
            _ => "/mine: is no part",
        };
        render(dir).assert_fails(2, &[file]);
        run(dir).assert_fails(2, &[file]);
    }
    plan.dir.assert_unchanged_since(&before);
    assert_eq!((run("p.run").code, render("rendered").code), (Some(0), Some(0)));
    render("p.run").assert_fails(2, &["p.run/attempts: is no part"]);
    run("rendered").assert_fails(2, &["rendered/", ": is no part"]);
    // What fedmill made from the same plan, it takes up.
    assert_eq!((run("p.run").code, render("rendered").code), (Some(0), Some(0)));
    // An empty folder is free.
    std::fs::create_dir(plan.dir.path("empty")).unwrap();
    assert_eq!(run("empty").code, Some(0));
}

#[test]
fn a_run_reads_the_inputs_with_which_it_began() {
    let plan = Workflow::new(&json!([
        {"id": "a", "agent": "shell", "argv": ["cat $0", "{in.i}"], "out": [{"name": "o", "path": "-"}]},
        {"id": "b", "sh": "test -e $FEDMILL_RUN_DIR/../mended"},
    ]))
    .with("inputs", json!([{"name": "i", "path": "i.txt"}]));
    plan.dir.write("i.txt", "1");
    plan.dir.write("other.txt", "2");
    plan.run().assert_fails(2, &["stage `b`"]);
    let named = |input: &str| fedmill(&plan.dir, &["plan", "run", "plan.json", "--input", input]);
    named("i=other.txt")
        .assert_fails(2, &["--input i: found /", "other.txt, and the run in ", "began with i.txt"]);
    named("nosuch=other.txt").assert_fails(2, &["the plan has no such input; it has i"]);
    plan.dir.write("mended", "");
    assert_eq!(plan.run().code, Some(0));
    // Now it is finished.
    named("i=other.txt").assert_fails(2, &["began with i.txt", "--dir names another directory"]);
    let run = plan.run();
    assert_eq!(run.code, Some(0));
    assert!(run.stderr.contains("and nothing ran now; --dir names"), "{run:#?}");
    plan.dir.write("i.txt", "3");
    plan.run().assert_fails(2, &["plan.run: the run finished at ", "i.txt: changed", "--dir names another"]);
}

#[test]
fn a_new_file_of_a_glob_is_no_part_of_a_finished_run() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}]))
        .with("inputs", json!([{"name": "i", "glob": "in/*.txt"}]));
    plan.dir.write("in/a.txt", "1");
    assert_eq!(plan.run().code, Some(0));
    plan.dir.write("in/b.txt", "1");
    plan.run().assert_fails(2, &["finished at ", "in/b.txt: the run did not have the file"]);
}

#[test]
fn the_next_plan_of_the_same_name_runs_beside_the_one_that_succeeded() {
    let first = small();
    let run = first.run();
    assert_eq!(run.stdout, "plan.run/out/a/o\n", "{run:#?}");
    let second = first.with("params", json!({"round": 2}));
    let run = second.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let dir = run.stdout.trim().strip_suffix("/out/a/o").unwrap().to_owned();
    assert!(dir != "plan.run" && dir.starts_with("plan.") && dir.ends_with(".run"), "{dir}");
    assert!(second.run().stderr.contains("nothing ran now"));
    // A run that is not over keeps the name for itself.
    let open = Workflow::new(&json!([{"id": "a", "sh": "exit 1"}]));
    open.run().assert_fails(2, &["stage `a`"]);
    open.with("params", json!({"round": 2})).run().assert_fails(2, &["holds a run of another plan"]);
}

#[test]
fn a_plan_that_was_edited_in_the_directory_of_its_run_is_named() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}, {"id": "b", "sh": "true"}]));
    assert_eq!(plan.run().code, Some(0));
    let mut edited = plan.dir.json("plan.run/plan.json");
    edited["stages"].as_array_mut().unwrap().pop();
    plan.dir.write("plan.run/plan.json", edited.to_string());
    for command in ["status", "cancel", "metrics", "history", "resume"] {
        let run = fedmill(&plan.dir, &["plan", command, "plan.run"]);
        run.assert_fails(2, &["plan.run/plan.json: is not the plan with which the run began"]);
    }
}

#[test]
fn a_folder_with_a_plan_is_no_run() {
    let plan = small();
    assert_eq!(plan.run().code, Some(0));
    fedmill(&plan.dir, &["plan", "status", "."]).assert_fails(2, &[".: holds no run", "plan history FOLDER"]);
    let run = fedmill(&plan.dir, &["plan", "history", "."]);
    assert!(run.code == Some(0) && run.stdout.contains("plan.run"), "{run:#?}");
}

#[test]
fn a_rendered_plan_is_no_run() {
    let plan = small();
    plan.write();
    let run = fedmill(&plan.dir, &["plan", "render", "plan.json", "--target", "slurm", "-o", "rendered"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let resume = |dir: &str| fedmill(&plan.dir, &["plan", "resume", dir]);
    resume("rendered").assert_fails(2, &["rendered: holds a rendered plan, expected a run", "submit.sh"]);
    assert!(!plan.dir.exists("rendered/events.jsonl"));
    assert_eq!(fedmill(&plan.dir, &["plan", "task", "rendered", "a"]).code, Some(0));
    resume("rendered/tasks/a").assert_fails(2, &["holds a task of the rendered plan"]);
    let run = fedmill(&plan.dir, &["plan", "status", "rendered/tasks/a"]);
    assert!(run.code == Some(0) && run.stdout.contains("1 of 1 stages are over"), "{run:#?}");
}
