//! From a budget to what may be done with it: the noise that a plan takes, or the rounds that noise allows.
//!
//! Both searches keep to the safe side: what they return was itself accounted for, and is within the budget.

use super::accountants::bridge::IntegerNoise;
use super::accountants::rdp::conversion;
use super::accountants::rdp::orders::OrderList;
use super::accountants::steps::Steps;
use super::accountants::{CostError, pld, rdp};
use super::event::{Adjacency, Event, EventError};

/// How clients are drawn each round.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sampling {
    /// All take part.
    All,
    /// Each by itself, with this probability.
    Poisson(f64),
    /// So many of so many, without replacement.
    Fixed {
        /// Clients drawn.
        sample: u64,
        /// Clients there are.
        of: u64,
    },
}

impl Sampling {
    /// So many rounds with this noise multiplier.
    ///
    /// # Errors
    ///
    /// When a number is out of range.
    pub fn event(self, noise_multiplier: f64, rounds: u64) -> Result<Event, EventError> {
        let once = Event::gaussian(noise_multiplier)?;
        let once = match self {
            Self::All => once,
            Self::Poisson(rate) => once.poisson_sampled(rate)?,
            Self::Fixed { sample, of } => once.sampled_without_replacement(of, sample)?,
        };
        Ok(once.times(rounds))
    }

    /// The adjacency that its amplification is known for.
    pub fn adjacency(self) -> Adjacency {
        match self {
            Self::All | Self::Poisson(_) => Adjacency::AddOrRemoveOne,
            Self::Fixed { .. } => Adjacency::ReplaceOne,
        }
    }
}

/// Which epsilon is held to the budget.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Accountant {
    /// That of the loss distribution: for plans that are kept to.
    #[default]
    Pld,
    /// That of Renyi divergences: plans may change on the way.
    Rdp,
}

/// What is to be kept to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Budget {
    /// Not more than this.
    pub epsilon: f64,
    /// At this delta.
    pub delta: f64,
    /// By this accountant.
    pub accountant: Accountant,
    /// With clients drawn so.
    pub sampling: Sampling,
    /// For these neighbours.
    pub adjacency: Adjacency,
    /// And noise on this grid, if it is not continuous.
    pub noise: Option<IntegerNoise>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The budget or the plan is not one.
    #[error(transparent)]
    Account(#[from] CostError),
    /// A number is out of range.
    #[error(transparent)]
    Event(#[from] EventError),
    /// What discrete noise costs is more than the budget.
    #[error(
        "found no noise that keeps epsilon at {epsilon}: the slack of the discrete noise alone is {slack}"
    )]
    Slack {
        /// The budget.
        epsilon: f64,
        /// The slack.
        slack: f64,
    },
    /// No noise is enough.
    #[error("found no noise multiplier up to {0:e} that keeps to the budget")]
    NotFound(f64),
    /// No round is left out.
    #[error("more than {0} rounds keep to the budget")]
    Unlimited(u64),
}

/// No noise multiplier beyond this is tried.
const MOST_NOISE: f64 = 1e9;

/// No number of rounds beyond this is tried.
const MOST_ROUNDS: u64 = 1 << 40;

/// What part of the budget may be left unused.
const UNUSED: f64 = 1e-4;

/// How much is done to know a cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effort {
    /// Some percent too much will do.
    Little,
    /// All.
    Full,
}

impl Budget {
    /// What so many rounds with this noise cost, by the accountant, with slack.
    ///
    /// # Errors
    ///
    /// When a number is out of range, or the cost is not known.
    pub fn cost(&self, noise_multiplier: f64, rounds: u64) -> Result<f64, CalibrateError> {
        self.cost_by(noise_multiplier, rounds, Effort::Full)
    }

    fn cost_by(&self, noise_multiplier: f64, rounds: u64, effort: Effort) -> Result<f64, CalibrateError> {
        let event = self.sampling.event(noise_multiplier, rounds)?;
        let steps = Steps::of(&[event], self.adjacency).map_err(CostError::from)?;
        let slack = self.noise.map(|noise| noise.slack(steps.releases, self.delta));
        let (added, delta) = slack.map_or((0.0, self.delta), |slack| (slack.epsilon, slack.delta));
        let cost = match (self.accountant, effort) {
            (Accountant::Pld, Effort::Full) => pld::epsilon(&steps, delta),
            (Accountant::Pld, Effort::Little) => pld::rough_epsilon(&steps, delta),
            (Accountant::Rdp, _) => None,
        };
        Ok(cost.unwrap_or_else(|| renyi(&steps, delta)) + added)
    }

    /// The least noise multiplier with which so many rounds are within the budget.
    ///
    /// # Errors
    ///
    /// When the budget or a number is out of range, or no noise is enough.
    pub fn noise_multiplier(&self, rounds: u64) -> Result<f64, CalibrateError> {
        self.check()?;
        let slack = self.noise.map_or(0.0, |noise| noise.slack(rounds, self.delta).epsilon);
        if slack >= self.epsilon {
            return Err(CalibrateError::Slack { epsilon: self.epsilon, slack });
        }
        let quick = Self { accountant: Accountant::Rdp, ..*self };
        let renyi = least(1.0, UNUSED, |noise| Ok(quick.cost(noise, rounds)? / self.epsilon))?;
        if self.accountant == Accountant::Rdp {
            return Ok(renyi);
        }
        let cost = |noise: f64, effort: Effort| Ok(self.cost_by(noise, rounds, effort)? / self.epsilon);
        let near = nearly(renyi, |noise| cost(noise, Effort::Little), |noise| cost(noise, Effort::Full))?;
        least(near, UNUSED, |noise| cost(noise, Effort::Full))
    }

    /// The most rounds with this noise that are within the budget; a ten-thousandth of them may be left out.
    ///
    /// # Errors
    ///
    /// When the budget or a number is out of range, or no number of rounds exceeds it.
    pub fn rounds(&self, noise_multiplier: f64) -> Result<u64, CalibrateError> {
        self.check()?;
        let quick = Self { accountant: Accountant::Rdp, ..*self };
        let guess = self.rounds_by_renyi(noise_multiplier)?;
        let renyi = most(guess, |rounds| Ok(quick.cost(noise_multiplier, rounds)? / self.epsilon))?;
        if self.accountant == Accountant::Rdp {
            return Ok(renyi);
        }
        let cost =
            |rounds: u64, effort: Effort| Ok(self.cost_by(noise_multiplier, rounds, effort)? / self.epsilon);
        let rough = most(renyi.max(1), |rounds| cost(rounds, Effort::Little))?.max(1);
        let ratio = cost(rough, Effort::Full)? / cost(rough, Effort::Little)?;
        let near = match ratio.is_finite() {
            true => most(rough, |rounds| Ok(ratio * cost(rounds, Effort::Little)?))?,
            false => rough,
        };
        most(near.max(1), |rounds| cost(rounds, Effort::Full))
    }

    /// About how many rounds Renyi divergences allow: those of one round add up, so that each order says it at once.
    fn rounds_by_renyi(&self, noise_multiplier: f64) -> Result<u64, CalibrateError> {
        let once = Steps::of(&[self.sampling.event(noise_multiplier, 1)?], self.adjacency);
        let curve = rdp::Curve::of(&once.map_err(CostError::from)?, &OrderList::All.orders());
        let rounds = conversion::runs(&curve, self.epsilon, self.delta);
        Ok((rounds as u64).clamp(1, MOST_ROUNDS))
    }

    fn check(&self) -> Result<(), CalibrateError> {
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(CostError::Epsilon(self.epsilon).into());
        }
        if !(self.delta > 0.0 && self.delta < 1.0) {
            return Err(CostError::Delta(self.delta).into());
        }
        Ok(())
    }
}

/// The least epsilon of all that Renyi divergences imply.
fn renyi(steps: &Steps, delta: f64) -> f64 {
    conversion::epsilon(&rdp::Curve::of(steps, &OrderList::All.orders()), delta).value
}

/// What was tried: the logarithm of the noise, and that of the cost by the budget.
#[derive(Clone, Copy)]
struct Point {
    x: f64,
    above: f64,
}

/// The least noise whose cost is at most one, and more than one less `unused`, sought from a first guess. Costs fall as
/// noise grows, at least as fast.
fn least(
    first: f64,
    unused: f64,
    cost: impl Fn(f64) -> Result<f64, CalibrateError>,
) -> Result<f64, CalibrateError> {
    let (mut within, mut beyond): (Option<Point>, Option<Point>) = (None, None);
    let mut x = first.ln();
    for turn in 0.. {
        let cost = cost(x.exp())?;
        let point = Point { x, above: cost.ln() };
        if cost <= 1.0 {
            within = Some(point)
        } else {
            beyond = Some(point)
        }
        match (within, beyond) {
            (Some(within), _) if within.above >= -unused => return Ok(within.x.exp()),
            (Some(within), Some(beyond)) if within.x - beyond.x <= 0.2 * unused => return Ok(within.x.exp()),
            (Some(within), None) if within.x < -MOST_NOISE.ln() => return Ok(within.x.exp()),
            (None, Some(beyond)) if beyond.x > MOST_NOISE.ln() => break,
            (within, beyond) => x = next(within, beyond, unused, turn),
        }
    }
    Err(CalibrateError::NotFound(MOST_NOISE))
}

/// The logarithm of the noise to try next.
fn next(within: Option<Point>, beyond: Option<Point>, unused: f64, turn: u32) -> f64 {
    // Aims within what may be left unused.
    let aim = -0.4 * unused;
    match (within, beyond) {
        (Some(within), Some(beyond)) => {
            let part = (aim - within.above) / (beyond.above - within.above);
            let part = if part.is_finite() && turn % 4 != 3 { part.clamp(0.01, 0.99) } else { 0.5 };
            within.x + part * (beyond.x - within.x)
        }
        (Some(within), None) => within.x - (-1.02 * within.above).clamp(2.0 * unused, 0.7),
        (None, Some(beyond)) => beyond.x + (1.02 * beyond.above).clamp(2.0 * unused, 0.7),
        (None, None) => 0.0,
    }
}

/// Noise whose cost is about one: the rough cost, times what it was off by at the last guess, is one there.
fn nearly(
    first: f64,
    rough: impl Fn(f64) -> Result<f64, CalibrateError>,
    full: impl Fn(f64) -> Result<f64, CalibrateError>,
) -> Result<f64, CalibrateError> {
    let mut noise = least(first, UNUSED, &rough)?;
    let ratio = full(noise)? / rough(noise)?;
    if ratio.is_finite() && ratio > 0.0 {
        noise = least(noise, 0.2 * UNUSED, |noise| Ok(ratio * (1.0 + 0.3 * UNUSED) * rough(noise)?))?;
    }
    Ok(noise)
}

/// The most rounds whose cost is at most one, sought from a first guess; a ten-thousandth may be left out.
fn most(first: u64, cost: impl Fn(u64) -> Result<f64, CalibrateError>) -> Result<u64, CalibrateError> {
    // The most that are known to be within, and the fewest known not to be.
    let (mut within, mut beyond) = ((0, 0.0), None);
    let mut tried = first;
    loop {
        let cost = cost(tried)?;
        if cost <= 1.0 {
            within = (tried, cost)
        } else {
            beyond = Some((tried, cost))
        }
        let (most, at_most) = within;
        tried = match beyond {
            _ if most >= 10_000 && at_most >= 1.0 - 0.5 * UNUSED => return Ok(most),
            Some((fewest, _)) if fewest - most <= 1 + most / 10_000 => return Ok(most),
            Some((fewest, at_fewest)) => {
                // By the chord, and a little beyond it, to have both ends near soon.
                let part = (1.0 - at_most) / (at_fewest - at_most);
                let gap = fewest - most;
                let offset =
                    if part.is_finite() { (gap as f64 * part.clamp(0.001, 0.999)) as u64 } else { gap / 2 };
                most + offset.clamp(1, gap - 1)
            }
            None if most >= MOST_ROUNDS => return Err(CalibrateError::Unlimited(MOST_ROUNDS)),
            // As many more as there is room for, and a few.
            None => {
                most + ((most as f64 * (1.0 / at_most.max(1e-3) - 1.0) * 1.1) as u64 + 1).min(4 * most + 1)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(epsilon: f64, delta: f64, rate: f64, accountant: Accountant) -> Budget {
        let sampling = if rate < 1.0 { Sampling::Poisson(rate) } else { Sampling::All };
        Budget { epsilon, delta, accountant, sampling, adjacency: Adjacency::default(), noise: None }
    }

    /// Rows 4, 5, 16, 17 and 18 of the reference numbers, noise by sensitivity. The libraries stop up to a hundredth of
    /// epsilon short of the budget, or at some digits.
    #[test]
    fn noise_is_that_of_the_libraries() {
        use Accountant::{Pld, Rdp};
        for (epsilon, delta, rate, rounds, accountant, expected, off) in [
            (8.0, 1e-5, 0.04, 2250, Rdp, 1.416, 2e-3),
            (8.0, 1e-5, 0.04, 2250, Pld, 1.347_656_25, 2e-3),
            (8.0, 1e-5, 0.04, 2000, Rdp, 1.3562, 2e-3),
            (8.0, 1e-5, 0.04, 2000, Pld, 1.2915, 2e-3),
            (1.0, 1e-5, 0.01, 1, Pld, 0.673_792_946_82, 2e-4),
            (1.0, 1e-5, 1e-3, 25, Pld, 3.209_565_025_98 / 6.0, 1e-3),
            (1.0, 0.787_600_74, 1.0, 25, Pld, 10.0 / 6.0, 2e-4),
        ] {
            let budget = budget(epsilon, delta, rate, accountant);
            let found = budget.noise_multiplier(rounds).unwrap();
            assert!((found / expected - 1.0).abs() < off, "{budget:?}: {found} is not {expected}");
            let cost = budget.cost(found, rounds).unwrap();
            assert!(cost <= epsilon && cost > epsilon * (1.0 - 3e-4), "{budget:?}: {cost}");
        }
    }

    #[test]
    fn one_more_round_would_be_too_many() {
        for accountant in [Accountant::Pld, Accountant::Rdp] {
            let budget = budget(2.0, 1e-5, 0.01, accountant);
            let rounds = budget.rounds(1.0).unwrap();
            assert!(budget.cost(1.0, rounds).unwrap() <= 2.0);
            assert!(budget.cost(1.0, rounds + 1).unwrap() > 2.0, "{rounds}");
        }
    }

    #[test]
    fn a_budget_that_allows_no_round_is_none() {
        assert_eq!(budget(0.01, 1e-5, 1.0, Accountant::Pld).rounds(0.1).unwrap(), 0);
        assert!(matches!(
            budget(1.0, 1e-5, 0.0, Accountant::Pld).rounds(1.0),
            Err(CalibrateError::Unlimited(_))
        ));
    }

    #[test]
    fn budgets_that_are_none_are_refused() {
        assert!(budget(0.0, 1e-5, 0.1, Accountant::Pld).noise_multiplier(10).is_err());
        assert!(budget(1.0, 0.0, 0.1, Accountant::Pld).noise_multiplier(10).is_err());
        assert!(budget(1.0, 1e-5, -0.1, Accountant::Pld).noise_multiplier(10).is_err());
        let noise = Some(IntegerNoise { coordinates: 1 << 40, variance: 1e6 });
        let coarse = Budget { noise, ..budget(1.0, 1e-5, 0.1, Accountant::Pld) };
        assert!(matches!(coarse.noise_multiplier(10), Err(CalibrateError::Slack { .. })));
    }

    #[test]
    fn slack_is_paid_for_with_noise() {
        let continuous = budget(1.0, 1e-6, 1.0, Accountant::Pld);
        let noise = Some(IntegerNoise { coordinates: 100_000_000, variance: 4_402_345_676_800.0 });
        let discrete = Budget { noise, ..continuous };
        let (less, more) =
            (continuous.noise_multiplier(100).unwrap(), discrete.noise_multiplier(100).unwrap());
        assert!(more > less * 1.01, "{less} {more}");
        assert!(discrete.cost(more, 100).unwrap() <= 1.0);
    }
}
