//! Rules, steps before rules, and round metrics against `data/vectors/rules.json`.
//!
//! The vectors come from the packages of other projects, and from an independent reading of the papers.

use crate::harness::{Dir, Model, Update, fedmill};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs;

/// The allowed error of a value, relative to the largest magnitude in the case: a few roundings to f32.
const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Vectors {
    rounds: Vec<Round>,
    merges: Vec<Merge>,
    mixes: Vec<Mix>,
    metrics: Vec<Metrics>,
}

#[derive(Deserialize)]
struct Round {
    name: String,
    examples: Vec<u64>,
    updates: Vec<Vec<f64>>,
}

/// The expected result of a rule, computed `by` a package or a reading of the paper.
#[derive(Deserialize)]
struct Merge {
    round: String,
    by: String,
    compat: Option<String>,
    byzantine: Option<usize>,
    rule: String,
    pre: Vec<String>,
    weights: String,
    merged: Vec<f64>,
    tolerance: Option<f64>,
}

/// The rows that nearest-neighbour mixing makes from a round.
#[derive(Deserialize)]
struct Mix {
    round: String,
    by: String,
    byzantine: usize,
    rows: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Metrics {
    round: String,
    weights: String,
    influence: Vec<Map<String, Value>>,
    #[serde(flatten)]
    values: Map<String, Value>,
}

impl Vectors {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/vectors/rules.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Checks every case of `cases` in a folder with its round's updates. Reports all differences at once.
    #[track_caller]
    fn check<C>(
        &self,
        cases: &[C],
        round_of: fn(&C) -> &str,
        check: fn(&Dir, &Round, &C) -> Result<(), String>,
    ) {
        let mut checked = 0;
        let mut wrong = Vec::new();
        for round in &self.rounds {
            let dir = Dir::new();
            round.write(&dir);
            for case in cases.iter().filter(|case| round_of(case) == round.name) {
                checked += 1;
                wrong.extend(check(&dir, round, case).err().map(|why| format!("{}: {why}", round.name)));
            }
        }
        assert!(checked > 0 && checked == cases.len(), "{checked} of {} cases have a round", cases.len());
        assert!(wrong.is_empty(), "{} of {checked} cases fail:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[track_caller]
    fn check_merges(mut self, compat: Option<&str>) {
        let mut merges = std::mem::take(&mut self.merges);
        merges.retain(|merge| merge.compat.as_deref() == compat);
        self.check(&merges, |merge| &merge.round, check_merge);
    }
}

impl Round {
    /// Writes one file a client: a third of its values in `a`, the rest in `b`, in either order.
    fn write(&self, dir: &Dir) {
        for (i, (row, examples)) in self.updates.iter().zip(&self.examples).enumerate() {
            let row: Vec<f32> = row.iter().map(|x| *x as f32).collect();
            let (a, b) = row.split_at(row.len() / 3);
            let update =
                Update::new(&format!("updates/client-{i:02}")).meta("num_examples", &examples.to_string());
            let update = match i % 2 {
                0 => update.f32("a", &[a.len()], a).f32("b", &[2, b.len() / 2], b),
                _ => update.f32("b", &[2, b.len() / 2], b).f32("a", &[a.len()], a),
            };
            update.write(dir);
        }
    }

    /// The magnitude that errors are relative to: the larger of the result's and the median one of all clients. So
    /// neither far clients nor values near zero decide which results are close.
    fn scale(&self, result: &[f64]) -> f64 {
        let mut all: Vec<f64> = self.updates.iter().flatten().map(|x| x.abs()).collect();
        all.sort_by(f64::total_cmp);
        largest(result).max(all[all.len() / 2])
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// Fails unless both have the same length and every value agrees to the tolerance. NaN never agrees.
fn compare(got: &[f64], want: &[f64], tolerance: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("got {} values, expected {}", got.len(), want.len()));
    }
    let off: Vec<f64> = got.iter().zip(want).map(|(a, b)| (a - b).abs()).collect();
    if off.iter().all(|off| *off <= tolerance) {
        return Ok(());
    }
    // NaN is above all numbers in this order.
    let worst = (0..off.len()).max_by(|a, b| off[*a].total_cmp(&off[*b])).unwrap_or_default();
    let (got_worst, want_worst) = (got[worst], want[worst]);
    Err(format!(
        "worst at {worst}: got {got_worst:e}, expected {want_worst:e}, tolerance {tolerance:e}\n  \
         got      {got:?}\n  expected {want:?}"
    ))
}

/// The merged values of a run with these arguments, both tensors joined; or the error message.
fn merged(dir: &Dir, args: &[&str]) -> Result<Vec<f64>, String> {
    let run = fedmill(dir, &[&["aggregate", "-q", "updates", "-o", "merged.safetensors"], args].concat());
    if run.code != Some(0) {
        return Err(format!("exit status {:?}: {}", run.code, run.stderr));
    }
    let model = Model::read(dir, "merged.safetensors");
    Ok([model.f32("a"), model.f32("b")].concat().into_iter().map(f64::from).collect())
}

fn check_merge(dir: &Dir, round: &Round, case: &Merge) -> Result<(), String> {
    let byzantine = case.byzantine.map(|f| f.to_string());
    let mut args = vec!["--rule", &case.rule, "--weights", &case.weights];
    args.extend(byzantine.iter().flat_map(|f| ["--byzantine", f]));
    args.extend(case.compat.iter().flat_map(|compat| ["--compat", compat]));
    // Flower rounds the fraction of a cut down, to none with few clients, and does not say so.
    args.extend((case.compat.as_deref() == Some("flower")).then_some("--allow-unprotected"));
    args.extend(case.pre.iter().flat_map(|step| ["--pre", step]));
    let tolerance = case.tolerance.unwrap_or(TOLERANCE) * round.scale(&case.merged);
    merged(dir, &args)
        .and_then(|got| compare(&got, &case.merged, tolerance))
        .map_err(|why| format!("{}, {}: {why}", case.by, args.join(" ")))
}

/// A mean in which only one client has weight shows the row that mixing made for it.
fn check_mix(dir: &Dir, round: &Round, case: &Mix) -> Result<(), String> {
    let byzantine = case.byzantine.to_string();
    for (i, want) in case.rows.iter().enumerate() {
        let only: Map<String, Value> =
            (0..case.rows.len()).map(|j| (format!("client-{j:02}"), u8::from(i == j).into())).collect();
        dir.write("only.json", Value::from(only).to_string());
        let args = ["--rule", "mean", "--weights", "only.json", "--pre", "nnm", "--byzantine", &byzantine];
        merged(dir, &args)
            .and_then(|got| compare(&got, want, TOLERANCE * round.scale(want)))
            .map_err(|why| format!("{}, row {i}: {why}", case.by))?;
    }
    Ok(())
}

fn check_metrics(dir: &Dir, _: &Round, case: &Metrics) -> Result<(), String> {
    merged(
        dir,
        &["--rule", "mean", "--weights", &case.weights, "--metrics", "signs", "--report", "report.json"],
    )?;
    let report = dir.json("report.json");
    for (name, want) in &case.values {
        let (got, want) = (number(&report["metrics"][name]), number(want));
        compare(&[got], &[want], TOLERANCE * want.abs().max(1.0))
            .map_err(|why| format!("{name}, weights {}: {why}", case.weights))?;
    }
    for name in case.influence[0].keys() {
        let column = |rows: &mut dyn Iterator<Item = &Value>| -> Vec<f64> { rows.map(number).collect() };
        let clients = report["clients"].as_array().unwrap();
        let got = column(&mut clients.iter().map(|client| &client["influence"][name]));
        let want = column(&mut case.influence.iter().map(|client| &client[name]));
        compare(&got, &want, TOLERANCE * largest(&want))
            .map_err(|why| format!("influence.{name}, weights {}: {why}", case.weights))?;
    }
    Ok(())
}

/// NaN for text that is not a number: NaN compares with nothing.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

#[test]
fn compat_byzfl_gives_what_byzfl_gives() {
    Vectors::read().check_merges(Some("byzfl"));
}

#[test]
fn compat_flower_gives_what_flower_gives() {
    Vectors::read().check_merges(Some("flower"));
}

#[test]
fn without_compat_rules_are_as_their_papers_define_them() {
    Vectors::read().check_merges(None);
}

#[test]
fn nearest_neighbour_mixing_makes_the_rows_of_byzfl() {
    let vectors = Vectors::read();
    vectors.check(&vectors.mixes, |mix| &mix.round, check_mix);
}

#[test]
fn round_metrics_are_as_defined() {
    let vectors = Vectors::read();
    vectors.check(&vectors.metrics, |metrics| &metrics.round, check_metrics);
}

#[test]
fn a_wrong_value_would_be_noticed() {
    assert!(compare(&[1.0, 2.0], &[1.0, 2.0 + 1e-7], 1e-6).is_ok());
    for wrong in [&[1.0, 2.0 + 1e-5][..], &[1.0], &[1.0, f64::NAN]] {
        assert!(compare(wrong, &[1.0, 2.0], 1e-6).is_err(), "{wrong:?}");
    }
}

/// An outlying client may not make the tolerance so wide that the wrong client passes for the right one.
#[test]
fn a_client_chosen_wrongly_would_be_noticed() {
    for round in Vectors::read().rounds {
        for (i, row) in round.updates.iter().enumerate() {
            for other in round.updates[..i].iter().filter(|other| *other != row) {
                assert!(compare(other, row, TOLERANCE * round.scale(row)).is_err(), "{} {i}", round.name);
            }
        }
    }
}
