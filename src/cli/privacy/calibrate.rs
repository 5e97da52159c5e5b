//! `fedmill privacy calibrate`: solves for the noise, the rounds or epsilon.

use super::compose::lines;
use super::mechanism::{self, MechanismOptions};
use super::plan::PlanOptions;
use super::while_listening;
use crate::cli::{Common, Failure, OUTPUT, Outcome, PRIVACY, print};
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::accountants::lines::rounded_up;
use crate::privacy::calibrate::{Budget, CalibrateError, ClientSampling, TargetAccountant};
use crate::privacy::ledger::plan::Correlated;
use crate::settings::numbers;
use clap::Args;
use serde::Serialize;

/// Find the noise, the number of rounds or epsilon from the other two.
///
/// Give two of --noise-multiplier, --rounds and --epsilon. fedmill computes the cost of the result again, so that it is
/// always within the target.
#[derive(Args, Debug)]
#[command(next_help_heading = PRIVACY)]
pub(in crate::cli) struct Arguments {
    /// The largest epsilon.
    #[arg(long, value_name = "E", value_parser = numbers::positive)]
    epsilon: Option<f64>,
    /// The probability with which the guarantee may fail, below 1 / number of clients.
    #[arg(long, value_name = "D", value_parser = numbers::fraction)]
    delta: f64,
    /// The number of rounds.
    #[arg(long, value_name = "T", required_unless_present = "noise_multiplier")]
    rounds: Option<u64>,
    /// The standard deviation of the noise on the sum, divided by the clip bound.
    #[arg(long, value_name = "Z", value_parser = numbers::not_negative)]
    noise_multiplier: Option<f64>,
    #[command(flatten)]
    plan: PlanOptions,
    #[command(flatten)]
    mechanism: MechanismOptions,
    /// The accountant whose epsilon must stay within the target.
    #[arg(long, value_name = "NAME", default_value = "pld")]
    accountant: TargetAccountant,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

/// A plan within its budget.
#[derive(Serialize)]
struct Calibrated {
    noise_multiplier: f64,
    rounds: u64,
    /// Its cost; `None` if the cost is infinite.
    epsilon: Option<f64>,
    /// The largest cost.
    target_epsilon: Option<f64>,
    delta: f64,
    accountant: &'static str,
    /// How noise is correlated across rounds; `None` for independent noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlated: Option<Correlated>,
    assumptions: Vec<String>,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let correlated = self.mechanism.correlated(self.rounds)?;
        let budget = self.budget(correlated.as_ref())?;
        if correlated.is_some() && budget.sampling != ClientSampling::All {
            return Err(anyhow::anyhow!(
                "--mechanism dp-ftrl: found sampled clients, expected --sampling none"
            )
            .into());
        }
        // One charge pays for all rounds of a series.
        let charges = self.rounds.map(|rounds| if correlated.is_some() { 1 } else { rounds });
        let noise = self.noise_multiplier;
        let solved = while_listening(move || {
            let (noise_multiplier, charges) = budget.solve(noise, charges)?;
            Ok((noise_multiplier, charges, budget.cost(noise_multiplier, charges)?))
        });
        let (noise_multiplier, charges, cost) = solved?.map_err(failure)?;
        let rounds = correlated.and(self.rounds).unwrap_or(charges);
        let calibrated = Calibrated {
            noise_multiplier,
            rounds,
            epsilon: Some(cost).filter(|cost| cost.is_finite()),
            target_epsilon: self.epsilon,
            delta: self.delta,
            accountant: self.accountant.name(),
            correlated,
            assumptions: self.plan.assumptions()?,
        };
        match self.json {
            true => print(&format!("{}\n", serde_json::to_string(&calibrated)?))?,
            false => print(&format!("{}\n", table(&calibrated)))?,
        }
        Ok(Outcome::Done)
    }

    fn budget(&self, correlated: Option<&Correlated>) -> Result<Budget, Failure> {
        // The one charge of a series pays for the draws of all rounds.
        let draws = correlated.zip(self.rounds).map_or(1, |(it, rounds)| it.factor.draws(rounds));
        let noise = self.plan.noise();
        let noise =
            noise.map(|noise| IntegerNoise { coordinates: noise.coordinates.saturating_mul(draws), ..noise });
        Ok(Budget {
            epsilon: self.target()?,
            delta: self.delta,
            accountant: self.accountant,
            sampling: self.plan.sampling()?,
            adjacency: self.plan.adjacency()?,
            noise,
        })
    }

    /// The largest epsilon; infinite if epsilon is solved for.
    fn target(&self) -> Result<f64, Failure> {
        match (self.epsilon, self.noise_multiplier.and(self.rounds)) {
            (Some(epsilon), None) => Ok(epsilon),
            (None, Some(_)) => Ok(f64::INFINITY),
            (Some(_), Some(_)) => Err(wrong("all of --epsilon, --noise-multiplier and --rounds")),
            (None, None) => Err(wrong("one of --epsilon, --noise-multiplier and --rounds")),
        }
    }
}

fn wrong(found: &str) -> Failure {
    let why = anyhow::anyhow!("found {found}, expected exactly two of the three");
    Failure { hint: Some("calibrate finds the third".to_owned()), ..why.into() }
}

fn failure(error: CalibrateError) -> Failure {
    let hint = match error {
        CalibrateError::Slack { .. } => Some("--level 3 has far less slack".to_owned()),
        _ => None,
    };
    Failure { hint, ..Failure::from(error) }
}

fn table(calibrated: &Calibrated) -> String {
    let epsilon = rounded_up(calibrated.epsilon.unwrap_or(f64::INFINITY));
    let mut rows = vec![
        ("noise multiplier", calibrated.noise_multiplier.to_string(), String::new()),
        ("rounds", calibrated.rounds.to_string(), String::new()),
        ("epsilon", epsilon, format!("by {}", calibrated.accountant)),
        ("delta", format!("{:e}", calibrated.delta), String::new()),
    ];
    let gain = |correlated| mechanism::gain_text(correlated, calibrated.rounds);
    rows.extend(calibrated.correlated.as_ref().map(|it| ("correlated", gain(it), String::new())));
    lines(rows)
}
