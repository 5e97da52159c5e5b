//! The real round in `data/`, of whose twenty clients the last four are hostile: whom each rule keeps, as a snapshot
//! (`INSTA_UPDATE=always cargo test real_round` takes a new one) and from the oracles.

use crate::harness::{Dir, Model, fedmill};
use crate::reference::vectors::{Rows, difference};
use crate::reference::{pre, robust, spectral};
use std::fmt::Write;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist-round");

const HOSTILE: usize = 4;

/// Every rule and step, and whether it is told how many are hostile.
const RUNS: [(&str, &[&str]); 16] = [
    ("krum", &[]),
    ("multi-krum", &[]),
    ("multi-krum:m=5", &[]),
    ("bulyan", &[]),
    ("geometric-median", &[]),
    ("centered-clipping:tau=auto,iterations=3", &[]),
    ("mda", &[]),
    ("smea", &[]),
    ("caf", &[]),
    ("monna:trusted=client-00", &[]),
    ("meamed", &[]),
    ("distance-trim:keep=0.8", &[]),
    ("median", &[]),
    ("trimmed-mean", &[]),
    ("median", &["--pre", "nnm"]),
    ("median", &["--pre", "outliers"]),
];

/// The ids of those kept, as numbers.
fn kept(rule: &str, steps: &[&str]) -> Vec<usize> {
    let dir = Dir::new();
    let (base, updates) = (format!("{DATA}/base.safetensors"), format!("{DATA}/updates"));
    let byzantine = HOSTILE.to_string();
    let mut args =
        vec!["aggregate", "-q", "--rule", rule, "--base", &base, "--report", "r.json", "-o", "m", &updates];
    if !rule.starts_with("distance-trim") {
        args.extend(["--byzantine", &byzantine]);
    }
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

/// Whom the oracle keeps; nobody where the rule does not choose.
fn chosen(rule: &str, steps: &[&str], rows: &Rows) -> Option<Vec<usize>> {
    Some(match (rule, steps) {
        ("krum", _) => vec![robust::krum(rows, HOSTILE)],
        ("multi-krum", _) => robust::multi_krum(rows, HOSTILE, 14),
        ("multi-krum:m=5", _) => robust::multi_krum(rows, HOSTILE, 5),
        ("bulyan", _) => robust::bulyan_selection(rows, HOSTILE),
        ("mda", _) => robust::mda(rows, HOSTILE),
        ("smea", _) => spectral::smea(rows, HOSTILE),
        ("caf", _) => {
            let weights = spectral::caf_weights(rows, HOSTILE);
            (0..rows.len()).filter(|i| weights[*i] > 0.0).collect()
        }
        ("monna:trusted=client-00", _) => robust::monna(rows, HOSTILE, 0),
        ("distance-trim:keep=0.8", _) => robust::distance_trim(rows, 0.8),
        ("median", ["--pre", "outliers"]) => pre::outliers(rows, HOSTILE),
        _ => return None,
    })
}

/// An orthonormal basis of the rows' span (Gram and Schmidt, twice), and the rows in it: twenty numbers each, the
/// same distances and angles. Sets are tried by the thousand.
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
    for (rule, steps) in RUNS {
        // Coordinates have a meaning for the coordinate median only.
        let rows = if rule.starts_with("distance-trim") { &rows } else { &short };
        if let Some(chosen) = chosen(rule, steps, rows) {
            assert_eq!(kept(rule, steps), chosen, "{rule} {steps:?}");
        }
    }
}

#[test]
fn verdicts_on_the_real_round() {
    let mut verdicts = String::new();
    for (rule, steps) in RUNS {
        writeln!(verdicts, "{}: {:?}", [&[rule], steps].concat().join(" "), kept(rule, steps)).unwrap();
    }
    insta::assert_snapshot!(verdicts);
}

/// In their span, rows are as far apart as before.
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
