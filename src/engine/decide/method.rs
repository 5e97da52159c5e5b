//! The settings of a judgement: some change the model, some change only the report.

use crate::rules::geometry::References;
use crate::rules::pre::{PreAggregation, Shares, Step};
use crate::rules::{
    self, Byzantine, Decision, Distances, GeometryRequest, Needs, Precision, Rule, RuleError, Statistics,
    Warning,
};
use crate::strategies::{self, Strategy};

/// The settings that change the merged model.
#[derive(Debug)]
pub struct Method {
    /// The rule that combines updates.
    pub rule: Box<dyn Rule>,
    /// The server's step on the merged delta.
    pub strategy: Box<dyn Strategy>,
    /// Steps before the rule, in order.
    pub pre: Vec<Box<dyn Step>>,
    /// The number of clients assumed hostile; `None` without `--byzantine`.
    pub byzantine: Option<Byzantine>,
    /// The seed of every shuffle.
    pub seed: u64,
    /// How the run computes distances between clients.
    pub distances: Distances,
    /// Whether a run without the protection that a fraction asks for goes on, with a warning.
    pub allows_unprotected: bool,
}

/// The settings that change only the report.
#[derive(Debug)]
pub struct Reporting {
    /// Rules whose decisions the run reports and does not follow.
    pub shadow: Vec<Box<dyn Rule>>,
    /// Metrics of the whole round.
    pub metrics: MetricsRequest,
    /// The share of the values whose overlap between clients the run measures; `None` measures none.
    pub overlap: Option<f64>,
}

/// The metrics of the whole round that the report holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricsRequest {
    /// No metrics.
    Nothing,
    /// The metrics of the geometry, for up to 1,024 clients.
    IfFew,
    /// The metrics of the geometry.
    Geometry,
    /// The metrics of the geometry, and the agreement of the signs of the deltas.
    GeometryAndSigns,
}

/// The most clients whose geometry is measured for the report alone.
const FEW_CLIENTS: usize = 1024;

impl Method {
    /// A rule with the plain strategy and no steps before it.
    pub fn new(rule: Box<dyn Rule>) -> Self {
        Self {
            rule,
            strategy: strategies::plain(),
            pre: Vec::new(),
            byzantine: None,
            seed: 0,
            distances: Distances::Auto,
            allows_unprotected: false,
        }
    }

    /// The statistics that the rule, its steps and the strategy need.
    pub(super) fn needs(&self) -> Needs {
        let steps = if self.pre.is_empty() { Needs::Nothing } else { Needs::Geometry };
        steps.max(self.needs_after_steps())
    }

    /// The statistics of the steps' outputs that the rule and the strategy need.
    fn needs_after_steps(&self) -> Needs {
        self.rule.needs().max(self.strategy.needs())
    }

    /// The step or the rule that compares clients with each other; `None` if none does.
    pub fn comparer(&self) -> Option<String> {
        let step = self.pre.iter().find(|step| step.compares_clients());
        let rule = Some(&self.rule).filter(|rule| rule.compares_clients());
        step.map(ToString::to_string).or_else(|| rule.map(ToString::to_string))
    }

    /// The steps and the rule that use the lengths of deltas. Such lengths mean little if rows are not deltas.
    pub(super) fn users_of_lengths(&self) -> Vec<String> {
        let steps = self.pre.iter().filter(|step| step.uses_lengths()).map(ToString::to_string);
        let rule = self.rule.keeps_centre().then(|| self.rule.to_string());
        steps.chain(rule).collect()
    }

    /// The warning that `--byzantine` is a fraction of `clients` that rounds down to none.
    ///
    /// # Errors
    ///
    /// When the operator does not allow such a run.
    pub(super) fn unprotected(&self, clients: usize) -> Result<Option<Warning>, RuleError> {
        let share = self.byzantine.as_ref();
        let checked =
            share.map_or(Ok(()), |share| rules::check_share(&format!("--byzantine {share}"), share, clients));
        self.allowed(checked)
    }

    /// Turns a missing protection into a warning, if the operator allows it.
    fn allowed(&self, checked: Result<(), RuleError>) -> Result<Option<Warning>, RuleError> {
        match checked {
            Err(why) if self.allows_unprotected => Ok(Some(Warning::unprotected(&why))),
            checked => checked.map(|()| None),
        }
    }

    /// The decision of a rule on updates after the steps. The first warning names a missing protection.
    ///
    /// # Errors
    ///
    /// When the rule cannot decide on them, or would protect against no client.
    pub(super) fn decide(
        &self,
        rule: &dyn Rule,
        on: &PreAggregation,
    ) -> Result<(Decision, Shares), RuleError> {
        let warning = self.allowed(on.check_protects(rule))?;
        let (mut decision, shares) = on.decide(rule)?;
        decision.warnings.splice(0..0, warning);
        Ok((decision, shares))
    }

    /// Checks that the assumed share of hostile clients, and the rule's, is at least one of this many clients.
    ///
    /// # Errors
    ///
    /// When it is a fraction that rounds down to none, and the operator does not allow such a run.
    pub fn check_share(&self, clients: usize) -> Result<(), RuleError> {
        self.unprotected(clients)?;
        self.allowed(rules::check_protects(self.rule.as_ref(), clients)).map(drop)
    }

    /// Checks the rule before the run reads any values.
    ///
    /// # Errors
    ///
    /// When the rule does not work on these clients.
    pub fn check(&self, statistics: &Statistics) -> Result<(), RuleError> {
        self.unprotected(statistics.clients())?;
        match self.pre.is_empty() {
            true => {
                self.allowed(rules::check_protects(self.rule.as_ref(), statistics.clients()))?;
                rules::check(self.rule.as_ref(), statistics)
            }
            // The input of the rule is known only after the steps.
            false => Ok(()),
        }
    }
}

impl Default for Reporting {
    fn default() -> Self {
        Self { shadow: Vec::new(), metrics: MetricsRequest::Nothing, overlap: None }
    }
}

impl Reporting {
    /// The statistics that the method and the shadow rules need.
    pub fn needs(&self, method: &Method) -> Needs {
        self.shadow.iter().map(|rule| rule.needs()).fold(method.needs(), Needs::max)
    }

    /// The statistics of the steps' outputs that the method and the shadow rules need.
    pub(super) fn needs_after_steps(&self, method: &Method) -> Needs {
        self.shadow.iter().map(|rule| rule.needs()).fold(method.needs_after_steps(), Needs::max)
    }

    pub(super) fn wants_metrics(&self, clients: usize) -> bool {
        match self.metrics {
            MetricsRequest::Nothing => false,
            MetricsRequest::IfFew => clients <= FEW_CLIENTS,
            MetricsRequest::Geometry | MetricsRequest::GeometryAndSigns => true,
        }
    }

    /// Whether a run of this many clients measures the geometry before it merges.
    pub fn measures(&self, method: &Method, clients: usize) -> bool {
        self.needs(method) > Needs::Nothing || self.wants_metrics(clients)
    }

    /// The measurement for this many updates.
    pub fn request(
        &self,
        method: &Method,
        updates: usize,
        has_centre: bool,
        precision: Precision,
    ) -> GeometryRequest<'static> {
        GeometryRequest {
            updates,
            distances: method.distances,
            references: References { median: self.needs(method) == Needs::Median, centre: has_centre },
            with_signs: self.metrics == MetricsRequest::GeometryAndSigns,
            precision,
            hostile: None,
            mixing: None,
            unscaled: None,
        }
    }
}
