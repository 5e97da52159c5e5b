//! Judges clients tier by tier, and puts together what was decided of them: one recipe for the second pass.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::geometry::Passes;
use crate::engine::aggregate::session::{Run, Stopped};
use crate::engine::backend::choose::Chosen;
use crate::engine::decide::judge::{Aggregation, Judge, Judgement, Subject, Unjudged};
use crate::engine::intake::admit::Client;
use crate::kernels::server_step::ServerStep;
use crate::model::state::StateTensor;
use crate::modes::tiers::file::{Tier, TierMembers, TiersError};
use crate::rules::pre::StepRecord;
use crate::rules::{Decision, Needs, Recipe, Reduction, Statistics, TierRecipe, Verdict, Warning};
use crate::strategies::{Cohort, StepInput, StrategyError};
use crate::telemetry::progress::Progress;
use crate::telemetry::report::{Report, TierRow};
use rayon::ThreadPool;

/// What was made of the tiers so far.
#[derive(Default)]
struct TierJudgement {
    recipes: Vec<TierRecipe>,
    verdicts: Vec<Option<Verdict>>,
    norms: Vec<Option<f64>>,
    steps: Vec<StepRecord>,
    warnings: Vec<Warning>,
    judgements: Vec<Judgement>,
}

impl Run {
    /// Sorts the clients of a round into tiers, if there are any.
    pub(crate) fn sort_tiers(
        &self,
        clients: &[Client],
        cohort: &Cohort,
    ) -> Result<Vec<TierMembers>, MergeError> {
        let Some(tiers) = &self.job.tiers else { return Ok(Vec::new()) };
        self.check_strategy(cohort)?;
        Ok(tiers.sort(clients, &cohort.weights)?)
    }

    /// Says in a report who is of which tier, and what share each has.
    pub(crate) fn tell_tiers(&self, round: &Round, report: &mut Report) {
        let Some(tiers) = &self.job.tiers else { return };
        for sorted in &round.tiers {
            let Tier { name, aggregation, .. } = &tiers.tiers[sorted.tier];
            for client in &sorted.clients {
                report.clients[*client].tier = Some(name.clone());
            }
            report.tiers.push(TierRow {
                name: name.clone(),
                rule: aggregation.rule.to_string(),
                pre: aggregation.pre.iter().map(ToString::to_string).collect(),
                byzantine: aggregation.byzantine.as_ref().map(|share| share.of(sorted.clients.len())),
                clients: sorted.clients.len(),
                weight: sorted.share,
            });
        }
    }

    /// Tiers are merged on the CPU.
    pub(crate) fn backend_of_tiers() -> Chosen {
        Chosen::cpu("tiers are merged on the CPU")
    }

    /// A strategy takes the merged delta of all tiers; what it would do to clients before a rule has no one rule here.
    fn check_strategy(&self, cohort: &Cohort) -> Result<(), StrategyError> {
        let strategy = &self.job.aggregation.strategy;
        let is_before = strategy.needs() > Needs::Nothing
            || strategy.keeps().iter().any(|kept| kept.slot == StateTensor::Control)
            || strategy.weigh(cohort)?.is_some()
            || strategy.scale(cohort, None)?.is_some();
        match is_before {
            false => Ok(()),
            true => Err(StrategyError::NoMeaning {
                strategy: strategy.to_string(),
                rule: "--tiers".to_owned(),
                why: "the strategy scales, weighs or measures clients across tiers",
            }),
        }
    }

    /// Judges tier by tier, and puts together what was made of them.
    pub(crate) fn judge_tiers(
        &mut self,
        round: &Round,
        statistics: &Statistics,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Judgement, Stopped> {
        let clients = round.set.clients.len();
        let mut together = TierJudgement {
            verdicts: vec![None; clients],
            norms: vec![None; clients],
            ..TierJudgement::default()
        };
        for sorted in &round.tiers {
            let judgement = self.judge_tier(round, sorted, statistics, pool, progress)?;
            let Some(tier) = self.job.tiers.as_ref().map(|tiers| &tiers.tiers[sorted.tier]) else { continue };
            together.add(&tier.name, sorted, judgement);
        }
        let recipe = Recipe::from(Reduction::Tiers(std::mem::take(&mut together.recipes)));
        let Aggregation { strategy, rule, .. } = &self.job.aggregation;
        let coefficients = recipe.coefficients();
        let decided = StepInput {
            steps: round.steps(),
            coefficients: coefficients.as_deref(),
            geometry: None,
            rule: &rule.to_string(),
        };
        let server_step = strategy.step(&decided).map_err(MergeError::from)?;
        Ok(together.judgement(recipe, server_step))
    }

    fn judge_tier(
        &mut self,
        round: &Round,
        sorted: &TierMembers,
        all: &Statistics,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Judgement, Stopped> {
        let Some(tiers) = &self.job.tiers else { unreachable!("clients were sorted into tiers") };
        let aggregation = &tiers.tiers[sorted.tier].aggregation;
        let set = round.set.among(&sorted.clients);
        let of = |client: &usize| all.weights[*client];
        let weights: Vec<f64> = sorted.clients.iter().map(of).collect();
        let reported = sorted.clients.iter().map(|client| round.cohort.clients[*client].clone()).collect();
        let cohort = Cohort { clients: reported, weights: weights.clone(), ..round.cohort.clone() };
        let statistics = Statistics {
            ids: set.clients.iter().map(|client| client.id.clone()).collect(),
            weights,
            byzantine: aggregation.byzantine.as_ref().map(|share| share.of(set.clients.len())),
            seed: aggregation.seed,
            geometry: None,
        };
        let mut looks = Passes::over(&set, self.job.isa, pool, None, progress);
        let subject = Subject::of(&set);
        let judged = Judge { aggregation, cohort: &cohort, subject, looks: &mut looks }.judge(statistics);
        let spent = looks.spent;
        let judged = judged.map_err(|why| match why {
            Unjudged::BadUpdates(faults) => {
                let faults = faults.into_iter().map(|(i, fault)| (sorted.clients[i], fault));
                Stopped::BadUpdates(faults.collect())
            }
            Unjudged::Rule(why) => {
                let (path, tier) = (tiers.path.clone(), tiers.tiers[sorted.tier].name.clone());
                Stopped::Error(TiersError::Rule { path, tier, source: Box::new(why) }.into())
            }
            why => why.into(),
        });
        self.add_spent(&spent, set.data_bytes());
        judged
    }
}

impl TierJudgement {
    fn add(&mut self, name: &str, sorted: &TierMembers, judgement: Judgement) {
        let clients = self.verdicts.len();
        let recipe = judgement.decision.recipe.among(&sorted.clients, clients);
        let of_tier = TierRecipe { share: sorted.share, clients: sorted.clients.clone(), recipe };
        self.recipes.push(of_tier);
        for (i, client) in sorted.clients.iter().enumerate() {
            let verdict = judgement.decision.verdicts[i].clone();
            let weight = verdict.weight.map(|weight| weight * sorted.share);
            self.verdicts[*client] = Some(Verdict { weight, ..verdict });
            self.norms[*client] = judgement.norms.as_ref().map(|norms| norms[i]);
        }
        self.steps.extend(judgement.steps.iter().map(|step| {
            let mut found = vec![None; clients];
            for (client, of_client) in sorted.clients.iter().zip(&step.found) {
                found[*client].clone_from(of_client);
            }
            let left_out = step.left_out.iter().map(|i| sorted.clients[*i]).collect();
            StepRecord { step: format!("{name}: {}", step.step), updates: step.updates, found, left_out }
        }));
        let named =
            |warning: &Warning| Warning { text: format!("tier {name}: {warning}"), ..warning.clone() };
        self.warnings.extend(judgement.decision.warnings.iter().map(named));
        self.judgements.push(judgement);
    }

    fn judgement(self, recipe: Recipe, server_step: ServerStep) -> Judgement {
        let distances: Vec<_> = self.judgements.iter().map(|judgement| judgement.distances).collect();
        let same = distances.windows(2).all(|pair| pair[0] == pair[1]);
        Judgement {
            decision: Decision {
                recipe,
                verdicts: self.verdicts.into_iter().flatten().collect(),
                warnings: self.warnings,
            },
            server_step,
            steps: self.steps,
            shadows: Vec::new(),
            metrics: None,
            sign_agreement: None,
            norms: self.norms.into_iter().collect(),
            distances: distances.first().copied().flatten().filter(|_| same),
            screened: self.judgements.iter().all(|judgement| judgement.screened),
        }
    }
}
