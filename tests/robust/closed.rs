//! Cases with a known answer, without an oracle.

use super::{
    assert_near, krums_most, less_than_half, merge, merge_against, rules, tolerant, wide, write_base,
    write_round,
};
use crate::reference::{median, vectors::column};
use fedmill::rules::parse;
use fedmill::settings::Definition;

/// Rows near one that differ slightly.
fn honest(clients: usize) -> Vec<Vec<f32>> {
    let value = |i: usize, j: usize| 1.0 + ((i * 7 + j * 3) % 11) as f32 / 16.0;
    (0..clients).map(|i| (0..6).map(|j| value(i, j)).collect()).collect()
}

#[test]
fn all_equal_gives_that_value() {
    for clients in [3, 7, 10, 15] {
        let row = [1.5f32, -0.1, 3e-9, 0.0, 7e7];
        let round = vec![row.to_vec(); clients];
        let (dir, want) = (write_round(&round), wide(&round).swap_remove(0));
        for (rule, oracle) in rules(0) {
            for f in [0, (oracle.most)(clients)] {
                let got = merge_against(&dir, &rule, f, &[]);
                for (got, want) in got.values.iter().zip(&want) {
                    assert!((got - want).abs() <= 1e-6 * want.abs(), "{rule}, f {f}: {got:e}, not {want:e}");
                }
            }
        }
    }
}

/// For every rule, a single client is the merged model.
#[test]
fn one_client_is_the_model() {
    let dir = write_round(&honest(1));
    let want = wide(&honest(1)).swap_remove(0);
    for (rule, _) in rules(0) {
        if parse(&rule, Definition::Paper).unwrap().least_clients() == 1 {
            assert_eq!(merge(&dir, &rule, &[]).values, want, "{rule}");
        }
    }
}

/// Squares of these values overflow f32, and lose all other values in f64.
#[test]
fn huge_clients_move_nothing() {
    let clients = 15;
    for (rule, most) in tolerant() {
        for f in [1, most(clients)] {
            let mut round = honest(clients);
            for (place, sign) in (1..clients).step_by(2).take(f).zip([1.0, -1.0, -1.0, 1.0].iter().cycle()) {
                round[place] = (0..6).map(|j| sign * if j % 2 == 0 { 1e30 } else { -1e30 }).collect();
            }
            for base in [false, true] {
                let dir = write_round(&round);
                write_base(&dir, &[0.5; 6]);
                let args: &[&str] = if base { &["--base", "base.safetensors"] } else { &[] };
                assert_inside(
                    &merge_against(&dir, &rule, f, args).values,
                    &format!("{rule}, f {f}, base {base}"),
                );
            }
        }
    }
}

/// The honest values are 1 to 1.625. Every rule can stay within twenty times their diameter.
#[track_caller]
fn assert_inside(values: &[f64], what: &str) {
    assert!(values.iter().all(|x| x.is_finite() && (x - 1.3).abs() < 30.0), "{what}: {values:?}");
}

#[test]
fn geometric_median_of_single_values_is_the_median() {
    for clients in [1, 3, 5, 9, 21] {
        let value = |i: usize| ((i * 7919) % 1009) as f32 / 16.0 - 20.0;
        let mut round: Vec<Vec<f32>> = (0..clients).map(|i| vec![value(i)]).collect();
        for huge in [false, true] {
            if huge {
                round.iter_mut().take(less_than_half(clients)).for_each(|row| row[0] = 1e6);
            }
            let rows = wide(&round);
            let got = merge(&write_round(&round), "geometric-median", &["--weights", "uniform"]);
            let want = median(&column(&rows, 0));
            assert!((got.values[0] - want).abs() < 1e-3, "{clients}: {} is not {want}", got.values[0]);
        }
    }
}

/// A client with more than half of the weight is the geometric median, for any values of the others.
#[test]
fn geometric_median_is_where_most_weight_lies() {
    let dir = write_round(&[vec![1.0, 2.0], vec![100.0, -5.0], vec![3.0, 9.0]]);
    dir.write("weights.txt", "client-00 1\nclient-01 9\nclient-02 2\n");
    let got = merge(&dir, "geometric-median", &["--weights", "weights.txt"]);
    assert_near(&got.values, &[100.0, -5.0], 1000.0, "geometric-median");
}

/// Only the geometric median uses weights.
#[test]
fn weights_have_no_part_in_choices() {
    let round = honest(11);
    let (dir, f) = (write_round(&round), krums_most(11) / 2);
    dir.write(
        "weights.txt",
        (0..11).map(|i| format!("client-{i:02} {}\n", 1 + 1000 * (i % 2))).collect::<String>(),
    );
    for (rule, _) in tolerant().into_iter().filter(|(rule, _)| rule != "geometric-median") {
        let plain = merge_against(&dir, &rule, f, &[]);
        let weighted = merge_against(&dir, &rule, f, &["--weights", "weights.txt"]);
        assert_eq!(plain.values, weighted.values, "{rule}");
    }
    let plain = merge(&dir, "geometric-median", &["--weights", "uniform"]);
    let weighted = merge(&dir, "geometric-median", &["--weights", "weights.txt"]);
    assert_ne!(plain.values, weighted.values);
}

/// Seven clients of one value, one of them hostile. Bulyan selects -2 to 2, and averages the three nearest to 0.
#[test]
fn bulyan_by_hand() {
    let round: Vec<Vec<f32>> =
        [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 1000.0].iter().map(|x| vec![*x, 8.0 * *x]).collect();
    let got = merge_against(&write_round(&round), "bulyan", 1, &[]);
    assert_eq!((got.kept(), got.values), (vec![0, 1, 2, 3, 4], vec![0.0, 0.0]));
}

/// A client is not its own neighbour in Krum. Otherwise copies would win.
#[test]
fn krum_does_not_count_a_client_as_its_own_neighbour() {
    // Two neighbours each. If a client counted itself, each copy would have two at distance zero.
    let round = [vec![0.0f32], vec![0.0], vec![100.0], vec![101.0], vec![102.0]];
    let got = merge_against(&write_round(&round), "krum", 1, &[]);
    assert_eq!((got.kept(), got.values), (vec![3], vec![101.0]));
}
