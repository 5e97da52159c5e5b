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
pub mod distance_trim;
pub mod eigen;
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
pub mod share;
pub mod smea;
pub mod spec;
pub mod trimmed_mean;

use geometry::Geometry;
use mixing::Mixing;
use serde::{Deserialize, Serialize};
use share::Share;
use spec::{Parse, SpecError};
use std::fmt;

/// What a rule may know about the clients, in order of client id.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// The id of each client.
    pub ids: Vec<String>,
    /// The weight of each client as the run was told: examples, one each, or from a file.
    pub weights: Vec<f64>,
    /// How many clients are assumed hostile, if the run says.
    pub byzantine: Option<usize>,
    /// What shuffles them, where something does.
    pub seed: u64,
    /// Their distances, if they were measured.
    pub geometry: Option<Geometry>,
}

impl Statistics {
    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.weights.len()
    }

    /// How many clients are assumed hostile; none if the run does not say.
    pub fn hostile(&self) -> usize {
        self.byzantine.unwrap_or(0)
    }

    /// The geometry, for those that said they need it.
    ///
    /// # Errors
    ///
    /// When it was not measured.
    pub fn geometry(&self) -> Result<&Geometry, RuleError> {
        self.geometry.as_ref().ok_or(RuleError::NotMeasured { what: "the distances of the updates" })
    }
}

/// What a rule must know of the updates, least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Needs {
    /// Nothing: it works by coordinate.
    Nothing,
    /// Their geometry.
    Geometry,
    /// Their geometry and their coordinate median.
    Median,
}

/// Whose definition of a rule runs, where definitions differ.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Definition {
    /// That of its paper.
    #[default]
    Paper,
    /// That of the library ByzFL.
    Byzfl,
    /// That of Flower.
    Flower,
    /// That of TensorFlow Federated, whose server optimisers are its own; it has none of the rules.
    Tff,
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paper => "paper",
            Self::Byzfl => "byzfl",
            Self::Flower => "flower",
            Self::Tff => "tff",
        })
    }
}

/// How the second pass combines the clients' rows into one.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Recipe {
    /// The rows that are reduced, as combinations of the clients'; none for the clients' own.
    pub mixing: Option<Mixing>,
    /// What is made of them.
    pub reduction: Reduction,
}

impl From<OrderStatistic> for Recipe {
    fn from(statistic: OrderStatistic) -> Self {
        Reduction::Select(statistic).into()
    }
}

impl From<Reduction> for Recipe {
    fn from(reduction: Reduction) -> Self {
        Self { mixing: None, reduction }
    }
}

impl Recipe {
    /// The coefficient of each client's delta in the merged one; none where coordinates are merged apart, or the
    /// centre of an earlier round has a part.
    pub fn coefficients(&self) -> Option<Vec<f64>> {
        match &self.reduction {
            Reduction::WeightedMean { weights } => {
                let total: f64 = weights.iter().sum();
                Some(weights.iter().map(|weight| weight / total).collect())
            }
            Reduction::WeightedSum { coefficients, centre } if *centre == 0.0 => Some(coefficients.clone()),
            Reduction::WeightedSum { .. } | Reduction::Select(_) => None,
            Reduction::Tiers(tiers) => {
                let parts: Option<Vec<Vec<f64>>> =
                    tiers.iter().map(|tier| tier.recipe.coefficients()).collect();
                let clients = parts.as_ref()?.first().map_or(0, Vec::len);
                let mut sums = vec![0.0; clients];
                for (tier, part) in tiers.iter().zip(parts?) {
                    sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += tier.share * x);
                }
                Some(sums)
            }
        }
    }

    /// The recipe for some of `clients` clients, its rows being theirs, as one for all of them.
    #[must_use]
    pub fn among(&self, members: &[usize], clients: usize) -> Self {
        let spread = |values: &[f64]| {
            let mut all = vec![0.0; clients];
            members.iter().zip(values).for_each(|(member, value)| all[*member] = *value);
            all
        };
        let reduction = match &self.reduction {
            Reduction::WeightedMean { weights } => Reduction::WeightedMean { weights: spread(weights) },
            Reduction::WeightedSum { coefficients, centre } => {
                Reduction::WeightedSum { coefficients: spread(coefficients), centre: *centre }
            }
            other @ (Reduction::Select(_) | Reduction::Tiers(_)) => other.clone(),
        };
        let mixing = self.mixing.as_ref().map(|mixing| {
            Mixing::new(clients, (0..mixing.len()).map(|row| spread(mixing.row(row))).collect())
        });
        Self { mixing, reduction }
    }
}

/// What is made of some of the clients, and how much it counts.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct TierRecipe {
    /// Its share of the merged model.
    pub share: f64,
    /// Its clients, in their order.
    pub clients: Vec<usize>,
    /// What is made of them; its rows are those of all clients.
    pub recipe: Recipe,
}

/// What the second pass makes of rows.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// `sum_i weights[i] * row_i / divisor`, with the sum of the weights for divisor.
    WeightedMean {
        /// One weight a row.
        weights: Vec<f64>,
    },
    /// `sum_i coefficients[i] * delta_i`: what lacks to one stays at the base.
    WeightedSum {
        /// One coefficient a row, and one for the centre that an earlier round left, if there is one.
        coefficients: Vec<f64>,
        /// The coefficient of that centre.
        centre: f64,
    },
    /// An order statistic of each coordinate.
    Select(OrderStatistic),
    /// The sum of what is made of each tier, times its share. No rule decides so: tiers are put together behind rules.
    Tiers(Vec<TierRecipe>),
}

/// What is made of the sorted values of a coordinate.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatistic {
    /// Their median, the midpoint of the middle two for an even number.
    Median,
    /// Their mean without the `cut` smallest and `cut` largest.
    TrimmedMean {
        /// Values left out on each side.
        cut: usize,
    },
    /// The mean of the `kept` that are nearest to the median; of two as near, the smaller.
    MeanNearMedian {
        /// Values that count.
        kept: usize,
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
    fn close_call(text: impl Into<String>) -> Self {
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

/// Why a rule cannot be used on these clients.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum RuleError {
    #[error("{rule} tolerates at most {most} hostile of {clients} clients, but --byzantine says {byzantine}")]
    TooManyByzantine { rule: String, byzantine: usize, clients: usize, most: usize },
    #[error("{rule} needs at least {least} clients, found {clients}")]
    TooFewClients { rule: String, clients: usize, least: usize },
    #[error(
        "{rule} cuts {cut} values on each side of {clients}, which leaves none; the most it can cut is {most}"
    )]
    NothingLeft { rule: String, cut: usize, clients: usize, most: usize },
    #[error("{rule}: {key} is {found}, expected {expected}")]
    BadSetting { rule: String, key: &'static str, found: String, expected: String },
    #[error("{rule}: no client is called `{id}`; the trusted client must be among those merged")]
    NoSuchClient { rule: String, id: String },
    #[error(
        "{rule}: the search for the best {kept} of {clients} clients was given up after {work} {unit}; multi-krum, \
         and any rule after --pre nnm, stand the same attacks without a search"
    )]
    TooMuchWork { rule: String, kept: usize, clients: usize, work: u64, unit: &'static str },
    #[error("{what} were not measured")]
    NotMeasured { what: &'static str },
    #[error("after --pre {steps}, which made {rows} updates of {clients}: {source}")]
    AfterPre { steps: String, rows: usize, clients: usize, source: Box<Self> },
}

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
    spec::parse("rule", text, definition, &RULES)
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

/// The decision to take the plain mean of the clients that are kept. `reasons` are for those that are and those that
/// are not.
fn mean_of_kept(kept: &[bool], scores: &[f64], reasons: (&str, &str)) -> Decision {
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

/// How many hostile clients are assumed, as a user writes it: a count, or a fraction of the clients.
pub type Byzantine = Share;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_for_some_clients_is_one_for_all() {
        let mean = Recipe::from(Reduction::WeightedMean { weights: vec![1.0, 3.0] }).among(&[1, 3], 4);
        assert_eq!(mean.reduction, Reduction::WeightedMean { weights: vec![0.0, 1.0, 0.0, 3.0] });
        let mixed = Recipe { mixing: Some(Mixing::diagonal(&[0.5, 1.0])), ..OrderStatistic::Median.into() };
        let mixing = mixed.among(&[0, 2], 3).mixing.unwrap();
        assert_eq!((mixing.row(0), mixing.row(1)), (&[0.5, 0.0, 0.0][..], &[0.0, 0.0, 1.0][..]));
    }

    #[test]
    fn coefficients_of_tiers_are_those_of_each_times_its_share() {
        let tier = |share, clients: &[usize], recipe: Recipe| TierRecipe {
            share,
            clients: clients.to_vec(),
            recipe: recipe.among(clients, 3),
        };
        let mean = |weights: &[f64]| Reduction::WeightedMean { weights: weights.to_vec() }.into();
        let tiers = vec![tier(0.75, &[0, 2], mean(&[1.0, 2.0])), tier(0.25, &[1], mean(&[9.0]))];
        let together = Recipe::from(Reduction::Tiers(tiers.clone()));
        assert_eq!(together.coefficients(), Some(vec![0.25, 0.25, 0.5]));
        let median = tier(0.5, &[1], OrderStatistic::Median.into());
        assert_eq!(Recipe::from(Reduction::Tiers(vec![tiers[0].clone(), median])).coefficients(), None);
    }
}
