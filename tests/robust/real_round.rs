//! The real round in `data/`: the clients that each rule keeps, as a snapshot and by the oracles.
//!
//! The last four of the twenty clients are hostile. `INSTA_UPDATE=always cargo test real_round` accepts a new snapshot.

use crate::harness::{Dir, Model, fedmill, shortest};
use crate::reference::robust::{Case, Oracle};
use crate::reference::vectors::{Rows, difference};
use crate::reference::{pre, robust};
use fedmill::rules::{Needs, RULES, parse};
use fedmill::settings::Definition;
use std::fmt::Write;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist-round");

const HOSTILE: usize = 4;

/// Runs besides those of each rule alone: settings, and steps before a rule.
const MORE: [(&str, &[&str]); 4] = [
    ("multi-krum:m=5", &[]),
    ("centered-clipping:tau=auto,iterations=3", &[]),
    ("median", &["--pre", "nnm"]),
    ("median", &["--pre", "outliers"]),
];

/// Every rule that tolerates the hostile clients, and more runs.
fn runs() -> Vec<(String, &'static [&'static str])> {
    let tolerant = RULES.iter().filter(|entry| (Oracle::of(entry.name).most)(20) >= HOSTILE);
    let alone = tolerant.map(|entry| (shortest(entry, "client-00"), &[][..]));
    alone.chain(MORE.map(|(rule, steps)| (rule.to_owned(), steps))).collect()
}

/// The ids of the kept clients, as numbers.
fn kept(rule: &str, steps: &[&str]) -> Vec<usize> {
    let dir = Dir::new();
    let (base, updates) = (format!("{DATA}/base.safetensors"), format!("{DATA}/updates"));
    let byzantine = HOSTILE.to_string();
    let mut args =
        vec!["aggregate", "-q", "--rule", rule, "--base", &base, "--report", "r.json", "-o", "m", &updates];
    args.extend(["--byzantine", &byzantine]);
    args.extend(steps);
    fedmill(&dir, &args).assert_merged("m");
    let report = dir.json("r.json");
    let clients = report["clients"].as_array().unwrap().iter().filter(|client| client["kept"] == true);
    clients.map(|client| client["id"].as_str().unwrap()["client-".len()..].parse().unwrap()).collect()
}

/// The floats of a model, tensor by tensor.
fn floats(name: &str) -> Vec<f64> {
    let model = Model::read(&Dir::new(), &format!("{DATA}/{name}.safetensors"));
    let floats = model.tensors.keys().filter(|tensor| model.dtype(tensor) == "F32");
    floats.flat_map(|tensor| model.f32(tensor)).map(f64::from).collect()
}

fn deltas() -> Vec<Vec<f64>> {
    let base = floats("base");
    (0..20).map(|i| difference(&floats(&format!("updates/client-{i:02}")), &base)).collect()
}

/// The clients that the oracle keeps; `None` if the rule does not choose.
fn chosen(rule: &str, steps: &[&str], rows: &Rows) -> Option<Vec<usize>> {
    match (rule, steps) {
        ("multi-krum:m=5", _) => Some(robust::multi_krum(rows, HOSTILE, 5)),
        ("median", ["--pre", "outliers"]) => Some(pre::outliers(rows, HOSTILE)),
        _ => {
            let kept = Oracle::of(rule.split(':').next().unwrap()).kept;
            kept.map(|kept| kept(&Case { rows, f: HOSTILE, trusted: 0 }))
        }
    }
}

/// An orthonormal basis of the rows' span (Gram and Schmidt, twice), and the rows in it. Each row has twenty numbers,
/// with the same distances and angles, so thousands of sets can be tried.
fn in_their_span(rows: &Rows) -> Vec<Vec<f64>> {
    use crate::reference::vectors::{dot, norm, scaled};
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for row in rows {
        let mut rest = row.clone();
        for axis in basis.iter().chain(&basis) {
            rest = difference(&rest, &scaled(axis, dot(axis, &rest)));
        }
        basis.push(scaled(&rest, 1.0 / norm(&rest)));
    }
    rows.iter().map(|row| basis.iter().map(|axis| dot(axis, row)).collect()).collect()
}

#[test]
fn rules_keep_whom_the_oracles_keep() {
    let rows = deltas();
    let short = in_their_span(&rows);
    let mut compared = 0;
    for (rule, steps) in runs() {
        // Only the coordinate median depends on the choice of coordinates.
        let needs_median = parse(&rule, Definition::Paper).unwrap().needs() == Needs::Median;
        let rows = if needs_median { &rows } else { &short };
        if let Some(chosen) = chosen(&rule, steps, rows) {
            assert_eq!(kept(&rule, steps), chosen, "{rule} {steps:?}");
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared} runs have an oracle");
}

#[test]
fn verdicts_on_the_real_round() {
    let mut verdicts = String::new();
    for (rule, steps) in runs() {
        writeln!(verdicts, "{}: {:?}", [&[&*rule], steps].concat().join(" "), kept(&rule, steps)).unwrap();
    }
    insta::assert_snapshot!(verdicts);
}

/// In the basis, rows have the same distances as before.
#[test]
fn the_span_keeps_distances() {
    let rows = deltas();
    let short = in_their_span(&rows);
    for (i, j) in [(0, 1), (3, 17), (16, 19), (18, 2)] {
        let (want, got) =
            (robust::squared_diameter(&rows, &[i, j]), robust::squared_diameter(&short, &[i, j]));
        assert!((got - want).abs() < 1e-9 * want, "{i} {j}: {got} is not {want}");
    }
}
