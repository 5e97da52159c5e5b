//! The point with the least weighted sum of distances to all updates.
//!
//! - Paper: Pillutla, Kakade and Harchaoui, Robust aggregation for federated learning, 2022, algorithm 2: Weiszfeld's
//!   iteration, smoothed, on the whole update and not tensor by tensor.
//! - Cost: the inner products of all updates, for any number of iterations; then a weighted mean.
//! - Tolerates: clients that hold less than half of the weight.
//! - Details: a client pulls by its weight over its distance. Below `smoothing`, a part of a robust distance between
//!   clients, the pull no longer grows. The iteration starts at the weighted mean. It stops when the coefficients
//!   change by less than 1e-9, and the point by less than 1e-9 of that robust distance.
//! - Elsewhere: ByzFL starts at zero, stops after 3 iterations, takes 0.1 for the smallest distance, and weighs
//!   clients equally.

use crate::rules::geometry::{Geometry, dot};
use crate::rules::mean::weighted_mean;
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, Warning};
use crate::settings::{Definition, Positive, RegistryEntry, Setting, Settings, SpecError, spec_text, value};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "geometric-median",
    summary: "The point with the least weighted sum of distances to all updates.",
    settings: &[
        Setting::new("smoothing", "1e-6", "least distance that counts, as a part of a typical distance"),
        Setting::new("iterations", "10000", "most iterations"),
    ],
    parse: GeometricMedian::parse,
};

/// The geometric median.
#[derive(Clone, Copy, Debug)]
pub struct GeometricMedian {
    smoothing: Option<Positive>,
    iterations: Option<usize>,
    definition: Definition,
}

/// The iteration stops when the relative change of the coefficients is below this.
const SETTLED: f64 = 1e-9;
const SMOOTHING: f64 = 1e-6;
const ITERATIONS: usize = 10_000;

/// The last point of an iteration.
pub(super) struct IterationEnd {
    /// One coefficient for each client. Their sum is one.
    pub(super) coefficients: Vec<f64>,
    /// The last relative change; `None` if it was small enough.
    pub(super) unsettled: Option<f64>,
}

impl GeometricMedian {
    fn parse(settings: &mut Settings) -> Result<Box<dyn Rule>, SpecError> {
        let definition = match settings.definition() {
            Definition::Byzfl => Definition::Byzfl,
            Definition::Paper | Definition::Flower | Definition::FlowerLegacy | Definition::Tff => {
                Definition::Paper
            }
        };
        let (smoothing, iterations) = (settings.take("smoothing")?, settings.take("iterations")?);
        Ok(Box::new(Self { smoothing, iterations, definition }))
    }

    fn median(&self, statistics: &Statistics) -> Result<IterationEnd, RuleError> {
        let geometry = statistics.geometry()?;
        if self.definition == Definition::Byzfl {
            let start = geometry.combination(&vec![0.0; statistics.clients()]);
            let floor = self.smoothing.map_or(0.1, |s| s.0);
            let iterations = self.iterations.unwrap_or(3);
            let weights = vec![1.0; statistics.clients()];
            let IterationEnd { coefficients, .. } =
                weiszfeld(geometry, &weights, start, (floor, f64::INFINITY), iterations);
            return Ok(IterationEnd { coefficients, unsettled: None });
        }
        let smoothing = self.smoothing.map_or(SMOOTHING, |s| s.0);
        let iterations = self.iterations.unwrap_or(ITERATIONS);
        Ok(smoothed_median(geometry, &statistics.weights, smoothing, iterations))
    }
}

/// The geometric median of the clients by weight, with the default settings.
pub(super) fn geometric_median(geometry: &Geometry, weights: &[f64]) -> IterationEnd {
    smoothed_median(geometry, weights, SMOOTHING, ITERATIONS)
}

fn smoothed_median(geometry: &Geometry, weights: &[f64], smoothing: f64, iterations: usize) -> IterationEnd {
    let total: f64 = weights.iter().sum();
    let mean: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    if let Some(coefficients) = point_of_most(geometry, &mean) {
        return IterationEnd { coefficients, unsettled: None };
    }
    match typical_distance(geometry) {
        0.0 => IterationEnd { coefficients: mean, unsettled: None },
        distance => {
            let start = geometry.combination(&mean);
            weiszfeld(geometry, weights, start, (smoothing * distance, distance), iterations)
        }
    }
}

/// The point on which clients with half of the weight agree: it is the median. `shares` add up to one.
fn point_of_most(geometry: &Geometry, shares: &[f64]) -> Option<Vec<f64>> {
    let n = shares.len();
    let agreeing = |row: &[f64]| -> Vec<f64> {
        row.iter().zip(shares).map(|(squared, share)| if *squared == 0.0 { *share } else { 0.0 }).collect()
    };
    let weights = geometry.map_distances(4 * n, |_, row| agreeing(row).iter().sum::<f64>());
    let most = weights.iter().position(|weight| *weight >= 0.5)?;
    let shares = agreeing(&geometry.squared_distances_from(most));
    Some(shares.iter().map(|share| share / weights[most]).collect())
}

/// A distance between clients that no minority can move (Rousseeuw and Croux, Alternatives to the median absolute
/// deviation, 1993). Of h clients that are a bare majority, it is the distance of rank h (h - 1) / 2 among all pairs;
/// if that is zero, the smallest distance above zero.
fn typical_distance(geometry: &Geometry) -> f64 {
    let n = geometry.clients();
    let majority = n / 2 + 1;
    let rank = (majority * (majority - 1) / 2).saturating_sub(1);
    let of_rank = if n < 2 { 0.0 } else { distance_of_rank(geometry, rank, MOST_SORTED) };
    if of_rank > 0.0 {
        return of_rank;
    }
    let least = geometry.map_distances(2 * n, |i, row| {
        row[..i].iter().filter(|squared| **squared > 0.0).fold(f64::INFINITY, |least, x| least.min(*x))
    });
    let least = least.into_iter().fold(f64::INFINITY, f64::min);
    if least < f64::INFINITY { least.sqrt() } else { 0.0 }
}

/// The most distances that are sorted.
const MOST_SORTED: u64 = 1 << 20;

/// The bits that one look at all distances tells of the one sought.
const BITS: u32 = 8;

/// The distance of a rank, from 0 on, among all pairs of clients. Looks at all distances a few times, since a list of
/// them takes as much memory as the geometry; at last it sorts up to `most`.
fn distance_of_rank(geometry: &Geometry, rank: usize, most: u64) -> f64 {
    let n = geometry.clients();
    // The floats from zero on are in the order of their bits.
    let key = |squared: &f64| (squared + 0.0).to_bits();
    let (mut first, mut shift, mut below, mut within) = (0, u64::BITS, 0, (n * (n - 1) / 2) as u64);
    while within > most && shift > 0 {
        shift -= BITS;
        let counts = geometry.map_distances(4 * n, |i, row| {
            let mut counts = [0u32; 1 << BITS];
            // The bits above were looked at before: those of the distance sought are those of `first`.
            let alike = |key: &u64| shift + BITS == u64::BITS || (key ^ first) >> (shift + BITS) == 0;
            let keys = row[..i].iter().map(key).filter(alike);
            keys.for_each(|key| counts[(key >> shift) as usize % (1 << BITS)] += 1);
            counts
        });
        for digit in 0..1 << BITS {
            within = counts.iter().map(|counts| u64::from(counts[digit])).sum();
            if below + within > rank as u64 {
                first |= (digit as u64) << shift;
                break;
            }
            below += within;
        }
    }
    let last = first | 1u64.checked_shl(shift).map_or(u64::MAX, |end| end - 1);
    let found = geometry.map_distances(2 * n, |i, row| {
        let keys = row[..i].iter().map(key).filter(|key| (first..=last).contains(key));
        if shift == 0 { Vec::new() } else { keys.collect() }
    });
    let mut keys = found.concat();
    let place = rank - below as usize;
    let bits = if shift == 0 { first } else { *keys.select_nth_unstable(place).1 };
    f64::from_bits(bits).sqrt()
}

/// Weiszfeld's iteration from a point. Every client pulls by its weight over its distance, which counts as `floor` or
/// more. The iteration stops when the coefficients stand still and the point moves by little of `scale`.
fn weiszfeld(
    geometry: &Geometry,
    weights: &[f64],
    mut point: Vec<f64>,
    (floor, scale): (f64, f64),
    iterations: usize,
) -> IterationEnd {
    let mut unsettled = None;
    for _ in 0..iterations {
        let distances = geometry.squared_distances_to(&point);
        let pulls: Vec<f64> = weights.iter().zip(&distances).map(|(w, d)| w / d.sqrt().max(floor)).collect();
        let total: f64 = pulls.iter().sum();
        let next = geometry.combination(&pulls.iter().map(|pull| pull / total).collect::<Vec<_>>());
        let step: Vec<f64> = next.iter().zip(&point).map(|(a, b)| a - b).collect();
        // A tiny coefficient of a client far away can still move the point a long way.
        let moved = (norm(&step) / norm(&next)).max(geometry.length(&step) / scale);
        point = next;
        unsettled = (moved >= SETTLED).then_some(moved);
        if unsettled.is_none() {
            break;
        }
    }
    point.truncate(geometry.clients());
    IterationEnd { coefficients: point, unsettled }
}

fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

impl fmt::Display for GeometricMedian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [("smoothing", value(&self.smoothing)), ("iterations", value(&self.iterations))];
        f.write_str(&spec_text("geometric-median", &settings))
    }
}

impl Rule for GeometricMedian {
    fn uses_weights(&self) -> bool {
        self.definition == Definition::Paper
    }

    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn definition(&self) -> Definition {
        self.definition
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let geometry = statistics.geometry()?;
        let median = self.median(statistics)?;
        let distances = geometry.squared_distances_to(&geometry.combination(&median.coefficients));
        let mut decision = weighted_mean(&median.coefficients, "it pulls by its weight over its distance");
        for (verdict, distance) in decision.verdicts.iter_mut().zip(&distances) {
            verdict.score = Some(distance.sqrt());
        }
        if let Some(change) = median.unsettled {
            let text = format!(
                "{self} had not settled when it stopped: its coefficients still changed by {change:.1e}"
            );
            decision.warnings.push(text.into());
        }
        decision.warnings.extend(heavy_few(self, statistics).map(Warning::from));
        Ok(decision)
    }
}

/// The warning that the assumed hostile clients could hold half of the weight.
fn heavy_few(rule: &GeometricMedian, statistics: &Statistics) -> Option<String> {
    if !rule.uses_weights() || statistics.hostile() == 0 {
        return None;
    }
    let mut weights = statistics.weights.clone();
    weights.sort_by(|a, b| b.total_cmp(a));
    let share = weights[..statistics.hostile()].iter().sum::<f64>() / weights.iter().sum::<f64>();
    (share >= 0.5).then(|| {
        format!(
            "the {} heaviest clients hold {:.0} % of the weight, and {rule} tolerates less than half: \
             --weights uniform counts heads",
            statistics.hostile(),
            share * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geometry::tests::geometry_of;

    #[test]
    fn the_distance_of_a_rank_is_that_of_the_sorted_list() {
        let row = |i: usize| {
            vec![((i * i) as f64 * 0.7).sin(), f64::from(i.is_multiple_of(5)), (i % 7) as f64 * 1e-9]
        };
        let mut rows: Vec<Vec<f64>> = (0..30).map(row).collect();
        rows[11] = rows[4].clone();
        rows[12] = rows[4].clone();
        rows[29] = vec![1e30, 0.0, 0.0];
        let geometry = geometry_of(&rows);
        let pairs = (0..30).flat_map(|i| (0..i).map(move |j| (i, j)));
        let mut sorted: Vec<f64> = pairs.map(|(i, j)| geometry.distance(i, j)).collect();
        sorted.sort_by(f64::total_cmp);
        assert_eq!((sorted[2], sorted[3] > 0.0), (0.0, true));
        for (rank, distance) in sorted.iter().enumerate() {
            for most in [0, 1, 7, 100, 1000] {
                assert_eq!(distance_of_rank(&geometry, rank, most), *distance, "{rank} {most}");
            }
        }
    }

    #[test]
    fn the_typical_distance_is_that_within_a_majority() {
        let typical = |points: &[f64]| {
            let rows: Vec<Vec<f64>> = points.iter().map(|x| vec![*x]).collect();
            typical_distance(&geometry_of(&rows))
        };
        // Three of four clients make three pairs: the third of the distances 1, 2, 3, 4, 6 and 7.
        assert_eq!(typical(&[0.0, 1.0, 3.0, 7.0]), 3.0);
        // That is zero here, so the smallest other distance counts.
        assert_eq!(typical(&[0.0, 0.0, 0.0, 5.0]), 5.0);
        assert_eq!((typical(&[2.0, 2.0]), typical(&[2.0])), (0.0, 0.0));
    }
}
