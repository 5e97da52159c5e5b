//! `[secure]`: sums that hide single updates.

use crate::config::values::Values;
use crate::settings::duration::Friendly;
use crate::settings::share::Share;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Sums that hide single updates.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Secure {
    /// Whether clients mask their updates, so that the server sees their sum alone.
    #[schemars(extend("x-origin" = "`ENCRYPTION_ENABLED`", "x-reader" = "open, aggregate"))]
    pub enabled: bool,
    /// The server's secret key, from the state directory. `fedmill secagg keygen` writes it, and the public key beside
    /// it.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open, aggregate"))]
    pub key: PathBuf,
    /// The folder of the helpers' public keys, from the state directory: files that end in `.pub`.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub helpers: PathBuf,
    /// The number of helpers that suffice, above half of them. Unset: more than half.
    #[schemars(extend("x-origin" = "`threshold`", "x-reader" = "open", "x-example" = 2))]
    pub threshold: Option<u64>,
    /// The number of helpers that must have checked all masked updates before the set of clients is frozen. Unset: the
    /// threshold.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "aggregate", "x-example" = 2))]
    pub checks: Option<u64>,
    /// How long a round that closed waits for helpers; then it is refused. Unset: without end.
    #[schemars(extend("format" = "duration", "x-origin" = "fedmill", "x-reader" = "aggregate", "x-example" = "12h"))]
    pub helper_timeout: Option<Friendly>,
    /// Whether helpers sign the set of clients, and answer once enough of them signed the same one.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub helpers_sign_set: bool,
    /// The largest change of a parameter: clients clip larger ones to it.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub clip: f64,
    /// The largest change of a float statistic, such as a running mean. Unset: statistics stay as in the model.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open", "x-example" = 2.0))]
    pub statistics_clip: Option<f64>,
    /// The weights of clients: `uniform`, or `examples:cap=N` for their examples, at most N.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub weights: String,
    /// The number of random groups of clients, each with a sum. With more than one, `robustness.rule` judges the means of
    /// groups.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open, aggregate"))]
    pub groups: u64,
    /// The number of values in 4 bytes: more make smaller files and a coarser grid.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub values_per_lane: u64,
    /// The part of the parameters' values that clients send, at places that are random and the same for all: a fraction such
    /// as `"0.1"`, or a count. Unset: all.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open", "x-example" = "0.1"))]
    pub keep: Option<String>,
    /// The fewest clients of a sum. Unset: half of the smallest group, and at least 2.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open", "x-example" = 5))]
    pub min_survivors: Option<u64>,
}

impl Default for Secure {
    fn default() -> Self {
        Self {
            enabled: false,
            key: "server.key".into(),
            helpers: "helpers".into(),
            threshold: None,
            checks: None,
            helper_timeout: None,
            helpers_sign_set: false,
            clip: 1.0,
            statistics_clip: None,
            weights: "uniform".to_owned(),
            groups: 1,
            values_per_lane: 1,
            keep: None,
            min_survivors: None,
        }
    }
}

/// The most values in 4 bytes.
const MOST_PER_LANE: u64 = 8;

impl Secure {
    /// The cap of the weights of clients; `None` if all weigh the same.
    pub fn cap(&self) -> Option<u32> {
        self.weights.strip_prefix("examples:cap=")?.parse().ok()
    }

    /// The part of the parameters' values that clients send; `None` for all.
    pub fn kept(&self) -> Option<Share> {
        Share::part(self.keep.as_ref()?).ok()
    }

    /// The fewest clients of a group that the settings allow.
    pub fn least_of_group(&self) -> u64 {
        self.min_survivors.unwrap_or(2).max(2)
    }

    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("secure");
        values.positive("clip", self.clip);
        if let Some(clip) = self.statistics_clip {
            values.positive("statistics_clip", clip);
        }
        values.count("groups", self.groups);
        if let Some(Friendly(time)) = self.helper_timeout {
            values.positive_time("helper_timeout", time);
        }
        if let Some(threshold) = self.threshold {
            values.count("threshold", threshold);
        }
        let lane = self.values_per_lane;
        values.check("values_per_lane", (1..=MOST_PER_LANE).contains(&lane), lane, "1 to 8");
        if let Some(keep) = &self.keep {
            values.check("keep", self.kept().is_some(), keep, "a fraction such as 0.1, or a count");
        }
        if let Some(least) = self.min_survivors {
            values.check("min_survivors", least >= 2, least, "at least 2 clients");
        }
        let is_known = self.weights == "uniform" || self.cap().is_some_and(|cap| cap > 0);
        values.check("weights", is_known, &self.weights, "uniform or examples:cap=N");
    }
}
