//! What monitoring exports, read by Prometheus, TensorBoard, OpenTelemetry, brokers and a browser.
//!
//! The tests need Python with the packages of `data/requirements.txt`, `prometheus-node-exporter` and `chromium`. Without
//! one of them the tests that need it print that they are skipped, or fail if `FEDMILL_REQUIRE_MONITORING` is set. The
//! textfiles, the pages and their screenshots stay in the folder that `FEDMILL_MONITORING_KEEP` names.

mod dashboard;
mod examples;
mod exporter;
mod page;
mod parsers;
mod runs;

use crate::harness::{skip, source_tree};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The variable that makes a missing program a failure.
const REQUIRE: &str = "FEDMILL_REQUIRE_MONITORING";

/// Whether a program runs with these arguments. If not, prints that a test is skipped, or fails.
fn is_there(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = status.is_ok_and(|status| status.success());
    if !is_there {
        let why = format!("`{program} {}` does not run", args.join(" "));
        assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and {why}");
        skip(&why);
    }
    is_there
}

/// Runs a script of `data/monitoring`. Fails unless it succeeds; gives its output.
#[track_caller]
fn script(name: &str, args: &[&str]) -> String {
    let script = source_tree().unwrap().join("data/monitoring").join(name);
    let run = Command::new("python3").arg(script).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{name} {args:?}: {}{error}", String::from_utf8_lossy(&run.stdout));
    String::from_utf8(run.stdout).unwrap()
}

/// Where pages and screenshots stay, if they are wanted.
fn kept() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("FEDMILL_MONITORING_KEEP")?);
    std::fs::create_dir_all(&folder).unwrap();
    Some(folder)
}
