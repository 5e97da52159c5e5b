//! The vocabulary of the oracles for whole clients: rows in order of client id, and distances.

use crate::reference::median;

/// The clients' values, one row each.
pub(crate) type Rows = [Vec<f64>];

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(crate) fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

pub(crate) fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

pub(crate) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    squared_distance(a, b).sqrt()
}

pub(crate) fn scaled(row: &[f64], factor: f64) -> Vec<f64> {
    row.iter().map(|x| x * factor).collect()
}

pub(crate) fn column(rows: &Rows, j: usize) -> Vec<f64> {
    rows.iter().map(|row| row[j]).collect()
}

/// `oracle` at each coordinate.
pub(crate) fn by_coordinate(rows: &Rows, oracle: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    (0..rows[0].len()).map(|j| oracle(&column(rows, j))).collect()
}

pub(crate) fn coordinate_median(rows: &Rows) -> Vec<f64> {
    by_coordinate(rows, median)
}

/// `sum_i weights[i] * row_i`, divided by the sum of the weights.
pub(crate) fn weighted_mean_row(rows: &Rows, weights: &[f64]) -> Vec<f64> {
    by_coordinate(rows, |values| crate::reference::weighted_mean(values, weights))
}

/// The plain mean of the chosen rows.
pub(crate) fn mean_of(rows: &Rows, chosen: &[usize]) -> Vec<f64> {
    weighted_mean_row(&select(rows, chosen), &vec![1.0; chosen.len()])
}

pub(crate) fn select(rows: &Rows, chosen: &[usize]) -> Vec<Vec<f64>> {
    chosen.iter().map(|i| rows[*i].clone()).collect()
}

/// The indices of the `count` least values, in ascending order. The lowest index wins a tie.
pub(crate) fn least(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].partial_cmp(&values[*b]).unwrap()); // A stable sort keeps the order of ties.
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The `count` rows nearest to row `centre`, which is one of them. The lowest index wins a tie.
pub(crate) fn nearest_to(rows: &Rows, centre: usize, count: usize) -> Vec<usize> {
    let mut distances: Vec<f64> = rows.iter().map(|row| squared_distance(row, &rows[centre])).collect();
    distances[centre] = -1.0; // The row comes before its copies.
    least(&distances, count)
}

/// The mean of the `count` values nearest to `centre`. Of two equally near values, the smaller one comes first.
pub(crate) fn mean_of_nearest(values: &[f64], centre: f64, count: usize) -> f64 {
    let mut order = values.to_vec();
    order.sort_by(|a, b| {
        let key = |x: &f64| ((x - centre).abs(), *x);
        key(a).partial_cmp(&key(b)).unwrap()
    });
    order[..count].iter().sum::<f64>() / count as f64
}

/// Every set of `size` of the first `n` numbers, in lexicographic order.
pub(crate) fn subsets(n: usize, size: usize) -> Vec<Vec<usize>> {
    fn extend(n: usize, size: usize, chosen: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if chosen.len() == size {
            all.push(chosen.clone());
            return;
        }
        for next in chosen.last().map_or(0, |last| last + 1)..n {
            chosen.push(next);
            extend(n, size, chosen, all);
            chosen.pop();
        }
    }
    let mut all = Vec::new();
    extend(n, size, &mut Vec::new(), &mut all);
    all
}

#[test]
fn subsets_are_all_and_in_order() {
    assert_eq!(subsets(3, 2), [[0, 1], [0, 2], [1, 2]]);
    assert_eq!(subsets(4, 4), [[0, 1, 2, 3]]);
    assert_eq!(subsets(11, 6).len(), 462);
}

#[test]
fn nearest_holds_itself_and_then_the_lowest_index() {
    let rows = [vec![1.0], vec![1.0], vec![1.0], vec![2.0], vec![0.0]];
    assert_eq!(nearest_to(&rows, 2, 1), [2]);
    assert_eq!(nearest_to(&rows, 2, 2), [0, 2]);
    assert_eq!(nearest_to(&rows, 2, 4), [0, 1, 2, 3]);
}

#[test]
fn of_two_values_as_near_the_smaller_comes_first() {
    assert_eq!(mean_of_nearest(&[3.0, 2.0, 1.0], 2.0, 2), 1.5);
    assert_eq!(mean_of_nearest(&[5.0, 2.0, 9.0], 2.0, 1), 2.0);
}
