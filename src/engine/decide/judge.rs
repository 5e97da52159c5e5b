//! Judges updates by their geometry.
//!
//! The judge measures the geometry if a rule or a step needs it. Then it applies the steps, the rule and the shadow
//! rules. All rules see the same numbers.

use crate::engine::decide::method::{Method, Reporting};
use crate::engine::decide::source::{GeometrySource, JudgeError};
use crate::kernels::server_step::ServerStep;
use crate::rules::geometry::Geometry;
use crate::rules::metrics::RoundMetrics;
use crate::rules::mixing::Mixing;
use crate::rules::pre::{self, PreAggregation, Shares, StepRecord};
use crate::rules::{
    Decision, Distances, GeometryRequest, GeometryResult, Needs, Precision, Recipe, Rule, RuleError,
    Statistics, Verdict, Warning, WarningKind,
};
use crate::strategies::{Cohort, StepInput, StrategyError};
use serde::{Deserialize, Serialize};

/// The most products in f64 that settle a close call: a fraction of a second.
const MOST_F64_TERMS: u64 = 1 << 30;

/// The result of the judgement.
#[derive(Debug)]
pub struct Judgement {
    /// How the second pass combines updates; `None` if a mode brings its reducer.
    pub recipe: Option<Recipe>,
    /// One verdict per client, in order of client id.
    pub verdicts: Vec<Verdict>,
    /// Warnings for the operator.
    pub warnings: Vec<Warning>,
    /// How the server steps.
    pub server_step: ServerStep,
    /// What the steps before the rule did.
    pub steps: Vec<StepRecord>,
    /// The decisions of the shadow rules.
    pub shadows: Vec<(String, Result<Decision, RuleError>)>,
    /// Metrics of the whole round; `None` if not measured.
    pub metrics: Option<RoundMetrics>,
    /// The agreement of the signs of the deltas; `None` if not measured.
    pub sign_agreement: Option<f64>,
    /// The mean overlap of the clients' largest values, from 0 to 1; `None` if not measured.
    pub overlap: Option<f64>,
    /// L2 norm of each client's delta; `None` if not measured.
    pub norms: Option<Vec<f64>>,
    /// How the distances were computed; `None` without a measurement.
    pub distances: Option<Distances>,
    /// Whether the measurement found every update finite.
    pub screened: bool,
}

impl Judgement {
    /// The reasons why the merged model has no protection that the operator asked for.
    pub fn unprotected(&self) -> Vec<String> {
        let warnings = self.warnings.iter().filter(|warning| warning.kind == WarningKind::Unprotected);
        warnings.map(ToString::to_string).collect()
    }

    /// The judgement of a mode that keeps every client of `verdicts` and needs no geometry.
    pub fn without_geometry(verdicts: Vec<Verdict>, server_step: ServerStep) -> Self {
        Self {
            recipe: None,
            verdicts,
            warnings: Vec::new(),
            server_step,
            steps: Vec::new(),
            shadows: Vec::new(),
            metrics: None,
            sign_agreement: None,
            overlap: None,
            norms: None,
            distances: None,
            screened: false,
        }
    }
}

/// The facts about the updates before any measurement.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Subject {
    /// The number of clients.
    pub clients: usize,
    /// The number of coordinates of an update.
    pub parameters: usize,
    /// Whether updates are weights without a base.
    pub are_bare_weights: bool,
    /// Whether the state of an earlier run holds a centre.
    pub has_centre: bool,
    /// The number of server steps before this run.
    pub steps: u64,
}

impl Subject {
    /// Whether the products of all updates in f64 are few. The answer is the same on every machine and backend.
    pub fn is_f64_cheap(&self) -> bool {
        let (n, d) = (self.clients as u64, self.parameters as u64);
        n.saturating_mul(n + 1).saturating_mul(d) / 2 <= MOST_F64_TERMS
    }
}

/// Judges one set of updates by the measurements of a source.
///
/// # Errors
///
/// When an update is bad or cannot be measured, or the rule, a step or the strategy cannot be used.
pub fn judge<S: GeometrySource>(
    method: &Method,
    reporting: &Reporting,
    cohort: &Cohort,
    subject: Subject,
    statistics: Statistics,
    source: &mut S,
) -> Result<Judgement, JudgeError<S::Error>> {
    method.check(&statistics)?;
    let mut judge = Judge { method, reporting, cohort, subject, source };
    let judgement = judge.judge(Precision::Usual, statistics.clone())?;
    if !judgement.warnings.iter().any(|warning| warning.kind == WarningKind::CloseCall) {
        return Ok(judgement);
    }
    let (precision, how) = match judge.source.leave_gpu() {
        _ if subject.is_f64_cheap() => (Precision::F64, "in f64"),
        // The CPU measures again, so that both backends decide the same.
        true => (Precision::Usual, "on the CPU"),
        false => return Ok(judgement),
    };
    let mut judgement = judge.judge(precision, statistics)?;
    let note = format!("a decision was closer than the numeric bound: distances were computed again {how}");
    judgement.warnings.insert(0, note.into());
    Ok(judgement)
}

/// A judgement in the making.
struct Judge<'a, S> {
    method: &'a Method,
    reporting: &'a Reporting,
    cohort: &'a Cohort,
    subject: Subject,
    source: &'a mut S,
}

impl<S: GeometrySource> Judge<'_, S> {
    fn judge(
        &mut self,
        precision: Precision,
        mut statistics: Statistics,
    ) -> Result<Judgement, JudgeError<S::Error>> {
        let method = self.method;
        let needs = self.reporting.needs(method);
        let needs_metrics = self.reporting.wants_metrics(statistics.clients());
        let mut sign_agreement = None;
        if needs > Needs::Nothing || needs_metrics {
            let measured = self.measure(precision, [None; 2], statistics.byzantine)?;
            sign_agreement = measured.sign_agreement;
            statistics.geometry = Some(measured.geometry);
        }
        let screened = statistics.geometry.is_some();
        let weights = statistics.weights.clone();
        let no_metrics = self.check_fits(&mut statistics)?;
        let geometry = statistics.geometry.as_ref();
        let metrics = geometry.filter(|_| needs_metrics).map(|g| RoundMetrics::of(g, &weights));
        let norms = geometry.map(|g| (0..g.clients()).map(|i| g.norm(i)).collect());
        let distances = screened.then(|| method.distances.resolved(statistics.clients()));

        let lengths = statistics.geometry.as_ref().map(Geometry::parameters);
        let scale = method.strategy.scale(self.cohort, lengths)?;
        let prepared = self.prepare(statistics, scale.as_deref())?;
        let measured_again = self.measure_again(precision, &prepared, needs)?;
        // Each rule sees the numbers that it would see alone, so a shadow rule changes nothing.
        let decide = |rule: &dyn Rule| match &measured_again {
            Some(again) if rule.needs() == Needs::Median => method.decide(rule, again),
            _ => method.decide(rule, &prepared),
        };
        let (Decision { recipe, verdicts, mut warnings }, shares) = decide(method.rule.as_ref())?;
        let shadow = |rule: &dyn Rule| (rule.to_string(), decide(rule).map(|(decision, _)| decision));
        let shadows = self.reporting.shadow.iter().map(|rule| shadow(rule.as_ref())).collect();
        let unprotected = method.unprotected(self.subject.clients)?.into_iter();
        let about = no_metrics.into_iter().chain(self.lengths_of_weights());
        let about = about.chain(method.strategy.warns(self.cohort)).map(Warning::from);
        let server_step = self.server_step(&prepared, shares)?;
        warnings.splice(0..0, unprotected.chain(about).chain(prepared.warnings));
        Ok(Judgement {
            recipe: Some(recipe),
            verdicts,
            warnings,
            server_step,
            steps: prepared.steps,
            shadows,
            metrics,
            sign_agreement,
            overlap: None,
            norms,
            distances,
            screened,
        })
    }

    /// Takes the steps before the rule, on deltas that the strategy may have scaled.
    fn prepare(
        &self,
        statistics: Statistics,
        scale: Option<&[f64]>,
    ) -> Result<PreAggregation, JudgeError<S::Error>> {
        let mut scaled = pre::scaled(statistics, scale);
        let too_large = scaled.statistics.geometry.as_ref().map_or_else(Vec::new, Geometry::unmeasurable);
        if !too_large.is_empty() {
            if self.method.needs() > Needs::Nothing {
                return Err(JudgeError::TooLarge(too_large));
            }
            scaled.statistics.geometry = None;
        }
        Ok(pre::prepare(&self.method.pre, scaled, self.reporting.needs_after_steps(self.method))?)
    }

    fn server_step(&self, on: &PreAggregation, shares: Shares) -> Result<ServerStep, StrategyError> {
        let rule = self.method.rule.as_ref();
        self.method.strategy.step(&StepInput {
            steps: self.subject.steps,
            coefficients: shares.as_deref(),
            weights: &on.weights_for(rule),
            geometry: on.statistics.geometry.as_ref().map(Geometry::parameters),
            rule: &rule.to_string(),
        })
    }

    fn measure(
        &mut self,
        precision: Precision,
        [mixing, unscaled]: [Option<&Mixing>; 2],
        hostile: Option<usize>,
    ) -> Result<GeometryResult, JudgeError<S::Error>> {
        let Subject { clients, has_centre, .. } = self.subject;
        let updates = mixing.map_or(clients, Mixing::len);
        let request = self.reporting.request(self.method, updates, has_centre, precision);
        let request = GeometryRequest { mixing, unscaled, hostile, ..request };
        self.source.measure(&request).map_err(JudgeError::Source)
    }

    /// Measures mixtures of the updates in one more read, for rules that need their coordinate median. That median does
    /// not follow from the one of the clients' updates. `None` if no rule needs it.
    fn measure_again(
        &mut self,
        precision: Precision,
        prepared: &PreAggregation,
        needs: Needs,
    ) -> Result<Option<PreAggregation>, JudgeError<S::Error>> {
        if needs < Needs::Median || prepared.knows(needs) || prepared.statistics.geometry.is_none() {
            return Ok(None);
        }
        let mixings = [&prepared.mixing, &prepared.unscaled].map(Option::as_ref);
        let measured = self.measure(precision, mixings, prepared.statistics.byzantine)?;
        let mut again = prepared.clone();
        again.statistics.geometry = Some(measured.geometry);
        Ok(Some(again))
    }

    fn lengths_of_weights(&self) -> Option<String> {
        let users = self.method.users_of_lengths();
        (self.subject.are_bare_weights && !users.is_empty()).then(|| {
            format!(
                "{} uses the lengths of deltas, but without --base the run treats whole updates as deltas",
                users.join(", ")
            )
        })
    }

    /// Checks that squares of the values fit f64. If the method needs the geometry, updates that do not fit are an
    /// error. If not, drops the geometry and returns a warning.
    fn check_fits(&self, statistics: &mut Statistics) -> Result<Option<String>, JudgeError<S::Error>> {
        let too_large = statistics.geometry.as_ref().map_or_else(Vec::new, Geometry::unmeasurable);
        if too_large.is_empty() {
            return Ok(None);
        }
        if self.method.needs() > Needs::Nothing {
            return Err(JudgeError::TooLarge(too_large));
        }
        statistics.geometry = None;
        Ok(Some("the report has no metrics: squared values do not fit f64".to_owned()))
    }
}
