//! The point with the least weighted sum of distances to all updates.
//!
//! - Paper: Pillutla, Kakade and Harchaoui, Robust aggregation for federated learning, 2022, algorithm 2: Weiszfeld's
//!   iteration, smoothed, on the whole update and not tensor by tensor.
//! - Cost: the inner products of all updates, however many iterations it takes; then a weighted mean.
//! - Tolerates: clients that hold less than half of the weight.
//! - Arguments: `smoothing`, the distance below which a client pulls no harder, as a part of a robust
//!   distance between clients (default 1e-6); `iterations`, the most there may be (default 10000). It starts at the weighted mean
//!   and stops when the coefficients change by less than 1e-9, and the point by less than that part of that distance.
//! - Elsewhere: ByzFL starts at zero, stops after 3 iterations, takes 0.1 for the smallest distance, and weighs
//!   clients equally.

use crate::rules::geometry::{Geometry, dot};
use crate::rules::mean::weighted_mean;
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, Warning};
use crate::settings::Definition;
use crate::settings::{Positive, Settings, SpecError, written};
use std::fmt::{self, Display};

/// The geometric median.
#[derive(Clone, Copy, Debug)]
pub struct GeometricMedian {
    smoothing: Option<Positive>,
    iterations: Option<usize>,
    definition: Definition,
}

/// Change of the coefficients, relative to their size, at which the iteration has settled.
const SETTLED: f64 = 1e-9;
const SMOOTHING: f64 = 1e-6;
const ITERATIONS: usize = 10_000;

/// Where an iteration ended.
pub(super) struct Median {
    /// One coefficient a client; they add up to one.
    pub(super) coefficients: Vec<f64>,
    /// The last relative change, if that was not small enough.
    pub(super) unsettled: Option<f64>,
}

impl GeometricMedian {
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Rule>, SpecError> {
        let definition = match settings.definition() {
            Definition::Byzfl => Definition::Byzfl,
            Definition::Paper | Definition::Flower | Definition::Tff => Definition::Paper,
        };
        let (smoothing, iterations) = (settings.take("smoothing")?, settings.take("iterations")?);
        Ok(Box::new(Self { smoothing, iterations, definition }))
    }

    fn median(&self, statistics: &Statistics) -> Result<Median, RuleError> {
        let geometry = statistics.geometry()?;
        if self.definition == Definition::Byzfl {
            let start = geometry.combination(&vec![0.0; statistics.clients()]);
            let floor = self.smoothing.map_or(0.1, |s| s.0);
            let iterations = self.iterations.unwrap_or(3);
            let weights = vec![1.0; statistics.clients()];
            let Median { coefficients, .. } =
                weiszfeld(geometry, &weights, start, (floor, f64::INFINITY), iterations);
            return Ok(Median { coefficients, unsettled: None });
        }
        let smoothing = self.smoothing.map_or(SMOOTHING, |s| s.0);
        let iterations = self.iterations.unwrap_or(ITERATIONS);
        Ok(smoothed_median(geometry, &statistics.weights, smoothing, iterations))
    }
}

/// The geometric median of the clients by weight, with the usual settings.
pub(super) fn geometric_median(geometry: &Geometry, weights: &[f64]) -> Median {
    smoothed_median(geometry, weights, SMOOTHING, ITERATIONS)
}

fn smoothed_median(geometry: &Geometry, weights: &[f64], smoothing: f64, iterations: usize) -> Median {
    let total: f64 = weights.iter().sum();
    let mean: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    if let Some(coefficients) = point_of_most(geometry, &mean) {
        return Median { coefficients, unsettled: None };
    }
    match typical_distance(geometry) {
        0.0 => Median { coefficients: mean, unsettled: None },
        distance => {
            let start = geometry.combination(&mean);
            weiszfeld(geometry, weights, start, (smoothing * distance, distance), iterations)
        }
    }
}

/// Where clients of half of the weight agree, they are the median. Given are the clients' shares of the weight.
fn point_of_most(geometry: &Geometry, shares: &[f64]) -> Option<Vec<f64>> {
    let n = shares.len();
    let agreeing =
        |i: usize| (0..n).map(move |j| if geometry.squared_distance(i, j) == 0.0 { shares[j] } else { 0.0 });
    let most = (0..n).find(|i| agreeing(*i).sum::<f64>() >= 0.5)?;
    let weight: f64 = agreeing(most).sum();
    Some(agreeing(most).map(|share| share / weight).collect())
}

/// A distance between clients that no minority of them can move: of all, that which stands where the pairs of any
/// majority end (Rousseeuw and Croux, Alternatives to the median absolute deviation, 1993). If that is zero, the
/// smallest above.
fn typical_distance(geometry: &Geometry) -> f64 {
    let n = geometry.clients();
    let pairs = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
    let mut distances: Vec<f64> = pairs.map(|(i, j)| geometry.distance(i, j)).collect();
    distances.sort_by(f64::total_cmp);
    let majority = n / 2 + 1;
    let start = (majority * (majority - 1) / 2).saturating_sub(1);
    distances.into_iter().skip(start).find(|distance| *distance > 0.0).unwrap_or(0.0)
}

/// Weiszfeld's iteration from a point: every client pulls by its weight over its distance, at least `floor`. It has
/// settled when neither the coefficients nor, by `scale`, the point itself moves.
fn weiszfeld(
    geometry: &Geometry,
    weights: &[f64],
    mut point: Vec<f64>,
    (floor, scale): (f64, f64),
    iterations: usize,
) -> Median {
    let mut unsettled = None;
    for _ in 0..iterations {
        let distances = geometry.squared_distances_to(&point);
        let pulls: Vec<f64> = weights.iter().zip(&distances).map(|(w, d)| w / d.sqrt().max(floor)).collect();
        let total: f64 = pulls.iter().sum();
        let next = geometry.combination(&pulls.iter().map(|pull| pull / total).collect::<Vec<_>>());
        let step: Vec<f64> = next.iter().zip(&point).map(|(a, b)| a - b).collect();
        // Of a client far away, a coefficient too small to count may still be a long way.
        let moved = (norm(&step) / norm(&next)).max(geometry.length(&step) / scale);
        point = next;
        unsettled = (moved >= SETTLED).then_some(moved);
        if unsettled.is_none() {
            break;
        }
    }
    point.truncate(geometry.clients());
    Median { coefficients: point, unsettled }
}

fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

impl Display for GeometricMedian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [
            ("smoothing", self.smoothing.as_ref().map(|s| s as &dyn Display)),
            ("iterations", self.iterations.as_ref().map(|i| i as &dyn Display)),
        ];
        f.write_str(&written("geometric-median", &settings))
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

/// What to tell the user when the assumed number of hostile clients could hold half of the weight.
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
