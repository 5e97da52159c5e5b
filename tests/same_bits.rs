//! One round gives the same bytes for any order of files, number of threads and instruction set.
//!
//! The tests compare the model, and the report's fields on clients and round.

use crate::harness::{Dir, Update, fedmill, fedmill_after};
use fedmill::kernels::lanes::Isa;

/// A rule and its options.
type Way = (&'static str, &'static [&'static str]);

/// A number of hostile clients that every rule here tolerates, for nine clients or more.
const HOSTILE: [&str; 2] = ["--byzantine", "0.12"];

/// Rules by coordinate, by distances from differences and from the Gram matrix, by the coordinate median, and on mixed
/// rows.
const WAYS: [Way; 14] = [
    ("mean", &[]),
    ("median", &[]),
    ("trimmed-mean:cut=0.2", &[]),
    ("krum", &HOSTILE),
    ("multi-krum", &HOSTILE),
    ("multi-krum", &["--byzantine", "0.12", "--distances", "direct"]),
    ("bulyan", &HOSTILE),
    ("geometric-median", &HOSTILE),
    ("caf", &HOSTILE),
    ("meamed", &HOSTILE),
    ("distance-trim", &[]),
    ("centered-clipping:iterations=3", &HOSTILE),
    ("trimmed-mean", &["--byzantine", "0.12", "--pre", "nnm"]),
    ("distance-trim", &["--byzantine", "0.12", "--pre", "arc", "--pre", "nnm"]),
];

/// The options for the fullest report on clients and round.
const REPORT: [&str; 6] =
    ["--report", "r.json", "--metrics", "signs", "--shadow-rules", "krum,bulyan,caf,geometric-median"];

/// Enough values for many tiles, uneven tensors, several dtypes, and fractional weights.
fn write_round(dir: &Dir, clients: usize, values: usize) -> Vec<String> {
    let value = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 100_003) as f32 / 50_000.0 - 1.0;
    (0..clients)
        .map(|i| {
            let long: Vec<f32> = (0..values).map(|j| value(i, j)).collect();
            let bits: Vec<u16> = (0..1000).map(|j| half::bf16::from_f32(value(j, i)).to_bits()).collect();
            let wide: Vec<f64> = (0..77).map(|j| f64::from(value(i + 1, j)) / 3.0).collect();
            let name = format!("in/client-{i:03}");
            Update::new(&name)
                .f32("a.long", &[values], &long)
                .half("b.half", "BF16", &[10, 100], &bits)
                .i64("c.count", &[], &[i as i64 * 3])
                .f64("d.wide", &[7, 11], &wide)
                .f32("e.short", &[3], &long[..3])
                .meta("num_examples", &format!("{}", 10.1 + i as f64))
                .write(dir);
            format!("{name}.safetensors")
        })
        .collect()
}

/// The output of a run: the model, and the report without times, paths and machine.
#[derive(PartialEq)]
struct Outcome {
    model: Vec<u8>,
    outcome: String,
}

fn arguments<'a>((rule, options): Way, more: &[&'a str]) -> Vec<&'a str> {
    [&["aggregate", "-q", "--rule", rule, "-o", "m.safetensors"], options, more].concat()
}

fn merge(dir: &Dir, way: Way, more: &[&str]) -> Vec<u8> {
    fedmill(dir, &arguments(way, more)).assert_merged("m.safetensors");
    dir.read("m.safetensors")
}

fn merge_and_tell(dir: &Dir, way: Way, more: &[&str]) -> Outcome {
    let model = merge(dir, way, &[&REPORT, more].concat());
    Outcome { model, outcome: outcome(dir) }
}

/// The report from clients to warnings, as text: the last digit of every number counts.
fn outcome(dir: &Dir) -> String {
    let report = String::from_utf8(dir.read("r.json")).unwrap();
    let start = report.find("\n  \"clients\": [").unwrap();
    let end = report.find("\n  \"output\": {").unwrap();
    let outcome = &report[start..end];
    for part in ["\"score\"", "\"influence\"", "\"shadow\"", "\"metrics\"", "\"sign_agreement\""] {
        assert!(outcome.contains(part), "no {part} between clients and output");
    }
    outcome.to_owned()
}

#[track_caller]
fn assert_same(got: &Outcome, want: &Outcome, way: Way, what: &str) {
    assert!(got.model == want.model, "{way:?}: {what} in the model");
    if got.outcome != want.outcome {
        let lines = || got.outcome.lines().zip(want.outcome.lines());
        let differing = lines().find(|(got, want)| got != want);
        panic!("{way:?}: {what} in the report: {differing:?}");
    }
}

#[test]
fn file_order_changes_nothing() {
    let dir = Dir::new();
    let mut files = write_round(&dir, 9, 50_000);
    for way in WAYS {
        let want = merge_and_tell(&dir, way, &["in"]);
        for turn in 1..4 {
            files.rotate_left(turn);
            files.reverse();
            let shuffled: Vec<&str> = files.iter().map(String::as_str).collect();
            assert_same(&merge_and_tell(&dir, way, &shuffled), &want, way, "the order of files shows");
        }
    }
}

#[test]
fn threads_change_nothing() {
    let dir = Dir::new();
    write_round(&dir, 40, 120_000);
    for way in WAYS {
        let want = merge_and_tell(&dir, way, &["in", "--threads", "1"]);
        for threads in ["2", "3", "8"] {
            let got = merge_and_tell(&dir, way, &["in", "--threads", threads]);
            assert_same(&got, &want, way, &format!("{threads} threads show"));
        }
    }
}

#[test]
fn instruction_sets_change_nothing() {
    let dir = Dir::new();
    write_round(&dir, 70, 9_001);
    for way in WAYS {
        let want = merge_and_tell(&dir, way, &["in", "--isa", "portable"]);
        for isa in Isa::available() {
            let got = merge_and_tell(&dir, way, &["in", "--isa", &isa.to_string()]);
            assert_same(&got, &want, way, &format!("{isa} shows"));
        }
    }
}

#[test]
fn a_rerun_and_a_report_change_nothing() {
    let dir = Dir::new();
    for clients in [9, 20] {
        write_round(&dir, clients, 20_000);
        for way in WAYS {
            let want = merge_and_tell(&dir, way, &["in"]);
            assert_same(&merge_and_tell(&dir, way, &["in"]), &want, way, "a rerun shows");
            assert!(merge(&dir, way, &["in"]) == want.model, "{way:?}: asking for a report shows");
            let short = ["in", "--report", "short.json", "--metrics", "none"];
            assert!(merge(&dir, way, &short) == want.model, "{way:?}: asking for norms shows");
        }
    }
}

/// More updates than the system's limit of open files.
#[test]
fn few_open_files_change_nothing() {
    let dir = Dir::new();
    write_round(&dir, 200, 3_000);
    for way in WAYS {
        let want = merge_and_tell(&dir, way, &["in"]);
        let args = arguments(way, &[&REPORT[..], &["in"]].concat());
        fedmill_after(&dir, "ulimit -n 100", &args).assert_merged("m.safetensors");
        let got = Outcome { model: dir.read("m.safetensors"), outcome: outcome(&dir) };
        assert_same(&got, &want, way, "the limit on open files shows");
    }
}

#[test]
fn ten_thousand_updates_merge() {
    let dir = Dir::new();
    for i in 0..10_000 {
        let value = ((i * 7919) % 10_007) as f32;
        Update::new(&format!("in/c{i:05}")).f32("w", &[2], &[value, -value]).write(&dir);
    }
    let mut values: Vec<f32> = (0..10_000).map(|i| ((i * 7919) % 10_007) as f32).collect();
    values.sort_by(f32::total_cmp);
    let median = (values[4999] + values[5000]) / 2.0;
    merge(&dir, ("median", &[]), &["in"]);
    assert_eq!(crate::harness::Model::read(&dir, "m.safetensors").f32("w"), [median, -median]);
}
