//! The metadata that a client writes into its update.

use crate::model::client_id::{EXPECTED, is_sound, nfc};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// A metadata key with a value that makes no sense.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("metadata `{key}` is `{found}`, expected {expected}")]
pub struct MetadataFault {
    /// The key.
    pub key: &'static str,
    /// The value.
    pub found: String,
    /// What the value may be.
    pub expected: &'static str,
}

/// The parsed metadata of an update. Every key is optional.
#[derive(Clone, PartialEq, Debug)]
pub struct UpdateMetadata {
    /// Name of the client.
    pub client_id: Option<String>,
    /// Training examples of the client.
    pub num_examples: Option<f64>,
    /// Local optimiser steps of the client.
    pub local_steps: Option<f64>,
    /// Momentum of the local optimiser, at least 0 and below 1.
    pub momentum: Option<f64>,
    /// Weight of the proximal term in the local loss, at least 0.
    pub proximal_mu: Option<f64>,
    /// Learning rate of the local optimiser, at least 0.
    pub local_lr: Option<f64>,
    /// Training loss.
    pub loss: Option<f64>,
    /// Number of the round.
    pub round: Option<u64>,
    /// Hex digest of the model that the client started from.
    pub base: Option<String>,
    /// Whether the values are weights or a delta.
    pub kind: UpdateKind,
    /// Whether the metadata or the operator states the kind.
    pub states_kind: bool,
}

/// The kind of values in an update.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum UpdateKind {
    /// The client's model.
    #[default]
    Weights,
    /// The client's model minus the base.
    Delta,
}

impl fmt::Display for UpdateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::Delta => "delta",
        })
    }
}

/// The most training examples that a client may claim: every whole number up to it has its own f64.
pub const MOST_EXAMPLES: f64 = 9_007_199_254_740_992.0;

/// The largest rate or proximal weight, the smallest rate above zero, and the largest loss that a client may claim.
/// Their products and quotients fit f64 in every strategy.
const MOST_RATE: f64 = 1e6;
const LEAST_RATE: f64 = 1e-30;
const MOST_LOSS: f64 = 1e12;

/// The most characters of a value that a fault shows.
const MOST_SHOWN: usize = 100;

/// The prefix of the tensors in which clients of SCAFFOLD send the change of their control variate.
pub const SCAFFOLD_CONTROL: &str = "scaffold.delta_c.";

/// The metadata key that a partial of a tree is recognised by.
pub const PARTIAL_KEY: &str = "fedmill.partial";

/// The metadata key that a shard file is recognised by. Shard files also have [`PARTIAL_KEY`], with other values.
pub const SHARD_KEY: &str = "fedmill.shard";

/// The prefix of the metadata keys in which a private release names its charge.
pub const PRIVACY_PREFIX: &str = "fedmill.privacy.";

/// The prefix of the same keys in a model that has a private release among its bases.
const ANCESTOR_PREFIX: &str = "fedmill.privacy.base.";

/// The metadata key of a private release whose noise came from a test seed.
pub const TEST_SEED_KEY: &str = "fedmill.privacy.test_seed";

/// The same key in a model that was made from such a release.
const TEST_SEED_MARK: &str = "fedmill.privacy.base.test_seed";

/// The value of both keys. Released models hold these bytes, so the text must not change.
pub const NOT_PRIVATE: &str = "NOT private: the noise came from a number that somebody chose";

/// Whether a model holds noise from a test seed, its own or that of a model that it was made from.
pub fn has_test_noise(metadata: &BTreeMap<String, String>) -> bool {
    [TEST_SEED_KEY, TEST_SEED_MARK].iter().any(|key| metadata.contains_key(*key))
}

/// Marks a model that was made from one with noise from a test seed.
pub fn mark_test_noise(metadata: &mut BTreeMap<String, String>) {
    metadata.insert(TEST_SEED_MARK.to_owned(), NOT_PRIVATE.to_owned());
}

/// What a merged model says of the nearest private release among its bases; empty if there is none.
pub fn privacy_ancestor(base: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let (older, own): (Vec<_>, Vec<_>) = base
        .iter()
        .filter(|(key, _)| key.starts_with(PRIVACY_PREFIX))
        .partition(|(key, _)| key.starts_with(ANCESTOR_PREFIX));
    let renamed = |(key, value): (&String, &String)| {
        let key = key.strip_prefix(PRIVACY_PREFIX).unwrap_or(key);
        (format!("{ANCESTOR_PREFIX}{key}"), value.clone())
    };
    if own.is_empty() {
        older.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    } else {
        own.into_iter().map(renamed).collect()
    }
}

/// The metadata of the nearest private release among a model's bases, under the keys of a release.
pub fn ancestor_as_release(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = |(key, value): (&String, &String)| {
        Some((format!("{PRIVACY_PREFIX}{}", key.strip_prefix(ANCESTOR_PREFIX)?), value.clone()))
    };
    metadata.iter().filter_map(own).collect()
}

/// The metadata key of the sum of clipped updates.
pub const SUM_KEY: &str = "fedmill.privacy.sum";
/// The key of messages of secure aggregation that hold lanes.
pub const LANES_KEY: &str = "fedmill.lanes";

/// Keys that mark a file of another purpose, or the start of such keys, and that purpose. An update with one of them is
/// at fault: a client cannot make its file count as something else. The other keys of fedmill say how a model or an
/// update was made, and change nothing.
const PURPOSES: [(&str, &str); 8] = [
    (SHARD_KEY, "a shard file"),
    (PARTIAL_KEY, "a partial of a tree"),
    (SUM_KEY, "a sum of clipped updates"),
    (LANES_KEY, "a message of secure aggregation"),
    ("fedmill.state", "a state file"),
    ("fedmill.residual", "a residual file"),
    ("fedmill.sections", "a shard file"),
    ("fedmill.run.", "a shard file"),
];

/// Keys that say how a model or an update was made, after the prefix. They change nothing.
const KNOWN: [&str; 24] = [
    "byzantine",
    "clients",
    "codec",
    "definition",
    "format",
    "he",
    "kind",
    "missing",
    "personal",
    "pre",
    "privacy.ledger",
    "privacy.next_clip",
    "privacy.plan",
    "privacy.release",
    "privacy.test_seed",
    "rule",
    "secagg",
    "seed",
    "steps",
    "strategy",
    "tiers",
    "unprotected",
    "version",
    "weights",
];

/// The first key of fedmill in metadata that no version up to this one writes; `None` if there is none.
pub fn unknown_key(metadata: &BTreeMap<String, String>) -> Option<&str> {
    let is_known = |key: &str| KNOWN.contains(&key.replace("privacy.base.", "privacy.").as_str());
    let is_unknown = |key: &&str| key.strip_prefix("fedmill.").is_some_and(|key| !is_known(key));
    metadata.keys().map(String::as_str).find(is_unknown)
}

/// A metadata key that marks the file as one of another purpose.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("metadata `{key}` marks {purpose}, expected an update of one client")]
pub struct OtherPurpose {
    /// The key.
    pub key: String,
    /// The purpose that it marks.
    pub purpose: &'static str,
}

impl OtherPurpose {
    /// The purpose that metadata marks, other than an update or a model; `None` if it marks none.
    pub fn of(metadata: &BTreeMap<String, String>) -> Option<Self> {
        PURPOSES.iter().find_map(|(mark, purpose)| {
            let is_marked = |key: &&String| *key == mark || mark.ends_with('.') && key.starts_with(mark);
            let key = metadata.keys().find(is_marked)?.clone();
            Some(Self { key, purpose })
        })
    }

    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self.key.as_str() {
            PARTIAL_KEY => Some("name the partials of a tree by --partials"),
            SHARD_KEY => Some("`fedmill decide` and `fedmill merge` take shard files by --partials"),
            LANES_KEY => Some(
                "no rule sees a masked update: aggregate the mean that `fedmill secagg unmask` writes, or the means of --groups",
            ),
            SUM_KEY => Some("`fedmill privacy sum` and `noise` take sums of clipped updates"),
            _ => None,
        }
    }
}

/// Metadata keys about one update, which a merged model does not inherit.
pub const UPDATE_KEYS: [&str; 10] = [
    "client_id",
    "num_examples",
    "local_steps",
    "momentum",
    "proximal_mu",
    "local_lr",
    "loss",
    "round",
    "base",
    "kind",
];

impl UpdateMetadata {
    /// Parses metadata. Leaves out a key whose value makes no sense, and reports it.
    pub fn parse(metadata: &BTreeMap<String, String>) -> (Self, Vec<MetadataFault>) {
        let mut faults = Vec::new();
        let mut read = Reader { metadata, faults: &mut faults };
        let parsed = Self {
            client_id: read.value("client_id", EXPECTED, |id| is_sound(id).then(|| nfc(id))),
            num_examples: read
                .value("num_examples", "a number from 0 to 2^53", |text| within(text, 0.0..=MOST_EXAMPLES)),
            local_steps: read
                .value("local_steps", "a number from 0 to 2^53", |text| within(text, 0.0..=MOST_EXAMPLES)),
            momentum: read.value("momentum", "a number from 0 to below 1", |text| {
                within(text, 0.0..=1.0).filter(|momentum| *momentum < 1.0)
            }),
            proximal_mu: read
                .value("proximal_mu", "a number from 0 to 1e6", |text| within(text, 0.0..=MOST_RATE)),
            local_lr: read.value("local_lr", "0, or a number from 1e-30 to 1e6", |text| {
                within(text, 0.0..=MOST_RATE).filter(|lr| *lr == 0.0 || *lr >= LEAST_RATE)
            }),
            loss: read
                .value("loss", "a number from -1e12 to 1e12", |text| within(text, -MOST_LOSS..=MOST_LOSS)),
            round: read.value("round", "a whole number", |text| text.parse().ok()),
            base: read.value("base", "a hex digest", |text| Some(text.to_owned())),
            kind: read.value("kind", "`weights` or `delta`", kind).unwrap_or_default(),
            states_kind: metadata.contains_key("kind"),
        };
        (parsed, faults)
    }
}

struct Reader<'a> {
    metadata: &'a BTreeMap<String, String>,
    faults: &'a mut Vec<MetadataFault>,
}

impl Reader<'_> {
    fn value<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let found = self.metadata.get(key)?;
        let value = parse(found.trim());
        if value.is_none() {
            let found = found.chars().take(MOST_SHOWN).collect();
            self.faults.push(MetadataFault { key, found, expected });
        }
        value
    }
}

/// The number that the text states, if it is within the limits to the last digit. Minus zero is zero.
fn within(text: &str, limits: RangeInclusive<f64>) -> Option<f64> {
    let number: f64 = text.parse().ok().filter(|number| limits.contains(number))?;
    // A text just above a limit may round to the limit.
    let is_above = number == *limits.end() && decimal(text) > decimal(&limits.end().to_string());
    (!is_above).then_some(number + 0.0)
}

/// The magnitude of a number above zero as its text states it, to compare: an exponent, and digits that are the
/// fraction behind `0.`.
fn decimal(text: &str) -> (i64, String) {
    let unsigned = text.trim_start_matches(['+', '-']);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let zeros = (digits.len() - significant.len()) as i64;
    let exponent = exponent.parse::<i64>().unwrap_or(0) + whole.len() as i64 - zeros;
    (exponent, significant.trim_end_matches('0').to_owned())
}

fn kind(text: &str) -> Option<UpdateKind> {
    match text {
        "weights" => Some(UpdateKind::Weights),
        "delta" => Some(UpdateKind::Delta),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> (UpdateMetadata, Vec<MetadataFault>) {
        UpdateMetadata::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn good_values_parse() {
        assert_eq!(parse("num_examples", "120").0.num_examples, Some(120.0));
        assert_eq!(parse("num_examples", " 0.5 ").0.num_examples, Some(0.5));
        assert_eq!(parse("momentum", "0.9").0.momentum, Some(0.9));
        assert_eq!(parse("proximal_mu", "0").0.proximal_mu, Some(0.0));
        assert_eq!(parse("local_lr", "1e-3").0.local_lr, Some(1e-3));
        assert_eq!(parse("loss", "-2.5").0.loss, Some(-2.5));
        assert_eq!(parse("round", "7").0.round, Some(7));
        assert_eq!(parse("num_examples", "9007199254740992").0.num_examples, Some(MOST_EXAMPLES));
        for text in ["9007199254740992.0", "9.007199254740992e15", "+00900719925474099200e-2"] {
            assert_eq!(parse("num_examples", text).0.num_examples, Some(MOST_EXAMPLES), "{text}");
        }
        assert!(parse("num_examples", "-0").0.num_examples.unwrap().is_sign_positive());
        assert_eq!(parse("local_lr", "0").0.local_lr, Some(0.0));
        let universita = Some("Universit\u{e0}".to_owned());
        assert_eq!(parse("client_id", "Universita\u{300}").0.client_id, universita);
        assert_eq!(parse("kind", "delta").0.kind, UpdateKind::Delta);
        assert_eq!(parse("kind", "weights").1.len(), 0);
    }

    #[test]
    fn bad_values_are_faults() {
        for (key, value) in [
            ("num_examples", "-1"),
            ("num_examples", "many"),
            ("num_examples", "NaN"),
            ("num_examples", "inf"),
            ("num_examples", "9007199254740994"),
            ("num_examples", "9007199254740993"),
            ("num_examples", "9007199254740992.5"),
            ("num_examples", "0.90071992547409920001e16"),
            ("loss", "1000000000000.00001"),
            ("momentum", "0.99999999999999999"),
            ("num_examples", "1e308"),
            ("local_steps", "1e308"),
            ("proximal_mu", "1e7"),
            ("local_lr", "1e7"),
            ("local_lr", "5e-324"),
            ("loss", "1e13"),
            ("loss", "-1e308"),
            ("client_id", "site\u{1b}[8m"),
            ("client_id", "site\n3"),
            ("client_id", "\u{202e}3-etis"),
            ("local_steps", "-3"),
            ("momentum", "1"),
            ("momentum", "-0.1"),
            ("proximal_mu", "-1"),
            ("local_lr", "fast"),
            ("loss", "NaN"),
            ("round", "-1"),
            ("round", "1.5"),
            ("kind", "gradient"),
            ("client_id", ""),
        ] {
            let (_, faults) = parse(key, value);
            assert_eq!(faults.len(), 1, "{key} {value}");
            assert!(faults[0].to_string().contains(&format!("`{key}` is `{value}`")));
        }
    }
}
