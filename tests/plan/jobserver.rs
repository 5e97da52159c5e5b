//! Runs under GNU make: attempts share the places of its jobserver.

use super::Workflow;
use crate::harness::{Dir, program, skip};
use serde_json::json;
use std::process::{Command, Stdio};

/// A plan whose stages note their begin and their end in one file, and run as many at a time as there are.
fn plan(dir: &Dir, name: &str, stages: u32, seconds: f64) {
    let note = format!("echo +1 >> {0}; sleep {seconds}; echo -1 >> {0}", dir.path("log").display());
    let stage = |number| json!({"id": format!("s{number}"), "sh": note});
    let stages: Vec<_> = (0..stages).map(stage).collect();
    let workflow = Workflow::new(&json!(stages)).with("limits.max_parallel", json!(stages.len()));
    workflow.write();
    dir.write(name, workflow.dir.read("plan.json"));
}

/// The most attempts at a time, and the number of all.
pub(super) fn noted(dir: &Dir) -> (i32, i32) {
    let text = String::from_utf8(dir.read("log")).unwrap();
    let (mut now, mut most, mut all) = (0, 0, 0);
    for step in text.lines().map(|line| line.parse::<i32>().unwrap()) {
        now += step;
        most = most.max(now);
        all += i32::from(step > 0);
    }
    (most, all)
}

#[test]
fn two_plans_under_make_share_its_places() {
    if Command::new("make").arg("--version").output().is_err() {
        return skip("GNU make is not installed (apt-get install make)");
    }
    for (prefix, jobs, expected) in [("+", "-j3", 3), ("+", "-j", 12), ("", "-j3", 2)] {
        let dir = Dir::new();
        plan(&dir, "a.json", 6, 0.4);
        plan(&dir, "b.json", 6, 0.4);
        let run = format!("{prefix}@{} plan run -q", program());
        dir.write("Makefile", format!("all: a b\na:\n\t{run} a.json\nb:\n\t{run} b.json\n"));
        let mut make = Command::new("make");
        let made =
            make.args([jobs, "all"]).current_dir(dir.path("")).env_remove("MAKEFLAGS").output().unwrap();
        let errors = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{errors}");
        // make says at its end if places are missing.
        assert!(!errors.contains("INTERNAL"), "{errors}");
        let (most, all) = noted(&dir);
        assert_eq!(all, 12);
        let fits = if expected == 12 { (4..=12).contains(&most) } else { most == expected };
        assert!(fits, "{prefix}make {jobs}: {most} attempts at a time, expected {expected}; {errors}");
    }
}

/// Runs a shell script with a pipe of three places as the jobserver, behind file 3.
fn with_pipe(dir: &Dir, script: &str) -> String {
    let setup =
        "mkfifo places; exec 3<>places; printf abc >&3; export MAKEFLAGS=\"-j4 --jobserver-auth=$AUTH\"";
    let count = "printf 'left '; timeout --foreground 0.3 cat <&3 | wc -c";
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("{setup}\n{script}\n{count}")]).current_dir(dir.path(""));
    shell.env("FEDMILL", program()).stdin(Stdio::null());
    shell.env("AUTH", if script.contains("plain") { "3,3" } else { "fifo:places" });
    let output = shell.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn places_are_given_back_whatever_ends_a_run() {
    for kind in ["plain", "named"] {
        let dir = Dir::new();
        plan(&dir, "p.json", 6, 0.4);
        let text = with_pipe(&dir, &format!(": {kind}; $FEDMILL plan run -q p.json"));
        assert!(text.contains("left 3"), "{text}");
        assert_eq!(noted(&dir), (4, 6), "{kind}");
        for signal in ["TERM", "INT"] {
            let dir = Dir::new();
            plan(&dir, "p.json", 6, 30.0);
            // While four attempts run no place is left.
            let script = format!(
                ": {kind}; set -m; $FEDMILL plan run -q p.json & until grep -c + log 2> /dev/null | grep -qx 4; do sleep 0.05; done; \
                 timeout --foreground 0.1 cat <&3 | wc -c; kill -{signal} $!; wait $!; echo status $?"
            );
            let text = with_pipe(&dir, &script);
            let status = if signal == "TERM" { 143 } else { 130 };
            assert!(text.contains(&format!("0\nstatus {status}\n")) && text.contains("left 3"), "{text}");
        }
    }
}
