//! Rules that judge whole clients, for up to 300 of them, against the definitions step by step.
//!
//! The rules update scores, select and iterate, where the definitions sort, repeat and compute whole spectra.

use crate::harness::{Dir, Model, Update, fedmill};
use crate::reference::choices;
use crate::rng::Rng;
use fedmill::rules::geometry::{Geometry, References};
use fedmill::rules::numeric::triangle::Triangle;
use fedmill::rules::pre;
use fedmill::rules::{Decision, Statistics, decide, parse};
use fedmill::settings::Definition;

/// What the rows of a round are like.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// No two distances are equal.
    Scattered,
    /// Eighths: sums of distances are exact, and many are equal.
    Tied,
    /// Eighths, with duplicates, multiples of one row and zeros.
    Similar,
    /// Scattered, and one client is at 1e30.
    Far,
    /// Scattered, and a third of the clients are far in one direction.
    Shifted,
}

const KINDS: [Kind; 5] = [Kind::Scattered, Kind::Tied, Kind::Similar, Kind::Far, Kind::Shifted];

fn round(kind: Kind, n: usize, rng: &mut Rng) -> Vec<Vec<f64>> {
    let d = 2 + rng.place(20);
    let mut rows: Vec<Vec<f64>> = (0..n).map(|_| (0..d).map(|_| rng.number()).collect()).collect();
    match kind {
        Kind::Scattered => {}
        Kind::Tied => rows.iter_mut().flatten().for_each(|x| *x = (*x * 8.0).round() / 8.0),
        Kind::Similar => {
            rows.iter_mut().flatten().for_each(|x| *x = (*x * 8.0).round() / 8.0);
            for i in 0..n {
                match rng.place(4) {
                    0 => rows[i] = rows[rng.place(n)].clone(),
                    1 => {
                        let times = rng.place(9) as f64 - 4.0;
                        rows[i] = rows[0].iter().map(|x| times * x).collect();
                    }
                    2 if rng.place(4) == 0 => rows[i].fill(0.0),
                    _ => {}
                }
            }
        }
        Kind::Far => rows[rng.place(n - 1) + 1].iter_mut().for_each(|x| *x *= 1e30),
        Kind::Shifted => rows.iter_mut().step_by(3).for_each(|row| row[1] += 5.0),
    }
    rows
}

/// The geometry about the first row, and the origin.
fn geometry(rows: &[Vec<f64>]) -> Geometry {
    let mut points = rows.to_vec();
    points.push(vec![0.0; rows[0].len()]);
    let at = |i: usize, j: usize| {
        let terms = points[i].iter().zip(&points[j]).zip(&rows[0]);
        terms.map(|((a, b), c)| (a - c) * (b - c)).sum()
    };
    let gram = Triangle::new(points.len(), at);
    Geometry::new(rows.len(), References::default(), gram, None, f64::EPSILON)
}

fn statistics(geometry: &Geometry, f: usize) -> Statistics {
    let n = geometry.clients();
    Statistics {
        ids: (0..n).map(|i| format!("c{i:04}")).collect(),
        weights: vec![1.0; n],
        byzantine: Some(f),
        seed: 0,
        geometry: Some(geometry.clone()),
    }
}

fn decided(rule: &str, statistics: &Statistics) -> Decision {
    decide(parse(rule, Definition::Paper).unwrap().as_ref(), statistics).unwrap()
}

fn kept(decision: &Decision) -> Vec<usize> {
    let verdicts = decision.verdicts.iter().enumerate();
    verdicts.filter(|(_, verdict)| verdict.kept).map(|(client, _)| client).collect()
}

/// Calls `check` with rounds of every kind and many sizes.
fn for_each_round(mut check: impl FnMut(&Geometry, &mut Rng, Kind)) {
    let mut rng = Rng::new(7);
    for kind in KINDS {
        let few = [3, 4, 5, 6, 7, 8, 11, 12, 16, 17, 31, 40, 64, 65, 99];
        let many = if matches!(kind, Kind::Tied | Kind::Similar) { 300 } else { 150 };
        for n in few.into_iter().chain([many]) {
            let rows = round(kind, n, &mut rng);
            check(&geometry(&rows), &mut rng, kind);
        }
    }
}

/// None, one, the most and some hostile clients up to the most.
fn some_up_to(most: usize, rng: &mut Rng) -> Vec<usize> {
    let mut some = if most > 20 { vec![most / 2] } else { vec![0, most.min(1), most, rng.place(most + 1)] };
    some.sort_unstable();
    some.dedup();
    some
}

#[test]
fn krum_and_multi_krum_keep_those_with_the_lowest_sums() {
    for_each_round(|geometry, rng, kind| {
        let n = geometry.clients();
        for f in some_up_to((n - 3) / 2, rng) {
            let (statistics, what) = (statistics(geometry, f), format!("{kind:?} {n} {f}"));
            let count = 1 + rng.place(n);
            let mut want = choices::multi_krum(geometry, f, count);
            assert_eq!(kept(&decided("krum", &statistics)), want[..1], "{what}");
            want.sort_unstable();
            assert_eq!(kept(&decided(&format!("multi-krum:m={count}"), &statistics)), want, "{what} {count}");
        }
    });
}

#[test]
fn bulyan_chooses_in_the_order_of_its_definition() {
    for_each_round(|geometry, rng, kind| {
        let n = geometry.clients();
        for f in some_up_to((n - 3) / 4, rng) {
            let decision = decided("bulyan", &statistics(geometry, f));
            let want = choices::bulyan(geometry, f);
            for (place, client) in want.iter().enumerate() {
                let reason = format!("Krum chose it as number {}", place + 1);
                assert_eq!(decision.verdicts[*client].reason, reason, "{kind:?} {n} {f}: client {client}");
            }
            assert_eq!(kept(&decision).len(), want.len());
        }
    });
}

#[test]
fn neighbours_are_those_of_sorted_distances() {
    for_each_round(|geometry, rng, kind| {
        let n = geometry.clients();
        for f in some_up_to((n - 1) / 2, rng) {
            let mixing = pre::parse("nnm").unwrap().take(&statistics(geometry, f)).unwrap().mixing;
            for (i, near) in choices::nearest(geometry, n - f).iter().enumerate() {
                let got: Vec<bool> =
                    mixing.row(i).iter().map(|share| *share == 1.0 / (n - f) as f64).collect();
                assert_eq!(&got, near, "{kind:?} {n} {f}: row {i}");
            }
        }
    });
}

/// The shares of many clients come from Lanczos' iteration.
#[test]
fn caf_weighs_as_by_the_whole_spectrum() {
    let mut rng = Rng::new(11);
    for (kind, n) in [(Kind::Scattered, 60), (Kind::Scattered, 300), (Kind::Far, 140), (Kind::Shifted, 180)] {
        for _ in 0..2 {
            let geometry = geometry(&round(kind, n, &mut rng));
            for f in [1, n / 5] {
                let want = choices::caf_shares(&geometry, f);
                let decision = decided("caf", &statistics(&geometry, f));
                for (client, (verdict, want)) in decision.verdicts.iter().zip(&want).enumerate() {
                    let got = verdict.weight.unwrap();
                    assert!((got - want).abs() <= 1e-9, "{kind:?} {n} {f}: client {client}: {got} {want}");
                }
            }
        }
    }
}

/// From 700 clients on, threads share each tile and one set of sums. A tile is 1,024 columns, so there are two. The last
/// tensor is one of statistics.
#[test]
fn shared_tiles_give_the_same_bits_and_the_right_clients_on_any_threads() {
    let (n, f, dir, mut rng) = (703, 70, Dir::new(), Rng::new(3));
    let rows: Vec<Vec<f32>> = (0..n)
        .map(|i| {
            let size = if i % 10 == 3 { 2.0 } else { 1.0 };
            (0..1040).map(|_| (size * rng.number()) as f32).collect()
        })
        .collect();
    for (i, row) in rows.iter().enumerate() {
        Update::new(&format!("in/client-{i:04}"))
            .f32("a.weight", &[1030], &row[..1030])
            .f32("b.running_mean", &[10], &row[1030..])
            .write(&dir);
    }
    let run = |threads: &str, rule: &str| {
        let all = ["aggregate", "-q", "in", "-o", "merged.safetensors", "--report", "report.json"];
        let options =
            ["--byzantine", &f.to_string(), "--rule", rule, "--threads", threads, "--metrics", "none"];
        fedmill(&dir, &[&all[..], &options].concat()).assert_merged("merged.safetensors");
        let report = dir.json("report.json");
        let clients = report["clients"].as_array().unwrap().clone();
        let score = |client: &serde_json::Value| (client["kept"].as_bool(), client["score"].as_f64());
        let model = Model::read(&dir, "merged.safetensors");
        let bytes = ["a.weight", "b.running_mean"].map(|tensor| model.bytes(tensor).to_vec());
        (bytes, clients.iter().map(score).collect::<Vec<_>>())
    };
    for rule in ["multi-krum:m=600", "geometric-median"] {
        let one = run("1", rule);
        assert_eq!(run("3", rule), one, "{rule}");
        if rule == "geometric-median" {
            continue;
        }
        let rows: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
        let geometry = geometry(&rows);
        let all: Vec<usize> = (0..n).collect();
        let scores = choices::krum_scores(&geometry, &all, n - f - 2);
        for (client, (want, got)) in scores.iter().zip(&one.1).enumerate() {
            let got = got.1.unwrap();
            assert!((got - want).abs() <= 1e-4 * want, "client {client}: {got} {want}");
        }
        let mut want = choices::multi_krum(&geometry, f, 600);
        want.sort_unstable();
        let kept: Vec<usize> = all.into_iter().filter(|client| one.1[*client].0 == Some(true)).collect();
        // Rounding may swap clients at the edge.
        assert!(want.iter().filter(|client| !kept.contains(client)).count() <= 2, "{kept:?}");
    }
}
