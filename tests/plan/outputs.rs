//! Files of plans that the operator names: what they may replace, and who may read them.

use super::Workflow;
use super::new::round;
use crate::harness::{Dir, fedmill};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

fn plan() -> Workflow {
    let plan = Workflow::new(&json!([{"id": "a", "sh": "cat {in.i}", "out": [{"name": "o", "path": "-"}]}]))
        .with("inputs", json!([{"name": "i", "path": "in.txt"}]));
    plan.dir.write("in.txt", "in");
    plan.write();
    plan
}

/// Runs the command, and expects exit status 2 with this text. The file stays as it was.
#[track_caller]
fn refused(dir: &Dir, command: &str, path: &str, why: &str) {
    let before = fs::read(dir.path(path)).unwrap();
    let words: Vec<&str> = command.split_whitespace().collect();
    fedmill(dir, &words).assert_fails(2, &[path, why]);
    assert_eq!(fs::read(dir.path(path)).unwrap(), before, "{command}");
}

/// The text that a reader of a pipe gets while a command writes into it.
fn piped(dir: &Dir, command: &str) -> String {
    let reader = Command::new("cat").arg(dir.path("pipe")).stdout(Stdio::piped()).spawn().unwrap();
    let run = fedmill(dir, &command.split_whitespace().collect::<Vec<_>>());
    assert_eq!(run.code, Some(0), "{command}: {run:#?}");
    String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn an_export_replaces_no_pipe_and_no_link() {
    let plan = plan();
    let dir = &plan.dir;
    mknodat(CWD, dir.path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // A link leads to its file, which need not exist.
    symlink("trace.jsonl", dir.path("link")).unwrap();
    for _ in 0..2 {
        assert_eq!(fedmill(dir, &["plan", "run", "-q", "plan.json", "--trace", "link"]).code, Some(0));
        assert!(fs::symlink_metadata(dir.path("link")).unwrap().is_symlink());
        assert!(dir.read("trace.jsonl").starts_with(b"{\"resourceSpans\""));
    }
    assert!(piped(dir, "plan run -q plan.json --prometheus pipe").starts_with("# HELP fedmill_"));
    let new = "plan new --template map-reduce --set files=in.txt --set map=cat -o pipe";
    assert!(piped(dir, new).contains("fedmill.plan/1"));
    for option in ["--trace", "--prometheus", "--events"] {
        assert!(piped(dir, &format!("plan export plan.run {option} pipe")).contains("plan"), "{option}");
        let run = fedmill(dir, &["plan", "export", "plan.run", option, "/dev/stdout"]);
        assert!(run.code == Some(0) && run.stdout.contains("plan"), "{option}: {run:#?}");
    }
    assert!(fs::symlink_metadata(dir.path("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn an_export_replaces_no_plan_no_input_and_no_file_of_a_run() {
    let plan = plan();
    let dir = &plan.dir;
    for (option, what) in [("--prometheus", "textfile"), ("--trace", "trace")] {
        let what = format!("expected an earlier {what}");
        refused(dir, &format!("plan run -q plan.json {option} in.txt"), "in.txt", &what);
        refused(dir, &format!("plan run -q plan.json {option} plan.json"), "plan.json", "is also an input");
    }
    let inside = fedmill(dir, &["plan", "run", "-q", "plan.json", "--trace", "plan.run/t"]);
    inside.assert_fails(2, &["plan.run/t: is inside of ", "expected an output path outside it"]);
    let both = fedmill(dir, &["plan", "run", "-q", "plan.json", "--trace", "x", "--prometheus", "./x"]);
    both.assert_fails(2, &["is also another output"]);
    assert!(!dir.exists("plan.run"), "a run began");
    // An input that looks like an earlier export.
    dir.write("in.txt", "# HELP fedmill_x y\n");
    refused(dir, "plan run -q plan.json --prometheus in.txt", "in.txt", "is also an input");
    assert_eq!(fedmill(dir, &["plan", "run", "-q", "plan.json"]).code, Some(0));
    for file in ["events.jsonl", "plan.json", "out/a/o"] {
        let path = format!("plan.run/{file}");
        refused(dir, &format!("plan export plan.run --events {path}"), &path, "is inside of");
        let new = format!("plan new --template map-reduce --set files=in.txt --set map=cat -o {path}");
        refused(dir, &new, &path, "is inside of");
    }
    // The next export replaces the one before.
    for _ in 0..2 {
        let words = ["plan", "export", "plan.run", "--prometheus", "p", "--trace", "t", "--events", "e"];
        assert_eq!(fedmill(dir, &words).code, Some(0));
    }
    // An attempt may write into the folder in which it works.
    let sh = format!(
        "{} plan export {} --trace t && cat t",
        crate::harness::program(),
        dir.path("plan.run").display()
    );
    let other = Workflow::new(&json!([{"id": "a", "sh": sh, "out": [{"name": "o", "path": "-"}]}]));
    let run = other.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(other.output("a/o").starts_with("{\"resourceSpans\""));
}

#[test]
fn a_new_plan_replaces_none_of_its_inputs() {
    let dir = round();
    let new = "plan new --template map-reduce --set files=base.safetensors --set map=cat -o base.safetensors";
    refused(&dir, new, "base.safetensors", "is also an input");
    let merge = "aggregate -q in --base base.safetensors -o m.safetensors --plan-out base.safetensors";
    refused(&dir, merge, "base.safetensors", "is also an input");
}

#[test]
fn the_copy_of_a_private_plan_is_private() {
    let mode =
        |plan: &Workflow, path: &str| fs::metadata(plan.dir.path(path)).unwrap().permissions().mode() & 0o777;
    for (own, expected) in [(0o600, 0o600), (0o640, 0o640), (0o750, 0o640), (0o620, 0o600)] {
        let plan = plan();
        fs::set_permissions(plan.dir.path("plan.json"), fs::Permissions::from_mode(own)).unwrap();
        assert_eq!(fedmill(&plan.dir, &["plan", "run", "-q", "plan.json"]).code, Some(0));
        assert_eq!(mode(&plan, "plan.run/plan.json"), expected);
        let render = ["plan", "render", "plan.json", "--target", "slurm", "-o", "r"];
        assert_eq!(fedmill(&plan.dir, &render).code, Some(0));
        assert_eq!(mode(&plan, "r/plan.json"), expected);
    }
    let plan = plan();
    fs::set_permissions(plan.dir.path("plan.json"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(fedmill(&plan.dir, &["plan", "run", "-q", "plan.json"]).code, Some(0));
    assert_eq!(mode(&plan, "plan.run/plan.json") & 0o004, 0o004);
}

#[test]
fn two_outputs_never_become_one_file() {
    // The paths differ as texts, and come to the same for each instance.
    let plan = Workflow::new(&json!([{"id": "a", "for_each": {"range": 1}, "sh": "echo x > 0",
        "out": [{"name": "x", "path": "{index}"}, {"name": "y", "path": "{item}"}]}]));
    plan.run().assert_fails(2, &["outputs `x` and `y` have the paths 0 and 0, which come to one file"]);
    assert!(!plan.dir.exists("plan.run/out/a.0"));
}

#[test]
fn the_kill_file_has_no_name_that_fedmill_takes() {
    let plan = Workflow::new(&json!([
        {"id": "a", "sh": "echo a", "out": [{"name": "o", "path": "-"}], "cache": "content"},
        {"id": "b", "kind": "plan", "plan": {"file": "inner.json"}, "needs": ["a"]},
        {"id": "c", "sh": "true", "needs": ["b"], "gate": {"timeout": "100ms", "default": "approve"}},
    ]));
    plan.dir.write(
        "inner.json",
        r#"{"schema": "fedmill.plan/1", "id": "inner", "stages": [{"id": "g", "gate":
        {"timeout": "100ms", "default": "approve"}}]}"#,
    );
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    for (target, folder) in [("slurm", "r"), ("snakemake", "s")] {
        let render = fedmill(&plan.dir, &["plan", "render", "plan.json", "--target", target, "-o", folder]);
        assert_eq!(render.code, Some(0), "{render:#?}");
        fedmill(&plan.dir, &["plan", "task", folder, "a"]);
    }
    let mut found = 0;
    for folder in ["plan.run", "plan.run/plans/b", "r", "s"] {
        for entry in fs::read_dir(plan.dir.path(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap().to_lowercase();
            assert!(fedmill::tasks::folder::OWN.contains(&name.as_str()), "{folder}/{name}");
            found += 1;
        }
    }
    assert!(found > 30, "{found}");
}

#[test]
fn a_glob_reads_no_file_of_a_run_unless_it_names_the_run() {
    let read = |pattern: &str| {
        let stage = json!([{"id": "a", "sh": "printf '%s\\n' \"$@\"", "out": [{"name": "o", "path": "-"}]}]);
        Workflow::new(&stage)
            .with("inputs", json!([{"name": "i", "glob": pattern}]))
            .with("stages.0.argv", json!(["printf '%s\\n' \"$@\"", "sh", "{in.i}"]))
    };
    let plan = read("*/*.json");
    plan.dir.write("in/a.json", "1");
    let first = plan.run();
    assert_eq!(first.code, Some(0), "{first:#?}");
    let expected = format!("{}\n", plan.dir.path("in/a.json").display());
    assert_eq!(plan.output("a/o"), expected);
    // The run is over: the same command finds the same inputs.
    assert_eq!(plan.run().code, Some(0));
    let again = fedmill(&plan.dir, &["plan", "run", "-q", "plan.json", "--dir", "other"]);
    assert_eq!(again.code, Some(0), "{again:#?}");
    assert_eq!(String::from_utf8(plan.dir.read("other/out/a/o")).unwrap(), expected);
    let named = read("plan.run/out/*/o");
    fs::rename(plan.dir.path("plan.run"), named.dir.path("plan.run")).unwrap();
    named.write();
    let run = fedmill(&named.dir, &["plan", "run", "-q", "plan.json", "--dir", "third"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(String::from_utf8(named.dir.read("third/out/a/o")).unwrap().ends_with("plan.run/out/a/o\n"));
}

#[test]
fn a_run_begins_in_no_directory_that_a_runner_keeps() {
    let plan = plan();
    let dir = &plan.dir;
    assert_eq!(fedmill(dir, &["plan", "run", "-q", "plan.json"]).code, Some(0));
    let rendered = ["plan", "render", "plan.json", "--target", "slurm", "-o", "r"];
    assert_eq!(fedmill(dir, &rendered).code, Some(0));
    symlink("r/tasks", dir.path("link")).unwrap();
    for inside in ["plan.run/out/z", "plan.run/plans/a", "r/tasks/a", "link/a"] {
        let run = fedmill(dir, &["plan", "run", "-q", "plan.json", "--dir", inside]);
        run.assert_fails(2, &[inside, "is inside of", "which a runner keeps"]);
        let run = fedmill(dir, &["plan", "render", "plan.json", "--target", "slurm", "-o", inside]);
        run.assert_fails(2, &[inside, "is inside of", "which a runner keeps"]);
        assert!(!dir.exists(inside), "{inside}");
    }
    let run = fedmill(dir, &["plan", "task", "r", "a"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
}

#[test]
fn an_export_by_way_of_a_link_into_the_run_is_refused_before_it() {
    let plan = plan();
    let dir = &plan.dir;
    symlink("plan.run", dir.path("link")).unwrap();
    symlink("plan.run/figures", dir.path("file")).unwrap();
    for target in ["link/figures", "file"] {
        let run = fedmill(dir, &["plan", "run", "-q", "plan.json", "--prometheus", target]);
        run.assert_fails(2, &["figures: is inside of"]);
        assert!(!dir.exists("plan.run"), "{target}: a run began");
    }
}

#[test]
fn the_plan_of_the_next_round_keeps_a_model_with_the_name_of_the_report() {
    let dir = round();
    let merge = "aggregate -q in --base base.safetensors -o report.json --plan-out next.json";
    let merge: Vec<&str> = merge.split_whitespace().collect();
    assert_eq!(fedmill(&dir, &merge).code, Some(0));
    let run = fedmill(&dir, &["plan", "lint", "next.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
}
