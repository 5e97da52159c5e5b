//! Aggregation rules, one file each, named as in its paper: statistics in, recipe out.
//!
//! A rule never sees an update. It is a pure function from [`Statistics`] of the clients to a [`Recipe`] for
//! the second pass, and a [`Verdict`] on each client. To add one: its file, and a line in [`RULES`].
//!
//! [`geometry`] is what rules know of the updates, [`mixing`] what [`pre`]-aggregation makes of them, [`ranking`] and
//! [`eigen`] what several rules need to choose.

pub mod bulyan;
pub mod caf;
pub mod centered_clipping;
pub mod decision;
pub mod distance_trim;
pub mod eigen;
pub mod error;
pub mod geometric_median;
pub mod geometry;
pub mod krum;
pub mod mda;
pub mod meamed;
pub mod mean;
pub mod median;
pub mod metrics;
pub mod mixing;
pub mod monna;
pub mod multi_krum;
pub mod pre;
pub mod ranking;
pub mod recipe;
pub mod smea;
pub mod statistics;
pub mod trimmed_mean;

use crate::settings::share::Share;
use crate::settings::{self, Definition, Parse, SpecError};
use std::fmt;

use decision::mean_of_kept;
pub use decision::{Decision, Verdict, Warning};
pub use error::RuleError;
pub use recipe::{OrderStatistic, Recipe, Reduction};
pub use statistics::{Distances, GeometryRequest, GeometryResult, Needs, Precision, Statistics};

/// An aggregation rule with its settings. Displays as the text that parses to it.
pub trait Rule: fmt::Debug + fmt::Display + Send + Sync {
    /// Whether the clients' weights have a part in it.
    fn uses_weights(&self) -> bool {
        false
    }

    /// What must be measured for it.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Whether it holds clients against each other, value by value or by their distances: then a zero that only says
    /// that a client did not send a value misleads it.
    fn compares_clients(&self) -> bool {
        true
    }

    /// Whose definition it is.
    fn definition(&self) -> Definition {
        Definition::Paper
    }

    /// Whether it starts at a centre that `--state` keeps between rounds.
    fn keeps_centre(&self) -> bool {
        false
    }

    /// Whether it has to be told how many clients are hostile.
    fn uses_byzantine(&self) -> bool {
        false
    }

    /// The fewest clients that it works on.
    fn least_clients(&self) -> usize {
        1
    }

    /// The most hostile clients among `clients`, at least [`least_clients`](Self::least_clients), that cannot move
    /// the result arbitrarily far.
    fn tolerates(&self, clients: usize) -> usize {
        less_than_half(clients)
    }

    /// The decision for at least [`least_clients`](Self::least_clients) clients, no more of them hostile than it
    /// tolerates.
    ///
    /// # Errors
    ///
    /// When the settings make no sense for that many clients.
    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError>;
}

/// Every rule by name.
pub const RULES: [(&str, Parse<Box<dyn Rule>>); 14] = [
    ("mean", mean::Mean::parse),
    ("median", median::Median::parse),
    ("trimmed-mean", trimmed_mean::TrimmedMean::parse),
    ("meamed", meamed::Meamed::parse),
    ("krum", krum::Krum::parse),
    ("multi-krum", multi_krum::MultiKrum::parse),
    ("bulyan", bulyan::Bulyan::parse),
    ("geometric-median", geometric_median::GeometricMedian::parse),
    ("centered-clipping", centered_clipping::CenteredClipping::parse),
    ("mda", mda::Mda::parse),
    ("smea", smea::Smea::parse),
    ("caf", caf::Caf::parse),
    ("monna", monna::Monna::parse),
    ("distance-trim", distance_trim::DistanceTrim::parse),
];

/// Reads a rule as a user writes it: `name` or `name:key=value,key=value`.
///
/// # Errors
///
/// When there is no such rule, or it has no such setting or value.
pub fn parse(text: &str, definition: Definition) -> Result<Box<dyn Rule>, SpecError> {
    // TensorFlow Federated has no rules that differ: what runs is the paper's, and the report says so.
    let definition = if definition == Definition::Tff { Definition::Paper } else { definition };
    settings::parse_as("rule", text, definition, &RULES)
}

/// Applies a rule after checking that it tolerates the hostile clients assumed.
///
/// # Errors
///
/// When it does not, or its settings make no sense for that many clients.
pub fn decide(rule: &dyn Rule, statistics: &Statistics) -> Result<Decision, RuleError> {
    check(rule, statistics)?;
    let mut decision = rule.decide(statistics)?;
    if rule.uses_byzantine() && statistics.byzantine.is_none() {
        decision.warnings.insert(0, unknown_byzantine(rule).into());
    }
    Ok(decision)
}

/// Checks that a rule works on so many clients, so many of them hostile.
///
/// # Errors
///
/// When it does not.
pub fn check(rule: &dyn Rule, statistics: &Statistics) -> Result<(), RuleError> {
    let (clients, least) = (statistics.clients(), rule.least_clients());
    if clients < least {
        return Err(RuleError::TooFewClients { rule: rule.to_string(), clients, least });
    }
    check_tolerates(&rule.to_string(), rule.tolerates(clients), statistics)
}

/// What is said when a rule or step goes by the number of hostile clients, and nobody said it.
fn unknown_byzantine(user: impl fmt::Display) -> String {
    format!("{user} goes by the number of hostile clients, and --byzantine is not given: none are assumed")
}

fn check_tolerates(name: &str, most: usize, statistics: &Statistics) -> Result<(), RuleError> {
    match statistics.byzantine {
        Some(byzantine) if byzantine > most => Err(RuleError::TooManyByzantine {
            rule: name.to_owned(),
            byzantine,
            clients: statistics.clients(),
            most,
        }),
        _ => Ok(()),
    }
}

/// The most that is less than half of `clients`.
fn less_than_half(clients: usize) -> usize {
    clients.saturating_sub(1) / 2
}

/// How many hostile clients are assumed, as a user writes it: a count, or a fraction of the clients.
pub type Byzantine = Share;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::split_list;

    fn parse(text: &str) -> Result<Box<dyn Rule>, SpecError> {
        super::parse(text, Definition::Paper)
    }

    #[test]
    fn a_rule_displays_as_it_parses() {
        for text in
            ["mean", "median", "trimmed-mean", "trimmed-mean:cut=3", "trimmed-mean:cut=0.25", "meamed"]
        {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in [
            "krum",
            "multi-krum",
            "multi-krum:m=3",
            "bulyan",
            "geometric-median:smoothing=0.01,iterations=7",
            "centered-clipping",
            "centered-clipping:tau=2.5,iterations=3",
            "centered-clipping:tau=auto",
            "mda",
            "smea",
            "caf",
            "monna:trusted=client-3",
            "distance-trim:keep=0.75",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn lists_are_split_between_rules_only() {
        let text = "krum,centered-clipping:tau=2,iterations=3,median";
        assert_eq!(split_list(text), ["krum", "centered-clipping:tau=2,iterations=3", "median"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("medain", "found rule `medain`, expected one of mean, median, trimmed-mean, "),
            ("median:cut=1", "median has no setting `cut`; it has none"),
            ("trimmed-mean:cut", "expected key=value"),
            ("trimmed-mean:cut=1,cut=2", "given twice"),
            ("trimmed-mean:cut=x", "found `x`, expected a count"),
            ("trimmed-mean:trim=1", "it has cut"),
            ("monna", "expected monna:trusted=ID"),
            ("centered-clipping:tau=-1", "expected auto or a number above zero"),
            ("geometric-median:smoothing=0", "expected a number above zero"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
