//! A rule's decision: a recipe, a verdict on each client, and warnings for the operator.

use crate::rules::RuleError;
use crate::rules::recipe::{Recipe, Reduction};
use std::fmt;

/// A rule's verdict on one client.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Whether the client's update has a part in the merged model.
    pub kept: bool,
    /// Its share of the merged model; `None` for a rule that works by coordinate.
    pub weight: Option<f64>,
    /// Its score; `None` for a rule that does not score clients.
    pub score: Option<f64>,
    /// The reason, for people.
    pub reason: String,
}

impl Verdict {
    /// Whether the client's update changes the merged model.
    pub fn has_part(&self) -> bool {
        self.kept && self.weight != Some(0.0)
    }
}

/// A rule's decision.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// The recipe for the second pass.
    pub recipe: Recipe,
    /// One verdict for each client, in order of client id.
    pub verdicts: Vec<Verdict>,
    /// Warnings for the operator.
    pub warnings: Vec<Warning>,
}

/// A warning about a decision, for the operator.
#[derive(Clone, PartialEq, Debug)]
pub struct Warning {
    /// The text.
    pub text: String,
    /// What it means for the run.
    pub kind: WarningKind,
}

/// What a warning means for the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WarningKind {
    /// The operator should know it.
    Note,
    /// The decision depends on a difference below the numeric bound, so that more exact numbers may change it.
    CloseCall,
    /// The merged model has no protection that the operator asked for.
    Unprotected,
}

impl Warning {
    pub(super) fn close_call(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: WarningKind::CloseCall }
    }

    /// The warning that the run goes on without protection, as `--allow-unprotected` says.
    pub fn unprotected(why: &RuleError) -> Self {
        Self { text: format!("no protection: {why}"), kind: WarningKind::Unprotected }
    }
}

impl<T: Into<String>> From<T> for Warning {
    fn from(text: T) -> Self {
        Self { text: text.into(), kind: WarningKind::Note }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The decision to take the plain mean of the clients kept. `reasons` are for those kept and for the others.
pub(super) fn mean_of_kept(kept: &[bool], scores: &[f64], reasons: (&str, &str)) -> Decision {
    let weights: Vec<f64> = kept.iter().map(|kept| f64::from(*kept)).collect();
    let share = 1.0 / weights.iter().sum::<f64>();
    let verdict = |(kept, score): (&bool, &f64)| Verdict {
        kept: *kept,
        weight: Some(if *kept { share } else { 0.0 }),
        score: Some(*score),
        reason: if *kept { reasons.0 } else { reasons.1 }.to_owned(),
    };
    Decision {
        verdicts: kept.iter().zip(scores).map(verdict).collect(),
        recipe: Reduction::WeightedMean { weights }.into(),
        warnings: Vec::new(),
    }
}
