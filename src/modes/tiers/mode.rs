//! Judges clients tier by tier, and adds the merged values of the tiers, each times its share.

use crate::engine::aggregate::error::{Error, Stopped, Unsupported};
use crate::engine::aggregate::geometry::{FileGeometry, subject_of};
use crate::engine::aggregate::mode::Mode;
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::run::run_as;
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::trusted::check_trusted;
use crate::engine::backend::request::BackendName;
use crate::engine::decide::judge::{Judgement, judge};
use crate::engine::decide::method::{Method, MetricsRequest, Reporting};
use crate::engine::decide::source::JudgeError;
use crate::engine::intake::sparse::Comparer;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::blocks::add_times;
use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::compile::compile;
use crate::engine::passes::combine::reducer::{CpuOnly, GpuReduction, Reducer};
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::kernels::server_step::ServerStep;
use crate::model::state::StateTensor;
use crate::modes::tiers::file::{LeftOut, Tier, TierMembers, TierText, Tiers, TiersError, by_key};
use crate::rules::pre::StepRecord;
use crate::rules::{Needs, Recipe, RuleError, Statistics, Verdict, Warning};
use crate::strategies::{Cohort, StepInput, StrategyError};
use crate::telemetry::report::{Report, TierRow};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Merges each tier of clients by its rule, and then the tiers by weight. `method` parses the text of a tier.
///
/// # Errors
///
/// The errors of an aggregate run. Also a bad file of tiers, a client without a tier, and a tier without clients or
/// weight.
pub fn run<E: fmt::Display>(
    request: Request,
    tiers: &Path,
    method: impl Fn(&TierText) -> Result<Method, E>,
    machine: Machine,
) -> Result<Report, Error> {
    // Refuses options before it reads files.
    check(&request)?;
    let tiers = Tiers::read(tiers, method).map_err(of_mode)?;
    let mut mode = ByTier { tiers, members: Vec::new(), left_out: Vec::new(), recipes: Vec::new() };
    run_as(&mut mode, request, machine)
}

fn check(request: &Request) -> Result<(), Unsupported> {
    match request.backend.name {
        BackendName::Gpu => Err(Unsupported {
            option: "--backend gpu:".to_owned(),
            mode: None,
            why: format!("{CPU_ONLY}, expected auto or cpu"),
            hint: None,
        }),
        BackendName::Auto | BackendName::Cpu => Ok(()),
    }
}

/// Why tiers run on the CPU.
const CPU_ONLY: &str = "tiers are merged on the CPU";

/// The mode of tiers.
struct ByTier {
    tiers: Tiers,
    /// The clients of each tier, in order of the tiers' names.
    members: Vec<TierMembers>,
    /// The tiers whose clients are not merged.
    left_out: Vec<LeftOut>,
    /// The recipe of each tier, for the rows of all clients.
    recipes: Vec<Recipe>,
}

impl Mode for ByTier {
    fn check(&self, request: &Request) -> Result<(), Unsupported> {
        check(request)
    }

    fn take(&mut self, session: &mut Session) -> Result<Taken, Error> {
        let taken = loop {
            let updates = std::mem::take(&mut session.updates);
            let mut taken = session.admit(updates)?;
            session.settle(&mut taken)?;
            let of = |client: &str| match self.tiers.tier_of(client) {
                Some(tier) => tier.method.comparer(),
                None => session.request.method.comparer(),
            };
            let mut faults = session.count(&mut taken, &Comparer { of: &of, refuses_sketches: None })?;
            faults.extend(self.tiers.strangers(&taken.set.clients));
            match faults {
                faults if faults.is_empty() => break Taken { cpu_only: Some(CPU_ONLY), ..taken },
                faults => session.updates = taken.dissolve(faults),
            }
        };
        session.check_quorum(&taken)?;
        check_strategy(session, &taken.cohort)?;
        let sorted = self.tiers.sort(&taken.set.clients, &taken.cohort.weights).map_err(of_mode)?;
        (self.members, self.left_out) = (sorted.members, sorted.left_out);
        Ok(taken)
    }

    fn judge(&mut self, session: &mut Session, taken: &Taken) -> Result<Judgement, Stopped> {
        let statistics = session.statistics(taken)?;
        let judgements = self.judge_tiers(session, taken, &statistics)?;
        let mut all = TierJudgement::new(taken.set.clients.len());
        for (members, judgement) in self.members.iter().zip(judgements) {
            all.add(&self.tiers.tiers[members.tier].name, members, judgement);
        }
        for left_out in &self.left_out {
            all.leave_out(&self.tiers.tiers[left_out.tier].name, left_out);
        }
        let coefficients = all.coefficients();
        let decided = StepInput {
            steps: taken.set.carried.steps,
            coefficients: coefficients.as_deref(),
            weights: &statistics.weights,
            geometry: None,
            rule: &session.request.method.rule.to_string(),
        };
        let server_step = session.request.method.strategy.step(&decided)?;
        self.recipes = std::mem::take(&mut all.recipes);
        Ok(all.judgement(server_step))
    }

    fn reducer<'t>(&'t self, taken: &'t Taken, _: &'t Judgement, skips: bool) -> Box<dyn Reducer + 't> {
        let parts =
            self.members.iter().zip(&self.recipes).map(|(members, recipe)| {
                (members.share, compile(recipe, &taken.set, &members.clients, skips))
            });
        Box::new(TierSum::new(parts.collect(), taken.set.clients.len()))
    }

    fn describe(&self, _: &Taken, metadata: &mut BTreeMap<String, String>) {
        metadata.insert("fedmill.tiers".to_owned(), self.tiers.to_string());
        if let Some(tier) = self.tiers.tiers.iter().find(|tier| !tier.method.pre.is_empty()) {
            metadata.insert("fedmill.seed".to_owned(), tier.method.seed.to_string());
        }
    }

    fn report(&self, _: &Taken, report: &mut Report) {
        for members in &self.members {
            let Tier { name, method, .. } = &self.tiers.tiers[members.tier];
            for client in &members.clients {
                report.clients[*client].tier = Some(name.clone());
            }
            report.tiers.push(TierRow {
                name: name.clone(),
                rule: method.rule.to_string(),
                pre: method.pre.iter().map(ToString::to_string).collect(),
                byzantine: method.byzantine.as_ref().map(|share| share.of(members.clients.len())),
                clients: members.clients.len(),
                weight: members.share,
                left_out: None,
            });
        }
        for LeftOut { tier, clients, why } in &self.left_out {
            let Tier { name, method, .. } = &self.tiers.tiers[*tier];
            for client in clients {
                report.clients[*client].tier = Some(name.clone());
                report.clients[*client].norm = None;
            }
            report.tiers.push(TierRow {
                name: name.clone(),
                rule: method.rule.to_string(),
                pre: method.pre.iter().map(ToString::to_string).collect(),
                byzantine: method.byzantine.as_ref().map(|share| share.of(clients.len())),
                clients: clients.len(),
                weight: 0.0,
                left_out: Some(why.clone()),
            });
        }
        report.tiers.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

fn of_mode(why: TiersError) -> Error {
    Error::Mode(Box::new(why))
}

/// Refuses a strategy that needs more than the merged delta of all tiers.
fn check_strategy(session: &Session, cohort: &Cohort) -> Result<(), StrategyError> {
    let strategy = &session.request.method.strategy;
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

impl ByTier {
    /// Measures every tier if any rule needs distances and there is a report, so that the report has a norm for each
    /// client.
    fn reporting(&self, has_report: bool) -> Reporting {
        let plain = Reporting::default();
        let measures = |tier: &Tier| plain.measures(&tier.method, 0);
        match has_report && self.tiers.tiers.iter().any(measures) {
            true => Reporting { metrics: MetricsRequest::Geometry, ..plain },
            false => plain,
        }
    }

    /// Judges every tier. Leaves out optional tiers whose rule cannot decide on their clients.
    fn judge_tiers(
        &mut self,
        session: &mut Session,
        taken: &Taken,
        all: &Statistics,
    ) -> Result<Vec<Judgement>, Stopped> {
        let (mut kept, mut judgements) = (Vec::new(), Vec::new());
        for members in std::mem::take(&mut self.members) {
            let tier = &self.tiers.tiers[members.tier];
            match self.judge_tier(session, taken, &members, all)? {
                Ok(judgement) => {
                    judgements.push(judgement);
                    kept.push(members);
                }
                Err(why) if tier.is_optional && why.is_of_clients() => {
                    let TierMembers { tier, clients, .. } = members;
                    self.left_out.push(LeftOut { tier, clients, why: why.to_string() });
                }
                Err(source) => {
                    check_trusted(tier.method.rule.as_ref(), taken)?;
                    let needs = needed_clients(&tier.method, members.clients.len());
                    let (path, tier) = (self.tiers.path.clone(), tier.name.clone());
                    return Err(
                        of_mode(TiersError::Rule { path, tier, needs, source: Box::new(source) }).into()
                    );
                }
            }
        }
        self.tiers.check_left(&kept, &self.left_out).map_err(of_mode)?;
        self.tiers.share_out(&mut kept).map_err(of_mode)?;
        self.members = kept;
        Ok(judgements)
    }

    /// The judgement of one tier, or why its rule cannot decide.
    fn judge_tier(
        &self,
        session: &mut Session,
        taken: &Taken,
        members: &TierMembers,
        all: &Statistics,
    ) -> Result<Result<Judgement, RuleError>, Stopped> {
        let tier = &self.tiers.tiers[members.tier];
        let set = taken.set.among(&members.clients);
        let weights: Vec<f64> = members.clients.iter().map(|client| all.weights[*client]).collect();
        let reported = members.clients.iter().map(|client| taken.cohort.clients[*client].clone()).collect();
        let cohort = Cohort { clients: reported, weights: weights.clone(), ..taken.cohort.clone() };
        let statistics = Statistics {
            ids: set.clients.iter().map(|client| client.id.clone()).collect(),
            weights,
            byzantine: tier.method.byzantine.as_ref().map(|share| share.of(set.clients.len())),
            seed: tier.method.seed,
            geometry: None,
        };
        let reporting = self.reporting(session.request.outputs.report.is_some());
        let mut source = FileGeometry::new(&session.machine, &set);
        let subject = subject_of(&set);
        let decision = || judge(&tier.method, &reporting, &cohort, subject, statistics, &mut source);
        let judged = session.machine.decide(decision)?;
        let spent = source.spent;
        session.add_spent(&spent);
        match judged {
            Ok(judgement) => Ok(Ok(judgement)),
            Err(JudgeError::Rule(why)) => Ok(Err(why)),
            Err(why) => Err(match Stopped::from(why) {
                Stopped::BadUpdates(faults) => {
                    let faults = faults.into_iter().map(|(i, fault)| (members.clients[i], fault));
                    Stopped::BadUpdates(faults.collect())
                }
                why => why,
            }),
        }
    }
}

/// The most clients that a search for the number that a tier needs goes to.
const MOST_NEEDED: usize = 1000;

/// The fewest clients, more than it has, on which the method of a tier can decide. `None` if no small number is known.
fn needed_clients(method: &Method, clients: usize) -> Option<usize> {
    let can_decide = |clients: &usize| {
        let statistics = Statistics {
            ids: vec![String::new(); *clients],
            weights: vec![1.0; *clients],
            byzantine: method.byzantine.as_ref().map(|share| share.of(*clients)),
            seed: method.seed,
            geometry: None,
        };
        let is_of_clients = || method.rule.decide(&statistics).is_err_and(|why| why.is_of_clients());
        method.check(&statistics).is_ok() && !is_of_clients()
    };
    (clients + 1..MOST_NEEDED)
        .find(can_decide)
        .filter(|_| method.pre.is_empty() && method.rule.trusted().is_none())
}

/// The judgements of the tiers so far.
struct TierJudgement {
    /// Recipes for the rows of all clients, and the share of each in the merged model.
    recipes: Vec<Recipe>,
    shares: Vec<f64>,
    verdicts: Vec<Option<Verdict>>,
    norms: Vec<Option<f64>>,
    steps: Vec<StepRecord>,
    warnings: Vec<Warning>,
    judgements: Vec<Judgement>,
}

impl TierJudgement {
    fn new(clients: usize) -> Self {
        Self {
            recipes: Vec::new(),
            shares: Vec::new(),
            verdicts: vec![None; clients],
            norms: vec![None; clients],
            steps: Vec::new(),
            warnings: Vec::new(),
            judgements: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, members: &TierMembers, judgement: Judgement) {
        let clients = self.verdicts.len();
        self.recipes.extend(judgement.recipe.as_ref().map(|recipe| recipe.among(&members.clients, clients)));
        self.shares.push(members.share);
        for (i, client) in members.clients.iter().enumerate() {
            let verdict = judgement.verdicts[i].clone();
            let weight = verdict.weight.map(|weight| weight * members.share);
            self.verdicts[*client] = Some(Verdict { weight, ..verdict });
            self.norms[*client] = judgement.norms.as_ref().map(|norms| norms[i]);
        }
        self.steps.extend(judgement.steps.iter().map(|step| {
            let mut found = vec![None; clients];
            for (client, of_client) in members.clients.iter().zip(&step.found) {
                found[*client].clone_from(of_client);
            }
            let left_out = step.left_out.iter().map(|i| members.clients[*i]).collect();
            StepRecord { step: format!("{name}: {}", step.step), updates: step.updates, found, left_out }
        }));
        let named = |warning: &Warning| {
            let text = format!("tier {name}: {}", by_key(warning.text.clone()));
            Warning { text, ..warning.clone() }
        };
        self.warnings.extend(judgement.warnings.iter().map(named));
        self.judgements.push(judgement);
    }

    /// Adds the clients of a tier that is not merged.
    fn leave_out(&mut self, name: &str, tier: &LeftOut) {
        let reason = format!("its tier {name} is left out: {}", tier.why);
        for client in &tier.clients {
            let verdict = Verdict { kept: false, weight: None, score: None, reason: reason.clone() };
            self.verdicts[*client] = Some(verdict);
            self.norms[*client] = Some(f64::NAN);
        }
        let clients = tier.clients.len();
        self.warnings.push(format!("tier {name} with {clients} clients is left out: {}", tier.why).into());
    }

    /// The coefficient of each client's delta in the merged delta; `None` if a tier merges by an order statistic.
    fn coefficients(&self) -> Option<Vec<f64>> {
        let mut sums = vec![0.0; self.verdicts.len()];
        for (share, recipe) in self.shares.iter().zip(&self.recipes) {
            sums.iter_mut().zip(recipe.coefficients()?).for_each(|(sum, x)| *sum += share * x);
        }
        Some(sums)
    }

    fn judgement(self, server_step: ServerStep) -> Judgement {
        let distances: Vec<_> = self.judgements.iter().map(|judgement| judgement.distances).collect();
        let same = distances.windows(2).all(|pair| pair[0] == pair[1]);
        let verdicts = self.verdicts.into_iter().flatten().collect();
        Judgement {
            warnings: self.warnings,
            steps: self.steps,
            norms: self.norms.into_iter().collect(),
            distances: distances.first().copied().flatten().filter(|_| same),
            screened: self.judgements.iter().all(|judgement| judgement.screened),
            ..Judgement::without_geometry(verdicts, server_step)
        }
    }
}

/// The sum of the merged values of each tier, times its share.
struct TierSum<'a> {
    parts: Vec<(f64, Box<dyn Reducer + 'a>)>,
    /// The clients of all tiers, tier by tier.
    clients: Vec<usize>,
    /// The number of clients of the set.
    all: usize,
}

impl<'a> TierSum<'a> {
    fn new(parts: Vec<(f64, Box<dyn Reducer + 'a>)>, all: usize) -> Self {
        let clients = parts.iter().flat_map(|(_, part)| part.clients().to_vec()).collect();
        Self { parts, clients, all }
    }
}

impl Reducer for TierSum<'_> {
    fn clients(&self) -> &[usize] {
        &self.clients
    }

    fn rows_at_once(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.rows_at_once()).max().unwrap_or(1)
    }

    fn uses_base(&self) -> bool {
        self.parts.iter().any(|(_, part)| part.uses_base())
    }

    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError> {
        // The merged value of a single tier keeps its bits, including the sign of a zero.
        let mut sums = vec![-0.0; work.columns()];
        let mut squares = vec![0.0; self.all];
        for (share, part) in &self.parts {
            let (merged, of_clients) = work.capture(&**part)?;
            add_times(&merged, *share, &mut sums);
            for (client, square) in part.clients().iter().zip(of_clients) {
                squares[*client] = square;
            }
        }
        work.set_norms(squares);
        work.finish(&mut sums)
    }

    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly> {
        Err(CpuOnly(CPU_ONLY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{OrderStatistic, Reduction};

    #[test]
    fn coefficients_of_tiers_are_those_of_each_times_its_share() {
        let mean = |weights: &[f64]| Recipe::from(Reduction::WeightedMean { weights: weights.to_vec() });
        let mut all = TierJudgement::new(3);
        all.shares = vec![0.75, 0.25];
        all.recipes = vec![mean(&[1.0, 2.0]).among(&[0, 2], 3), mean(&[9.0]).among(&[1], 3)];
        assert_eq!(all.coefficients(), Some(vec![0.25, 0.25, 0.5]));
        all.recipes[1] = Recipe::from(OrderStatistic::Median).among(&[1], 3);
        assert_eq!(all.coefficients(), None);
    }
}
