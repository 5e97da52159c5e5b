//! Who takes part in a round and what is known of them without a look: admitted, weighed, told what they lack, and
//! enough of them.

use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::publish::publish_report;
use crate::engine::aggregate::request::OnBadUpdate;
use crate::engine::aggregate::session::Run;
use crate::engine::aggregate::state::StateSpec;
use crate::engine::decide::judge::MetricsWanted;
use crate::engine::intake::admit::{self, Client, Update, UpdateSet};
use crate::engine::intake::fault::Fault;
use crate::engine::intake::sparse;
use crate::engine::intake::weights::Weighting;
use crate::model::layout::TensorSpec;
use crate::modes::tiers::file::TierMembers;
use crate::modes::tree::admission;
use crate::modes::tree::purpose::Purpose;
use crate::rules::Statistics;
use crate::strategies::{ClientMetadata, Cohort, StrategyError};

/// A set of clients, what they weigh, and who is not among them.
pub(crate) struct Round {
    pub(crate) set: UpdateSet,
    pub(crate) rejected: Vec<Update>,
    pub(crate) weights_source: &'static str,
    pub(crate) byzantine: Option<usize>,
    pub(crate) cohort: Cohort,
    /// Which clients are of which tier, in order of their names.
    pub(crate) tiers: Vec<TierMembers>,
    /// Whether a state is kept, and of what.
    pub(crate) keeping: Option<StateSpec>,
}

impl Round {
    /// Rounds that went into the state before this one.
    pub(crate) fn steps(&self) -> u64 {
        self.set.state.as_ref().map_or(0, |state| state.steps)
    }
}

/// Something of a set, or what is wrong with those of its updates that stand in the way.
type Sound<T> = Result<T, Vec<(usize, Fault)>>;

impl Run {
    /// The clients of the round and what is known of them without a look: without those that say too little.
    pub(crate) fn assemble(&mut self) -> Result<(Round, Statistics), MergeError> {
        loop {
            let (set, rejected) = self.admit()?;
            self.tell_rejected(&rejected)?;
            let (cohort, weights_source) = match self.cohort(&set)? {
                Ok(cohort) => cohort,
                Err(faults) => {
                    self.updates = set.dissolve(rejected, faults);
                    continue;
                }
            };
            let aggregation = &self.job.aggregation;
            let byzantine = aggregation.byzantine.as_ref().map(|share| share.of(cohort.clients.len()));
            let keeping = StateSpec::of(aggregation);
            let mut round =
                Round { set, rejected, weights_source, byzantine, cohort, tiers: Vec::new(), keeping };
            self.check_quorum(&round)?;
            round.tiers = self.sort_tiers(&round.set.clients, &round.cohort)?;
            if round.weights_source == "uniform" && self.job.weighting == Weighting::Default {
                tracing::warn!("no update states `num_examples`: every client weighs the same");
            }
            self.warn_of_stepped_statistics(&round);
            let statistics = self.statistics(&round)?;
            return Ok((round, statistics));
        }
    }

    /// What the clients of a set say and weigh, and where the weights come from; or what is wrong with those that
    /// say too little.
    fn cohort(&self, set: &UpdateSet) -> Result<Sound<(Cohort, &'static str)>, MergeError> {
        let (strategy, round) = (&self.job.aggregation.strategy, self.job.expected.round);
        let clients: Vec<ClientMetadata> = set.clients.iter().map(Client::reported).collect();
        let lacking = clients.iter().enumerate().filter_map(|(i, client)| {
            let fault = strategy.check(client, round).err()?;
            Some((i, Fault::from(fault)))
        });
        let lacking: Vec<(usize, Fault)> = lacking.chain(sparse::misleading(set, &self.job)).collect();
        if !lacking.is_empty() {
            return Ok(Err(lacking));
        }
        let mut weights = match self.job.weighting.weigh(&set.clients)? {
            Ok(weights) => weights,
            Err(faults) => return Ok(Err(faults)),
        };
        let mut cohort = Cohort { clients, weights: weights.values, round, population: self.job.population };
        let is_asked = self.job.weighting != Weighting::Default;
        let faults = admission::add_members(set, &mut cohort, &mut weights.source, is_asked);
        Ok(if faults.is_empty() { Ok((cohort, weights.source)) } else { Err(faults) })
    }

    /// An optimiser's step on the running variance of a normalisation may make it negative.
    fn warn_of_stepped_statistics(&self, round: &Round) {
        let strategy = &self.job.aggregation.strategy;
        let is_variance = |spec: &&TensorSpec| spec.name.ends_with("running_var");
        let variance = round.set.layout.tensors().iter().find(is_variance);
        if let Some(spec) = variance.filter(|_| strategy.keeps().iter().any(|kept| kept.slot.is_moment())) {
            let name = &spec.name;
            tracing::warn!(
                "{strategy} steps `{name}` too, which may leave its range: --personal fedbn leaves it out"
            );
        }
    }

    /// What is known of the clients before they are looked at.
    fn statistics(&self, round: &Round) -> Result<Statistics, StrategyError> {
        let ids = round.cohort.clients.iter().map(|client| client.id.clone()).collect();
        let (byzantine, seed) = (round.byzantine, self.job.aggregation.seed);
        let weights = self.weights(&round.cohort)?;
        Ok(Statistics { ids, weights, byzantine, seed, geometry: None })
    }

    /// What each client weighs once the strategy has weighed it too.
    fn weights(&self, cohort: &Cohort) -> Result<Vec<f64>, StrategyError> {
        let aggregation = &self.job.aggregation;
        let Some(factors) = aggregation.strategy.weigh(cohort)? else { return Ok(cohort.weights.clone()) };
        if !aggregation.rule.uses_weights() {
            return Err(StrategyError::NoMeaning {
                strategy: aggregation.strategy.to_string(),
                rule: aggregation.rule.to_string(),
                why: "the strategy weighs clients, and the rule takes no weights",
            });
        }
        Ok(cohort.weights.iter().zip(factors).map(|(weight, factor)| weight * factor).collect())
    }

    fn admit(&mut self) -> Result<(UpdateSet, Vec<Update>), MergeError> {
        let (partials, updates) = admission::apart(std::mem::take(&mut self.updates));
        let expected = &self.job.expected;
        let unread = |source| MergeError::Read { path: self.job.base.clone().unwrap_or_default(), source };
        let admitted = admit::admit(updates, self.base.clone(), expected);
        let (mut set, mut rejected) = admitted.map_err(unread)?;
        if self.job.partial || !partials.is_empty() {
            let purpose = Purpose::of(&self.job)?;
            admission::join(&mut set, partials, &mut rejected, purpose, expected).map_err(unread)?;
            self.job.aggregation.metrics = MetricsWanted::Nothing;
        }
        rejected.sort_by(|a, b| a.path.cmp(&b.path));
        self.job.check_outputs(&set, &rejected)?;
        self.open_state(&mut set)?;
        Ok((set, rejected))
    }

    /// Opens what an earlier round left, that goes with the base.
    pub(crate) fn open_state(&self, set: &mut UpdateSet) -> Result<(), MergeError> {
        let strategy = &self.job.aggregation.strategy;
        if set.base.is_none() && !strategy.is_plain() {
            return Err(MergeError::NoBase { strategy: strategy.to_string() });
        }
        let (Some(path), Some(keeping)) = (&self.job.state, StateSpec::of(&self.job.aggregation)) else {
            return Ok(());
        };
        set.state = keeping.open(path, &set.layout, self.base_digest()?)?;
        Ok(())
    }

    /// Bad updates end the run, or are told about, once, and left out.
    fn tell_rejected(&mut self, rejected: &[Update]) -> Result<(), MergeError> {
        if !rejected.is_empty() && self.job.on_bad_update == OnBadUpdate::Fail {
            return Err(MergeError::bad_updates(rejected));
        }
        for update in rejected {
            if self.told.insert(update.path.clone()) {
                for fault in &update.faults {
                    tracing::warn!(client = update.id, "skipped {}: {fault}", update.path.display());
                }
            }
        }
        Ok(())
    }

    fn check_quorum(&mut self, round: &Round) -> Result<(), MergeError> {
        let least = self.job.min_clients.max(self.job.aggregation.strategy.least_clients());
        let clients = round.cohort.clients.len();
        if clients >= least {
            return Ok(());
        }
        let rejected = round.rejected.len();
        let why = format!("{clients} usable updates ({rejected} rejected), expected at least {least}");
        let mut report = self.report_rows(round);
        report.refused = Some(why);
        if let Some((path, staged)) = self.stage_report(&report)? {
            publish_report(&path, staged)?;
        }
        Err(MergeError::Refused(Box::new(report)))
    }
}
