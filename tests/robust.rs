//! The rules that judge whole clients, files to file.
//!
//! This file has rounds, runs and comparisons; the folder has the tests.

mod breakdown;
mod closed;
mod infeasible;
mod layouts;
mod near_identical;
mod oracle;
mod passes;
mod real_round;
mod shadow;
mod symmetry;

use crate::harness::{Dir, Model, Update, fedmill, shortest};
use crate::reference::robust::Oracle;
pub(crate) use crate::reference::robust::{bulyans_most, krums_most, less_than_half};
use fedmill::rules::RULES;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use serde_json::Value;
use std::ops::RangeInclusive;

/// One row a client, in order of id.
pub(crate) type Round = Vec<Vec<f32>>;

/// A configuration with the same cases in every run.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(17),
        ..ProptestConfig::default()
    }
}

/// Every way to measure distances.
pub(crate) const DISTANCES: [&[&str]; 3] = [&[], &["--distances", "gram"], &["--distances", "direct"]];

/// Every rule with its oracle, as a text with the oracle's settings. Rules that need a trusted client trust `trusted`.
pub(crate) fn rules(trusted: usize) -> Vec<(String, &'static Oracle)> {
    let with_oracle = |entry| {
        let (text, oracle) = (shortest(entry, &id(trusted)), Oracle::of(entry.name));
        let joint = if text.contains(':') { "," } else { ":" };
        let settings = if oracle.settings.is_empty() { "" } else { joint };
        (text + settings + oracle.settings, oracle)
    };
    RULES.iter().map(with_oracle).collect()
}

/// The number of hostile clients among `n` that a rule tolerates.
type Tolerates = fn(usize) -> usize;

/// The rules that tolerate hostile clients, with their tolerances. Client 0 is the trusted client.
pub(crate) fn tolerant() -> Vec<(String, Tolerates)> {
    let all = rules(0).into_iter().map(|(rule, oracle)| (rule, oracle.most));
    let tolerant: Vec<_> = all.filter(|(_, most)| most(20) > 0).collect();
    assert!(tolerant.len() > RULES.len() / 2, "{tolerant:?}");
    tolerant
}

/// Random numbers of a proptest case, for bounds that the case itself determines.
pub(crate) fn any_index() -> impl Strategy<Value = Index> {
    any::<Index>()
}

/// A change that makes rows similar.
#[derive(Clone, Copy, Debug)]
enum Edit {
    /// One row becomes another.
    Duplicate(Index, Index),
    /// One row becomes a multiple of the signs of another. Several such rows lie on a line.
    OnLine(Index, i8),
}

impl Edit {
    fn apply(self, round: &mut Round) {
        match self {
            Self::Duplicate(i, j) => {
                let (i, j) = (i.index(round.len()), j.index(round.len()));
                round[i] = round[j].clone();
            }
            Self::OnLine(i, times) => {
                let i = i.index(round.len());
                let sign = |j: usize| if j.is_multiple_of(3) { -0.5 } else { 1.0 };
                round[i] = (0..round[i].len()).map(|j| sign(j) * f32::from(times)).collect();
            }
        }
    }
}

/// Multiples of a sixteenth up to four. Distances, their sums and midpoints are then exact in any order of addition,
/// even in f32. So ties are exact, and a choice is right or wrong.
fn sixteenths() -> impl Strategy<Value = f32> {
    prop_oneof![4 => -64i8..=64, 1 => Just(0i8), 1 => Just(16i8)].prop_map(|x| f32::from(x) / 16.0)
}

/// Rounds in sixteenths, without similar rows.
pub(crate) fn scattered(
    clients: RangeInclusive<usize>,
    values: RangeInclusive<usize>,
) -> impl Strategy<Value = Round> {
    (clients, values).prop_flat_map(|(clients, values)| {
        proptest::collection::vec(proptest::collection::vec(sixteenths(), values), clients)
    })
}

/// Rounds in sixteenths with duplicates, rows on a line, and in some rounds very few distinct values.
pub(crate) fn tied(clients: RangeInclusive<usize>) -> impl Strategy<Value = Round> {
    let edit = prop_oneof![
        (any_index(), any_index()).prop_map(|(i, j)| Edit::Duplicate(i, j)),
        (any_index(), -4i8..=4).prop_map(|(i, times)| Edit::OnLine(i, times)),
    ];
    let edits = proptest::collection::vec(edit, 0..12);
    (scattered(clients, 1..=12), edits, proptest::bool::weighted(0.25)).prop_map(
        |(mut round, edits, coarse)| {
            if coarse {
                round.iter_mut().flatten().for_each(|x| *x = (*x / 2.0).round());
            }
            edits.into_iter().for_each(|edit| edit.apply(&mut round));
            round
        },
    )
}

pub(crate) fn id(client: usize) -> String {
    format!("client-{client:02}")
}

/// Example counts, which rules without weights must ignore.
pub(crate) fn examples(client: usize) -> f64 {
    if client.is_multiple_of(3) { 0.25 + client as f64 } else { (client * client % 17 + 1) as f64 }
}

/// An update with one tensor, in the folder `in`.
pub(crate) fn write_client(dir: &Dir, client: usize, row: &[f32]) {
    Update::new(&format!("in/{}", id(client)))
        .f32("w", &[row.len()], row)
        .meta("num_examples", &examples(client).to_string())
        .write(dir);
}

pub(crate) fn write_round(round: &[Vec<f32>]) -> Dir {
    let dir = Dir::new();
    round.iter().enumerate().for_each(|(client, row)| write_client(&dir, client, row));
    dir
}

/// A base with the round's tensor.
pub(crate) fn write_base(dir: &Dir, values: &[f32]) {
    Update::new("base").f32("w", &[values.len()], values).write(dir);
}

/// The result of a run.
pub(crate) struct Merged {
    pub(crate) values: Vec<f64>,
    pub(crate) report: Value,
}

impl Merged {
    fn clients(&self) -> &[Value] {
        self.report["clients"].as_array().unwrap()
    }

    /// The kept clients, as indices in the order of ids.
    pub(crate) fn kept(&self) -> Vec<usize> {
        let kept = self.clients().iter().enumerate().filter(|(_, client)| client["kept"] == true);
        kept.map(|(place, _)| place).collect()
    }

    pub(crate) fn kept_ids(&self) -> Vec<String> {
        let kept = self.clients().iter().filter(|client| client["kept"] == true);
        kept.map(|client| client["id"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub(crate) fn scores(&self) -> Vec<f64> {
        self.clients().iter().map(|client| client["score"].as_f64().unwrap()).collect()
    }

    /// Each client's share; zero if the report has none.
    pub(crate) fn shares(&self) -> Vec<f64> {
        self.clients().iter().map(|client| client["weight"].as_f64().unwrap_or(0.0)).collect()
    }
}

/// Merges the folder's `in`.
#[track_caller]
pub(crate) fn merge(dir: &Dir, rule: &str, args: &[&str]) -> Merged {
    let fixed = ["aggregate", "-q", "in", "-o", "merged.safetensors", "--report", "r.json", "--rule", rule];
    fedmill(dir, &[&fixed, args].concat()).assert_merged("merged.safetensors");
    let values = Model::read(dir, "merged.safetensors").f32("w").iter().map(|x| f64::from(*x)).collect();
    Merged { values, report: dir.json("r.json") }
}

/// Merges with `--byzantine f`.
#[track_caller]
pub(crate) fn merge_against(dir: &Dir, rule: &str, f: usize, args: &[&str]) -> Merged {
    merge(dir, rule, &[&["--byzantine", &f.to_string()], args].concat())
}

pub(crate) fn wide(round: &[Vec<f32>]) -> Vec<Vec<f64>> {
    round.iter().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
}

/// The largest magnitude in the rows.
pub(crate) fn magnitude(rows: &[Vec<f64>]) -> f64 {
    rows.iter().flatten().fold(0.0, |most, x| x.abs().max(most))
}

/// Compares merged values, which are f32. Mixed rows may be rounded to f32 once more. A millionth of the largest
/// magnitude allows about sixteen roundings.
#[track_caller]
pub(crate) fn assert_near(got: &[f64], want: &[f64], scale: f64, what: &str) {
    assert_within(got, want, 1e-6 * scale, what);
}

#[track_caller]
pub(crate) fn assert_within(got: &[f64], want: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (j, (got, want)) in got.iter().zip(want).enumerate() {
        let fine = (got - want).abs() <= bound;
        assert!(fine, "{what}: value {j}: got {got:e}, expected {want:e} to {bound:e}");
    }
}
