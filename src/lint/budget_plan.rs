//! The plan of a privacy budget that follows from the settings.

use crate::config::Config;
use crate::fleet::select;
use crate::privacy::event::Adjacency;
use crate::privacy::ledger::plan::{Accountant, Adaptive, BudgetPlan, ClipBound, Sampling, Unit};

/// The plan for `population` clients and, if the model is known, updates of `dimension` coordinates.
///
/// Only Poisson sampling claims amplification: under another selection the plan pays as if every client took part in
/// every round. Without a number of rounds it is for one round.
pub fn budget_plan(config: &Config, population: u64, dimension: Option<u64>) -> BudgetPlan {
    let privacy = &config.privacy;
    let coordination = &config.coordination;
    let strategy = select::parse(&coordination.selection).ok();
    let rate =
        strategy.and_then(|strategy| strategy.rate(coordination.clients as usize, population as usize));
    let mut plan = BudgetPlan {
        epsilon: privacy.epsilon,
        delta: privacy.delta,
        population,
        sampling: if rate.is_some() { Sampling::Poisson } else { Sampling::All },
        sampling_rate: rate.unwrap_or(1.0),
        noise_multiplier: privacy.noise_multiplier,
        rounds: coordination.rounds.unwrap_or(1),
        clip: ClipBound::Fixed(privacy.clip),
        denominator: 1,
        adjacency: Adjacency::default(),
        unit: Unit::Client,
        dimension,
        level: None,
        accountant: Accountant::Best,
        correlated: None,
        tensors_sha256: None,
    };
    plan.denominator = if rate.is_some() { plan.cohort() } else { coordination.clients };
    if privacy.adaptive_clip {
        let count_noise = plan.denominator as f64 / 20.0;
        plan.clip =
            ClipBound::Adaptive(Adaptive { initial: privacy.clip, quantile: 0.5, rate: 0.2, count_noise });
    }
    plan.level = dimension.map(|dimension| plan.level_for(dimension));
    plan
}

/// Whether a selection is Poisson sampling.
pub fn is_poisson(selection: &str) -> bool {
    selection.split(':').next() == Some("poisson")
}

/// Poisson sampling at a rate, as `coordination.selection` takes it.
pub fn poisson_at(rate: f64) -> String {
    format!("poisson:rate={rate}")
}
