//! Pre-aggregation, one file per step: a step mixes, clips or leaves out updates before the rule.
//!
//! A step is a matrix: each of its output updates is a combination of the deltas of its input updates. So a chain of
//! steps is a product of matrices, and the geometry of its outputs follows from the one that was measured. Every rule
//! can follow. For a rule that works by coordinate, the second pass makes the mixed rows tile by tile.

pub mod arc;
pub mod bucketing;
pub mod clip;
pub mod nnm;
pub mod outliers;

use crate::rules::mixing::Mixing;
use crate::rules::{
    Decision, Needs, Recipe, Reduction, Rule, RuleError, Statistics, Verdict, Warning, check, check_protects,
    check_tolerates, decide, less_than_half, unknown_byzantine,
};
use crate::settings::{self, Definition, RegistryEntry, SpecError};
use std::collections::BTreeMap;
use std::fmt;

/// The output of one step.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The output updates, as combinations of the input updates.
    pub mixing: Mixing,
    /// For each input update, the output update that stands for it; `None` if the step leaves it out.
    pub place: Vec<Option<usize>>,
    /// For each input update, the step's measurements by name.
    pub found: Vec<BTreeMap<&'static str, f64>>,
    /// Warnings for the operator.
    pub warnings: Vec<Warning>,
}

/// A step of pre-aggregation with its settings. Displays as the text that parses to it.
pub trait Step: fmt::Debug + fmt::Display + Send + Sync {
    /// Whether it needs the number of hostile clients.
    fn uses_byzantine(&self) -> bool {
        true
    }

    /// Whether it uses the lengths or directions of deltas, and not only the distances between them.
    fn uses_lengths(&self) -> bool {
        false
    }

    /// Whether it compares clients by their distances, like a rule with [`Rule::compares_clients`].
    fn compares_clients(&self) -> bool {
        true
    }

    /// Whether it bounds by itself how far hostile updates move the mean of its outputs. If not, the rule after it must
    /// tolerate the hostile clients.
    fn bounds(&self) -> bool {
        true
    }

    /// The largest number of hostile clients among `clients` that it tolerates.
    fn tolerates(&self, clients: usize) -> usize {
        less_than_half(clients)
    }

    /// Takes the step on these updates.
    ///
    /// # Errors
    ///
    /// When its settings make no sense for this number of updates.
    fn take(&self, statistics: &Statistics) -> Result<StepOutput, RuleError>;
}

/// Every step.
pub const STEPS: &[RegistryEntry<Box<dyn Step>>] =
    &[nnm::ENTRY, bucketing::ENTRY, clip::ENTRY, arc::ENTRY, outliers::ENTRY];

/// Reads a step as an operator writes it: `name` or `name:key=value,key=value`.
///
/// # Errors
///
/// When there is no such step, or it has no such setting or value.
pub fn parse(text: &str) -> Result<Box<dyn Step>, SpecError> {
    settings::parse_as("step", text, Definition::Paper, STEPS)
}

/// The updates after a chain of steps.
#[derive(Clone, Debug)]
pub struct PreAggregation {
    /// The statistics of the updates, on which the rule decides.
    pub statistics: Statistics,
    /// The updates as combinations of the clients' deltas; `None` without a step.
    pub mixing: Option<Mixing>,
    /// The updates as combinations of the clients' statistics, which no step clips and no strategy scales; `None` if
    /// they are those of the clients.
    pub unscaled: Option<Mixing>,
    /// For each client, the update that stands for it; `None` if a step left it out.
    pub place: Vec<Option<usize>>,
    /// Whether a step bounds how far hostile updates move their mean.
    pub is_bounded: bool,
    /// A record of each step.
    pub steps: Vec<StepRecord>,
    /// Warnings for the operator.
    pub warnings: Vec<Warning>,
}

/// The share that a rule gave each update after the steps; `None` if it works by coordinate.
pub type Shares = Option<Vec<f64>>;

/// The record of one step.
#[derive(Clone, Debug)]
pub struct StepRecord {
    /// The text of the step.
    pub step: String,
    /// The number of its output updates.
    pub updates: usize,
    /// For each client, the step's measurements by name; `None` if an earlier step left the client out.
    pub found: Vec<Option<BTreeMap<&'static str, f64>>>,
    /// The clients that it leaves out.
    pub left_out: Vec<usize>,
}

/// The updates before any step, each delta multiplied by its factor.
pub fn scaled(mut statistics: Statistics, scale: Option<&[f64]>) -> PreAggregation {
    let place = (0..statistics.clients()).map(Some).collect();
    let mixing = scale.map(Mixing::diagonal);
    if let Some(mixing) = &mixing {
        statistics.geometry = statistics.geometry.map(|geometry| geometry.mixed(mixing));
    }
    let (steps, warnings) = (Vec::new(), Vec::new());
    PreAggregation { statistics, mixing, unscaled: None, place, is_bounded: false, steps, warnings }
}

/// Takes steps one after the other. `needs` are the measurements of their outputs that the rule and others need: the
/// geometry of mixtures takes long, and is left out if none does.
///
/// # Errors
///
/// When a step does not tolerate the hostile clients assumed, or its settings make no sense.
pub fn prepare(
    steps: &[Box<dyn Step>],
    mut updates: PreAggregation,
    needs: Needs,
) -> Result<PreAggregation, RuleError> {
    let clients = updates.place.len();
    for (number, step) in (1..).zip(steps) {
        let taken = updates.take(step.as_ref(), number < steps.len() || needs > Needs::Nothing);
        taken.map_err(|why| updates.explain(why, clients))?;
    }
    Ok(updates)
}

impl PreAggregation {
    /// Takes one more step, and keeps the geometry if it is needed.
    fn take(&mut self, step: &dyn Step, keeps_geometry: bool) -> Result<(), RuleError> {
        let statistics = &self.statistics;
        check_tolerates(&step.to_string(), step.tolerates(statistics.clients()), statistics)?;
        if step.uses_byzantine() && statistics.byzantine.is_none() {
            self.warnings.push(unknown_byzantine(step).into());
        }
        let output = step.take(statistics)?;
        let left_out =
            |client: &usize| self.place[*client].is_some_and(|place| output.place[place].is_none());
        self.steps.push(StepRecord {
            step: step.to_string(),
            updates: output.mixing.len(),
            left_out: (0..self.place.len()).filter(left_out).collect(),
            found: self.place.iter().map(|place| place.map(|place| output.found[place].clone())).collect(),
        });
        let geometry = self.statistics.geometry.take().filter(|_| keeps_geometry);
        let geometry = geometry.map(|geometry| geometry.mixed(&output.mixing));
        self.statistics = Statistics { geometry, ..mixed_statistics(&self.statistics, &output) };
        self.is_bounded |= step.bounds();
        let unscaled = output.mixing.unscaled();
        if !unscaled.is_identity() {
            self.unscaled = Some(match &self.unscaled {
                Some(before) => unscaled.after(before),
                None => unscaled,
            });
        }
        self.mixing = Some(match &self.mixing {
            Some(before) => output.mixing.after(before),
            None => output.mixing,
        });
        self.place = self.place.iter().map(|place| place.and_then(|place| output.place[place])).collect();
        self.warnings.extend(output.warnings);
        Ok(())
    }

    /// Checks that the share of the updates against which a rule protects is at least one.
    ///
    /// # Errors
    ///
    /// When it is a fraction that rounds down to none.
    pub fn check_protects(&self, rule: &dyn Rule) -> Result<(), RuleError> {
        let checked = check_protects(rule, self.statistics.clients());
        checked.map_err(|why| self.explain(why, self.place.len()))
    }

    /// Checks that a rule works on the number of updates and tolerates the hostile clients assumed.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn check(&self, rule: &dyn Rule) -> Result<(), RuleError> {
        let byzantine = if self.relies_on_steps(rule) { Some(0) } else { self.statistics.byzantine };
        let statistics = Statistics { byzantine, geometry: None, ..self.statistics.clone() };
        check(rule, &statistics).map_err(|why| self.explain(why, self.place.len()))
    }

    /// Whether the steps, and not the rule, bound hostile clients.
    fn relies_on_steps(&self, rule: &dyn Rule) -> bool {
        self.is_bounded
            && self.statistics.hostile() > 0
            && !rule.uses_byzantine()
            && rule.tolerates(self.statistics.clients()) == 0
    }

    /// The decision of a rule on the updates, with a verdict on each client, and the share that the rule gave each
    /// update.
    ///
    /// # Errors
    ///
    /// When the rule cannot decide on them.
    pub fn decide(&self, rule: &dyn Rule) -> Result<(Decision, Shares), RuleError> {
        let clients = self.place.len();
        let Some(mixing) = &self.mixing else {
            let decision = decide(rule, &self.statistics)?;
            let shares = decision.recipe.coefficients();
            let recipe = decision.recipe.clone().with_statistics(decision.recipe);
            return Ok((Decision { recipe, ..decision }, shares));
        };
        let decision = self.decide_on_mixed(rule).map_err(|why| self.explain(why, clients))?;
        let given = decision.recipe.coefficients();
        let statistics = match &self.unscaled {
            Some(unscaled) => compose(decision.recipe.clone(), unscaled),
            None => decision.recipe.clone(),
        };
        let recipe = compose(decision.recipe, mixing).with_statistics(statistics);
        let shares = ClientShares::of(&recipe, clients);
        let verdict = |client: usize| self.verdict(client, &decision.verdicts, &shares);
        let verdicts = (0..clients).map(verdict).collect();
        Ok((Decision { recipe, verdicts, warnings: decision.warnings }, given))
    }

    /// The weight of each update before a rule; equal for a rule that does not weigh.
    pub fn weights_for(&self, rule: &dyn Rule) -> Vec<f64> {
        match rule.uses_weights() {
            true => self.statistics.weights.clone(),
            false => vec![1.0; self.statistics.clients()],
        }
    }

    /// The decision of a rule on the updates, with a verdict on each update. A rule that tolerates no hostile client, such
    /// as the mean, may follow a step that bounds them: then it decides as if there were none, and warns.
    fn decide_on_mixed(&self, rule: &dyn Rule) -> Result<Decision, RuleError> {
        if !self.relies_on_steps(rule) {
            return decide(rule, &self.statistics);
        }
        let mut decision = decide(rule, &Statistics { byzantine: Some(0), ..self.statistics.clone() })?;
        decision
            .warnings
            .push(format!("{rule} itself tolerates no hostile client: it relies on the steps before").into());
        Ok(decision)
    }

    /// Whether the measurements that a rule needs exist for the updates.
    pub fn knows(&self, needs: Needs) -> bool {
        let geometry = self.statistics.geometry.as_ref();
        match needs {
            Needs::Nothing => true,
            Needs::Geometry => geometry.is_some(),
            Needs::Median => geometry.is_some_and(|geometry| geometry.median().is_some()),
        }
    }

    /// The verdict on a client, from the verdicts on the updates.
    fn verdict(&self, client: usize, verdicts: &[Verdict], shares: &ClientShares) -> Verdict {
        let (kept, weight) =
            (shares.has_part[client], shares.weights.as_ref().map(|weights| weights[client]));
        let Some(own) = self.place[client].map(|place| &verdicts[place]) else {
            let by = self.steps.iter().find(|step| step.left_out.contains(&client));
            let reason = by.map_or_else(String::new, |by| format!("{} left it out", by.step));
            return Verdict { kept, weight, score: None, reason };
        };
        let reason = match (own.kept, kept) {
            (false, true) => format!("{}; others that it is mixed into are kept", own.reason),
            (true, false) => format!("{}, but as a mixture without it", own.reason),
            _ => own.reason.clone(),
        };
        Verdict { kept, weight, score: own.score, reason }
    }

    /// Adds to an error that the steps changed the number of updates, if they did.
    fn explain(&self, why: RuleError, clients: usize) -> RuleError {
        let rows = self.statistics.clients();
        if rows == clients {
            return why;
        }
        let steps = self.steps.iter().map(|step| step.step.clone()).collect::<Vec<_>>().join(" --pre ");
        RuleError::AfterPre { steps, rows, clients, source: Box::new(why) }
    }
}

/// The statistics of the output updates of a step, without their geometry.
fn mixed_statistics(statistics: &Statistics, output: &StepOutput) -> Statistics {
    let rows = output.mixing.len();
    let mut ids: Vec<Vec<&str>> = vec![Vec::new(); rows];
    let mut weights = vec![0.0; rows];
    for (i, place) in output.place.iter().enumerate() {
        if let Some(place) = place {
            ids[*place].push(&statistics.ids[i]);
            weights[*place] += statistics.weights[i];
        }
    }
    Statistics {
        ids: ids.into_iter().map(|ids| ids.join("+")).collect(),
        weights,
        byzantine: statistics.byzantine,
        seed: statistics.seed,
        geometry: None,
    }
}

/// A recipe over mixed updates as a recipe over the clients.
fn compose(recipe: Recipe, mixing: &Mixing) -> Recipe {
    let mixing = recipe.mixing.map_or_else(|| mixing.clone(), |second| second.after(mixing));
    match recipe.reduction {
        Reduction::WeightedMean { weights } => linear(&mixing, &weights),
        Reduction::WeightedSum { coefficients, centre } => {
            Reduction::WeightedSum { coefficients: mixing.combine(&coefficients), centre }.into()
        }
        reduction => Recipe { mixing: Some(mixing), reduction, statistics: None },
    }
}

/// The weighted mean of mixed updates, as a recipe over the clients: a mean if the coefficients of every row add up to
/// one, else a sum.
fn linear(mixing: &Mixing, weights: &[f64]) -> Recipe {
    let total: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    let is_mean = |row: usize| (mixing.sum(row) - 1.0).abs() < 1e-14;
    if (0..mixing.len()).all(is_mean) {
        return Reduction::WeightedMean { weights: mixing.combine(weights) }.into();
    }
    Reduction::WeightedSum { coefficients: mixing.combine(&shares), centre: 0.0 }.into()
}

/// The clients' shares of the merged model.
struct ClientShares {
    has_part: Vec<bool>,
    /// The share of each client; `None` if the recipe works by coordinate.
    weights: Option<Vec<f64>>,
}

impl ClientShares {
    fn of(recipe: &Recipe, clients: usize) -> Self {
        let weights = match &recipe.reduction {
            Reduction::WeightedMean { weights } => {
                let total: f64 = weights.iter().sum();
                Some(weights.iter().map(|weight| weight / total).collect())
            }
            Reduction::WeightedSum { coefficients, .. } => Some(coefficients.clone()),
            _ => None,
        };
        let in_rows = recipe.mixing.as_ref().map(Mixing::has_part);
        let in_a_row = |client: usize| in_rows.as_ref().is_none_or(|has_part| has_part[client]);
        let has_part = |client: usize| {
            weights.as_ref().map_or_else(|| in_a_row(client), |w: &Vec<f64>| w[client] != 0.0)
        };
        Self { has_part: (0..clients).map(has_part).collect(), weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::check_registry;

    #[test]
    fn a_step_displays_as_it_parses() {
        check_registry(STEPS, parse);
    }
}
