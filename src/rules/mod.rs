//! Aggregation rules, one file each, named as in its paper: statistics in, recipe out.
//!
//! A rule never sees an update. It is a pure function from [`Statistics`] of the clients to a [`Recipe`] for
//! the second pass, and a [`Verdict`] on each client. To add one: its file, and a line in [`RULES`].

pub mod mean;
pub mod median;
pub mod share;
pub mod spec;
pub mod trimmed_mean;

use share::Share;
use spec::{Settings, SpecError};
use std::fmt;

/// What a rule may know about the clients, in order of client id.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// The weight of each client as the run was told: examples, one each, or from a file.
    pub weights: Vec<f64>,
    /// How many clients are assumed hostile, if the run says.
    pub byzantine: Option<usize>,
}

impl Statistics {
    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.weights.len()
    }
}

/// How the second pass combines the clients' rows into one.
#[derive(Clone, PartialEq, Debug)]
pub enum Recipe {
    /// `sum_i weights[i] * row_i / divisor`, with the sum of the weights for divisor.
    WeightedMean {
        /// One weight a client.
        weights: Vec<f64>,
    },
    /// The median of each coordinate, the midpoint of the middle two for an even number.
    Median,
    /// The mean of each coordinate without its `cut` smallest and `cut` largest values.
    TrimmedMean {
        /// Values left out on each side.
        cut: usize,
    },
}

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
    pub warnings: Vec<String>,
}

/// Why a rule cannot be used on these clients.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum RuleError {
    #[error("{rule} tolerates at most {most} hostile of {clients} clients, but --byzantine says {byzantine}")]
    TooManyByzantine { rule: String, byzantine: usize, clients: usize, most: usize },
    #[error(
        "{rule} cuts {cut} values on each side of {clients}, which leaves none; the most it can cut is {most}"
    )]
    NothingLeft { rule: String, cut: usize, clients: usize, most: usize },
}

/// An aggregation rule with its settings. Displays as the text that parses to it.
pub trait Rule: fmt::Debug + fmt::Display + Send + Sync {
    /// Whether the clients' weights have a part in it.
    fn uses_weights(&self) -> bool {
        false
    }

    /// The most hostile clients among `clients` that cannot move the result arbitrarily far.
    fn tolerates(&self, clients: usize) -> usize;

    /// The decision for at least one client.
    ///
    /// # Errors
    ///
    /// When the settings make no sense for that many clients.
    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError>;
}

/// Makes a rule of its settings.
type Parse = fn(&mut Settings) -> Result<Box<dyn Rule>, SpecError>;

/// Every rule by name.
pub const RULES: [(&str, Parse); 3] = [
    ("mean", mean::Mean::parse),
    ("median", median::Median::parse),
    ("trimmed-mean", trimmed_mean::TrimmedMean::parse),
];

/// Reads a rule as a user writes it: `name` or `name:key=value,key=value`.
///
/// # Errors
///
/// When there is no such rule, or it has no such setting or value.
pub fn parse(text: &str) -> Result<Box<dyn Rule>, SpecError> {
    let mut settings = Settings::parse(text)?;
    let (_, parse) = RULES.iter().find(|(name, _)| *name == settings.name()).ok_or_else(|| {
        let known = RULES.map(|(name, _)| name).join(", ");
        SpecError::UnknownRule { found: settings.name().to_owned(), known }
    })?;
    let rule = parse(&mut settings)?;
    settings.finish()?;
    Ok(rule)
}

/// Applies a rule after checking that it tolerates the hostile clients assumed.
///
/// # Errors
///
/// When it does not, or its settings make no sense for that many clients.
pub fn decide(rule: &dyn Rule, statistics: &Statistics) -> Result<Decision, RuleError> {
    let clients = statistics.clients();
    let decision = rule.decide(statistics)?;
    let most = rule.tolerates(clients);
    match statistics.byzantine {
        Some(byzantine) if byzantine > most => {
            Err(RuleError::TooManyByzantine { rule: rule.to_string(), byzantine, clients, most })
        }
        _ => Ok(decision),
    }
}

/// How many hostile clients are assumed, as a user writes it: a count, or a fraction of the clients.
pub type Byzantine = Share;
