//! The plan: the budget, the sampling and the noise, fixed before the first round.
//!
//! No setting depends on a client's data. The denominator is public: the number of clients that came would reveal how
//! many came. The tight accountant (PLD) needs settings that were fixed before the first round, so its epsilon counts
//! only while every charge follows the plan.
//!
//! Noise multipliers are in units of the clip bound S, for every adjacency. A sum moves by at most S when a client is
//! added, removed or zeroed out, and by at most 2 S when a client is replaced. The accountants apply that factor.

mod cohort;
mod correlated;
mod series;
#[cfg(test)]
mod tests;

pub use cohort::Contradiction;
pub use correlated::Correlated;

use crate::kernels::discrete_gaussian::Level;
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::calibrate::{Budget, ClientSampling, TargetAccountant};
use crate::privacy::clipping::NORMS;
use crate::privacy::event::{Adjacency, Event, EventError};
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};

/// Least root mean square of the coordinates of a full-length update, in units of the grid. Below it, truncation
/// matters.
const LEAST_UNITS: f64 = 256.0;

/// Largest factor by which a clip bound may move in one round. Faster rates soon leave the range of numbers.
const MOST_STEP: f64 = 1000.0;

/// Largest share of epsilon that noise on the grid of level 2 may cost.
const MOST_SLACK: f64 = 1e-3;

/// How the clients of a round are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Each client independently, in every round. Sampling lowers epsilon for add-or-remove-one and replace-special.
    Poisson,
    /// A fixed number of clients, all sets equally likely. Sampling lowers epsilon for replace-one.
    #[value(alias = "without-replacement")]
    Fixed,
    /// Any clients. Sampling does not lower epsilon.
    #[value(alias = "none")]
    All,
}

/// The accountant whose epsilon is held against the budget.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Accountant {
    /// The smaller epsilon of RDP and PLD. PLD counts only while every charge follows the plan.
    #[default]
    Best,
    /// Renyi differential privacy at certified orders. Valid also if settings change between rounds.
    Rdp,
}

/// The unit that a guarantee protects.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// All data of one client.
    #[default]
    Client,
}

/// The largest norm of an update.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ClipBound {
    /// The same L2 norm in every round, in units of the model.
    Fixed(f64),
    /// A norm that follows a quantile of the clients' norms (Andrew et al. 2021).
    Adaptive(Adaptive),
}

/// Settings of a clip bound that follows the norms.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// Bound of the first round.
    pub initial: f64,
    /// Target share of updates below the bound, gamma.
    pub quantile: f64,
    /// Learning rate of the bound, eta.
    pub rate: f64,
    /// Standard deviation of the noise on the count of updates below the bound, sigma_b.
    pub count_noise: f64,
}

/// The settings of all rounds, and their budget.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct BudgetPlan {
    /// Epsilon that all rounds may spend together.
    pub epsilon: f64,
    /// The delta of that epsilon.
    pub delta: f64,
    /// Number of clients that could take part, N.
    pub population: u64,
    /// How the clients of a round are drawn.
    pub sampling: Sampling,
    /// Share of clients in a round, q.
    pub sampling_rate: f64,
    /// Standard deviation of the noise on the sum, divided by the clip bound, z.
    pub noise_multiplier: f64,
    /// Number of rounds, T.
    pub rounds: u64,
    /// Largest norm of an update, S.
    pub clip: ClipBound,
    /// Divisor of the noised sum, n_pub.
    pub denominator: u64,
    /// The neighbouring data sets.
    pub adjacency: Adjacency,
    /// The unit that the guarantee protects.
    pub unit: Unit,
    /// Coordinates of an update, d, if the model is known.
    pub dimension: Option<u64>,
    /// Width of the noise in units of the grid, if the model is known.
    pub level: Option<Level>,
    /// The accountant that decides.
    pub accountant: Accountant,
    /// How noise is correlated across rounds; `None` if each round has independent noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlated: Option<Correlated>,
    /// Digest of the names of the tensors that an update is clipped over, if the model is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors_sha256: Option<Sha256>,
}

/// Why a plan is not valid.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PlanError {
    #[error("{what}: found {found}, expected {expected}")]
    OutOfRange { what: &'static str, found: String, expected: &'static str },
    #[error(
        "sampling fixed with adjacency {found}, expected replace-one: a fixed number of clients lowers epsilon for \
             replace-one only"
    )]
    FixedSampling { found: String },
    #[error(
        "sampling poisson with adjacency replace-one, expected add-or-remove-one or replace-special: no epsilon is \
             known for this pair"
    )]
    PoissonReplaceOne,
    #[error("sampling all with rate {found}, expected 1: clients that are not sampled do not lower epsilon")]
    RateOfAll { found: f64 },
    #[error(
        "noise multiplier {noise_multiplier} and noise of {count_noise} on the count, expected more than \
             {half}: the count uses the whole budget"
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
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::FixedSampling { .. } | Self::PoissonReplaceOne => Some(
                "use --adjacency replace-one with --sampling fixed; --sampling all allows every adjacency, and does \
                 not lower epsilon",
            ),
            Self::RateOfAll { .. } => Some("leave --sampling-rate out, and pass --denominator"),
            _ => None,
        }
    }
}

/// The content of `plan.lock`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frozen {
    plan: BudgetPlan,
    plan_sha256: Sha256,
}

/// Why a `plan.lock` cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum FrozenError {
    #[error("is not a plan: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the digest is {found}, the plan states {expected}: the file was changed after `init` froze it")]
    Changed { found: Sha256, expected: Sha256 },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl BudgetPlan {
    /// Checks every number, and that the sampling fits the adjacency.
    ///
    /// # Errors
    ///
    /// The first fault.
    pub fn check(&self) -> Result<(), PlanError> {
        self.check_all_but_level()?;
        let level = self.dimension.map(|dimension| self.level_for(dimension));
        let found = |level: Option<Level>| level.map_or("none".to_owned(), |level| format!("{level:?}"));
        if self.level == level {
            return Ok(());
        }
        Err(PlanError::Level { found: found(self.level), expected: found(level) })
    }

    /// As [`check`](Self::check), before the level of the noise is chosen.
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
        let clip = self.first_clip();
        in_range("clip bound", clip, NORMS.contains(&clip), "a number from 1e-60 to 1e60")?;
        match self.clip {
            ClipBound::Fixed(_) => Ok(()),
            ClipBound::Adaptive(adaptive) => {
                let Adaptive { quantile, rate, count_noise, .. } = adaptive;
                let between = quantile > 0.0 && quantile < 1.0;
                in_range("quantile", quantile, between, "a number between 0 and 1")?;
                let most = rate * quantile.max(1.0 - quantile);
                let slow = "above 0, so that a round moves the bound by less than a factor of 1000";
                in_range("rate of the clip bound", rate, rate > 0.0 && most < MOST_STEP.ln(), slow)?;
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

    /// The cost of a charge: of one round, or of all rounds of a series.
    ///
    /// # Errors
    ///
    /// When a number is out of range.
    pub fn event(&self) -> Result<Event, PlanError> {
        Ok(self.client_sampling().event(self.noise_multiplier)?)
    }

    fn client_sampling(&self) -> ClientSampling {
        match self.sampling {
            _ if self.sampling_rate >= 1.0 => ClientSampling::All,
            Sampling::All => ClientSampling::All,
            Sampling::Poisson => ClientSampling::Poisson(self.sampling_rate),
            Sampling::Fixed => ClientSampling::Fixed { sample: self.cohort(), of: self.population },
        }
    }

    /// The budget to calibrate to: the plan's, less the share that noise on a grid may cost.
    pub fn calibration(&self) -> Budget {
        Budget {
            epsilon: self.epsilon * (1.0 - 2.0 * MOST_SLACK),
            delta: self.delta,
            accountant: match self.accountant {
                Accountant::Best => TargetAccountant::Pld,
                Accountant::Rdp => TargetAccountant::Rdp,
            },
            sampling: self.client_sampling(),
            adjacency: self.adjacency,
            noise: None,
        }
    }

    /// Expected number of clients in a round, q N; at least 1.
    pub fn cohort(&self) -> u64 {
        let clients = self.sampling_rate * self.population as f64;
        match self.sampling {
            // Rounds up, since more clients never cost less. The factor ignores rounding of the product.
            Sampling::Fixed => (clients * (1.0 - 1e-12)).ceil() as u64,
            _ => clients.round() as u64,
        }
        .max(1)
    }

    /// Noise multiplier of the values, z_D. Where a noised count is released too, z_D is larger than z, because the
    /// count uses a part of the budget: z_D = (z^-2 - (2 sigma_b)^-2)^-1/2.
    ///
    /// # Errors
    ///
    /// When the count uses the whole budget.
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

    /// The level of the noise for updates with `dimension` coordinates: the narrowest at which both truncation to the
    /// grid and the cost of the grid are negligible.
    pub fn level_for(&self, dimension: u64) -> Level {
        let bound = (Level::L2.sigma() / (self.noise_multiplier * self.spread())).floor();
        let slack = self.noise_of(Level::L2, dimension).slack(self.charges(), self.delta).epsilon;
        match bound / (dimension as f64).sqrt() >= LEAST_UNITS && slack <= MOST_SLACK * self.epsilon {
            true => Level::L2,
            false => Level::L3,
        }
    }

    /// The integer noise of a release. If the model is not known, the noise that costs most.
    pub fn noise(&self) -> IntegerNoise {
        let dimension = self.dimension.unwrap_or_else(|| {
            let each = noise(Level::L2, 1).slack(self.rounds, self.delta).epsilon;
            (MOST_SLACK * self.epsilon / each) as u64
        });
        self.noise_of(self.level.unwrap_or(Level::L2), dimension)
    }

    /// The digest of the plan.
    pub fn sha256(&self) -> Sha256 {
        Sha256::of(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The text of `plan.lock`.
    pub fn frozen(&self) -> String {
        let frozen = Frozen { plan: self.clone(), plan_sha256: self.sha256() };
        format!("{}\n", serde_json::to_string_pretty(&frozen).unwrap_or_default())
    }

    /// Reads the plan from the text of `plan.lock`.
    ///
    /// # Errors
    ///
    /// When the text is not a plan, or was changed.
    pub fn thaw(text: &str) -> Result<Self, FrozenError> {
        let Frozen { plan, plan_sha256: expected } = serde_json::from_str(text)?;
        let found = plan.sha256();
        if found != expected {
            return Err(FrozenError::Changed { found, expected });
        }
        plan.check()?;
        Ok(plan)
    }

    /// Warnings for the user.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |when: bool, text: String| warnings.extend(when.then_some(text));
        let Self { epsilon, delta, population, noise_multiplier, .. } = self;
        warn(
            *delta >= 1.0 / *population as f64,
            format!(
                "delta {delta} is not below 1/{population}: it allows a release of one client's data as they are"
            ),
        );
        warn(
            *noise_multiplier < 0.3,
            format!("noise multiplier {noise_multiplier} is below 0.3: a round gives hardly any protection"),
        );
        warn(*epsilon > 10.0, format!("epsilon {epsilon} is above 10: the guarantee is weak"));
        warn(
            *delta < 1e-12 && self.accountant != Accountant::Rdp,
            format!("delta {delta} is below 1e-12, where PLD is not exact: only RDP counts"),
        );
        let value = self.value_multiplier().unwrap_or(*noise_multiplier);
        warn(
            value >= 2.0 * noise_multiplier,
            format!(
                "the count uses most of the budget: the noise multiplier of the values is {value:.3}, not \
                 {noise_multiplier}"
            ),
        );
        let units = self.units();
        warn(
            self.correlated.is_some() && units < LEAST_UNITS / 4.0,
            format!(
                "rounding to the grid is coarse: a typical value of a full-length update is {units:.0} units"
            ),
        );
        warnings
    }

    /// Root mean square of the coordinates of a full-length update, in units of the grid.
    fn units(&self) -> f64 {
        let dimension = self.dimension.unwrap_or(1);
        let bound = self.level_for(dimension).sigma() / (self.noise_multiplier * self.spread());
        bound / (dimension as f64).sqrt()
    }
}

/// The digest of the names of tensors, in order of the alphabet. Plans hold it, so the text must not change.
pub fn digest_of_names(mut names: Vec<&str>) -> Sha256 {
    names.sort_unstable();
    let text: String = names.iter().map(|name| format!("{}:{name}", name.len())).collect();
    Sha256::of(text)
}

/// The integer noise of a level.
pub fn noise(level: Level, coordinates: u64) -> IntegerNoise {
    IntegerNoise::of_draws(level, 1, coordinates)
}

fn in_range(what: &'static str, found: f64, fine: bool, expected: &'static str) -> Result<(), PlanError> {
    if fine && found.is_finite() {
        return Ok(());
    }
    // `Debug` writes large and small numbers with an exponent, and counts with `.0`.
    let found = format!("{found:?}").trim_end_matches(".0").to_owned();
    Err(PlanError::OutOfRange { what, found, expected })
}
