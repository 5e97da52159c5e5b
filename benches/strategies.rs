//! The cost of a server strategy, against the same rule under fedavg with the same base.
//!
//! Whole processes run from files to files, and read and write the state.
//!
//! `cargo bench --bench strategies` prints a table. Both take turns. A ratio belongs to one pair, printed as median
//! (minimum to maximum): first of the whole process, then without the time to bring files to disk.

#![allow(clippy::expect_used, reason = "a bench that cannot go on must stop")]

use fedmill::io::synthetic::SyntheticUpdates;
use fedmill::model::dtype::Dtype;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Timed pairs of each row.
const PAIRS: usize = 9;

const CLIENTS: usize = 32;
const PARAMETERS: usize = 11_700_000;

const RULES: [&str; 3] = ["mean", "median", "krum"];
const STRATEGIES: [&str; 3] = ["fedavg:lr=0.5", "fedavgm", "fedadam"];

/// Rounds of one strategy, each on the model of the round before.
struct Rounds<'a> {
    updates: &'a Path,
    folder: PathBuf,
    rule: &'static str,
    strategy: &'static str,
    round: usize,
}

/// Seconds.
#[derive(Clone, Copy)]
struct Took {
    whole: f64,
    without_disk: f64,
}

impl<'a> Rounds<'a> {
    fn new(updates: &'a Path, rule: &'static str, strategy: &'static str) -> Self {
        let folder = updates.with_file_name(format!("rounds-{rule}-{strategy}"));
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::copy(updates.join("client-00000.safetensors"), folder.join("0.safetensors")).expect("a base");
        Self { updates, folder, rule, strategy, round: 0 }
    }

    fn next(&mut self) -> Took {
        let model = |round: usize| self.folder.join(format!("{round}.safetensors"));
        let report = self.folder.join("report.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_fedmill"));
        command.args([
            "aggregate",
            "--quiet",
            "--backend",
            "cpu",
            "--rule",
            self.rule,
            "--strategy",
            self.strategy,
        ]);
        command.args(["--metrics", "none", "--byzantine", if self.rule == "mean" { "0" } else { "0.2" }]);
        command.arg("--base").arg(model(self.round)).arg("-o").arg(model(self.round + 1));
        if !self.strategy.starts_with("fedavg:") && self.strategy != "fedavg" {
            command.arg("--state").arg(self.folder.join("state.safetensors"));
        }
        command.arg("--report").arg(&report).arg(self.updates).stdout(Stdio::null());
        let started = Instant::now();
        assert!(command.status().expect("fedmill runs").success());
        let whole = started.elapsed().as_secs_f64();
        let text = fs::read_to_string(report).expect("a report");
        let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        fs::remove_file(model(self.round)).expect("removed");
        self.round += 1;
        Took { whole, without_disk: whole - report["timings"]["sync_s"].as_f64().expect("seconds") }
    }
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (least, middle, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    format!("{middle:.2} ({least:.2} to {most:.2})")
}

fn main() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let updates =
        SyntheticUpdates::write(Some(target), CLIENTS, PARAMETERS, Dtype::F32).expect("updates can be made");
    println!("{CLIENTS} updates of {} M F32, the same rule under fedavg = 1", PARAMETERS as f64 / 1e6);
    println!("{:<12} {:<16} {:>24} {:>24}", "rule", "strategy", "whole", "without fsync");
    for rule in RULES {
        for strategy in STRATEGIES {
            let mut plain = Rounds::new(updates.updates(), rule, "fedavg");
            let mut stepped = Rounds::new(updates.updates(), rule, strategy);
            // The first rounds warm the page cache and start the state.
            plain.next();
            stepped.next();
            let pairs: Vec<(Took, Took)> = (0..PAIRS).map(|_| (plain.next(), stepped.next())).collect();
            let whole = spread(pairs.iter().map(|(one, other)| other.whole / one.whole).collect());
            let quick =
                spread(pairs.iter().map(|(one, other)| other.without_disk / one.without_disk).collect());
            println!("{rule:<12} {strategy:<16} {whole:>24} {quick:>24}");
        }
    }
}
