//! What is fixed before the first round: the budget, who takes part, and the mechanism.
//!
//! Nothing in it depends on a client's data. The denominator above all is public: dividing by the cohort that turned up
//! would tell its size. The tight accountant (PLD) composes parameters that were fixed up front, so its number counts
//! only while every charge is the plan's.
//!
//! Multipliers are in clip bounds S whatever the adjacency. A sum moves by at most S when a client comes, goes or is zeroed
//! out, but by 2 S when one takes another's place; that is the accountants' to know.

mod correlated;
#[cfg(test)]
mod tests;

pub use correlated::Correlated;

use crate::kernels::discrete_gaussian::Level;
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::calibrate::{self, Budget};
use crate::privacy::event::{Adjacency, Event, EventError};
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};

/// How many units of the grid a coordinate of a full update must be in the root mean square, for truncation not to count.
const LEAST_UNITS: f64 = 256.0;

/// The part of epsilon that noise on a grid may cost at the first level.
const MOST_SLACK: f64 = 1e-3;

/// Who takes part in a round.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Every client by a coin of its own, each round: the one way that is amplified under add-or-remove-one.
    Poisson,
    /// So many clients of all, every choice as likely as another: amplified under replace-one.
    #[value(alias = "without-replacement")]
    Fixed,
    /// Whoever comes; nothing is amplified.
    #[value(alias = "none")]
    All,
}

/// Which number decides whether the budget is spent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Accountant {
    /// The smaller of both; that of PLD only while every charge is the plan's.
    #[default]
    Best,
    /// Renyi differential privacy at certified orders; also where settings change on the way.
    Rdp,
}

/// Whose data a guarantee is about.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// All that one client sends.
    #[default]
    Client,
}

/// How long an update may be.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ClipBound {
    /// L2 norm of the whole update, in units of the model, in every round.
    Fixed(f64),
    /// One that follows a quantile of the norms (Andrew et al. 2021).
    Adaptive(Adaptive),
}

/// How a clip bound follows the norms.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// The bound of the first round.
    pub initial: f64,
    /// The part of updates that is to be below it, gamma.
    pub quantile: f64,
    /// How fast the bound moves, eta.
    pub rate: f64,
    /// Standard deviation of the noise on the count of updates below it, sigma_b.
    pub count_noise: f64,
}

/// A schedule and its budget.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct BudgetPlan {
    /// What may be spent in all.
    pub epsilon: f64,
    /// At this delta.
    pub delta: f64,
    /// Clients that could take part, N.
    pub population: u64,
    /// Who of them does.
    pub sampling: Sampling,
    /// The part of them that does in a round, q.
    pub sampling_rate: f64,
    /// Standard deviation of the noise on the sum over the clip bound, z.
    pub noise_multiplier: f64,
    /// Rounds, T.
    pub rounds: u64,
    /// How long an update may be, S.
    pub clip: ClipBound,
    /// What the sum is divided by, n_pub.
    pub denominator: u64,
    /// Which data sets count as neighbours.
    pub adjacency: Adjacency,
    /// Whose data the guarantee is about.
    pub unit: Unit,
    /// Coordinates of an update, d, if the model is known.
    pub dimension: Option<u64>,
    /// How fine the noise is, if the model is known.
    pub level: Option<Level>,
    /// Which number decides.
    pub accountant: Accountant,
    /// How noise is correlated across rounds; none if every round has noise of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlated: Option<Correlated>,
}

/// Why a plan cannot be.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PlanError {
    #[error("{what}: found {found}, expected {expected}")]
    OutOfRange { what: &'static str, found: String, expected: &'static str },
    #[error(
        "sampling fixed with adjacency {found}, expected replace-one: a fixed number of clients amplifies nothing \
             where one comes or goes"
    )]
    FixedSampling { found: String },
    #[error(
        "sampling poisson with adjacency replace-one, expected add-or-remove-one or replace-special: no \
             amplification is known for it"
    )]
    PoissonReplaceOne,
    #[error(
        "sampling all with rate {found}, expected 1: whoever comes is not sampled, and nothing is amplified"
    )]
    RateOfAll { found: f64 },
    #[error(
        "noise multiplier {noise_multiplier} and noise of {count_noise} on the count, expected more than \
             {half}: no noise is left for the values"
    )]
    CountNoise { noise_multiplier: f64, count_noise: f64, half: f64 },
    #[error("level: found {found}, expected {expected} for its dimension, noise and rounds")]
    Level { found: String, expected: String },
    #[error("correlated noise: {why}")]
    Correlated { why: &'static str },
    #[error(transparent)]
    Event(#[from] EventError),
}

impl PlanError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::FixedSampling { .. } | Self::PoissonReplaceOne => Some(
                "--adjacency replace-one goes with --sampling fixed; with --sampling all nothing is amplified and \
                 every adjacency will do",
            ),
            Self::RateOfAll { .. } => Some("leave --sampling-rate out, and say --denominator"),
            _ => None,
        }
    }
}

/// The form that is hashed and stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frozen {
    plan: BudgetPlan,
    plan_sha256: Sha256,
}

/// Why a stored plan cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum FrozenError {
    #[error("is no plan: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("its digest is {found}, it says {expected}: it was changed after it was frozen")]
    Changed { found: Sha256, expected: Sha256 },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl BudgetPlan {
    /// Checks every number, and that who takes part goes with what counts as neighbours.
    ///
    /// # Errors
    ///
    /// At the first that is wrong.
    pub fn check(&self) -> Result<(), PlanError> {
        self.check_all_but_level()?;
        let level = self.dimension.map(|dimension| self.level_for(dimension));
        let found = |level: Option<Level>| level.map_or("none".to_owned(), |level| format!("{level:?}"));
        if self.level == level {
            return Ok(());
        }
        Err(PlanError::Level { found: found(self.level), expected: found(level) })
    }

    /// The same before it is known how fine the noise is to be.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_all_but_level(&self) -> Result<(), PlanError> {
        let positive = "a finite number above 0";
        let count = "a count above 0";
        in_range("epsilon", self.epsilon, self.epsilon > 0.0, positive)?;
        in_range("delta", self.delta, self.delta > 0.0 && self.delta < 1.0, "a number between 0 and 1")?;
        in_range("noise multiplier", self.noise_multiplier, self.noise_multiplier > 0.0, positive)?;
        let rate = self.sampling_rate;
        in_range("sampling rate", rate, rate > 0.0 && rate <= 1.0, "a number above 0 and at most 1")?;
        in_range("population", self.population as f64, self.population > 0, count)?;
        in_range("rounds", self.rounds as f64, self.rounds > 0, count)?;
        in_range("denominator", self.denominator as f64, self.denominator > 0, count)?;
        let dimension = self.dimension.unwrap_or(1);
        in_range("dimension", dimension as f64, dimension > 0, count)?;
        self.check_clip()?;
        self.check_sampling()?;
        self.check_correlated()?;
        self.event().map(drop)
    }

    fn check_clip(&self) -> Result<(), PlanError> {
        let positive = "a finite number above 0";
        match self.clip {
            ClipBound::Fixed(bound) => in_range("clip bound", bound, bound > 0.0, positive),
            ClipBound::Adaptive(adaptive) => {
                let Adaptive { initial, quantile, rate, count_noise } = adaptive;
                in_range("clip bound", initial, initial > 0.0, positive)?;
                let between = quantile > 0.0 && quantile < 1.0;
                in_range("quantile", quantile, between, "a number between 0 and 1")?;
                in_range("rate of the clip bound", rate, rate > 0.0, positive)?;
                in_range("noise on the count", count_noise, count_noise > 0.0, positive)?;
                self.value_multiplier().map(drop)
            }
        }
    }

    fn check_sampling(&self) -> Result<(), PlanError> {
        let amplified = self.sampling_rate < 1.0;
        match self.sampling {
            Sampling::Fixed if amplified && self.adjacency != Adjacency::ReplaceOne => {
                Err(PlanError::FixedSampling { found: self.adjacency.to_string() })
            }
            Sampling::Poisson if amplified && self.adjacency == Adjacency::ReplaceOne => {
                Err(PlanError::PoissonReplaceOne)
            }
            Sampling::All if amplified => Err(PlanError::RateOfAll { found: self.sampling_rate }),
            _ => Ok(()),
        }
    }

    /// What a charge of it costs: a round, or where noise is correlated, all of them.
    ///
    /// # Errors
    ///
    /// When a number is out of range.
    pub fn event(&self) -> Result<Event, PlanError> {
        let noise = Event::gaussian(self.noise_multiplier)?;
        Ok(match self.sampling {
            _ if self.sampling_rate >= 1.0 => noise,
            Sampling::All => noise,
            Sampling::Poisson => noise.poisson_sampled(self.sampling_rate)?,
            Sampling::Fixed => noise.sampled_without_replacement(self.population, self.cohort())?,
        })
    }

    /// What it is calibrated to: its budget, without the part that noise on a grid may cost.
    pub fn calibration(&self) -> Budget {
        let sampling = match self.sampling {
            _ if self.sampling_rate >= 1.0 => calibrate::Sampling::All,
            Sampling::All => calibrate::Sampling::All,
            Sampling::Poisson => calibrate::Sampling::Poisson(self.sampling_rate),
            Sampling::Fixed => calibrate::Sampling::Fixed { sample: self.cohort(), of: self.population },
        };
        let accountant = match self.accountant {
            Accountant::Best => calibrate::Accountant::Pld,
            Accountant::Rdp => calibrate::Accountant::Rdp,
        };
        let (epsilon, delta, adjacency) =
            (self.epsilon * (1.0 - 2.0 * MOST_SLACK), self.delta, self.adjacency);
        Budget { epsilon, delta, accountant, sampling, adjacency, noise: None }
    }

    /// Clients that a round of it is expected to have, q N; at least one.
    pub fn cohort(&self) -> u64 {
        let clients = self.sampling_rate * self.population as f64;
        match self.sampling {
            // Up: more clients drawn never cost less. A product that is an integer but for rounding is that integer.
            Sampling::Fixed => (clients * (1.0 - 1e-12)).ceil() as u64,
            _ => clients.round() as u64,
        }
        .max(1)
    }

    /// What the noise on the values is multiplied by, z_D: more than z where a count is told too, which has its part of
    /// the budget: (z^-2 - (2 sigma_b)^-2)^-1/2.
    ///
    /// # Errors
    ///
    /// When the count takes all of it.
    pub fn value_multiplier(&self) -> Result<f64, PlanError> {
        let z = self.noise_multiplier;
        let ClipBound::Adaptive(Adaptive { count_noise, .. }) = self.clip else { return Ok(z) };
        if z >= 2.0 * count_noise {
            return Err(PlanError::CountNoise { noise_multiplier: z, count_noise, half: z / 2.0 });
        }
        Ok((z.powi(-2) - (2.0 * count_noise).powi(-2)).powf(-0.5))
    }

    /// The clip bound of the first round.
    pub fn first_clip(&self) -> f64 {
        match self.clip {
            ClipBound::Fixed(bound) => bound,
            ClipBound::Adaptive(adaptive) => adaptive.initial,
        }
    }

    /// How fine the noise is for updates of so many coordinates: fine enough that neither truncation to the grid nor what
    /// the grid costs counts.
    pub fn level_for(&self, dimension: u64) -> Level {
        let bound = (Level::L2.sigma() / (self.noise_multiplier * self.spread())).floor();
        let slack = self.noise_of(Level::L2, dimension).slack(self.charges(), self.delta).epsilon;
        match bound / (dimension as f64).sqrt() >= LEAST_UNITS && slack <= MOST_SLACK * self.epsilon {
            true => Level::L2,
            false => Level::L3,
        }
    }

    /// The integer noise that all its releases have; of a model that is not known, the noise that costs most.
    pub fn noise(&self) -> IntegerNoise {
        let dimension = self.dimension.unwrap_or_else(|| {
            let each = noise(Level::L2, 1).slack(self.rounds, self.delta).epsilon;
            (MOST_SLACK * self.epsilon / each) as u64
        });
        self.noise_of(self.level.unwrap_or(Level::L2), dimension)
    }

    /// The digest that stands for it.
    pub fn sha256(&self) -> Sha256 {
        Sha256::of(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The text of `plan.lock`.
    pub fn frozen(&self) -> String {
        let frozen = Frozen { plan: self.clone(), plan_sha256: self.sha256() };
        format!("{}\n", serde_json::to_string_pretty(&frozen).unwrap_or_default())
    }

    /// The plan in the text of a `plan.lock`.
    ///
    /// # Errors
    ///
    /// When it is none, or was changed.
    pub fn thaw(text: &str) -> Result<Self, FrozenError> {
        let Frozen { plan, plan_sha256: expected } = serde_json::from_str(text)?;
        let found = plan.sha256();
        if found != expected {
            return Err(FrozenError::Changed { found, expected });
        }
        plan.check()?;
        Ok(plan)
    }

    /// What the user should know of it.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |when: bool, text: String| warnings.extend(when.then_some(text));
        let Self { epsilon, delta, population, noise_multiplier, .. } = self;
        warn(
            *delta >= 1.0 / *population as f64,
            format!(
                "delta {delta} is not below 1/{population}: it allows that one client's data is published whole"
            ),
        );
        warn(
            *noise_multiplier < 0.3,
            format!("noise multiplier {noise_multiplier} is below 0.3: a round protects hardly anything"),
        );
        warn(*epsilon > 10.0, format!("epsilon {epsilon} is above 10: the guarantee says hardly anything"));
        warn(
            *delta < 1e-12 && self.accountant != Accountant::Rdp,
            format!("delta {delta} is below 1e-12, where PLD is not exact: only RDP counts"),
        );
        let value = self.value_multiplier().unwrap_or(*noise_multiplier);
        warn(
            value >= 2.0 * noise_multiplier,
            format!(
                "the count takes most of the budget: noise on the values is {value:.3}, not {noise_multiplier}"
            ),
        );
        let units = self.units();
        warn(
            self.correlated.is_some() && units < LEAST_UNITS / 4.0,
            format!(
                "a client's values are rounded to a part in {units:.0} of what is typical of the longest update"
            ),
        );
        warnings
    }

    /// How many units of the grid a coordinate of a full update is, in the root mean square.
    fn units(&self) -> f64 {
        let dimension = self.dimension.unwrap_or(1);
        let bound = self.level_for(dimension).sigma() / (self.noise_multiplier * self.spread());
        bound / (dimension as f64).sqrt()
    }
}

/// The noise of a level on so many coordinates.
pub fn noise(level: Level, coordinates: u64) -> IntegerNoise {
    IntegerNoise { coordinates, variance: level.variance() as f64 }
}

fn in_range(what: &'static str, found: f64, fine: bool, expected: &'static str) -> Result<(), PlanError> {
    if fine && found.is_finite() {
        return Ok(());
    }
    Err(PlanError::OutOfRange { what, found: found.to_string(), expected })
}
