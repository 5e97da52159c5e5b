//! `fedmill privacy calibrate`: the noise that a budget takes, or the rounds that noise allows.

use super::compose::{lines, rounded_up};
use super::mechanism::{self, Mechanism};
use super::plan::{self, Plan};
use crate::cli::{Failure, Outcome, print};
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::calibrate::{Accountant, Budget, CalibrateError, Sampling};
use crate::privacy::ledger::plan::Correlated;
use clap::{Args, ValueEnum};
use serde::Serialize;

/// Solve for the noise, the rounds or epsilon, whichever is not given.
///
/// What is printed is never past the target: it was accounted for afterwards.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Epsilon may not be larger. Not with both of --noise-multiplier and --rounds, which it then follows from.
    #[arg(long, value_name = "E", value_parser = plan::positive)]
    epsilon: Option<f64>,
    /// What the guarantee may fail with; less than one by the number of clients.
    #[arg(long, value_name = "D", value_parser = plan::fraction)]
    delta: f64,
    /// How many rounds.
    #[arg(long, value_name = "T", required_unless_present = "noise_multiplier")]
    rounds: Option<u64>,
    /// Standard deviation of the noise on the sum, in clip bounds.
    #[arg(long, value_name = "Z", value_parser = plan::not_negative)]
    noise_multiplier: Option<f64>,
    #[command(flatten)]
    plan: Plan,
    #[command(flatten)]
    mechanism: Mechanism,
    /// Whose epsilon is held to the target.
    #[arg(long, value_name = "NAME", default_value = "pld")]
    accountant: AccountantName,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Whose epsilon is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum AccountantName {
    /// The privacy loss distribution: the least, for plans that are kept to.
    Pld,
    /// Renyi divergences: the plan may change on the way.
    Rdp,
}

/// A plan that is within its budget.
#[derive(Serialize)]
struct Calibrated {
    noise_multiplier: f64,
    rounds: u64,
    /// What it costs; none if nothing bounds it.
    epsilon: Option<f64>,
    /// What it may cost.
    target_epsilon: Option<f64>,
    delta: f64,
    accountant: &'static str,
    /// How noise is correlated across rounds, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlated: Option<Correlated>,
    assumptions: Vec<String>,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let correlated = self.mechanism.correlated(self.rounds)?;
        let budget = self.budget(correlated.as_ref())?;
        if correlated.is_some() && budget.sampling != Sampling::All {
            return Err(
                anyhow::anyhow!("--mechanism dp-ftrl: found sampled clients, expected none sampled").into()
            );
        }
        // All rounds are one Gaussian.
        let charged = self.rounds.map(|rounds| if correlated.is_some() { 1 } else { rounds });
        let (noise_multiplier, charged) = self.solve(&budget, charged).map_err(failure)?;
        let cost = budget.cost(noise_multiplier, charged).map_err(failure)?;
        let rounds = correlated.and(self.rounds).unwrap_or(charged);
        let found = Calibrated {
            noise_multiplier,
            rounds,
            epsilon: Some(cost).filter(|cost| cost.is_finite()),
            target_epsilon: self.epsilon,
            delta: self.delta,
            accountant: match self.accountant {
                AccountantName::Pld => "pld",
                AccountantName::Rdp => "rdp",
            },
            correlated,
            assumptions: self.plan.assumptions()?,
        };
        match self.json {
            true => print(&format!("{}\n", serde_json::to_string(&found)?))?,
            false => print(&format!("{}\n", table(&found)))?,
        }
        Ok(Outcome::Done)
    }

    fn budget(&self, correlated: Option<&Correlated>) -> Result<Budget, Failure> {
        // One charge then pays for the draws of all rounds.
        let draws = correlated.zip(self.rounds).map_or(1, |(how, rounds)| how.factor.draws(rounds));
        let noise = self.plan.noise();
        let noise =
            noise.map(|noise| IntegerNoise { coordinates: noise.coordinates.saturating_mul(draws), ..noise });
        Ok(Budget {
            epsilon: self.target()?,
            delta: self.delta,
            accountant: match self.accountant {
                AccountantName::Pld => Accountant::Pld,
                AccountantName::Rdp => Accountant::Rdp,
            },
            sampling: self.plan.sampling()?,
            adjacency: self.plan.adjacency()?,
            noise,
        })
    }

    /// The epsilon that is not to be exceeded; any, where it is what is sought.
    fn target(&self) -> Result<f64, Failure> {
        match (self.epsilon, self.noise_multiplier.and(self.rounds)) {
            (Some(epsilon), None) => Ok(epsilon),
            (None, Some(_)) => Ok(f64::INFINITY),
            (Some(_), Some(_)) => Err(wrong("all of --epsilon, --noise-multiplier and --rounds")),
            (None, None) => Err(wrong("one of --epsilon, --noise-multiplier and --rounds")),
        }
    }

    fn solve(&self, budget: &Budget, rounds: Option<u64>) -> Result<(f64, u64), CalibrateError> {
        match (self.noise_multiplier, rounds) {
            (Some(noise), Some(rounds)) => Ok((noise, rounds)),
            (Some(noise), None) => Ok((noise, budget.rounds(noise)?)),
            (None, rounds) => {
                let rounds = rounds.unwrap_or(1);
                Ok((budget.noise_multiplier(rounds)?, rounds))
            }
        }
    }
}

fn wrong(found: &str) -> Failure {
    let why = anyhow::anyhow!("found {found}, expected two of the three");
    Failure { hint: Some("the third is what calibrate solves for".to_owned()), ..why.into() }
}

fn failure(error: CalibrateError) -> Failure {
    let hint = match error {
        CalibrateError::Slack { .. } => Some("--level 3 has far less of it".to_owned()),
        _ => None,
    };
    Failure { hint, ..Failure::from(error) }
}

fn table(found: &Calibrated) -> String {
    let epsilon = rounded_up(found.epsilon.unwrap_or(f64::INFINITY));
    let mut rows = vec![
        ("noise multiplier", found.noise_multiplier.to_string(), String::new()),
        ("rounds", found.rounds.to_string(), String::new()),
        ("epsilon", epsilon, format!("by {}", found.accountant)),
        ("delta", format!("{:e}", found.delta), String::new()),
    ];
    let told = |correlated| mechanism::told(correlated, found.rounds);
    rows.extend(found.correlated.as_ref().map(|how| ("correlated", told(how), String::new())));
    lines(rows)
}
