//! A rule's decision: a recipe, a verdict on each client, and warnings for the operator.

use crate::rules::recipe::{Recipe, Reduction};
use std::fmt;

/// What a rule made of one client.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Whether the client has a part in the merged model.
    pub kept: bool,
    /// Its share of the merged model, where the rule gives each client one.
    pub weight: Option<f64>,
    /// What the rule judged it by, where it judges clients.
    pub score: Option<f64>,
    /// Why, for people.
    pub reason: String,
}

/// What a rule decided.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// For the second pass.
    pub recipe: Recipe,
    /// One a client, in order of client id.
    pub verdicts: Vec<Verdict>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// Something the user should know of a decision.
#[derive(Clone, PartialEq, Debug)]
pub struct Warning {
    /// What it is.
    pub text: String,
    /// Whether the decision hung on less than the numbers are known to, so that more exact ones may turn it.
    pub is_close_call: bool,
}

impl Warning {
    pub(super) fn close_call(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_close_call: true }
    }
}

impl<T: Into<String>> From<T> for Warning {
    fn from(text: T) -> Self {
        Self { text: text.into(), is_close_call: false }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The decision to take the plain mean of the clients that are kept. `reasons` are for those that are and those that
/// are not.
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
