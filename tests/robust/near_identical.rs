//! Updates that differ in the fifth digit, as after one training step.
//!
//! Their common part must not hide their distances. In f32 the products of such rows have errors larger than the
//! differences.

use super::{DISTANCES, Round, merge, merge_against, wide, write_base, write_round};
use crate::reference::robust::{krum, krum_scores};

const VALUES: usize = 20_000;

/// A number between -1 and 1, unlike its neighbours.
fn noise(i: usize, j: usize) -> f64 {
    let mut bits = (i as u64 * 1_000_003 + j as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 32;
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn common(j: usize) -> f64 {
    noise(977, j) + noise(978, j).signum() * 0.5
}

/// Client `i` differs from the common part by about a hundred-thousandth. All pairs differ by different amounts.
fn similar(clients: usize) -> Round {
    let size = |i: usize| 1e-5 * (1.0 + (i * 7 % clients) as f64 / 10.0);
    let value = |i: usize, j: usize| (common(j) * (1.0 + size(i) * noise(i, j))) as f32;
    (0..clients).map(|i| (0..VALUES).map(|j| value(i, j)).collect()).collect()
}

/// Clients in order of score.
fn order(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    order
}

/// Bases: the common part, and another that is as far from it as zero is.
fn bases() -> [Vec<f32>; 2] {
    [(0..VALUES).map(|j| common(j) as f32).collect(), (0..VALUES).map(|j| noise(5000, j) as f32).collect()]
}

/// Fails unless the order of scores is the oracle's for the first `honest` clients, and the others follow.
fn check(round: &Round, honest: usize, f: usize) {
    let want = order(&krum_scores(&wide(round), f));
    assert!(want[..honest].iter().all(|i| *i < honest), "the hostile come last");
    let dir = write_round(round);
    let check = |how: &str, args: &[&str]| {
        for distances in DISTANCES {
            let got = merge_against(&dir, "krum", f, &[args, distances].concat());
            let what = format!("{how}, {distances:?}");
            assert_eq!(order(&got.scores())[..honest], want[..honest], "{what}");
            assert_eq!(got.kept(), [want[0]], "{what}");
        }
    };
    check("no base", &[]);
    for (number, base) in bases().iter().enumerate() {
        write_base(&dir, base);
        check(&format!("base {number}"), &["--base", "base.safetensors"]);
    }
}

#[test]
fn krum_ranks_twenty_clients() {
    check(&similar(20), 20, 4);
}

#[test]
fn krum_ranks_thirty_three_clients() {
    check(&similar(33), 33, 8);
}

/// Three clients are a thousand times as large. They must not move the centre of the rows.
#[test]
fn krum_ranks_the_honest_beside_large_clients() {
    for honest in [20, 33] {
        let mut round = similar(honest);
        for hostile in 0..3 {
            round.push((0..VALUES).map(|j| (1e3 * noise(9000 + hostile, j)) as f32).collect());
        }
        check(&round, honest, 3);
    }
}

/// The same updates as files of deltas.
#[test]
fn krum_chooses_the_same_among_deltas() {
    let (round, base) = (similar(20), bases()[0].clone());
    let dir = crate::harness::Dir::new();
    write_base(&dir, &base);
    for (i, row) in round.iter().enumerate() {
        let delta: Vec<f32> = row.iter().zip(&base).map(|(x, b)| x - b).collect(); // Exact: the values are close.
        crate::harness::Update::new(&format!("in/{}", super::id(i)))
            .f32("w", &[VALUES], &delta)
            .meta("kind", "delta")
            .write(&dir);
    }
    let got = merge(&dir, "krum", &["--byzantine", "4", "--base", "base.safetensors"]);
    assert_eq!(order(&got.scores()), order(&krum_scores(&wide(&round), 4)));
    assert_eq!(got.kept(), [krum(&wide(&round), 4)]);
}

/// The cases above need this: scores differ by more than the error of any order of addition.
#[test]
fn scores_are_far_apart() {
    for (clients, f) in [(20, 4), (33, 8)] {
        let scores = krum_scores(&wide(&similar(clients)), f);
        let order = order(&scores);
        for pair in order.windows(2) {
            let ratio = scores[pair[1]] / scores[pair[0]];
            assert!(ratio > 1.001, "{clients} clients: {pair:?} differ by {ratio}");
        }
    }
}
