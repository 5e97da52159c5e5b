//! Solves for the noise, or for the number of rounds, that a budget allows.
//!
//! Both searches are on the safe side: the cost of the returned value was computed, and is within the budget.

use super::accountants::bridge::IntegerNoise;
use super::accountants::pld::{self, Effort};
use super::accountants::rdp::conversion;
use super::accountants::rdp::orders::OrderList;
use super::accountants::steps::Steps;
use super::accountants::{CostError, rdp};
use super::event::{Adjacency, Event, EventError};

/// How the clients of a round are drawn, with the numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ClientSampling {
    /// All clients take part.
    All,
    /// Each client independently, with this probability.
    Poisson(f64),
    /// A fixed number of clients, without replacement.
    Fixed {
        /// Number of drawn clients.
        sample: u64,
        /// Number of clients in the population.
        of: u64,
    },
}

impl ClientSampling {
    /// The event of one round with this noise multiplier.
    ///
    /// # Errors
    ///
    /// When a number is out of range.
    pub fn event(self, noise_multiplier: f64) -> Result<Event, EventError> {
        let noise = Event::gaussian(noise_multiplier)?;
        match self {
            Self::All => Ok(noise),
            Self::Poisson(rate) => noise.poisson_sampled(rate),
            Self::Fixed { sample, of } => noise.sampled_without_replacement(of, sample),
        }
    }

    /// The adjacency for which this sampling lowers epsilon.
    pub fn adjacency(self) -> Adjacency {
        match self {
            Self::All | Self::Poisson(_) => Adjacency::AddOrRemoveOne,
            Self::Fixed { .. } => Adjacency::ReplaceOne,
        }
    }
}

/// The accountant whose epsilon is held against the budget.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
pub enum TargetAccountant {
    /// The privacy loss distribution: the least epsilon, for plans that do not change.
    #[default]
    Pld,
    /// Renyi divergences: the plan may change between rounds.
    Rdp,
}

impl TargetAccountant {
    /// The name on the command line and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pld => "pld",
            Self::Rdp => "rdp",
        }
    }
}

/// The budget of a calibration.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Budget {
    /// Largest epsilon.
    pub epsilon: f64,
    /// The delta of that epsilon.
    pub delta: f64,
    /// The accountant.
    pub accountant: TargetAccountant,
    /// How clients are drawn.
    pub sampling: ClientSampling,
    /// The neighbouring data sets.
    pub adjacency: Adjacency,
    /// The integer noise; `None` for continuous noise.
    pub noise: Option<IntegerNoise>,
}

/// Why a calibration fails.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The cost is not known.
    #[error(transparent)]
    Account(#[from] CostError),
    /// A number is out of range.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The slack of the discrete noise exceeds the budget.
    #[error(
        "found no noise that keeps epsilon at {epsilon}: the slack of the discrete noise alone is {slack}"
    )]
    Slack {
        /// The budget.
        epsilon: f64,
        /// The slack.
        slack: f64,
    },
    /// No noise multiplier is large enough.
    #[error("found no noise multiplier up to {0:e} that stays within the budget")]
    NotFound(f64),
    /// No number of rounds exceeds the budget.
    #[error("more than {0} rounds stay within the budget")]
    Unlimited(u64),
}

/// Largest noise multiplier that a search tries.
const MOST_NOISE: f64 = 1e9;

/// Largest number of rounds that a search tries.
const MOST_ROUNDS: u64 = 1 << 40;

/// Share of the budget that may be left unused.
const UNUSED: f64 = 1e-4;

impl Budget {
    /// The noise multiplier and the number of rounds: what is not given follows from the other. One round, if neither is.
    ///
    /// # Errors
    ///
    /// When the cost is not known, or nothing stays within the budget.
    pub fn solve(&self, noise: Option<f64>, rounds: Option<u64>) -> Result<(f64, u64), CalibrateError> {
        match (noise, rounds) {
            (Some(noise), Some(rounds)) => Ok((noise, rounds)),
            (Some(noise), None) => Ok((noise, self.rounds(noise)?)),
            (None, rounds) => {
                let rounds = rounds.unwrap_or(1);
                Ok((self.noise_multiplier(rounds)?, rounds))
            }
        }
    }

    /// The epsilon of `rounds` rounds with this noise, by the accountant, slack included.
    ///
    /// # Errors
    ///
    /// When a number is out of range, or the cost is not known.
    pub fn cost(&self, noise_multiplier: f64, rounds: u64) -> Result<f64, CalibrateError> {
        self.cost_by(noise_multiplier, rounds, Effort::Full)
    }

    fn cost_by(&self, noise_multiplier: f64, rounds: u64, effort: Effort) -> Result<f64, CalibrateError> {
        let event = self.sampling.event(noise_multiplier)?.times(rounds);
        let steps = Steps::of(&[event], self.adjacency).map_err(CostError::from)?;
        let slack = self.noise.map(|noise| noise.slack(steps.releases, self.delta));
        let (added, delta) = slack.map_or((0.0, self.delta), |slack| (slack.epsilon, slack.delta));
        let cost = match self.accountant {
            TargetAccountant::Pld => pld::epsilon(&steps, delta, effort),
            TargetAccountant::Rdp => None,
        };
        Ok(cost.unwrap_or_else(|| renyi(&steps, delta)) + added)
    }

    /// The least noise multiplier with which `rounds` rounds are within the budget.
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
        let quick = Self { accountant: TargetAccountant::Rdp, ..*self };
        let renyi = least(1.0, UNUSED, |noise| Ok(quick.cost(noise, rounds)? / self.epsilon))?;
        if self.accountant == TargetAccountant::Rdp {
            return Ok(renyi);
        }
        let cost = |noise: f64, effort: Effort| Ok(self.cost_by(noise, rounds, effort)? / self.epsilon);
        let near = nearly(renyi, |noise| cost(noise, Effort::Least), |noise| cost(noise, Effort::Full))?;
        least(near, UNUSED, |noise| cost(noise, Effort::Full))
    }

    /// The largest number of rounds with this noise within the budget. The result may be too small by one
    /// ten-thousandth.
    ///
    /// # Errors
    ///
    /// When the budget or a number is out of range, or no number of rounds exceeds it.
    pub fn rounds(&self, noise_multiplier: f64) -> Result<u64, CalibrateError> {
        self.check()?;
        let quick = Self { accountant: TargetAccountant::Rdp, ..*self };
        let guess = self.rounds_by_renyi(noise_multiplier)?;
        let renyi = most(guess, |rounds| Ok(quick.cost(noise_multiplier, rounds)? / self.epsilon))?;
        if self.accountant == TargetAccountant::Rdp {
            return Ok(renyi);
        }
        let cost =
            |rounds: u64, effort: Effort| Ok(self.cost_by(noise_multiplier, rounds, effort)? / self.epsilon);
        let rough = most(renyi.max(1), |rounds| cost(rounds, Effort::Least))?.max(1);
        let ratio = cost(rough, Effort::Full)? / cost(rough, Effort::Least)?;
        let near = match ratio.is_finite() {
            true => most(rough, |rounds| Ok(ratio * cost(rounds, Effort::Least)?))?,
            false => rough,
        };
        most(near.max(1), |rounds| cost(rounds, Effort::Full))
    }

    /// The number of rounds that Renyi divergences allow. They add up over rounds, so each order gives it at once.
    fn rounds_by_renyi(&self, noise_multiplier: f64) -> Result<u64, CalibrateError> {
        let once = Steps::of(&[self.sampling.event(noise_multiplier)?], self.adjacency);
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

/// The least epsilon by Renyi divergences.
fn renyi(steps: &Steps, delta: f64) -> f64 {
    conversion::epsilon(&rdp::Curve::of(steps, &OrderList::All.orders()), delta).value
}

/// A noise multiplier that a search tried.
#[derive(Clone, Copy)]
struct Trial {
    /// Logarithm of the noise multiplier.
    x: f64,
    /// Logarithm of the cost, as a share of the budget.
    above: f64,
}

/// The least noise with a cost of at most 1, and of more than 1 less `unused`, from a first guess. Costs must fall at
/// least as fast as noise grows.
fn least(
    first: f64,
    unused: f64,
    cost: impl Fn(f64) -> Result<f64, CalibrateError>,
) -> Result<f64, CalibrateError> {
    let (mut within, mut beyond): (Option<Trial>, Option<Trial>) = (None, None);
    let mut x = first.ln();
    for turn in 0.. {
        let cost = cost(x.exp())?;
        let point = Trial { x, above: cost.ln() };
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
fn next(within: Option<Trial>, beyond: Option<Trial>, unused: f64, turn: u32) -> f64 {
    // Aims at the middle of the share that may be left unused.
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

/// Noise with a cost of about 1, by the rough cost times the ratio of full to rough cost at the last guess.
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

/// The largest number of rounds with a cost of at most 1, from a first guess. The result may be too small by one
/// ten-thousandth.
fn most(first: u64, cost: impl Fn(u64) -> Result<f64, CalibrateError>) -> Result<u64, CalibrateError> {
    // The largest number known to be within the budget, and the least known to be beyond, with their costs.
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
                // Where the chord crosses 1.
                let part = (1.0 - at_most) / (at_fewest - at_most);
                let gap = fewest - most;
                let offset =
                    if part.is_finite() { (gap as f64 * part.clamp(0.001, 0.999)) as u64 } else { gap / 2 };
                most + offset.clamp(1, gap - 1)
            }
            None if most >= MOST_ROUNDS => return Err(CalibrateError::Unlimited(MOST_ROUNDS)),
            // As many more as the rest of the budget allows by proportion, and a tenth more.
            None => {
                most + ((most as f64 * (1.0 / at_most.max(1e-3) - 1.0) * 1.1) as u64 + 1).min(4 * most + 1)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(epsilon: f64, delta: f64, rate: f64, accountant: TargetAccountant) -> Budget {
        let sampling = if rate < 1.0 { ClientSampling::Poisson(rate) } else { ClientSampling::All };
        Budget { epsilon, delta, accountant, sampling, adjacency: Adjacency::default(), noise: None }
    }

    /// Rows 4, 5, 16, 17 and 18 of the reference numbers; noise is in units of the sensitivity. The libraries stop up
    /// to 0.01 of epsilon short of the budget, or round.
    #[test]
    fn noise_is_that_of_the_libraries() {
        use TargetAccountant::{Pld, Rdp};
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
        for accountant in [TargetAccountant::Pld, TargetAccountant::Rdp] {
            let budget = budget(2.0, 1e-5, 0.01, accountant);
            let rounds = budget.rounds(1.0).unwrap();
            assert!(budget.cost(1.0, rounds).unwrap() <= 2.0);
            assert!(budget.cost(1.0, rounds + 1).unwrap() > 2.0, "{rounds}");
        }
    }

    #[test]
    fn a_budget_may_allow_no_round_or_any_number() {
        assert_eq!(budget(0.01, 1e-5, 1.0, TargetAccountant::Pld).rounds(0.1).unwrap(), 0);
        assert!(matches!(
            budget(1.0, 1e-5, 0.0, TargetAccountant::Pld).rounds(1.0),
            Err(CalibrateError::Unlimited(_))
        ));
    }

    #[test]
    fn budgets_out_of_range_are_refused() {
        assert!(budget(0.0, 1e-5, 0.1, TargetAccountant::Pld).noise_multiplier(10).is_err());
        for delta in [0.0, 1.0] {
            let found = budget(1.0, delta, 0.1, TargetAccountant::Pld).noise_multiplier(10);
            assert!(matches!(found, Err(CalibrateError::Account(CostError::Delta(_)))), "{found:?}");
        }
        assert!(budget(1.0, 1e-5, -0.1, TargetAccountant::Pld).noise_multiplier(10).is_err());
        let noise = Some(IntegerNoise { coordinates: 1 << 40, variance: 1e6 });
        let coarse = Budget { noise, ..budget(1.0, 1e-5, 0.1, TargetAccountant::Pld) };
        assert!(matches!(coarse.noise_multiplier(10), Err(CalibrateError::Slack { .. })));
    }

    #[test]
    fn slack_is_paid_for_with_noise() {
        let continuous = budget(1.0, 1e-6, 1.0, TargetAccountant::Pld);
        let noise = Some(IntegerNoise { coordinates: 100_000_000, variance: 4_402_345_676_800.0 });
        let discrete = Budget { noise, ..continuous };
        let (less, more) =
            (continuous.noise_multiplier(100).unwrap(), discrete.noise_multiplier(100).unwrap());
        assert!(more > less * 1.01, "{less} {more}");
        assert!(discrete.cost(more, 100).unwrap() <= 1.0);
    }
}
