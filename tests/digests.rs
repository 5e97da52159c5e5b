//! BLAKE3 digests of outputs over a matrix of runs against recorded ones: any changed bit shows.
//!
//! Each module runs one family of commands on inputs that the tests make with the program alone. The recorded digests
//! are in `tests/digests/recorded/FAMILY.txt`. Each line has the name and the digest of an output, in order. They are
//! the same on every machine, with every instruction set. Three environment variables change a run:
//!
//! - `FEDMILL_RECORD_DIGESTS=1` records the digests of this run in place of the old ones (`just bless`).
//! - `FEDMILL_DIGESTS_ISA=SET` passes `--isa SET` to every run.
//! - `FEDMILL_DIGESTS_KEEP=DIR` writes every output below `DIR`. Run it before and after a change; `diff -r` then shows
//!   the difference.

mod codecs;
mod inputs;
mod personal;
mod privacy;
mod real;
mod reports;
mod rules;
mod shards;
mod strategies;
mod tiers;
mod trees;

use crate::harness::{Dir, Run, fedmill};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{env, fs};

const RECORD: &str = "FEDMILL_RECORD_DIGESTS";
const ISA: &str = "FEDMILL_DIGESTS_ISA";
const KEEP: &str = "FEDMILL_DIGESTS_KEEP";

/// The digests of one family of runs, by the names of the outputs.
struct Digests {
    family: &'static str,
    found: BTreeMap<String, String>,
}

impl Digests {
    fn new(family: &'static str) -> Self {
        Self { family, found: BTreeMap::new() }
    }

    /// Adds an output under the name `CASE/OUTPUT`.
    #[track_caller]
    fn add(&mut self, name: &str, bytes: &[u8]) {
        assert!(!name.contains(char::is_whitespace), "`{name}`: a space would end the name");
        if let Some(folder) = env::var_os(KEEP) {
            let path = Path::new(&folder).join(self.family).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let before = self.found.insert(name.to_owned(), blake3::hash(bytes).to_hex().to_string());
        assert!(before.is_none(), "two outputs are called `{name}`");
    }

    /// Adds a file that a run wrote.
    #[track_caller]
    fn add_file(&mut self, name: &str, dir: &Dir, file: &str) {
        self.add(name, &dir.read(file));
    }

    /// Adds a report without the fields that differ between machines.
    #[track_caller]
    fn add_report(&mut self, name: &str, dir: &Dir, file: &str) {
        let report = normalised(dir.json(file));
        self.add(name, serde_json::to_string_pretty(&report).unwrap().as_bytes());
    }

    /// Adds the printed text of a run.
    #[track_caller]
    fn add_printed(&mut self, name: &str, run: &Run) {
        assert_eq!(run.code, Some(0), "{name}: {run:#?}");
        self.add(name, run.stdout.as_bytes());
    }

    /// Compares the digests with the recorded ones, or records them.
    #[track_caller]
    fn check(self, recorded: &str) {
        if env::var_os(RECORD).is_some() {
            let lines: String =
                self.found.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
            let path = format!("{}/tests/digests/recorded/{}.txt", env!("CARGO_MANIFEST_DIR"), self.family);
            return fs::write(path, lines).unwrap();
        }
        let differences = differences(recorded, &self.found);
        assert!(
            differences.is_empty(),
            "{} of {} outputs of `{}` are not as recorded ({KEEP}=DIR keeps them; {RECORD}=1 records them anew):\n{}",
            differences.len(),
            self.found.len(),
            self.family,
            differences.join("\n")
        );
    }
}

/// The outputs with a changed digest, without a recorded digest, or missing from this run.
fn differences(recorded: &str, found: &BTreeMap<String, String>) -> Vec<String> {
    let recorded: BTreeMap<&str, &str> = recorded.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let names: BTreeSet<&str> = recorded.keys().copied().chain(found.keys().map(String::as_str)).collect();
    let difference = |name: &str| match (recorded.get(name), found.get(name)) {
        (Some(recorded), Some(found)) if recorded == found => None,
        (Some(_), Some(_)) => Some(format!("{name}: changed")),
        (None, _) => Some(format!("{name}: is not recorded")),
        (_, None) => Some(format!("{name}: was not made")),
    };
    names.into_iter().filter_map(difference).collect()
}

/// A report without times, memory, threads and instruction set. Fails if one of these is missing.
fn normalised(mut report: Value) -> Value {
    for (at, key) in [
        ("", "timings"),
        ("", "peak_resident_bytes"),
        ("/settings", "threads"),
        ("/backend", "instruction_set"),
    ] {
        let object = report.pointer_mut(at).and_then(Value::as_object_mut).unwrap();
        assert!(object.remove(key).is_some(), "a report has no {at}/{key}");
    }
    // This field is the exponential of an entropy. The C library's logarithms differ in the last bit between
    // processors.
    if let Some(rank) = report.pointer_mut("/metrics/effective_rank")
        && let Some(number) = rank.as_f64()
    {
        *rank = Value::String(format!("{number:.10e}"));
    }
    report
}

/// Runs the program on two threads of the CPU.
fn run(dir: &Dir, args: &[&str]) -> Run {
    let isa = env::var(ISA).ok();
    let isa: Vec<&str> = isa.iter().flat_map(|isa| ["--isa", isa.as_str()]).collect();
    fedmill(dir, &[args, &["--quiet", "--backend", "cpu", "--threads", "2"], &isa].concat())
}

/// Runs the program. Fails if the program fails.
#[track_caller]
fn done(dir: &Dir, args: &[&str]) -> Run {
    let run = run(dir, args);
    assert_eq!(run.code, Some(0), "{args:?}: {run:#?}");
    run
}

/// Merges into `m.safetensors` with a report, and adds both.
#[track_caller]
fn merge(digests: &mut Digests, case: &str, dir: &Dir, args: &[&str]) {
    let fixed = ["aggregate", "-o", "m.safetensors", "--report", "r.json"];
    done(dir, &[&fixed, args].concat());
    digests.add_file(&format!("{case}/model"), dir, "m.safetensors");
    digests.add_report(&format!("{case}/report"), dir, "r.json");
}

#[test]
fn every_difference_is_named() {
    let found = |names: &[(&str, &str)]| -> BTreeMap<String, String> {
        names.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect()
    };
    let recorded = "a 1\nb 2\nc 3\nd 4\n";
    assert_eq!(
        differences(recorded, &found(&[("a", "1"), ("b", "0"), ("d", "0"), ("e", "5")])),
        ["b: changed", "c: was not made", "d: changed", "e: is not recorded"]
    );
    assert!(differences(recorded, &found(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")])).is_empty());
}
