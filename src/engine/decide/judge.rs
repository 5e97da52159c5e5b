//! From updates to a decision: the first pass if something needs it, the steps before the rule, the rule, and what
//! other rules would have made of the same numbers.

use crate::engine::aggregate::geometry::{Asked, Looks};
use crate::engine::intake::admit::UpdateSet;
use crate::engine::intake::fault::Fault;
use crate::engine::passes::drive::PassError;
use crate::engine::passes::geometry::Distances;
use crate::engine::passes::geometry::sums::{FirstLook, Precision, Sought};
use crate::kernels::server_step::ServerStep;
use crate::modes::shards::file::ShardError;
use crate::rules::geometry::{Geometry, References};
use crate::rules::metrics::RoundMetrics;
use crate::rules::mixing::Mixing;
use crate::rules::pre::{self, PreAggregation, Step, StepRecord};
use crate::rules::{self, Byzantine, Decision, Needs, Recipe, Rule, RuleError, Statistics, Warning};
use crate::strategies::{Cohort, StepInput, Strategy, StrategyError};
use crate::updates::metadata::UpdateKind;
use serde::{Deserialize, Serialize};

/// How updates are judged and combined.
#[derive(Debug)]
pub struct Aggregation {
    /// How to combine them.
    pub rule: Box<dyn Rule>,
    /// What becomes of the merged delta.
    pub strategy: Box<dyn Strategy>,
    /// What to do before that, in order.
    pub pre: Vec<Box<dyn Step>>,
    /// Rules whose decisions are told and not followed.
    pub shadow: Vec<Box<dyn Rule>>,
    /// How many clients are assumed hostile.
    pub byzantine: Option<Byzantine>,
    /// What shuffles them, where something does.
    pub seed: u64,
    /// How distances between clients are found.
    pub distances: Distances,
    /// What the report says of the round as a whole.
    pub metrics: MetricsWanted,
}

/// What the report says of the round as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricsWanted {
    /// Nothing.
    Nothing,
    /// What the geometry of the updates tells, where the square of their number is no burden.
    IfFew,
    /// What the geometry of the updates tells.
    Geometry,
    /// That, and how far the signs of the deltas agree.
    GeometryAndSigns,
}

/// The most clients whose geometry is found for the report alone.
const FEW_CLIENTS: usize = 1024;

/// The most products that a close call is settled with in f64: a fraction of a second.
const MOST_F64_TERMS: u64 = 1 << 30;

/// What was made of the updates.
#[derive(Debug)]
pub struct Judgement {
    /// What to do, and who is kept.
    pub decision: Decision,
    /// How the server steps.
    pub server_step: ServerStep,
    /// What was done before.
    pub steps: Vec<StepRecord>,
    /// What other rules would have done.
    pub shadows: Vec<(String, Result<Decision, RuleError>)>,
    /// Numbers of the round as a whole.
    pub metrics: Option<RoundMetrics>,
    /// How far the signs of the deltas agree.
    pub sign_agreement: Option<f64>,
    /// L2 norm of each client's delta.
    pub norms: Option<Vec<f64>>,
    /// How the distances were found, if they were.
    pub distances: Option<Distances>,
    /// Whether every update is known to be finite.
    pub screened: bool,
}

/// What of a judgement the second pass goes by.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// How updates are combined.
    pub recipe: &'a Recipe,
    /// How the server steps.
    pub server_step: ServerStep,
    /// Whether every update is known to be finite.
    pub screened: bool,
}

impl Judgement {
    /// What the second pass goes by.
    pub fn outcome(&self) -> Outcome<'_> {
        let Self { decision, server_step, screened, .. } = self;
        Outcome { recipe: &decision.recipe, server_step: *server_step, screened: *screened }
    }
}

/// Judges one set of updates.
pub struct Judge<'a> {
    /// How to judge.
    pub aggregation: &'a Aggregation,
    /// What its clients say.
    pub cohort: &'a Cohort,
    /// What is judged.
    pub subject: Subject,
    /// Where looks at the updates come from.
    pub looks: &'a mut dyn Looks,
}

/// What is judged, as far as it is known without a look.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Subject {
    /// How many clients there are.
    pub clients: usize,
    /// How many coordinates their updates have.
    pub parameters: usize,
    /// Whether updates are weights that stand by themselves, without a base.
    pub are_bare_weights: bool,
    /// Whether an earlier round left a centre.
    pub has_centre: bool,
    /// Rounds that the server stepped before this one.
    pub steps: u64,
}

/// Why there is no judgement.
#[derive(Debug)]
pub enum Unjudged {
    /// Some updates are bad, by their place in the set.
    BadUpdates(Vec<(usize, Fault)>),
    /// The rule or a step cannot be used.
    Rule(RuleError),
    /// The strategy cannot be used.
    Strategy(StrategyError),
    /// An update could not be read.
    Pass(PassError),
    /// Partials do not tell what they should.
    Shard(ShardError),
}

impl From<RuleError> for Unjudged {
    fn from(why: RuleError) -> Self {
        Self::Rule(why)
    }
}

impl From<StrategyError> for Unjudged {
    fn from(why: StrategyError) -> Self {
        Self::Strategy(why)
    }
}

impl From<ShardError> for Unjudged {
    fn from(why: ShardError) -> Self {
        Self::Shard(why)
    }
}

impl From<PassError> for Unjudged {
    fn from(why: PassError) -> Self {
        Self::Pass(why)
    }
}

impl Aggregation {
    /// What the rule, its steps and the strategy have to know of the updates.
    fn needs(&self) -> Needs {
        let steps = if self.pre.is_empty() { Needs::Nothing } else { Needs::Geometry };
        steps.max(self.rule.needs()).max(self.strategy.needs())
    }

    /// What the shadow rules have to know besides.
    pub(crate) fn needs_with_shadows(&self) -> Needs {
        self.shadow.iter().map(|rule| rule.needs()).fold(self.needs(), Needs::max)
    }

    fn wants_metrics(&self, clients: usize) -> bool {
        match self.metrics {
            MetricsWanted::Nothing => false,
            MetricsWanted::IfFew => clients <= FEW_CLIENTS,
            MetricsWanted::Geometry | MetricsWanted::GeometryAndSigns => true,
        }
    }

    /// Whether so many updates are looked at before they are merged.
    pub(crate) fn looks(&self, clients: usize) -> bool {
        self.needs_with_shadows() > Needs::Nothing || self.wants_metrics(clients)
    }

    /// What goes by the lengths of deltas: it means little where rows are not deltas.
    fn users_of_lengths(&self) -> Vec<String> {
        let steps = self.pre.iter().filter(|step| step.uses_lengths()).map(ToString::to_string);
        let rule = self.rule.keeps_centre().then(|| self.rule.to_string());
        steps.chain(rule).collect()
    }

    /// What is looked for in so many updates.
    pub(crate) fn sought(
        &self,
        updates: usize,
        needs: Needs,
        has_centre: bool,
        precision: Precision,
    ) -> Sought {
        Sought {
            updates,
            distances: self.distances,
            references: References { median: needs == Needs::Median, centre: has_centre },
            with_signs: self.metrics == MetricsWanted::GeometryAndSigns,
            precision,
            on_device: false,
        }
    }

    /// Says what can be said before anything is read.
    pub(crate) fn check(&self, statistics: &Statistics) -> Result<(), RuleError> {
        match self.pre.is_empty() {
            true => rules::check(self.rule.as_ref(), statistics),
            // What a step leaves to the rule is known after it.
            false => Ok(()),
        }
    }
}

impl Subject {
    /// What is judged in a set.
    pub fn of(set: &UpdateSet) -> Self {
        Self {
            clients: set.clients.len(),
            parameters: set.layout.parameters(),
            are_bare_weights: set.base.is_none() && set.merged_kind() == UpdateKind::Weights,
            has_centre: set.centre().is_some(),
            steps: set.state.as_ref().map_or(0, |state| state.steps),
        }
    }

    /// Whether products of all updates in f64 cost little. The same on every machine and backend.
    pub(crate) fn is_f64_cheap(&self) -> bool {
        let (n, d) = (self.clients as u64, self.parameters as u64);
        n.saturating_mul(n + 1).saturating_mul(d) / 2 <= MOST_F64_TERMS
    }
}

impl Judge<'_> {
    /// Looks at the updates if that is needed, and decides.
    ///
    /// # Errors
    ///
    /// When an update is bad or cannot be read, or the rule or a step cannot be used.
    pub fn judge(&mut self, statistics: Statistics) -> Result<Judgement, Unjudged> {
        self.aggregation.check(&statistics)?;
        let judgement = self.judge_to(Precision::Usual, statistics.clone())?;
        if !judgement.decision.warnings.iter().any(|warning| warning.is_close_call) {
            return Ok(judgement);
        }
        let (precision, how) = match self.looks.leave_device() {
            _ if self.subject.is_f64_cheap() => (Precision::F64, "in f64"),
            // The CPU's own numbers: so both backends choose the same.
            true => (Precision::Usual, "on the CPU"),
            false => return Ok(judgement),
        };
        let mut judgement = self.judge_to(precision, statistics)?;
        let note = format!("a choice hung on less than the numeric bound: distances were found again {how}");
        judgement.decision.warnings.insert(0, note.into());
        Ok(judgement)
    }

    fn judge_to(&mut self, precision: Precision, mut statistics: Statistics) -> Result<Judgement, Unjudged> {
        let aggregation = self.aggregation;
        let needs = aggregation.needs_with_shadows();
        let wanted = aggregation.wants_metrics(statistics.clients());
        let mut sign_agreement = None;
        if needs > Needs::Nothing || wanted {
            let look = self.look(precision, None, needs, statistics.byzantine)?;
            sign_agreement = look.sign_agreement;
            statistics.geometry = Some(look.geometry);
        }
        let screened = statistics.geometry.is_some();
        let weights = statistics.weights.clone();
        let about = self.check_fits(&mut statistics, aggregation.needs())?;
        let metrics = statistics.geometry.as_ref().filter(|_| wanted).map(|g| RoundMetrics::of(g, &weights));
        let norms = statistics.geometry.as_ref().map(|g| (0..g.clients()).map(|i| g.norm(i)).collect());
        let distances = screened.then(|| aggregation.distances.resolved(statistics.clients()));

        let sent = statistics.geometry.clone().filter(|_| aggregation.strategy.needs() > Needs::Nothing);
        let scale = aggregation.strategy.scale(self.cohort, sent.as_ref())?;
        let prepared = pre::prepare(&aggregation.pre, statistics, scale.as_deref())?;
        let looked_again = self.look_again(precision, &prepared, needs)?;
        // Each rule has the numbers it would have alone: a shadow changes nothing.
        let decide = |rule: &dyn Rule| match &looked_again {
            Some(again) if rule.needs() == Needs::Median => again.decide(rule),
            _ => prepared.decide(rule),
        };
        let mut decision = decide(aggregation.rule.as_ref())?;
        let shadow = |rule: &dyn Rule| (rule.to_string(), decide(rule));
        let shadows = aggregation.shadow.iter().map(|rule| shadow(rule.as_ref())).collect();
        let PreAggregation { steps, warnings, .. } = prepared;
        let about = about.into_iter().chain(self.lengths_of_weights()).map(Warning::from);
        decision.warnings.splice(0..0, about.chain(warnings));
        let server_step = self.server_step(&decision, sent.as_ref())?;
        Ok(Judgement {
            decision,
            server_step,
            steps,
            shadows,
            metrics,
            sign_agreement,
            norms,
            distances,
            screened,
        })
    }

    fn server_step(&self, decision: &Decision, sent: Option<&Geometry>) -> Result<ServerStep, StrategyError> {
        let coefficients = decision.recipe.coefficients();
        self.aggregation.strategy.step(&StepInput {
            steps: self.subject.steps,
            coefficients: coefficients.as_deref(),
            geometry: sent,
            rule: &self.aggregation.rule.to_string(),
        })
    }

    fn look(
        &mut self,
        precision: Precision,
        mixing: Option<&Mixing>,
        needs: Needs,
        hostile: Option<usize>,
    ) -> Result<FirstLook, Unjudged> {
        let Subject { clients, has_centre, .. } = self.subject;
        let updates = mixing.map_or(clients, Mixing::len);
        let sought = self.aggregation.sought(updates, needs, has_centre, precision);
        self.looks.look(Asked { sought, mixing, hostile })
    }

    /// The coordinate median of mixed updates is not known from that of the clients': they are mixed and looked at
    /// in one more read, for the rules that go by it.
    fn look_again(
        &mut self,
        precision: Precision,
        prepared: &PreAggregation,
        needs: Needs,
    ) -> Result<Option<PreAggregation>, Unjudged> {
        if needs < Needs::Median || prepared.knows(needs) || prepared.statistics.geometry.is_none() {
            return Ok(None);
        }
        let look = self.look(precision, prepared.mixing.as_ref(), needs, prepared.statistics.byzantine)?;
        let mut again = prepared.clone();
        again.statistics.geometry = Some(look.geometry);
        Ok(Some(again))
    }

    fn lengths_of_weights(&self) -> Option<String> {
        let users = self.aggregation.users_of_lengths();
        (self.subject.are_bare_weights && !users.is_empty()).then(|| {
            format!(
                "{} goes by how long deltas are, but without --base updates are taken as they stand",
                users.join(", ")
            )
        })
    }

    /// Squares of f64 values may not fit f64. Updates of which that is so are bad where the geometry is needed, and
    /// else there is none. Returns what the user should know.
    fn check_fits(&self, statistics: &mut Statistics, needs: Needs) -> Result<Option<String>, Unjudged> {
        let too_large = statistics.geometry.as_ref().map_or_else(Vec::new, Geometry::unmeasurable);
        if too_large.is_empty() {
            return Ok(None);
        }
        if needs > Needs::Nothing {
            let faults = too_large.into_iter().map(|client| (client, Fault::TooLarge)).collect();
            return Err(Unjudged::BadUpdates(faults));
        }
        statistics.geometry = None;
        Ok(Some("the report has no metrics: squared values do not fit a number".to_owned()))
    }
}
