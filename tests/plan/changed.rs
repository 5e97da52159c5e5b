//! Files that change between the stage that made them, or the start of a run, and their use.

use super::Workflow;
use crate::harness::{Run, fedmill, program};
use serde_json::json;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run in which `a` made a file, and `b`, which reads it, failed.
fn halfway() -> Workflow {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo hello", "out": [{"name": "o", "path": "-"}]},
        {"id": "b", "needs": ["a"], "agent": "shell", "argv": ["test -e {plan.dir}/mended && cat $0", "{a.o}"],
         "out": [{"name": "o", "path": "-"}]},
    ]));
    plan.run().assert_fails(2, &["stage `b`"]);
    plan.dir.write("mended", "");
    plan
}

/// The file of the store with what `a` made.
fn stored(plan: &Workflow) -> PathBuf {
    let receipt = plan.dir.json("plan.run/receipts/a.json");
    let digest = receipt["made"]["outputs"]["o"]["blake3"].as_str().unwrap().to_owned();
    plan.dir.path(&format!("plan.run/store/{}/{digest}", &digest[..2]))
}

fn overwrite(path: &Path, text: &str) {
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, text).unwrap();
}

fn resume(plan: &Workflow) -> Run {
    fedmill(&plan.dir, &["plan", "resume", "plan.run"])
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_string()
}

/// What changes behind the runner's back.
type Change = fn(&Workflow);

#[test]
fn a_result_that_changed_at_equal_size_is_not_used() {
    let [hello, other] = ["hello\n", "HELLO\n"].map(digest);
    let found = format!(
        "changed since the stage made it: found 6 bytes with BLAKE3 {other}, expected 6 bytes with BLAKE3 {hello}"
    );
    let changes: [(&str, Change); 3] = [
        // The output is a link to the file of the store.
        ("plan.run/out/a/o: ", |plan| overwrite(&stored(plan), "HELLO\n")),
        ("plan.run/out/a/o: ", |plan| {
            plan.dir.write("new", "HELLO\n");
            fs::rename(plan.dir.path("new"), plan.dir.path("plan.run/out/a/o")).unwrap();
        }),
        // The output stays, and another file is in the store.
        ("plan.run/store/", |plan| {
            plan.dir.write("new", "HELLO\n");
            fs::rename(plan.dir.path("new"), stored(plan)).unwrap();
        }),
    ];
    for (at, (file, change)) in changes.into_iter().enumerate() {
        let plan = halfway();
        change(&plan);
        let run = resume(&plan);
        run.assert_fails(2, &[file, &found]);
        assert_eq!(run.stderr.contains("remove the file"), at == 1, "{run:#?}");
        plan.run().assert_fails(2, &[file, &found]);
        assert!(!plan.dir.exists("plan.run/out/b/o"));
    }
}

#[test]
fn results_of_a_run_that_succeeded_are_checked_before_they_count() {
    let plan = halfway();
    assert_eq!(resume(&plan).code, Some(0));
    assert_eq!(resume(&plan).code, Some(0), "nothing changed");
    plan.dir.write("new", "HELLO\n");
    fs::rename(plan.dir.path("new"), plan.dir.path("plan.run/out/b/o")).unwrap();
    resume(&plan).assert_fails(2, &["plan.run/out/b/o: changed since the stage made it: found 6 bytes"]);
}

#[test]
fn an_output_that_is_gone_comes_back_from_the_store() {
    let plan = halfway();
    let output = plan.dir.path("plan.run/out/a/o");
    fs::remove_file(&output).unwrap();
    let run = resume(&plan);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!((plan.output("a/o"), plan.output("b/o")), ("hello\n".to_owned(), "hello\n".to_owned()));
    fs::remove_file(stored(&plan)).unwrap();
    fs::remove_file(&output).unwrap();
    let expected = format!("expected BLAKE3 {}", digest("hello\n"));
    resume(&plan).assert_fails(2, &["plan.run/out/a/o: is missing", &expected]);
    // A file of the store that changed restores nothing.
    let plan = halfway();
    overwrite(&stored(&plan), "HELLO\n");
    fs::remove_file(plan.dir.path("plan.run/out/a/o")).unwrap();
    resume(&plan).assert_fails(2, &["plan.run/store/", "changed since the stage made it"]);
    assert!(!plan.dir.exists("plan.run/out/a/o"));
}

#[test]
fn an_output_that_changes_or_goes_while_the_run_works_is_noticed() {
    for (change, code) in [("rm -f", 0), ("echo HELLO > {plan.dir}/new && mv -f {plan.dir}/new", 2)] {
        let change = format!("{change} {{plan.dir}}/plan.run/out/a/o");
        let plan = Workflow::new(&json!([
            {"id": "a", "sh": "echo hello", "out": [{"name": "o", "path": "-"}]},
            {"id": "b", "needs": ["a"], "sh": change},
            {"id": "c", "needs": ["a", "b"], "agent": "shell", "argv": ["cat $0", "{a.o}"],
             "out": [{"name": "o", "path": "-"}]},
        ]));
        let run = plan.run();
        assert_eq!(run.code, Some(code), "{run:#?}");
        match code {
            0 => assert_eq!(plan.output("c/o"), "hello\n"),
            _ => run.assert_fails(2, &["stage `c`: ", "plan.run/out/a/o: changed since the stage made it"]),
        }
    }
}

#[test]
fn equal_work_whose_result_changed_is_done_again() {
    let spoil = "f={plan.dir}/plan.run/out/a@1/o; chmod u+w $f; echo HELLO > $f";
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo hello", "cache": "content", "out": [{"name": "o", "path": "-"}]},
        {"id": "b", "needs": ["a"], "sh": spoil},
    ]))
    .with("loops", json!([{"id": "l", "over": ["a", "b"], "max_iters": 2}]));
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!((plan.output("a@1/o"), plan.output("a@2/o")), ("HELLO\n".to_owned(), "hello\n".to_owned()));
}

#[test]
fn an_input_that_changes_while_the_run_works_is_not_used() {
    let [found, expected] = ["2\n", "1\n"].map(digest);
    let found = format!("found 2 bytes with BLAKE3 {found}, expected 2 bytes with BLAKE3 {expected}");
    for (before, stage, since) in [("true", "b", "the run started"), ("cat {in.i}", "a", "the attempt began")]
    {
        let change = format!("{before}; echo 2 > {{plan.dir}}/i.txt");
        let plan = Workflow::new(&json!([
            {"id": "a", "sh": change, "out": [{"name": "o", "path": "-"}]},
            {"id": "b", "needs": ["a"], "agent": "shell", "argv": ["cat $0", "{in.i}"], "out": [{"name": "o", "path": "-"}]},
        ]))
        .with("inputs", json!([{"name": "i", "path": "i.txt"}]));
        plan.dir.write("i.txt", "1\n");
        let message = format!("i.txt: changed since {since}: {found}");
        plan.run().assert_fails(2, &[&format!("stage `{stage}`: input `i`: "), &message]);
        assert!(!plan.dir.exists(&format!("plan.run/out/{stage}/o")) || stage == "a");
        resume(&plan)
            .assert_fails(2, &["input `i`: ", &format!("i.txt: changed since the run started: {found}")]);
    }
}

#[test]
fn a_task_of_a_rendered_plan_notices_what_changed() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "cat {in.i}", "out": [{"name": "o", "path": "-"}]},
        {"id": "b", "needs": ["a"], "agent": "shell", "argv": ["cat $0", "{a.o}"], "out": [{"name": "o", "path": "-"}]},
    ]))
    .with("inputs", json!([{"name": "i", "path": "i.txt"}]));
    plan.write();
    plan.dir.write("i.txt", "1\n");
    let fedmill = |args: &[&str]| fedmill(&plan.dir, &[&["plan"], args].concat());
    assert_eq!(fedmill(&["render", "plan.json", "--target", "slurm", "-o", "r"]).code, Some(0));
    plan.dir.write("i.txt", "2\n");
    fedmill(&["task", "r", "a"])
        .assert_fails(2, &["input `i`: ", "i.txt: changed since the run started: found 2"]);
    plan.dir.write("i.txt", "1\n");
    assert_eq!(fedmill(&["task", "r", "a"]).code, Some(0));
    let output = plan.dir.path("r/tasks/a/out/a/o");
    fs::remove_file(&output).unwrap();
    assert_eq!(fedmill(&["task", "r", "b"]).code, Some(0));
    overwrite(&output, "3\n");
    fedmill(&["task", "r", "a"]).assert_fails(2, &["out/a/o: changed since the stage made it"]);
    // Another file in its place: the store has the right one. No run is there that could be resumed.
    fs::remove_dir_all(plan.dir.path("r/tasks/a")).unwrap();
    ["a", "b"]
        .iter()
        .for_each(|task| fs::remove_file(plan.dir.path(&format!("r/done/{task}.json"))).unwrap());
    fs::remove_dir_all(plan.dir.path("r/tasks/b")).unwrap();
    assert_eq!(fedmill(&["task", "r", "a"]).code, Some(0));
    fs::remove_file(&output).unwrap();
    fs::write(&output, "3\n").unwrap();
    let run = fedmill(&["task", "r", "b"]);
    run.assert_fails(2, &["remove the file, and the next runner restores it from the store"]);
    assert!(!run.stderr.contains("plan resume") && !run.stderr.contains("--dir"), "{run:#?}");
}

/// A file whose name is not UTF-8.
fn unnamed(plan: &Workflow, folder: &str, name: &[u8]) {
    fs::write(plan.dir.path(folder).join(OsStr::from_bytes(name)), "1").unwrap();
}

#[test]
fn an_input_whose_name_is_not_utf8_is_named() {
    let by_pattern = |pattern: &str| json!({"name": "i", "glob": pattern});
    let folder = json!({"name": "i", "path": "in"});
    for (input, file) in [(by_pattern("in/*.txt"), "b"), (by_pattern("*n/**/b*.txt"), "sub/b"), (folder, "b")]
    {
        let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}])).with("inputs", json!([input]));
        plan.dir.write("in/a.txt", "1");
        plan.dir.write("in/sub/a.txt", "1");
        let (folder, name) =
            file.rsplit_once('/').map_or(("in".to_owned(), file), |(sub, name)| (format!("in/{sub}"), name));
        unnamed(&plan, &folder, &[name.as_bytes(), b"\xff.txt"].concat());
        let message = format!("in/{file}\\xff.txt: the name is not UTF-8");
        plan.run().assert_fails(2, &["input `i`: ", &message]);
    }
    let plan =
        Workflow::new(&json!([{"id": "a", "sh": "true"}])).with("inputs", json!([by_pattern("in/**/*.txt")]));
    plan.dir.write("in/a.txt", "1");
    fs::create_dir(plan.dir.path("in").join(OsStr::from_bytes(b"sub\xff"))).unwrap();
    plan.run().assert_fails(2, &["in/sub\\xff: the name is not UTF-8"]);
    // A pattern that does not match the file leaves it out, whatever its name.
    let plan =
        Workflow::new(&json!([{"id": "a", "sh": "true"}])).with("inputs", json!([by_pattern("in/**/*.txt")]));
    plan.dir.write("in/a.txt", "1");
    unnamed(&plan, "in", b"b\xff.log");
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
}

#[test]
fn a_folder_whose_name_is_not_utf8_is_named() {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "true"}]));
    plan.write();
    let folder = plan.dir.path("").join(OsStr::from_bytes(b"plans\xff"));
    fs::create_dir(&folder).unwrap();
    fs::copy(plan.dir.path("plan.json"), folder.join("plan.json")).unwrap();
    let mut command = Command::new(program());
    let run = command.args(["plan", "run"]).arg(folder.join("plan.json")).output().unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("plans\\xff: the name is not UTF-8"), "{stderr}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    for (file, into) in
        [(folder.join("plan.json"), plan.dir.path("r")), (plan.dir.path("plan.json"), folder.join("r"))]
    {
        let mut command = Command::new(program());
        let run = command
            .args(["plan", "render", "--target", "slurm"])
            .arg(file)
            .arg("-o")
            .arg(&into)
            .output()
            .unwrap();
        let stderr = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("the name is not UTF-8") && !into.exists(), "{stderr}");
    }
}
