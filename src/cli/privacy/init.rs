//! `fedmill privacy init`: writes a fixed plan and starts its ledger.

use super::super::{Common, Failure, INPUTS, Outcome, PRIVACY, print_path};
use super::failure::failure;
use super::mechanism;
use super::plan::parse_adjacency;
use super::vector::VectorOptions;
use crate::budget::account::Account;
use crate::budget::error::BudgetError;
use crate::engine::intake::admit;
use crate::engine::intake::update::{self, BadBase};
use crate::io::model_file::TablePool;
use crate::io::source::OpenFiles;
use crate::privacy::clipping::Grid;
use crate::privacy::event::Adjacency;
use crate::privacy::ledger::budget::{self, VerdictError, epsilon_text};
use crate::privacy::ledger::plan::{Accountant, Adaptive, BudgetPlan, ClipBound, Sampling, Unit};
use crate::record::sha256::Sha256;
use crate::telemetry::console;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Write a fixed plan and start its ledger.
///
/// Prints the path of the plan. Without --noise-multiplier, fedmill finds the least noise within the budget.
/// Without --rounds, it finds the largest number of rounds.
#[derive(Args, Debug)]
#[command(next_help_heading = PRIVACY)]
pub(in crate::cli) struct Arguments {
    /// The state directory. The command creates it if it does not exist.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// The epsilon that all rounds may spend together.
    #[arg(long, value_name = "E")]
    epsilon: f64,
    /// The delta of that epsilon, below 1 / population.
    #[arg(long, value_name = "D")]
    delta: f64,
    /// The number of clients that could take part.
    #[arg(long, value_name = "N")]
    population: u64,
    /// How the clients of a round are drawn [default: poisson with a --sampling-rate below 1, else all].
    #[arg(long, value_name = "KIND")]
    sampling: Option<Sampling>,
    /// The share of clients in a round.
    #[arg(long, value_name = "Q", default_value_t = 1.0)]
    sampling_rate: f64,
    /// The standard deviation of the noise on the sum, divided by the clip bound.
    #[arg(long, value_name = "Z", required_unless_present = "rounds")]
    noise_multiplier: Option<f64>,
    /// The number of rounds.
    #[arg(long, value_name = "T")]
    rounds: Option<u64>,
    /// The clip bound: the largest L2 norm of a whole update. With --adaptive-clip, the bound of the first round.
    #[arg(long, value_name = "S")]
    clip: f64,
    /// Let the clip bound follow a quantile of the norms of updates.
    #[arg(long)]
    adaptive_clip: bool,
    /// The quantile: the share of updates that should be below the bound.
    #[arg(long, value_name = "G", default_value_t = 0.5, requires = "adaptive_clip")]
    quantile: f64,
    /// The learning rate of the bound.
    #[arg(long, value_name = "ETA", default_value_t = 0.2, requires = "adaptive_clip")]
    clip_rate: f64,
    /// The standard deviation of the noise on the count of updates below the bound [default: denominator / 20].
    #[arg(long, value_name = "SIGMA", requires = "adaptive_clip")]
    count_noise: Option<f64>,
    /// The divisor of the noised sum [default: sampling rate * population, which is the population with --sampling
    /// all].
    #[arg(long, value_name = "N")]
    denominator: Option<u64>,
    /// The neighbouring data sets: add-remove, replace-special or replace-one.
    #[arg(long, value_name = "WHICH", default_value = "add-remove", value_parser = parse_adjacency)]
    adjacency: Adjacency,
    /// The unit that the guarantee protects.
    #[arg(long, value_name = "UNIT", default_value = "client")]
    unit: Unit,
    /// Take the number of coordinates from this model.
    #[arg(long, value_name = "MODEL", help_heading = INPUTS, conflicts_with = "dimension")]
    base: Option<PathBuf>,
    #[command(flatten)]
    vector: VectorOptions,
    /// The number of coordinates of an update.
    #[arg(long, value_name = "D")]
    dimension: Option<u64>,
    #[command(flatten)]
    mechanism: mechanism::MechanismOptions,
    /// The accountant whose epsilon must stay within the budget.
    #[arg(long, value_name = "WHICH", default_value = "best")]
    accountant: Accountant,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let plan = self.plan()?;
        plan.check().map_err(|why| failure(why.into()))?;
        let spent = budget::planned(&plan).map_err(|why| failure(why.into()))?.epsilon(plan.accountant);
        let within = spent <= plan.epsilon;
        if !within {
            let BudgetPlan { rounds, epsilon, .. } = plan;
            let why =
                format!("{rounds} rounds cost epsilon {}, the budget is {epsilon}", epsilon_text(spent));
            return Ok(Outcome::Refused(why));
        }
        plan.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let account = Account::init(&self.directory, &plan).map_err(failure)?;
        if !common.quiet {
            let BudgetPlan { noise_multiplier, rounds, epsilon, delta, .. } = plan;
            console::tell(&format!(
                "noise multiplier {noise_multiplier}, {rounds} rounds: epsilon {} of {epsilon} at delta {delta}",
                epsilon_text(spent)
            ));
        }
        if let Some(correlated) = plan.correlated.filter(|_| !common.quiet) {
            console::tell(&mechanism::gain_text(&correlated, plan.rounds));
        }
        print_path(&account.books().directory.plan());
        Ok(Outcome::Done)
    }

    /// The plan, with the option that was left out solved for.
    fn plan(&self) -> Result<BudgetPlan, Failure> {
        let vector = self.vector()?;
        let plan = BudgetPlan {
            epsilon: self.epsilon,
            delta: self.delta,
            population: self.population,
            sampling: self.sampling(),
            sampling_rate: self.sampling_rate,
            noise_multiplier: self.noise_multiplier.unwrap_or(1.0),
            rounds: self.rounds.unwrap_or(1),
            clip: ClipBound::Fixed(self.clip),
            denominator: 1,
            adjacency: self.adjacency,
            unit: self.unit,
            dimension: vector.map(|(dimension, _)| dimension).or(self.dimension),
            level: None,
            accountant: self.accountant,
            correlated: self.mechanism.correlated(self.rounds)?,
            tensors_sha256: vector.map(|(_, names)| names),
        };
        let denominator = self.denominator.unwrap_or_else(|| default_denominator(&plan));
        let mut plan = BudgetPlan { denominator, clip: self.clip(denominator), ..plan };
        let unknown = |why: VerdictError| failure(why.into());
        plan.check_all_but_level().map_err(|why| failure(why.into()))?;
        match (self.noise_multiplier, self.rounds) {
            (None, _) => plan.noise_multiplier = budget::least_noise(&plan).map_err(unknown)?,
            (_, None) => plan.rounds = budget::most_rounds(&plan).map_err(unknown)?,
            _ => {}
        }
        plan.level = plan.dimension.map(|dimension| plan.level_for(dimension));
        if let Some(level) = plan.level {
            let multiplier = plan.drawn_multiplier().map_err(|why| failure(why.into()))?;
            Grid::at(level, plan.first_clip(), multiplier)?;
        }
        Ok(plan)
    }

    fn sampling(&self) -> Sampling {
        let rate = self.sampling_rate;
        self.sampling.unwrap_or_else(|| {
            if rate >= 1.0 {
                return Sampling::All;
            }
            tracing::warn!(
                hint = "pass --sampling poisson, fixed or all",
                "fedmill assumes that each client is drawn independently, with probability {rate}"
            );
            Sampling::Poisson
        })
    }

    fn clip(&self, denominator: u64) -> ClipBound {
        if !self.adaptive_clip {
            return ClipBound::Fixed(self.clip);
        }
        ClipBound::Adaptive(Adaptive {
            initial: self.clip,
            quantile: self.quantile,
            rate: self.clip_rate,
            count_noise: self.count_noise.unwrap_or(denominator as f64 / 20.0),
        })
    }

    /// The number of coordinates of an update of the base, as a round counts them, and the digest of its tensors'
    /// names.
    fn vector(&self) -> Result<Option<(u64, Sha256)>, Failure> {
        self.base.as_deref().map(|base| self.vector_of(base)).transpose()
    }

    fn vector_of(&self, path: &Path) -> Result<(u64, Sha256), Failure> {
        let base = update::open_base(path, &OpenFiles::raise_limit(), &TablePool::default());
        let base = base.map_err(|BadBase { path, faults }| failure(BudgetError::Model { path, faults }))?;
        let policy = self.vector.policy();
        policy.tensors.personal.check_round(Some(&base), &[])?;
        policy.tensors.classes.check_round(Some(&base), &[])?;
        let (set, _) = admit::admit(Vec::new(), Some(Arc::new(base)), &policy)?;
        let statistics = self.vector.statistics();
        Ok((statistics.dimension(&set), statistics.names(&set)))
    }
}

/// The expected number of clients in a round. Says so where any number may come.
fn default_denominator(plan: &BudgetPlan) -> u64 {
    let denominator = plan.cohort();
    if plan.sampling == Sampling::All {
        tracing::warn!(
            hint = "pass --denominator with the number of clients that usually come",
            "the denominator is {denominator}, the whole population: each sum is divided by it, however few clients come"
        );
    }
    denominator
}
