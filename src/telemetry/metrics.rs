//! The figures of one finished round: a line of `metrics/rounds.jsonl`, and what monitoring shows.
//!
//! A figure that a round does not have is `None`, never 0. JSON writes NaN and infinity as `null`; maps read it back as
//! NaN.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The schema that records name.
pub const SCHEMA: &str = "fedmill.round/1";

/// One finished round.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct RoundRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// The number of the round, from 1.
    pub round: u64,
    /// Whether a model was published.
    pub outcome: Outcome,
    /// The time at which the round opened, in seconds since 1970.
    pub opened_at: f64,
    /// The time at which the round ended, in seconds since 1970.
    pub closed_at: f64,
    /// Seconds of each phase, by its name.
    #[serde(default, deserialize_with = "null_as_nan")]
    pub phase_s: BTreeMap<String, f64>,
    /// The digest of the model that clients started from.
    #[serde(default)]
    pub base: Option<String>,
    /// The digest of the merged model. `None` if there is none.
    #[serde(default)]
    pub model: Option<String>,
    /// How many clients did what.
    #[serde(default)]
    pub clients: ClientCounts,
    /// What the operator's evaluation measured, by name. `loss` and `accuracy` have plots.
    #[serde(default, deserialize_with = "null_as_nan")]
    pub metrics: BTreeMap<String, f64>,
    /// How the updates lie to each other.
    #[serde(default)]
    pub geometry: Geometry,
    /// Bytes moved.
    #[serde(default)]
    pub bytes: Bytes,
    /// The privacy budget after this round. `None` without differential privacy.
    #[serde(default)]
    pub privacy: Option<PrivacyState>,
    /// The session of this round. `None` without secure aggregation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<SecureFigures>,
    /// The settings of this round.
    #[serde(default)]
    pub settings: RoundSettings,
    /// The settings that the next round changes.
    #[serde(default)]
    pub adapted: Vec<Adapted>,
    /// The clients one by one. `None` where privacy forbids it, or where the operator does not keep them.
    #[serde(default)]
    pub rows: Option<Vec<ClientFigures>>,
    /// Jain's index of how often each client of the registry was merged: [`jain`].
    #[serde(default)]
    pub fairness: Option<f64>,
}

impl RoundRecord {
    /// A record without figures of a round that published.
    pub fn new(round: u64, opened_at: f64, closed_at: f64) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            round,
            outcome: Outcome::Published,
            opened_at,
            closed_at,
            phase_s: BTreeMap::new(),
            base: None,
            model: None,
            clients: ClientCounts::default(),
            metrics: BTreeMap::new(),
            geometry: Geometry::default(),
            bytes: Bytes::default(),
            privacy: None,
            secure: None,
            settings: RoundSettings::default(),
            adapted: Vec::new(),
            rows: None,
            fairness: None,
        }
    }

    /// A metric of the evaluation. `None` if it is missing or not finite.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied().filter(|value| value.is_finite())
    }
}

/// Whether a round published a model.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The merged model is the current one.
    Published,
    /// No model was published, for this reason.
    Refused(String),
}

/// How many clients did what in a round.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Default, Debug)]
#[serde(default)]
pub struct ClientCounts {
    /// Clients in the registry.
    pub population: u64,
    /// Clients that were selected.
    pub selected: u64,
    /// Selected clients that delivered in time.
    pub delivered: u64,
    /// Updates that came after the deadline, in this round or for an earlier one.
    pub late: u64,
    /// Selected clients that delivered nothing in time.
    pub missing: u64,
    /// Updates in quarantine, without late ones.
    pub rejected: u64,
    /// Clients in the merged model.
    pub merged: u64,
    /// Updates in the buffer for the next round.
    pub waiting: u64,
    /// Seconds from the opening of the round to the updates that came in time. `None` without one.
    pub arrival_s: Option<Quantiles>,
}

/// Four points of a distribution.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Default, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Quantiles {
    pub min: f64,
    pub median: f64,
    pub p90: f64,
    pub max: f64,
}

/// How the updates of a round lie to each other: docs/metrics.md defines each figure.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Default, Debug)]
#[serde(default)]
pub struct Geometry {
    /// Mean cosine of two updates, -1 to 1.
    pub coherence: Option<f64>,
    /// Variance between clients over the squared mean, in clients.
    pub noise_scale: Option<f64>,
    /// The part of the mean's squared length that is no noise, 0 to 1.
    pub signal_fraction: Option<f64>,
    /// Length of the mean over the mean length, 0 to 1.
    pub alignment: Option<f64>,
    /// Median L2 norm of the updates.
    pub norm_median: Option<f64>,
    /// Least L2 norm of the updates.
    pub norm_min: Option<f64>,
    /// Largest L2 norm of the updates.
    pub norm_max: Option<f64>,
}

/// Bytes moved between the server and its clients.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(default)]
pub struct Bytes {
    /// Bytes of updates in this round.
    pub up: u64,
    /// Bytes of models for clients in this round.
    pub down: u64,
    /// Bytes up and down in all rounds up to this one.
    pub total: u64,
}

/// A privacy budget after a round.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct PrivacyState {
    /// Epsilon of all releases up to this one.
    pub epsilon_spent: f64,
    /// Epsilon that the operator allows in all.
    pub epsilon_budget: f64,
    /// Delta at which both hold.
    pub delta: f64,
    /// Rounds that the rest of the budget pays for. `None` if unknown.
    pub rounds_left: Option<u64>,
}

/// A session of secure aggregation, as its transcript has it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Default, Debug)]
pub struct SecureFigures {
    /// Its digest.
    pub session: String,
    /// Clients in its sums.
    pub clients: u64,
    /// Groups with a sum.
    pub groups: u64,
    /// Helpers whose answers agree.
    pub answers: Vec<String>,
    /// Helpers whose answers contradict the others.
    pub wrong: Vec<String>,
}

/// The settings of a round that may change from round to round.
#[derive(Serialize, Deserialize, Clone, PartialEq, Default, Debug)]
#[serde(default)]
pub struct RoundSettings {
    /// Factor of the server's step.
    pub server_learning_rate: Option<f64>,
    /// Largest L2 norm of an update.
    pub clip: Option<f64>,
    /// Updates that the round waits for.
    pub quorum: Option<u64>,
    /// Seconds from the opening of the round to its deadline.
    pub deadline_s: Option<f64>,
    /// Clients that the round asks for.
    pub selected: Option<u64>,
    /// Bytes of a compressed update over those of a raw one, 0 to 1.
    pub compression_target: Option<f64>,
    /// Local steps, by tier.
    pub local_steps: BTreeMap<String, u64>,
}

/// A setting that the next round changes.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Adapted {
    /// Its key in `fedmill.toml`, such as `adaptation.quorum`.
    pub setting: String,
    /// Its value in this round, as an operator reads it.
    pub from: String,
    /// Its value in the next round.
    pub to: String,
    /// What the round showed.
    pub why: String,
}

/// One client in one round.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ClientFigures {
    /// Its id. The client chose it: escape it.
    pub id: String,
    /// What it did: `merged`, `dropped`, `rejected`, `late` or `missing`.
    pub outcome: String,
    /// L2 norm of its update.
    #[serde(default)]
    pub norm: Option<f64>,
    /// Whether the merged model contains it.
    pub kept: bool,
    /// Why the rule or the validation decided so. It may quote the client: escape it.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Jain's index of fairness: (sum x)^2 / (n sum x^2) over `n` values with this sum and this sum of squares.
///
/// It is 1 if all values are equal and 1/n if one client has all. `None` if all values are 0.
pub fn jain(n: u64, sum: f64, sum_of_squares: f64) -> Option<f64> {
    let index = sum * sum / (n as f64 * sum_of_squares);
    index.is_finite().then_some(index)
}

/// Reads a map of numbers in which `null` stands for NaN.
fn null_as_nan<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let map = BTreeMap::<String, Option<f64>>::deserialize(from)?;
    Ok(map.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_a_loss_that_is_not_finite_is_read_back() {
        let mut record = RoundRecord::new(3, 1.5, 2.5);
        record.metrics = [("accuracy".to_owned(), 0.5), ("loss".to_owned(), f64::NAN)].into();
        record.outcome = Outcome::Refused("the loss is not finite".to_owned());
        let line = serde_json::to_string(&record).unwrap();
        let read: RoundRecord = serde_json::from_str(&line).unwrap();
        assert_eq!((read.metric("accuracy"), read.metric("loss")), (Some(0.5), None));
        assert!(read.metrics["loss"].is_nan());
        assert_eq!(serde_json::to_string(&read).unwrap(), line);
    }

    #[test]
    fn a_record_of_an_older_version_lacks_figures() {
        let line =
            r#"{"schema":"fedmill.round/1","round":1,"outcome":"published","opened_at":0,"closed_at":9}"#;
        assert_eq!(serde_json::from_str::<RoundRecord>(line).unwrap(), RoundRecord::new(1, 0.0, 9.0));
    }

    #[test]
    fn jain_is_one_for_equal_shares_and_one_nth_for_one_client() {
        let of = |x: &[f64]| jain(x.len() as u64, x.iter().sum(), x.iter().map(|x| x * x).sum());
        assert_eq!(of(&[3.0, 3.0, 3.0]), Some(1.0));
        assert_eq!(of(&[0.0, 7.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(of(&[1.0, 2.0, 3.0]), Some(36.0 / 42.0));
        assert_eq!(of(&[0.0, 0.0]), None);
        assert_eq!(of(&[]), None);
    }
}
