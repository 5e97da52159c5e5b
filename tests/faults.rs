//! What file systems refuse, as `strace` plays it: the run goes on, or leaves nothing.

use crate::bad_request::round;
use crate::durability::trace::is_possible;
use crate::harness::{Dir, Run, Update, fedmill, program};
use crate::plan::Workflow;
use serde_json::{Value, json};
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

/// Runs a command with the flush of this number failing. Returns its status and messages; `None` if it flushes less.
fn with_flush_failing(dir: &Dir, at: usize, line: &str) -> Option<(Option<i32>, String)> {
    let log = Dir::new();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync"]).arg("-o").arg(log.path("trace"));
    command.args(["-e", &format!("inject=fsync,fdatasync:error=EIO:when={at}")]).arg(program());
    let done = command.args(line.split_whitespace()).current_dir(dir.path("")).output().unwrap();
    let is_hit = String::from_utf8(log.read("trace")).unwrap().contains("INJECTED");
    is_hit.then(|| (done.status.code(), String::from_utf8(done.stderr).unwrap()))
}

#[track_caller]
fn done(dir: &Dir, line: &str) -> Run {
    let run = fedmill(dir, &line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(run.code, Some(0), "{line}: {run:#?}");
    run
}

const INIT: &str = "privacy init dp --population 100 --epsilon 50 --delta 1e-3 --noise-multiplier 2 --rounds 9 --clip 1 \
                    --denominator 3 --base base.safetensors";

/// Status 2 never leaves a model, and what failed behind it costs no second charge.
#[test]
fn a_private_round_that_fails_behind_its_model_is_a_success() {
    if !is_possible() {
        return;
    }
    let dir = round();
    done(&dir, INIT);
    let before = dir.contents();
    let merge = "aggregate updates --base base.safetensors --dp dp -o m.safetensors --threads 1";
    let (mut failed, mut late) = (0, 0);
    for at in 1.. {
        dir.restore(&before);
        let Some((code, stderr)) = with_flush_failing(&dir, at, merge) else { break };
        let is_published = dir.exists("m.safetensors");
        assert_eq!(code, Some(if is_published { 0 } else { 2 }), "flush {at}: {stderr}");
        if !is_published {
            failed += 1;
            continue;
        }
        if stderr.contains("no record of the release") {
            late += 1;
            let model = dir.read("m.safetensors");
            done(&dir, merge);
            assert!(dir.read("m.safetensors") == model, "flush {at}");
            done(&dir, "privacy verify dp");
            let recovered = done(&dir, "privacy recover dp").stdout;
            assert!(recovered.contains("nothing to do"), "flush {at}: {recovered}");
            let status: Value = serde_json::from_str(&done(&dir, "privacy status dp --json").stdout).unwrap();
            assert_eq!(status["charges"], 1, "flush {at}: {status:#}");
        }
    }
    assert!(failed > 5 && late > 2, "{failed} failed, {late} were late");
}

/// A federation whose round has all its updates.
fn federation() -> Dir {
    let dir = round();
    let row = |client: usize| {
        format!(
            "{{\"node_id\":\"client-{client}\",\"compute_capability\":1,\"data_size\":10,\"connection_quality\":1}}\n"
        )
    };
    dir.write("clients.jsonl", [0, 2, 3].map(row).concat());
    done(&dir, "round init fed --model base.safetensors");
    done(&dir, "clients import fed clients.jsonl");
    dir.write(
        "fed/fedmill.toml",
        "[coordination]\nmin_clients = 2\nclients = 3\n[robustness]\nbyzantine_tolerance = 0\n[monitoring]\nhtml = true\n",
    );
    done(&dir, "round run fed --phase open");
    for client in [0, 2, 3] {
        let update = dir.read(&format!("updates/client-{client}.safetensors"));
        dir.write(&format!("fed/inbox/000001/client-{client}.safetensors"), update);
    }
    dir
}

#[test]
fn a_round_that_fails_behind_its_model_is_a_success() {
    if !is_possible() {
        return;
    }
    let current = |dir: &Dir| std::fs::read_link(dir.path("fed/current.safetensors")).unwrap();
    let (mut failed, mut late) = (0, 0);
    for at in 1.. {
        let dir = federation();
        let before = current(&dir);
        let Some((code, stderr)) = with_flush_failing(&dir, at, "round run fed --rounds 1") else { break };
        let is_published = current(&dir) != before;
        assert_eq!(code, Some(if is_published { 0 } else { 2 }), "flush {at}: {stderr}");
        failed += usize::from(!is_published);
        if stderr.contains("is published, and the round did not end") {
            late += 1;
            let after = current(&dir);
            let status = done(&dir, "round status fed").stdout;
            assert!(
                status.contains("Input/output error") || status.contains("disk I/O error"),
                "flush {at}: {status}"
            );
            done(&dir, "round run fed --phase report --waiting-ok");
            done(&dir, "round run fed --waiting-ok");
            done(&dir, "round verify fed");
            assert_eq!(current(&dir), after, "flush {at}");
        }
    }
    assert!(failed > 5 && late > 5, "{failed} failed, {late} were late");
}

#[test]
fn a_registry_in_a_folder_that_flushes_no_names() {
    if !is_possible() {
        return;
    }
    let dir = round();
    dir.write("a.json", r#"{"node_id":"a","compute_capability":1,"data_size":10,"connection_quality":1}"#);
    std::fs::create_dir(dir.path("fed")).unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync,fdatasync:error=EINVAL", "-P"]);
    command.arg(std::fs::canonicalize(dir.path("fed")).unwrap()).arg(program());
    let run = command.args(["clients", "add", "fed", "a.json"]).current_dir(dir.path("")).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    done(&dir, "clients show fed a");
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
