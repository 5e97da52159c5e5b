//! Wild statistics count in a rule's distances as they were sent, and in no strategy's lengths.
//!
//! The oracles are in f64, on deltas written out: the parameters times the step's factors, then the statistics.

use crate::harness::{Dir, Model, Update, merge};
use crate::shards::{DECISION, combine, decide, run};
use serde_json::json;

const CLIENTS: usize = 6;
const BASE: [&str; 2] = ["--base", "base.safetensors"];
const KIND: [&str; 2] = ["--kind", "delta"];

/// The deltas of a client's parameters: up to about 3 long.
fn parameters(client: usize) -> Vec<f64> {
    (0..4).map(|j| ((3 * client + 5 * j) % 7) as f64 * 0.25).collect()
}

/// The deltas of a client's variances. The last client's is wild.
fn statistics(client: usize) -> Vec<f64> {
    let first = if client == CLIENTS - 1 { 1e6 } else { 0.125 * client as f64 };
    vec![first, 0.5 - 0.0625 * client as f64]
}

fn update(name: &str, w: &[f64], variance: &[f64]) -> Update {
    Update::new(name).f64("w", &[w.len()], w).f64("bn.running_var", &[variance.len()], variance)
}

fn round() -> Dir {
    let dir = Dir::new();
    update("base", &[0.0; 4], &[1.0; 2]).write(&dir);
    for i in 0..CLIENTS {
        let sent = update(&format!("updates/c{i}"), &parameters(i), &statistics(i));
        let facts = [("num_examples", "10"), ("loss", &format!("{}", 1 + i)), ("local_steps", "5")];
        facts.iter().fold(sent, |sent, (key, value)| sent.meta(key, value)).write(&dir);
    }
    dir
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The factor that shortens each client's parameters to `norm`.
fn factors(norm: f64) -> Vec<f64> {
    (0..CLIENTS).map(|i| (norm / length(&parameters(i))).min(1.0)).collect()
}

/// The points that a rule compares.
fn points(factors: &[f64]) -> Vec<Vec<f64>> {
    let shortened = |i: usize| parameters(i).into_iter().map(move |x| x * factors[i]);
    (0..CLIENTS).map(|i| shortened(i).chain(statistics(i)).collect()).collect()
}

fn sum_of(rows: &[Vec<f64>], shares: &[f64]) -> Vec<f64> {
    (0..rows[0].len()).map(|j| rows.iter().zip(shares).map(|(row, share)| share * row[j]).sum()).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    length(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>())
}

/// The shares of the geometric median, by Weiszfeld's iteration.
fn geometric_median(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut shares = vec![1.0 / rows.len() as f64; rows.len()];
    for _ in 0..20_000 {
        let middle = sum_of(rows, &shares);
        shares = rows.iter().map(|row| distance(row, &middle).recip()).collect();
        let total: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= total);
    }
    shares
}

/// The shares of centered clipping about zero.
fn centered_clipping(rows: &[Vec<f64>], tau: f64) -> Vec<f64> {
    rows.iter().map(|row| (tau / length(row)).min(1.0) / rows.len() as f64).collect()
}

/// The shares of the clients with the least diameter, all but one.
fn least_diameter(rows: &[Vec<f64>]) -> Vec<f64> {
    let diameter = |out: usize| {
        let pairs = (0..rows.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let pairs = pairs.filter(|(i, j)| *i != out && *j != out);
        pairs.map(|(i, j)| distance(&rows[i], &rows[j])).fold(0.0, f64::max)
    };
    let out = (0..rows.len()).min_by(|a, b| diameter(*a).total_cmp(&diameter(*b))).unwrap();
    (0..rows.len()).map(|i| if i == out { 0.0 } else { 1.0 / (rows.len() - 1) as f64 }).collect()
}

#[track_caller]
fn assert_near(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 2e-6 * want.abs().max(1.0), "{what}: {got}, expected {want}");
    }
}

/// Fails unless the model is the base, the parameters by these shares and factors, and the statistics by these shares
/// alone.
#[track_caller]
fn assert_merged(model: &Model, shares: &[f64], factors: &[f64], what: &str) {
    let want = sum_of(&points(factors), shares);
    assert_near(&model.f64("w"), &want[..4], what);
    let total: f64 = shares.iter().sum();
    let variance: Vec<f64> = want[4..].iter().map(|x| 1.0 + x / total).collect();
    assert_near(&model.f64("bn.running_var"), &variance, what);
}

/// The step of each case, and its factors.
fn steps() -> [(&'static [&'static str], Vec<f64>); 4] {
    // With one hostile client of six, arc shortens floor(2 * 5 / 6) = 1.
    let mut lengths: Vec<f64> = (0..CLIENTS).map(|i| length(&parameters(i))).collect();
    lengths.sort_by(f64::total_cmp);
    [
        (&[], vec![1.0; CLIENTS]),
        (&["--pre", "clip:norm=100"], vec![1.0; CLIENTS]),
        (&["--pre", "clip:norm=0.5"], factors(0.5)),
        (&["--pre", "arc"], factors(lengths[CLIENTS - 2])),
    ]
}

/// A client whose statistics are wild stays as far from the others as without a step: the step shortens parameters,
/// and the rule's share of that client is its share of the statistics.
#[test]
fn a_clip_hides_no_wild_statistic() {
    let dir = round();
    for (pre, factors) in steps() {
        let rows = points(&factors);
        for (rule, shares) in [
            ("geometric-median", geometric_median(&rows)),
            ("centered-clipping:tau=2", centered_clipping(&rows, 2.0)),
            ("mda", least_diameter(&rows)),
        ] {
            let rule = ["--rule", rule, "--byzantine", "1"];
            let args = [&BASE[..], &KIND, &rule, pre].concat();
            assert_merged(&merge(&dir, &args), &shares, &factors, &format!("{rule:?} {pre:?}"));
        }
    }
}

/// FedNova's factors are a client's claim. A claim of very many steps makes its parameters short, not its statistics.
#[test]
fn a_claim_hides_no_wild_statistic() {
    let dir = round();
    let last = CLIENTS - 1;
    let sent = update(&format!("updates/c{last}"), &parameters(last), &statistics(last));
    sent.meta("num_examples", "10").meta("local_steps", "5000000").write(&dir);
    let factors: Vec<f64> = (0..CLIENTS).map(|i| if i == last { 1e-6 } else { 1.0 }).collect();
    let args = [&BASE[..], &KIND, &["--strategy", "fednova:steps=5"]].concat();
    for (rule, shares) in [
        ("geometric-median", geometric_median(&points(&factors))),
        ("mda", least_diameter(&points(&factors))),
    ] {
        let merged = merge(&dir, &[&args[..], &["--rule", rule, "--byzantine", "1"]].concat());
        assert_merged(&merged, &shares, &factors, rule);
    }
}

/// A rule that starts at the coordinate median measures mixtures again: their statistics are mixed without factors.
#[test]
fn a_second_measurement_sees_statistics_as_sent() {
    let dir = round();
    let args = [&BASE[..], &KIND, &["--byzantine", "1", "--report", "report.json"]].concat();
    let step = ["--rule", "distance-trim", "--pre", "clip:norm=0.001"];
    merge(&dir, &[&args[..], &step].concat());
    let score = |dir: &Dir| dir.json("report.json")["clients"][CLIENTS - 1]["score"].as_f64().unwrap();
    assert!((score(&dir) / 1e6 - 1.0).abs() < 1e-5, "{}", score(&dir));
}

#[test]
fn shards_and_tiers_decide_as_one_process_does() {
    let dir = Dir::new();
    // Parameters in three sections, with statistics between them.
    let model = |name: &str, w: f64, variance: f64| {
        let rows = vec![w; 70_000];
        let update = Update::new(name).f64("a", &[70_000], &rows);
        update.f64("b.running_var", &[70_000], &vec![variance; 70_000]).f64("c", &[3], &[w; 3])
    };
    model("base", 0.0, 0.0).write(&dir);
    for i in 0..5 {
        let variance = if i == 4 { 1e6 } else { 0.5 + 0.25 * i as f64 };
        model(&format!("in/c{i}"), 0.125 * (i + 1) as f64, variance).write(&dir);
    }
    let rule = ["--rule", "geometric-median", "--pre", "clip:norm=20", "--kind", "delta"];
    let options = [&rule[..], &BASE].concat();
    run(&dir, "aggregate", &options, &[], "whole.safetensors");
    let whole = Model::read(&dir, "whole.safetensors");
    assert!(whole.f64("b.running_var").iter().all(|x| *x < 2.0), "{}", whole.f64("b.running_var")[0]);
    for distances in ["direct", "gram"] {
        let options = [&options[..], &["--distances", distances]].concat();
        run(&dir, "aggregate", &options, &[], "whole.safetensors");
        for shards in [2, 3] {
            decide(&dir, &options, &[], shards);
            combine(&dir, &options, &DECISION, shards);
            run(&dir, "merge", &options, &["--partials", "c", "--decision", "d.json"], "merged.safetensors");
            let same = dir.read("merged.safetensors") == dir.read("whole.safetensors");
            assert!(same, "{distances}: {shards} shards show in the model");
        }
    }
    let tiers = json!({ "schema": "fedmill.tiers/1", "tiers": [
        { "name": "all", "clients": ["c*"], "rule": "geometric-median", "pre": ["clip:norm=20"] },
    ]});
    dir.write("tiers.json", tiers.to_string());
    let tiered = ["--tiers", "tiers.json", "--kind", "delta"];
    run(&dir, "aggregate", &[&tiered[..], &BASE].concat(), &[], "tiers.safetensors");
    let tiered = Model::read(&dir, "tiers.safetensors");
    for name in ["a", "b.running_var", "c"] {
        assert_near(&tiered.f64(name)[..3], &whole.f64(name)[..3], name);
    }
}

/// The lengths of q-FedAvg and of FedExP are those of parameters.
#[test]
fn strategies_measure_parameters_alone() {
    let dir = round();
    let rows: Vec<Vec<f64>> = (0..CLIENTS).map(parameters).collect();
    let square = |row: &Vec<f64>| length(row).powi(2);
    let (q, lipschitz) = (1.0, 10.0);
    let losses: Vec<f64> = (0..CLIENTS).map(|i| (1 + i) as f64).collect();
    let terms = rows
        .iter()
        .zip(&losses)
        .map(|(row, loss)| q * lipschitz * lipschitz * square(row) + lipschitz * loss);
    let all: f64 = terms.sum();
    let shares: Vec<f64> = losses.iter().map(|loss| lipschitz * loss / all).collect();
    let args = [&BASE[..], &KIND].concat();
    let merged = merge(&dir, &[&args[..], &["--strategy", "qfedavg:q=1,local-lr=0.1"]].concat());
    assert_near(&merged.f64("w"), &sum_of(&rows, &shares), "qfedavg");

    let fedexp = ["--strategy", "fedexp:eps=0.000001"];
    let merged = merge(&dir, &[&args[..], &fedexp].concat());
    let even = vec![1.0 / CLIENTS as f64; CLIENTS];
    assert_near(&merged.f64("w"), &extrapolated(&rows, &even, &even, 1e-6), "fedexp");
}

/// FedExP's step on rows: `shares` are those of the rule, `weights` those before it.
fn extrapolated(rows: &[Vec<f64>], shares: &[f64], weights: &[f64], eps: f64) -> Vec<f64> {
    let mean = sum_of(rows, shares);
    let term = |i: usize| shares[i] * (shares[i] / weights[i]).min(1.0) * length(&rows[i]).powi(2);
    let lengths: f64 = (0..rows.len()).map(term).sum();
    let lr = lengths / (2.0 * (length(&mean).powi(2) + eps * rows.len() as f64));
    mean.iter().map(|x| lr.max(1.0) * x).collect()
}

/// Deltas that cancel, so that FedExP lengthens the step, and a hostile one of the largest finite values.
#[test]
fn fedexp_measures_deltas_after_clips() {
    let rows =
        |far: f64| vec![vec![2.0, 0.0, 0.0], vec![0.0, 2.0, 0.0], vec![0.0, 0.0, 2.0], vec![far, 0.0, 0.0]];
    let even = [0.25; 4];
    for far in [1e6, f64::from(3e38f32)] {
        let dir = Dir::new();
        Update::new("base").f32("w", &[3], &[0.0; 3]).write(&dir);
        for (i, row) in rows(far).iter().enumerate() {
            let row: Vec<f32> = row.iter().map(|x| *x as f32).collect();
            Update::new(&format!("updates/c{i}")).f32("w", &[3], &row).write(&dir);
        }
        let args = [&BASE[..], &KIND, &["--strategy", "fedexp:eps=0.000001"]].concat();
        let moved = |more: &[&str]| -> Vec<f64> {
            merge(&dir, &[&args[..], more].concat()).f32("w").iter().map(|x| f64::from(*x)).collect()
        };
        // Clipped to 1.5, as if they were sent so.
        let mut clipped = rows(far);
        clipped.iter_mut().for_each(|row| {
            let factor = 1.5 / length(row);
            row.iter_mut().for_each(|x| *x *= factor);
        });
        let want = extrapolated(&clipped, &even, &even, 1e-6);
        assert_near(&moved(&["--pre", "clip:norm=1.5"]), &want, "clip");
        // Centered clipping shortens them itself.
        assert_near(&moved(&["--rule", "centered-clipping:tau=1.5"]), &want, "centered clipping");
        // The geometric median of three near deltas and a distant one stays near.
        let shares = geometric_median(&rows(far));
        let want = extrapolated(&rows(far), &shares, &even, 1e-6);
        assert!(length(&want) < 4.0, "{want:?}");
        assert_near(&moved(&["--rule", "geometric-median"]), &want, "geometric median");
    }
}
