//! Rounds released under a budget, files to files, as the operator and an attacker see them.

mod adaptive;
mod budget;
mod canaries;
mod cohort;
mod damaged;
mod killed;
mod refusals;
mod sensitivity;
mod shell;
mod steps;

use crate::harness::{Dir, Model, Run, Update, fedmill};
use fedmill::budget::books::Books;
use fedmill::kernels::discrete_gaussian::Level;
use fedmill::privacy::clipping::Grid;

/// An epsilon that no test reaches.
const PLENTY: &str = "1e7";

/// The default divisor of sums.
const DENOMINATOR: u64 = 10;

/// The test seed: the same noise in every release.
const SEEDED: [&str; 2] = ["--test-seed", "7"];

/// Starts a budget in `dp` for the folder's `base.safetensors`. Later options replace earlier ones.
#[track_caller]
fn start_budget(dir: &Dir, more: &[&str]) {
    let denominator = DENOMINATOR.to_string();
    let usual = [
        ("--population", "100"),
        ("--delta", "1e-5"),
        ("--sampling", "all"),
        ("--base", "base.safetensors"),
        ("--epsilon", PLENTY),
        ("--noise-multiplier", "1"),
        ("--rounds", "1000"),
        ("--clip", "1"),
        ("--denominator", &denominator),
    ];
    let is_usual = |(option, _): &&(&str, &str)| !more.contains(option);
    let usual = usual.iter().filter(is_usual).flat_map(|(option, value)| [*option, *value]);
    let args: Vec<&str> =
        ["privacy", "init", "dp"].into_iter().chain(usual).chain(more.iter().copied()).collect();
    let run = fedmill(dir, &args);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "dp/plan.lock\n"), "{run:#?}");
}

/// Releases the folder's `updates` onto its base.
fn release_to(dir: &Dir, output: &str, more: &[&str]) -> Run {
    let args =
        ["aggregate", "updates", "--dp", "dp", "--base", "base.safetensors", "--allow-empty", "-o", output];
    fedmill(dir, &[&args, more].concat())
}

/// The model that [`release_to`] releases with the noise of [`SEEDED`].
#[track_caller]
fn released(dir: &Dir, more: &[&str]) -> Model {
    let run = release_to(dir, "released.safetensors", &[&SEEDED, more].concat());
    run.assert_merged("released.safetensors");
    Model::read(dir, "released.safetensors")
}

/// The grid of rounds with this clip norm and a noise multiplier of 1.
fn grid(clip: f64) -> Grid {
    Grid::at(Level::L2, clip, 1.0).unwrap()
}

/// The ledger of the folder.
fn books(dir: &Dir) -> Books {
    Books::read(&dir.path("dp")).unwrap()
}

/// Values from -1 to 1 without an obvious pattern, different for every `which`.
fn values(which: usize, len: usize) -> Vec<f64> {
    (0..len).map(|j| ((j * (2 * which + 3) + 5 * which) % 31) as f64 / 15.5 - 1.0).collect()
}

/// Values in F32.
fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}

/// An update or a base of two tensors, `a` of 10 and `b` of 30 floats, and a counter.
fn model_f32(name: &str, values: &[f64]) -> Update {
    let values = narrow(values);
    counter(Update::new(name).f32("a", &[10], &values[..10]).f32("b", &[5, 6], &values[10..]))
}

/// An update or a base as of [`model_f32`], in F64.
fn model_f64(name: &str, values: &[f64]) -> Update {
    counter(Update::new(name).f64("a", &[10], &values[..10]).f64("b", &[5, 6], &values[10..]))
}

/// Adds a counter of integers, which no release changes.
fn counter(update: Update) -> Update {
    update.i64("n", &[1], &[9])
}

/// All floats of such a model.
fn floats(model: &Model) -> Vec<f64> {
    let widened = |tensor: &str| match model.dtype(tensor) {
        "F64" => model.f64(tensor),
        _ => model.f32(tensor).into_iter().map(f64::from).collect(),
    };
    [widened("a"), widened("b")].concat()
}
