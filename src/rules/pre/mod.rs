//! Pre-aggregation, one file a step: before a rule sees them, updates are mixed, clipped or left out.
//!
//! A step is a matrix: each update that it makes is a combination of the deltas it was given. So steps follow each
//! other by multiplying matrices, their geometry follows from the one that was measured, and every rule can come
//! after them; a rule that works by coordinate makes the mixed rows tile by tile.

pub mod arc;
pub mod bucketing;
pub mod clip;
pub mod nnm;
pub mod outliers;

use crate::rules::mixing::Mixing;
use crate::rules::{
    Decision, Needs, Recipe, Reduction, Rule, RuleError, Statistics, Verdict, Warning, check_tolerates,
    decide, less_than_half, unknown_byzantine,
};
use crate::settings::{self, Parse, SpecError};
use std::collections::BTreeMap;
use std::fmt;

/// What a step makes of the updates it is given.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// The updates it makes of them.
    pub mixing: Mixing,
    /// For each update given, that which stands for it now; none if it was left out.
    pub place: Vec<Option<usize>>,
    /// For each update given, what the step found, by name.
    pub found: Vec<BTreeMap<&'static str, f64>>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// A step of pre-aggregation with its settings. Displays as the text that parses to it.
pub trait Step: fmt::Debug + fmt::Display + Send + Sync {
    /// Whether it has to be told how many clients are hostile.
    fn uses_byzantine(&self) -> bool {
        true
    }

    /// Whether it goes by the lengths or directions of deltas, and not only by the distances between them.
    fn uses_lengths(&self) -> bool {
        false
    }

    /// Whether it goes by the distances between clients, as rules may ([`Rule::compares_clients`]).
    fn compares_clients(&self) -> bool {
        true
    }

    /// The most hostile clients among so many that it can bear.
    fn tolerates(&self, clients: usize) -> usize {
        less_than_half(clients)
    }

    /// What it makes of these updates.
    ///
    /// # Errors
    ///
    /// When its settings make no sense for so many.
    fn take(&self, statistics: &Statistics) -> Result<Stepped, RuleError>;
}

/// Every step by name.
pub const STEPS: [(&str, Parse<Box<dyn Step>>); 5] = [
    ("nnm", nnm::NearestNeighbourMixing::parse),
    ("bucketing", bucketing::Bucketing::parse),
    ("clip", clip::Clip::parse),
    ("arc", arc::Arc::parse),
    ("outliers", outliers::Outliers::parse),
];

/// Reads a step as a user writes it: `name` or `name:key=value,key=value`.
///
/// # Errors
///
/// When there is no such step, or it has no such setting or value.
pub fn parse(text: &str) -> Result<Box<dyn Step>, SpecError> {
    settings::parse("step", text, &STEPS)
}

/// Updates after some steps.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What a rule may know of them.
    pub statistics: Statistics,
    /// What they are made of; none if there was no step.
    pub mixing: Option<Mixing>,
    /// For each client, the update that stands for it now; none if it was left out.
    pub place: Vec<Option<usize>>,
    /// What each step did.
    pub steps: Vec<StepTaken>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct StepTaken {
    /// The step.
    pub step: String,
    /// How many updates it left.
    pub updates: usize,
    /// For each client, what the step found, by name; none for those that were left out before.
    pub found: Vec<Option<BTreeMap<&'static str, f64>>>,
    /// The clients that it left out.
    pub left_out: Vec<usize>,
}

/// Takes steps one after the other, on deltas each multiplied by its `scale`, if there is one.
///
/// # Errors
///
/// When one of them cannot bear that many hostile clients, or its settings make no sense.
pub fn prepare(
    steps: &[Box<dyn Step>],
    mut statistics: Statistics,
    scale: Option<&[f64]>,
) -> Result<Prepared, RuleError> {
    let clients = statistics.clients();
    let place = (0..clients).map(Some).collect();
    let mixing = scale.map(Mixing::diagonal);
    if let Some(mixing) = &mixing {
        statistics.geometry = statistics.geometry.map(|geometry| geometry.mixed(mixing));
    }
    let mut prepared = Prepared { statistics, mixing, place, steps: Vec::new(), warnings: Vec::new() };
    for step in steps {
        let taken = prepared.take(step.as_ref());
        taken.map_err(|why| prepared.explained(why, clients))?;
    }
    Ok(prepared)
}

impl Prepared {
    fn take(&mut self, step: &dyn Step) -> Result<(), RuleError> {
        let statistics = &self.statistics;
        check_tolerates(&step.to_string(), step.tolerates(statistics.clients()), statistics)?;
        if step.uses_byzantine() && statistics.byzantine.is_none() {
            self.warnings.push(unknown_byzantine(step).into());
        }
        let stepped = step.take(statistics)?;
        let left_out =
            |client: &usize| self.place[*client].is_some_and(|place| stepped.place[place].is_none());
        self.steps.push(StepTaken {
            step: step.to_string(),
            updates: stepped.mixing.len(),
            left_out: (0..self.place.len()).filter(left_out).collect(),
            found: self.place.iter().map(|place| place.map(|place| stepped.found[place].clone())).collect(),
        });
        self.statistics = mixed_statistics(statistics, &stepped)?;
        self.mixing = Some(match &self.mixing {
            Some(before) => stepped.mixing.after(before),
            None => stepped.mixing,
        });
        self.place = self.place.iter().map(|place| place.and_then(|place| stepped.place[place])).collect();
        self.warnings.extend(stepped.warnings);
        Ok(())
    }

    /// The decision of a rule on what the steps left, told client by client.
    ///
    /// # Errors
    ///
    /// When the rule cannot be used on them.
    pub fn decide(&self, rule: &dyn Rule) -> Result<Decision, RuleError> {
        let clients = self.place.len();
        let Some(mixing) = &self.mixing else { return decide(rule, &self.statistics) };
        let decision = self.decide_on_mixed(rule).map_err(|why| self.explained(why, clients))?;
        let recipe = composed(decision.recipe, mixing);
        let parts = parts(&recipe, clients);
        let verdict = |client: usize| self.verdict(client, &decision.verdicts, &parts);
        let verdicts = (0..clients).map(verdict).collect();
        Ok(Decision { recipe, verdicts, warnings: decision.warnings })
    }

    /// A rule that tolerates nobody by itself, as the mean, is what steps against hostile clients are often followed
    /// by: it is for them to tolerate those.
    fn decide_on_mixed(&self, rule: &dyn Rule) -> Result<Decision, RuleError> {
        let relies_on_steps = self.statistics.hostile() > 0
            && !rule.uses_byzantine()
            && rule.tolerates(self.statistics.clients()) == 0;
        if !relies_on_steps {
            return decide(rule, &self.statistics);
        }
        let mut decision = decide(rule, &Statistics { byzantine: None, ..self.statistics.clone() })?;
        decision
            .warnings
            .push(format!("{rule} itself tolerates no hostile client: it relies on the steps before").into());
        Ok(decision)
    }

    /// Whether a rule's needs are known of the updates as they are now.
    pub fn knows(&self, needs: Needs) -> bool {
        let geometry = self.statistics.geometry.as_ref();
        match needs {
            Needs::Nothing => true,
            Needs::Geometry => geometry.is_some(),
            Needs::Median => geometry.is_some_and(|geometry| geometry.median().is_some()),
        }
    }

    fn verdict(&self, client: usize, verdicts: &[Verdict], parts: &Parts) -> Verdict {
        let (kept, weight) = (parts.has_part[client], parts.weights.as_ref().map(|weights| weights[client]));
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

    /// An error about updates that are not as many as the clients any more says so.
    fn explained(&self, why: RuleError, clients: usize) -> RuleError {
        let rows = self.statistics.clients();
        if rows == clients {
            return why;
        }
        let steps = self.steps.iter().map(|step| step.step.clone()).collect::<Vec<_>>().join(" --pre ");
        RuleError::AfterPre { steps, rows, clients, source: Box::new(why) }
    }
}

/// What is known of the updates that a step makes.
fn mixed_statistics(statistics: &Statistics, stepped: &Stepped) -> Result<Statistics, RuleError> {
    let rows = stepped.mixing.len();
    let mut ids: Vec<Vec<&str>> = vec![Vec::new(); rows];
    let mut weights = vec![0.0; rows];
    for (i, place) in stepped.place.iter().enumerate() {
        if let Some(place) = place {
            ids[*place].push(&statistics.ids[i]);
            weights[*place] += statistics.weights[i];
        }
    }
    Ok(Statistics {
        ids: ids.into_iter().map(|ids| ids.join("+")).collect(),
        weights,
        byzantine: statistics.byzantine,
        seed: statistics.seed,
        geometry: Some(statistics.geometry()?.mixed(&stepped.mixing)),
    })
}

/// A recipe over mixed updates as one over the clients.
fn composed(recipe: Recipe, mixing: &Mixing) -> Recipe {
    let mixing = recipe.mixing.map_or_else(|| mixing.clone(), |second| second.after(mixing));
    match recipe.reduction {
        Reduction::WeightedMean { weights } => linear(&mixing, &weights),
        Reduction::WeightedSum { coefficients, centre } => {
            Reduction::WeightedSum { coefficients: mixing.combine(&coefficients), centre }.into()
        }
        reduction => Recipe { mixing: Some(mixing), reduction },
    }
}

/// The weighted mean of mixed updates, as a mean of the clients' if all parts of the mixtures add up to one.
fn linear(mixing: &Mixing, weights: &[f64]) -> Recipe {
    let total: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    let is_mean = |row: usize| (mixing.row(row).iter().sum::<f64>() - 1.0).abs() < 1e-14;
    if (0..mixing.len()).all(is_mean) {
        return Reduction::WeightedMean { weights: mixing.combine(weights) }.into();
    }
    Reduction::WeightedSum { coefficients: mixing.combine(&shares), centre: 0.0 }.into()
}

/// Who has a part in the merged model.
struct Parts {
    has_part: Vec<bool>,
    /// Where the recipe gives each client one: its share.
    weights: Option<Vec<f64>>,
}

fn parts(recipe: &Recipe, clients: usize) -> Parts {
    let weights = match &recipe.reduction {
        Reduction::WeightedMean { weights } => {
            let total: f64 = weights.iter().sum();
            Some(weights.iter().map(|weight| weight / total).collect())
        }
        Reduction::WeightedSum { coefficients, .. } => Some(coefficients.clone()),
        _ => None,
    };
    let in_a_row = |client: usize| match &recipe.mixing {
        Some(mixing) => (0..mixing.len()).any(|row| mixing.row(row)[client] != 0.0),
        None => true,
    };
    let has_part =
        |client: usize| weights.as_ref().map_or_else(|| in_a_row(client), |w: &Vec<f64>| w[client] != 0.0);
    Parts { has_part: (0..clients).map(has_part).collect(), weights }
}
