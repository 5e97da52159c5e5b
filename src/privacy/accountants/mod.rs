//! The cost of events: an epsilon at a delta, by several methods.
//!
//! - [`steps`]: the tree of events as a list of mechanisms with counts.
//! - [`rdp`]: Renyi divergences. At integer orders they hold for the discrete noise that fedmill adds, and for plans
//!   that change between rounds: the certified epsilon.
//! - [`pld`]: privacy loss distributions. The tight epsilon, for plans that were fixed before the first release.
//! - [`bridge`]: the cost of discrete noise beyond that of continuous noise, which the other methods assume.
//! - [`lines`]: costs for people.
//! - `normal`: the tails of the normal distribution.

pub mod bridge;
pub mod lines;
mod normal;
pub mod pld;
pub mod rdp;
pub mod steps;

use super::event::{Adjacency, Event};
use bridge::IntegerNoise;
use pld::Effort;
use rdp::orders::OrderList;
use rdp::{Curve, conversion};
use serde::{Serialize, Serializer};
use steps::{StepMechanism, Steps, UnsupportedEvent};

/// The terms of a cost: delta, neighbours and methods.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CostTerms {
    /// The probability with which the guarantee may fail; above 0 and below 1.
    pub delta: f64,
    /// The neighbouring data sets.
    pub adjacency: Adjacency,
    /// The orders of Renyi divergences.
    pub orders: OrderList,
    /// Whether to compute the loss distribution too, which takes a hundred times longer.
    pub distribution: bool,
    /// The integer noise of the releases; `None` for continuous noise.
    pub noise: Option<IntegerNoise>,
}

impl CostTerms {
    /// All methods at this delta, for continuous noise and add-or-remove-one.
    pub fn at(delta: f64) -> Self {
        let (adjacency, orders) = (Adjacency::default(), OrderList::default());
        Self { delta, adjacency, orders, distribution: true, noise: None }
    }
}

/// The cost of events. An epsilon is infinite if there is no protection.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Cost {
    /// Epsilon by Renyi divergences at all orders, for continuous noise.
    #[serde(serialize_with = "number")]
    pub epsilon_rdp: f64,
    /// The order that gives it.
    #[serde(serialize_with = "number")]
    pub order: f64,
    /// Epsilon by Renyi divergences at integer orders: valid for discrete noise as well.
    #[serde(serialize_with = "number")]
    pub epsilon_rdp_integer: f64,
    /// The order that gives it.
    #[serde(serialize_with = "number")]
    pub integer_order: f64,
    /// Epsilon by concentrated privacy at the best real order: valid for discrete noise as well. `None` if clients are
    /// sampled.
    #[serde(serialize_with = "maybe")]
    pub epsilon_zcdp: Option<f64>,
    /// Epsilon by the privacy loss distribution, for continuous noise and plans fixed in advance.
    #[serde(serialize_with = "maybe")]
    pub epsilon_pld: Option<f64>,
    /// The epsilon that discrete noise adds to the epsilons of continuous noise, which are at a slightly smaller delta.
    #[serde(serialize_with = "maybe")]
    pub slack: Option<f64>,
    /// The delta.
    pub delta: f64,
    /// The neighbouring data sets.
    pub adjacency: Adjacency,
    /// Number of releases.
    pub releases: u64,
    /// Warnings about these numbers.
    pub warnings: Vec<String>,
}

/// Writes infinity as text, since JSON has no infinity.
fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match value.is_finite() {
        true => serializer.serialize_f64(*value),
        false => serializer.serialize_str("infinity"),
    }
}

fn maybe<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => number(value, serializer),
        None => serializer.serialize_none(),
    }
}

impl Cost {
    /// The epsilon to hold against a budget: the least one that is proven. The epsilon of the loss distribution is
    /// proven only if every release followed a plan that was fixed before the first one.
    pub fn certified(&self, as_planned: bool) -> f64 {
        let slack = self.slack.unwrap_or(0.0);
        let planned = self.epsilon_pld.filter(|_| as_planned).map_or(f64::INFINITY, |pld| pld + slack);
        let concentrated = self.epsilon_zcdp.unwrap_or(f64::INFINITY);
        self.epsilon_rdp_integer.min(self.epsilon_rdp + slack).min(planned).min(concentrated)
    }
}

/// Why events have no known cost.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CostError {
    /// Delta is out of range.
    #[error("delta: found {0}, expected a number above 0 and below 1")]
    Delta(f64),
    /// Epsilon is out of range.
    #[error("epsilon: found {0}, expected a finite number that is not negative")]
    Epsilon(f64),
    /// No method knows the event.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedEvent),
}

/// The cost of these events together.
///
/// # Errors
///
/// When delta is not between 0 and 1, or the cost of an event is not known.
pub fn cost(events: &[Event], terms: &CostTerms) -> Result<Cost, CostError> {
    if !(terms.delta > 0.0 && terms.delta < 1.0) {
        return Err(CostError::Delta(terms.delta));
    }
    let steps = &Steps::of(events, terms.adjacency)?;
    let slack = terms.noise.map(|noise| noise.slack(steps.releases, terms.delta));
    let delta = slack.map_or(terms.delta, |slack| slack.delta);
    let curve = Curve::of(steps, &terms.orders.orders());
    let best = conversion::epsilon(&curve, delta);
    let integer = conversion::epsilon(&curve.integers(), terms.delta);
    let distribution = terms.distribution.then(|| pld::epsilon(steps, delta, Effort::Full)).flatten();
    Ok(Cost {
        epsilon_rdp: best.value,
        order: best.order,
        epsilon_rdp_integer: integer.value,
        integer_order: integer.order,
        epsilon_zcdp: concentrated(steps).map(|(rho, xi)| conversion::of_concentrated(rho, xi, terms.delta)),
        epsilon_pld: distribution,
        slack: slack.map(|slack| slack.epsilon),
        delta: terms.delta,
        adjacency: terms.adjacency,
        releases: steps.releases,
        warnings: warnings(steps, terms, &best, distribution.is_none()),
    })
}

/// Delta at this epsilon, for continuous noise. It is never too small, and falls as epsilon grows.
///
/// # Errors
///
/// When epsilon is negative or not finite, or the cost of an event is not known.
pub fn delta(events: &[Event], epsilon: f64, adjacency: Adjacency) -> Result<Deltas, CostError> {
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(CostError::Epsilon(epsilon));
    }
    let steps = Steps::of(events, adjacency)?;
    let best = conversion::delta(&Curve::of(&steps, &OrderList::All.orders()), epsilon);
    // The exponential of a bound may be smaller than any number; the bound is not zero.
    let least = if steps.list.is_empty() && !steps.non_private { 0.0 } else { f64::MIN_POSITIVE };
    let (delta_rdp, order) = (best.value.clamp(least, 1.0), best.order);
    let delta_pld = match delta_rdp {
        0.0 => 0.0,
        // The distribution cannot show less. A grid for it would have no end.
        below if below < RESOLUTION => RESOLUTION,
        bound => pld::delta(&steps, epsilon).unwrap_or(bound).clamp(RESOLUTION, bound),
    };
    Ok(Deltas { epsilon, delta_rdp, order, delta_pld, below_resolution: delta_pld == RESOLUTION })
}

/// The least delta that a loss distribution shows: below it, rounding in its transforms decides.
pub const RESOLUTION: f64 = 1e-15;

/// The delta of an epsilon.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Deltas {
    /// The epsilon.
    pub epsilon: f64,
    /// Delta by Renyi divergences.
    pub delta_rdp: f64,
    /// The order that gives it.
    #[serde(serialize_with = "number")]
    pub order: f64,
    /// Delta by the privacy loss distribution, at least [`RESOLUTION`] if there is a release; the Renyi bound where the
    /// distribution is not known.
    pub delta_pld: f64,
    /// Whether delta is below [`RESOLUTION`], which `delta_pld` then is.
    pub below_resolution: bool,
}

impl Deltas {
    /// Whether delta by Renyi divergences is smaller than any normal float: `delta_rdp` is then only a bound.
    pub fn is_below_floats(&self) -> bool {
        self.delta_rdp == f64::MIN_POSITIVE
    }
}

/// The parameters (rho, xi) of the summed divergences `xi + rho * order`; `None` if a step has other divergences.
fn concentrated(steps: &Steps) -> Option<(f64, f64)> {
    let mut sum = (0.0, 0.0);
    for step in &steps.list {
        let count = step.count as f64;
        match step.mechanism {
            StepMechanism::Gaussian { noise } => sum.0 += count * 0.5 / (noise * noise),
            StepMechanism::ZeroConcentrated { rho, xi } => sum = (sum.0 + count * rho, sum.1 + count * xi),
            StepMechanism::Poisson { .. } | StepMechanism::WithoutReplacement { .. } => return None,
        }
    }
    (!steps.non_private).then_some(sum)
}

fn warnings(steps: &Steps, terms: &CostTerms, best: &conversion::Best, no_distribution: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if best.at_the_edge {
        let order = best.order;
        warnings.push(format!("epsilon_rdp is at the first or last order, {order}: it may be loose"));
    }
    if terms.distribution && no_distribution {
        warnings.push(match terms.delta < pld::LEAST_DELTA {
            true => {
                format!(
                    "delta {:e} is below {:e}: epsilon_pld is not computed",
                    terms.delta,
                    pld::LEAST_DELTA
                )
            }
            false => "epsilon_pld is not known for these events".to_owned(),
        });
    }
    if terms.noise.is_some_and(|noise| noise.slack(steps.releases, terms.delta).delta <= 0.0) {
        warnings.push("discrete noise uses the whole delta: only integer orders hold".to_owned());
    }
    warnings
}
