//! What file systems refuse, as `strace` plays it: the run goes on, or leaves nothing.

use crate::bad_request::round;
use crate::durability::trace::is_possible;
use crate::harness::{Dir, Update, program};
use crate::plan::Workflow;
use serde_json::json;
use std::process::{Command, Output};

fn run(dir: &Dir, strace: &str, line: &str) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", strace]).arg(program()).args(line.split_whitespace());
    command.current_dir(dir.path("")).output().unwrap()
}

#[test]
fn a_merge_on_file_systems_that_lack_something() {
    if !is_possible() {
        return;
    }
    let merge = "aggregate updates --threads 1 -o out/m.safetensors";
    let cases = [
        // Lustre without -o flock, NFS without a lock manager.
        ("flock:error=ENOSYS", Ok("no locks")),
        ("flock:error=ENOLCK", Ok("no locks")),
        ("flock:error=EOPNOTSUPP", Ok("no locks")),
        ("flock:error=EIO", Err("cannot be locked")),
        ("fallocate:error=EOPNOTSUPP", Ok("")),
        // The first flush is that of the file, the second that of its folder.
        ("fsync:error=EINVAL:when=2", Ok("")),
        ("fsync:error=EIO:when=2", Ok("may not outlast a power cut")),
        ("fsync:error=EIO:when=1", Err("cannot be written")),
        ("/^rename:error=ENOSYS", Err("cannot be written")),
        ("pread64:error=ESTALE:when=8+", Err("Stale file handle")),
        ("pwrite64:error=EDQUOT:when=1", Err("cannot be written")),
    ];
    for (fault, expected) in cases {
        let dir = round();
        std::fs::create_dir(dir.path("out")).unwrap();
        let done = run(&dir, &format!("inject={fault}"), merge);
        let (code, left, part) = match expected {
            Ok(part) => (0, vec!["out/m.safetensors"], part),
            Err(part) => (2, vec![], part),
        };
        let found = dir.contents();
        let found: Vec<&str> = found
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with("out/m") || name.contains("tmp"))
            .collect();
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.status.code(), found), (Some(code), left), "{fault}: {stderr}");
        assert!(stderr.contains(part), "{fault}: {stderr}");
    }
}

#[test]
fn a_budget_without_locks_keeps_other_runs_out_by_a_file() {
    if !is_possible() {
        return;
    }
    let dir = Dir::new();
    Update::new("base").f32("a", &[4], &[0.0; 4]).write(&dir);
    let init = "privacy init dp --population 100 --epsilon 50 --delta 1e-3 --noise-multiplier 2 --rounds 9 --clip 1 \
                --denominator 3 --base base.safetensors";
    let spend = "privacy spend dp --noise-multiplier 9";
    let none = "inject=flock:error=ENOSYS";
    for line in [init, spend] {
        let done = run(&dir, none, line);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success() && stderr.contains("ledger.lock: this file system has no locks"),
            "{stderr}"
        );
        assert!(!dir.exists("dp/ledger.lock.held"), "{line}");
    }
    // This process holds it.
    dir.write("dp/ledger.lock.held", fedmill::io::child::this_process());
    let mut waits = Command::new("timeout");
    waits
        .args(["-s", "TERM", "2", "strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", none])
        .arg(program());
    let done = waits.args(spend.split_whitespace()).current_dir(dir.path("")).output().unwrap();
    assert_eq!(done.status.code(), Some(124), "{done:?}");
    let failed = run(&dir, "inject=flock:error=EIO", spend);
    assert!(
        String::from_utf8_lossy(&failed.stderr).contains("dp/ledger.lock: cannot be locked"),
        "{failed:?}"
    );
}

#[test]
fn a_plan_runs_and_resumes_on_a_file_system_without_locks() {
    if !is_possible() {
        return;
    }
    let workflow = Workflow::new(&json!([{"id": "a", "sh": "true"}]));
    workflow.write();
    let dir = &workflow.dir;
    for line in ["plan run plan.json --dir p.run", "plan resume p.run"] {
        let done = run(dir, "inject=flock:error=ENOSYS", line);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && stderr.contains("no locks"), "{line}: {stderr}");
    }
}

/// A process that has a key in its memory writes no core dump, and other processes of its user cannot read its memory.
#[test]
fn processes_that_hold_keys_hide_their_memory() {
    if !is_possible() {
        return;
    }
    let dir = Dir::new();
    Update::new("base").f32("a", &[4], &[0.0; 4]).write(&dir);
    Update::new("c1").f32("a", &[4], &[1.0; 4]).write(&dir);
    let init = "privacy init dp --population 100 --epsilon 50 --delta 1e-3 --noise-multiplier 2 --rounds 9 --clip 1 \
                --denominator 3 --base base.safetensors";
    assert!(
        Command::new(program())
            .args(init.split_whitespace())
            .current_dir(dir.path(""))
            .status()
            .unwrap()
            .success()
    );
    let hides = |line: &str| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "trace", "-e", "trace=prctl,prlimit64,setrlimit"]).arg(program());
        assert!(
            command.args(line.split_whitespace()).current_dir(dir.path("")).status().unwrap().success(),
            "{line}"
        );
        let trace = String::from_utf8(dir.read("trace")).unwrap();
        (trace.contains("PR_SET_DUMPABLE, SUID_DUMP_DISABLE"), trace.contains("RLIMIT_CORE, {rlim_cur=0"))
    };
    assert_eq!(
        hides("aggregate c1.safetensors --base base.safetensors --dp dp -o m.safetensors"),
        (true, true)
    );
    assert_eq!(hides("aggregate c1.safetensors -o n.safetensors"), (false, false));
}
