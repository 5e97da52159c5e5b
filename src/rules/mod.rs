//! Aggregation rules, one file each, named as in its paper: statistics in, recipe out.
//!
//! A rule never sees an update. It is a pure function from [`Statistics`] of the clients to a [`Recipe`] for
//! the second pass, and a [`Verdict`] on each client. A new rule is a file, a line in [`RULES`], and its oracle in the
//! tests.
//!
//! [`geometry`] holds the distances of the updates, [`mixing`] the combinations that [`pre`]-aggregation makes of them.
//! [`recipe`] and [`decision`] are the output of a rule, [`statistics`] its input. [`ranking`] and [`numeric`] serve
//! several rules, `succession` follows Krum's scores as clients leave. [`metrics`] describe a round as a whole,
//! [`clusters`] its groups of clients. [`error`] says why a rule cannot decide.

pub mod bulyan;
pub mod caf;
pub mod centered_clipping;
pub mod clusters;
pub mod decision;
pub mod distance_trim;
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
pub mod numeric;
pub mod pre;
pub mod ranking;
pub mod recipe;
pub mod smea;
pub mod statistics;
mod succession;
pub mod trimmed_mean;

use crate::settings::share::Share;
use crate::settings::{self, Definition, RegistryEntry, SpecError};
use std::fmt;

use decision::mean_of_kept;
pub use decision::{Decision, Verdict, Warning, WarningKind};
pub use error::RuleError;
pub use recipe::{OrderStatistic, Recipe, Reduction};
pub use statistics::{Distances, GeometryRequest, GeometryResult, Needs, Precision, Statistics};

/// An aggregation rule with its settings. Displays as the text that parses to it.
pub trait Rule: fmt::Debug + fmt::Display + Send + Sync {
    /// Whether its result depends on the clients' weights.
    fn uses_weights(&self) -> bool {
        false
    }

    /// The measurements that it needs.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Whether it compares clients, value by value or by their distances. Such a rule is misled by a zero that only
    /// means that a client did not send the value.
    fn compares_clients(&self) -> bool {
        true
    }

    /// The definition that it follows.
    fn definition(&self) -> Definition {
        Definition::Paper
    }

    /// Whether it starts at a centre that `--state` keeps between rounds.
    fn keeps_centre(&self) -> bool {
        false
    }

    /// Whether it needs the number of hostile clients.
    fn uses_byzantine(&self) -> bool {
        false
    }

    /// The client that must be among those merged, if a setting names one.
    fn trusted(&self) -> Option<&str> {
        None
    }

    /// The fewest clients that it needs.
    fn least_clients(&self) -> usize {
        1
    }

    /// The largest number of hostile clients that cannot move the result arbitrarily far. `clients`, the number of all
    /// clients, is at least [`least_clients`](Self::least_clients).
    fn tolerates(&self, clients: usize) -> usize {
        less_than_half(clients)
    }

    /// The share of the clients against which it protects, if a setting says it.
    fn share(&self) -> Option<&Share> {
        None
    }

    /// Decides. There are at least [`least_clients`](Self::least_clients) clients, and no more hostile clients than it
    /// tolerates.
    ///
    /// # Errors
    ///
    /// When the settings make no sense for this number of clients.
    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError>;
}

/// Every rule.
pub const RULES: &[RegistryEntry<Box<dyn Rule>>] = &[
    mean::ENTRY,
    median::ENTRY,
    trimmed_mean::ENTRY,
    meamed::ENTRY,
    krum::ENTRY,
    multi_krum::ENTRY,
    bulyan::ENTRY,
    geometric_median::ENTRY,
    centered_clipping::ENTRY,
    mda::ENTRY,
    smea::ENTRY,
    caf::ENTRY,
    monna::ENTRY,
    distance_trim::ENTRY,
];

/// Reads a rule as an operator writes it: `name` or `name:key=value,key=value`.
///
/// # Errors
///
/// When there is no such rule, or it has no such setting or value.
pub fn parse(text: &str, definition: Definition) -> Result<Box<dyn Rule>, SpecError> {
    // TensorFlow Federated defines no rule: the paper's definition runs, and the report says so.
    let definition = if definition == Definition::Tff { Definition::Paper } else { definition };
    settings::parse_as("rule", text, definition, RULES)
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

/// Checks that a rule works on this number of clients and tolerates the hostile clients assumed.
///
/// # Errors
///
/// When it does not.
pub fn check(rule: &dyn Rule, statistics: &Statistics) -> Result<(), RuleError> {
    let clients = statistics.clients();
    if clients < rule.least_clients() {
        let least = least_against(rule, statistics.hostile());
        return Err(RuleError::TooFewClients { rule: rule.to_string(), clients, least });
    }
    check_tolerates(&rule.to_string(), rule.tolerates(clients), statistics)
}

/// The fewest clients among which a rule tolerates this many hostile ones; or the fewest that it works on, if it never
/// tolerates as many.
fn least_against(rule: &dyn Rule, hostile: usize) -> usize {
    let least = rule.least_clients();
    let most = 4 * hostile + least;
    (least..=most).find(|clients| rule.tolerates(*clients) >= hostile).unwrap_or(least)
}

/// Checks that the share of the clients against which a rule protects is at least one client.
///
/// # Errors
///
/// When it is a fraction that rounds down to none.
pub fn check_protects(rule: &dyn Rule, clients: usize) -> Result<(), RuleError> {
    rule.share().map_or(Ok(()), |share| check_share(&rule.to_string(), share, clients))
}

/// Checks that a share of the clients is at least one client, or a count. `what` names the option.
///
/// # Errors
///
/// When it is a fraction that rounds down to none.
pub fn check_share(what: &str, share: &Share, clients: usize) -> Result<(), RuleError> {
    match share.needs_more_than(clients) {
        Some(least) => Err(RuleError::Unprotected { what: what.to_owned(), clients, least }),
        None => Ok(()),
    }
}

/// The warning for a rule or step that needs `--byzantine` when the option is missing.
fn unknown_byzantine(user: impl fmt::Display) -> String {
    format!("{user} needs the number of hostile clients, and --byzantine is not given: none are assumed")
}

/// Checks that a rule or step tolerates the hostile clients assumed, if it tolerates `most`.
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

/// The largest number below half of `clients`.
fn less_than_half(clients: usize) -> usize {
    clients.saturating_sub(1) / 2
}

/// The number of hostile clients assumed, as an operator writes it: a count, or a fraction of the clients.
pub type Byzantine = Share;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::split_list;
    use crate::settings::tests::check_registry;

    fn parse(text: &str) -> Result<Box<dyn Rule>, SpecError> {
        super::parse(text, Definition::Paper)
    }

    #[test]
    fn a_rule_displays_as_it_parses() {
        check_registry(RULES, parse);
        for text in ["trimmed-mean:cut=3", "trimmed-mean:cut=0.25", "centered-clipping:tau=2.5,iterations=3"]
        {
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
