//! What events cost: an epsilon at a delta, by every method that knows them.
//!
//! - [`steps`]: the tree of events as mechanisms, and how often each was run.
//! - [`rdp`]: Renyi divergences. At integer orders they hold for the discrete noise that is added, and for plans that
//!   change on the way: the certified number.
//! - [`pld`]: privacy loss distributions. The tight number, for plans that were fixed before the first release.
//! - [`bridge`]: what discrete noise costs beyond the continuous noise of the others.
//! - `normal`: the normal distribution far out.

pub mod bridge;
mod normal;
pub mod pld;
pub mod rdp;
pub mod steps;

use super::event::{Adjacency, Event};
use bridge::IntegerNoise;
use rdp::orders::OrderList;
use rdp::{Curve, conversion};
use serde::{Serialize, Serializer};
use steps::{Mechanism, Steps, UnsupportedEvent};

/// How events are to be accounted for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    /// The probability that the guarantee may fail with; above zero and below one.
    pub delta: f64,
    /// Which data sets are neighbours.
    pub adjacency: Adjacency,
    /// The orders of Renyi divergences.
    pub orders: OrderList,
    /// Whether the loss distribution is asked for; it takes a hundred times longer.
    pub distribution: bool,
    /// The integer noise of the releases; none for continuous noise.
    pub noise: Option<IntegerNoise>,
}

impl Terms {
    /// Everything by all accountants, for continuous noise and clients that are there or not.
    pub fn at(delta: f64) -> Self {
        let (adjacency, orders) = (Adjacency::default(), OrderList::default());
        Self { delta, adjacency, orders, distribution: true, noise: None }
    }
}

/// What events cost. An epsilon is infinite where there is no protection.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Spent {
    /// By Renyi divergences at all orders, for continuous noise.
    #[serde(serialize_with = "number")]
    pub epsilon_rdp: f64,
    /// The order that it is the best of.
    #[serde(serialize_with = "number")]
    pub order: f64,
    /// By Renyi divergences at integer orders alone: for discrete noise as well.
    #[serde(serialize_with = "number")]
    pub epsilon_rdp_integer: f64,
    /// The order that it is the best of.
    #[serde(serialize_with = "number")]
    pub integer_order: f64,
    /// By concentrated privacy at the best of all real orders, where no clients are sampled: for discrete noise as well.
    #[serde(serialize_with = "maybe")]
    pub epsilon_zcdp: Option<f64>,
    /// By the privacy loss distribution, for continuous noise and plans fixed in advance.
    #[serde(serialize_with = "maybe")]
    pub epsilon_pld: Option<f64>,
    /// What discrete noise adds to the epsilons of continuous noise; they are then taken at a slightly smaller delta.
    #[serde(serialize_with = "maybe")]
    pub slack: Option<f64>,
    /// The delta.
    pub delta: f64,
    /// Which data sets are neighbours.
    pub adjacency: Adjacency,
    /// How many releases there were.
    pub releases: u64,
    /// What a reader of these numbers should know.
    pub warnings: Vec<String>,
}

/// JSON has no infinity.
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

impl Spent {
    /// What a budget is held to: the least number that is certain. That of the loss distribution is, only if all went by a
    /// plan that was fixed before the first release.
    pub fn certified(&self, as_planned: bool) -> f64 {
        let slack = self.slack.unwrap_or(0.0);
        let planned = self.epsilon_pld.filter(|_| as_planned).map_or(f64::INFINITY, |pld| pld + slack);
        let concentrated = self.epsilon_zcdp.unwrap_or(f64::INFINITY);
        self.epsilon_rdp_integer.min(self.epsilon_rdp + slack).min(planned).min(concentrated)
    }
}

/// Why events cannot be accounted for.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CostError {
    /// A delta that is none.
    #[error("delta: found {0}, expected a number above 0 and below 1")]
    Delta(f64),
    /// An epsilon that is none.
    #[error("epsilon: found {0}, expected a finite number that is not negative")]
    Epsilon(f64),
    /// An event that no accountant knows.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedEvent),
}

/// What these events cost together.
///
/// # Errors
///
/// When delta is not between zero and one, or the cost of an event is not known.
pub fn spend(events: &[Event], terms: &Terms) -> Result<Spent, CostError> {
    if !(terms.delta > 0.0 && terms.delta < 1.0) {
        return Err(CostError::Delta(terms.delta));
    }
    Ok(spend_steps(&Steps::of(events, terms.adjacency)?, terms))
}

/// The same, of steps already counted.
pub fn spend_steps(steps: &Steps, terms: &Terms) -> Spent {
    let slack = terms.noise.map(|noise| noise.slack(steps.releases, terms.delta));
    let delta = slack.map_or(terms.delta, |slack| slack.delta);
    let curve = Curve::of(steps, &terms.orders.orders());
    let best = conversion::epsilon(&curve, delta);
    let integer = conversion::epsilon(&curve.integers(), terms.delta);
    let distribution = terms.distribution.then(|| pld::epsilon(steps, delta)).flatten();
    Spent {
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
    }
}

/// The least delta at this epsilon, by the best accountant for plans fixed in advance, for continuous noise.
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
    let (delta_rdp, order) = (best.value.min(1.0), best.order);
    Ok(Deltas { epsilon, delta_rdp, order, delta_pld: pld::delta(&steps, epsilon) })
}

/// What delta an epsilon holds at.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Deltas {
    /// The epsilon.
    pub epsilon: f64,
    /// By Renyi divergences.
    pub delta_rdp: f64,
    /// The order that it is the best of.
    #[serde(serialize_with = "number")]
    pub order: f64,
    /// By the privacy loss distribution.
    pub delta_pld: Option<f64>,
}

/// What the divergences of steps add up to where all are `xi + rho * order` at any real order.
fn concentrated(steps: &Steps) -> Option<(f64, f64)> {
    let mut sum = (0.0, 0.0);
    for step in &steps.list {
        let count = step.count as f64;
        match step.mechanism {
            Mechanism::Gaussian { noise } => sum.0 += count * 0.5 / (noise * noise),
            Mechanism::ZeroConcentrated { rho, xi } => sum = (sum.0 + count * rho, sum.1 + count * xi),
            Mechanism::Poisson { .. } | Mechanism::WithoutReplacement { .. } => return None,
        }
    }
    (!steps.non_private).then_some(sum)
}

fn warnings(steps: &Steps, terms: &Terms, best: &conversion::Best, no_distribution: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if best.at_the_edge {
        let order = best.order;
        warnings.push(format!("epsilon_rdp is at the first or last order, {order}: it may be loose"));
    }
    if terms.distribution && no_distribution {
        warnings.push(match terms.delta < pld::LEAST_DELTA {
            true => {
                format!("delta {:e} is below {:e}: epsilon_pld is not told", terms.delta, pld::LEAST_DELTA)
            }
            false => "epsilon_pld is not known for these events".to_owned(),
        });
    }
    if terms.noise.is_some_and(|noise| noise.slack(steps.releases, terms.delta).delta <= 0.0) {
        warnings.push("the discrete noise leaves nothing of delta: only integer orders hold".to_owned());
    }
    warnings
}
