//! How updates are judged and combined: what the model depends on, and what only the report depends on.

use crate::rules::geometry::References;
use crate::rules::pre::Step;
use crate::rules::{
    self, Byzantine, Distances, GeometryRequest, Needs, Precision, Rule, RuleError, Statistics,
};
use crate::strategies::{self, Strategy};

/// What the merged model depends on.
#[derive(Debug)]
pub struct Method {
    /// The rule that combines updates.
    pub rule: Box<dyn Rule>,
    /// The server's step on the merged delta.
    pub strategy: Box<dyn Strategy>,
    /// Steps before the rule, in order.
    pub pre: Vec<Box<dyn Step>>,
    /// How many clients are assumed hostile.
    pub byzantine: Option<Byzantine>,
    /// The seed of every shuffle.
    pub seed: u64,
    /// How distances between clients are found.
    pub distances: Distances,
}

/// What only the report depends on.
#[derive(Debug)]
pub struct Reporting {
    /// Rules whose decisions are reported and not followed.
    pub shadow: Vec<Box<dyn Rule>>,
    /// Metrics of the run as a whole.
    pub metrics: MetricsRequest,
}

/// Which metrics of the run as a whole the report holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricsRequest {
    /// None.
    Nothing,
    /// Those that follow from the geometry of the updates, for up to 1,024 clients.
    IfFew,
    /// Those that follow from the geometry of the updates.
    Geometry,
    /// Those, and how far the signs of the deltas agree.
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
        }
    }

    /// What the rule, its steps and the strategy need to know of the updates.
    pub(super) fn needs(&self) -> Needs {
        let steps = if self.pre.is_empty() { Needs::Nothing } else { Needs::Geometry };
        steps.max(self.rule.needs()).max(self.strategy.needs())
    }

    /// The rule or the step before it that compares clients with each other, if one does.
    pub fn comparer(&self) -> Option<String> {
        let step = self.pre.iter().find(|step| step.compares_clients());
        let rule = Some(&self.rule).filter(|rule| rule.compares_clients());
        step.map(ToString::to_string).or_else(|| rule.map(ToString::to_string))
    }

    /// The steps and the rule that depend on the lengths of deltas: they mean little where rows are not deltas.
    pub(super) fn users_of_lengths(&self) -> Vec<String> {
        let steps = self.pre.iter().filter(|step| step.uses_lengths()).map(ToString::to_string);
        let rule = self.rule.keeps_centre().then(|| self.rule.to_string());
        steps.chain(rule).collect()
    }

    /// Checks the rule before anything is read.
    ///
    /// # Errors
    ///
    /// When the rule does not work on these clients.
    pub fn check(&self, statistics: &Statistics) -> Result<(), RuleError> {
        match self.pre.is_empty() {
            true => rules::check(self.rule.as_ref(), statistics),
            // What a step leaves to the rule is known after it.
            false => Ok(()),
        }
    }
}

impl Default for Reporting {
    fn default() -> Self {
        Self { shadow: Vec::new(), metrics: MetricsRequest::Nothing }
    }
}

impl Reporting {
    /// What the method and the shadow rules need to know of the updates.
    pub fn needs(&self, method: &Method) -> Needs {
        self.shadow.iter().map(|rule| rule.needs()).fold(method.needs(), Needs::max)
    }

    pub(super) fn wants_metrics(&self, clients: usize) -> bool {
        match self.metrics {
            MetricsRequest::Nothing => false,
            MetricsRequest::IfFew => clients <= FEW_CLIENTS,
            MetricsRequest::Geometry | MetricsRequest::GeometryAndSigns => true,
        }
    }

    /// Whether the geometry of so many updates is measured before they are merged.
    pub fn measures(&self, method: &Method, clients: usize) -> bool {
        self.needs(method) > Needs::Nothing || self.wants_metrics(clients)
    }

    /// What is measured of so many updates.
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
        }
    }
}
