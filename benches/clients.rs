//! The cost of deciding, against the number of clients.
//!
//! `cargo bench --bench clients` runs `fedmill aggregate` on synthetic updates of 10,000 parameters with each rule that
//! judges whole clients, with F of 10 %. Krum and the rule take turns. A row has the median time of both, their ratio,
//! and the peak memory of the rule's process. `cargo bench --bench clients -- 1000 3000` takes these numbers of clients
//! alone; the default has 10,000 too, which takes 400 MB of files.

#![allow(clippy::expect_used, reason = "a bench that cannot go on must stop")]

use fedmill::io::synthetic::SyntheticUpdates;
use fedmill::model::dtype::Dtype;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const PARAMETERS: usize = 10_000;

/// Turns of Krum and the rule.
const TURNS: usize = 3;

/// The work of a row, with its arguments, and the most of Krum's time that it may take.
const ROWS: &[(&str, &[&str], f64)] = &[
    ("krum", &["--rule", "krum"], 1.0),
    ("multi-krum", &["--rule", "multi-krum"], 1.5),
    ("bulyan", &["--rule", "bulyan"], 1.5),
    ("geometric median", &["--rule", "geometric-median"], 1.5),
    ("centered clipping", &["--rule", "centered-clipping"], 1.5),
    ("monna", &["--rule", "monna:trusted=client-00000"], 1.5),
    ("outliers, mean", &["--pre", "outliers", "--rule", "mean"], 1.5),
    ("nnm, mean", &["--pre", "nnm", "--rule", "mean"], 1.5),
    ("metrics, krum", &["--metrics", "geometry", "--rule", "krum"], 1.5),
    ("caf", &["--rule", "caf"], 3.0),
];

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let numbers = if numbers.is_empty() { vec![1000, 3000, 10_000] } else { numbers };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    println!(
        "{:>7} {:<18} {:>9} {:>9} {:>7} {:>5} {:>10}",
        "clients", "work", "krum", "work", "ratio", "bar", "peak"
    );
    for clients in numbers {
        let made =
            SyntheticUpdates::write(Some(target), clients, PARAMETERS, Dtype::F32).expect("the updates");
        for (work, arguments, bar) in ROWS {
            row(&made, clients, work, arguments, *bar);
        }
    }
}

fn row(made: &SyntheticUpdates, clients: usize, work: &str, arguments: &[&str], bar: f64) {
    let (mut krum, mut own, mut ratios, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..TURNS {
        let (reference, _) = run(made, ROWS[0].1);
        let (seconds, bytes) = run(made, arguments);
        krum.push(reference);
        own.push(seconds);
        ratios.push(seconds / reference);
        peak = peak.max(bytes);
    }
    let [krum, own, ratio] = [krum, own, ratios].map(middle);
    println!(
        "{clients:>7} {work:<18} {krum:>8.2}s {own:>8.2}s {ratio:>7.2} {bar:>5.1} {:>6} MiB",
        peak.div_ceil(1 << 20)
    );
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The wall-clock time of the command in seconds, and its peak memory in bytes.
fn run(made: &SyntheticUpdates, arguments: &[&str]) -> (f64, u64) {
    let report = made.output().with_extension("json");
    let metrics: &[&str] = if arguments.contains(&"--metrics") { &[] } else { &["--metrics", "none"] };
    let started = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_fedmill"))
        .args(["aggregate", "--quiet", "--byzantine", "0.1"])
        .args(arguments)
        .args(metrics)
        .arg("--report")
        .arg(&report)
        .arg(made.updates())
        .arg("-o")
        .arg(made.output())
        .stdout(Stdio::null())
        .status()
        .expect("fedmill runs");
    let seconds = started.elapsed().as_secs_f64();
    assert!(status.success(), "{arguments:?}");
    let text = fs::read_to_string(&report).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    (seconds, report["peak_resident_bytes"].as_u64().unwrap_or(0))
}
