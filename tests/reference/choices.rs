//! Rules that judge whole clients, step by step as defined, from the geometry that the rules use.
//!
//! The oracles of `robust` measure rows. These take the distances as they are, so that several hundred clients, ties and
//! clients far away are compared client by client.

use fedmill::rules::geometry::Geometry;
use fedmill::rules::numeric::eigen::leading_pair;
use fedmill::rules::numeric::triangle::Triangle;

/// The scores of members of a set: sorted distances, of which the nearest are added up.
pub(crate) fn krum_scores(geometry: &Geometry, members: &[usize], neighbours: usize) -> Vec<f64> {
    let score = |member: &usize| {
        let others = members.iter().filter(|other| *other != member);
        let mut distances: Vec<f64> =
            others.map(|other| geometry.squared_distance(*member, *other)).collect();
        distances.sort_by(f64::total_cmp);
        distances[..neighbours.min(distances.len())].iter().sum()
    };
    members.iter().map(score).collect()
}

fn neighbours(members: usize, f: usize) -> usize {
    members.saturating_sub(f + 2).max(1)
}

/// The `count` clients with the lowest scores, lowest first; ties in the order of clients.
pub(crate) fn multi_krum(geometry: &Geometry, f: usize, count: usize) -> Vec<usize> {
    let all: Vec<usize> = (0..geometry.clients()).collect();
    let scores = krum_scores(geometry, &all, neighbours(all.len(), f));
    let mut order = all;
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    order.truncate(count);
    order
}

/// The clients that Krum chooses one by one, in the order of its choices.
pub(crate) fn bulyan(geometry: &Geometry, f: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..geometry.clients()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < geometry.clients() - 2 * f {
        let scores = krum_scores(geometry, &left, neighbours(left.len(), f));
        let best = (1..left.len()).fold(0, |best, i| if scores[i] < scores[best] { i } else { best });
        chosen.push(left.remove(best));
    }
    chosen
}

/// For each client, whether another is among the `count` nearest; ties go to the lowest clients.
pub(crate) fn nearest(geometry: &Geometry, count: usize) -> Vec<Vec<bool>> {
    let n = geometry.clients();
    let row = |i: usize| {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| geometry.squared_distance(i, *a).total_cmp(&geometry.squared_distance(i, *b)));
        let mut near = vec![false; n];
        order[..count].iter().for_each(|j| near[*j] = true);
        near
    };
    (0..n).map(row).collect()
}

/// The shares of the covariance-bound agnostic filter, each leading pair from the whole spectrum.
pub(crate) fn caf_shares(geometry: &Geometry, f: usize) -> Vec<f64> {
    let n = geometry.clients();
    let mut weights = vec![1.0; n];
    let (mut best, mut least) = (weights.clone(), f64::INFINITY);
    while weights.iter().sum::<f64>() > (n - 2 * f) as f64 {
        let total: f64 = weights.iter().sum();
        let roots: Vec<f64> = weights.iter().map(|weight| (weight / total).sqrt()).collect();
        let products = geometry.about_mean(&weights);
        let (value, u) = leading_pair(Triangle::new(n, |i, j| roots[i] * roots[j] * products.at(i, j)));
        if value < least {
            (best, least) = (weights.clone(), value);
        }
        let projection = |i: usize| {
            let sum: f64 = (0..n).map(|j| roots[j] * u[j] * products.at(i, j)).sum();
            sum * sum / value
        };
        let projections: Vec<f64> = (0..n).map(projection).collect();
        let counts = (0..n).filter(|i| weights[*i] > 0.0).map(|i| projections[i]);
        let most = counts.fold(0.0, f64::max);
        if value <= 0.0 || most == 0.0 {
            break;
        }
        weights.iter_mut().zip(&projections).for_each(|(w, p)| *w *= (1.0 - p / most).max(0.0));
    }
    let total: f64 = best.iter().sum();
    best.iter().map(|weight| weight / total).collect()
}
