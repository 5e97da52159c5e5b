//! Budgets of bytes for the updates of each tier, and its settings as a round opens.
//!
//! The budget of a client is `upload_bytes` of its tier. Without it, the client has its share of what models and such
//! tiers leave of `adaptation.bytes_per_round`. [`crate::lint::tier_codecs`] chooses the codec that meets a budget.

use crate::config::Config;
use crate::fleet::select::Choice;
use crate::lint::tier_codecs::{TierTask, budget, choose};
use crate::round::journal::{Arrival, Settings, TierSettings, Version};
use crate::round::task::ModelSource;
use crate::round::world::Fingerprint;
use std::collections::BTreeMap;

/// What the clients of a tier sent and fetched in a round.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Selected clients.
    pub clients: u64,
    /// Bytes of each accepted update.
    pub updates: Vec<u64>,
    /// Bytes of models and patches.
    pub down: u64,
}

impl Traffic {
    /// The median bytes of an update, the lower one of two; `None` without updates.
    pub fn median(&self) -> Option<u64> {
        let mut bytes = self.updates.clone();
        bytes.sort_unstable();
        let middle = bytes.len().checked_sub(1)? / 2;
        bytes.get(middle).copied().filter(|bytes| *bytes > 0)
    }

    /// The bytes of all updates.
    pub fn up(&self) -> u64 {
        self.updates.iter().sum()
    }
}

/// The traffic of a round by tier; the empty name stands for clients without a tier.
pub fn traffic(
    (base, choices): (&Version, &[Choice]),
    updates: &[&Arrival],
    patches: &BTreeMap<String, Fingerprint>,
    tiers: &BTreeMap<String, TierTask>,
) -> BTreeMap<String, Traffic> {
    let known = |choice: &Choice| choice.tier.clone().filter(|tier| tiers.contains_key(tier));
    let tier_of: BTreeMap<&str, String> =
        choices.iter().map(|choice| (choice.id.as_str(), known(choice).unwrap_or_default())).collect();
    let mut traffic: BTreeMap<String, Traffic> = BTreeMap::new();
    for choice in choices {
        let tier = tier_of.get(choice.id.as_str()).cloned().unwrap_or_default();
        let tier = traffic.entry(tier).or_default();
        tier.clients += 1;
        tier.down += ModelSource::of(base, choice, patches).fetched();
    }
    for update in updates {
        let tier = tier_of.get(update.id.as_str()).cloned().unwrap_or_default();
        traffic.entry(tier).or_default().updates.push(update.file.bytes);
    }
    traffic
}

/// The bytes that models and tiers with a budget leave of the round's budget, and the clients that share them; `None`
/// without a budget for the round.
pub fn left(
    config: &Config,
    tiers: &BTreeMap<String, TierTask>,
    traffic: &BTreeMap<String, Traffic>,
) -> Option<(u64, u64)> {
    let mut left = config.adaptation.bytes_per_round?;
    let mut clients = 0;
    for (tier, traffic) in traffic {
        let fixed = tiers.get(tier).and_then(|task| task.upload_bytes);
        left = left.saturating_sub(traffic.down + fixed.unwrap_or(0) * traffic.clients);
        clients += if fixed.is_none() { traffic.clients } else { 0 };
    }
    Some((left, clients))
}

/// The settings of each tier as a round opens: those that adapt as the last round left them. A tier without a codec in
/// the file starts with the one that meets its budget.
pub fn opening(
    config: &Config,
    adapted: Option<&Settings>,
    tiers: &BTreeMap<String, TierTask>,
    traffic: &BTreeMap<String, Traffic>,
) -> BTreeMap<String, TierSettings> {
    let left = left(config, tiers, traffic);
    let of = |(tier, task): (&String, &TierTask)| {
        let before = adapted.and_then(|settings| settings.tiers.get(tier));
        let upload_bytes = budget(config, task, left);
        let compression_target = match config.adaptation.compression_target {
            None => config.compression.target,
            Some([least, most]) => {
                let start = adapted.map_or(config.compression.target, |all| all.compression_target);
                before.map_or(start, |before| before.compression_target).clamp(least, most)
            }
        };
        let kept = before.and_then(|before| before.codec.clone());
        let kept = kept.filter(|kept| task.codecs.iter().any(|one| one.codec == *kept));
        let adapts = upload_bytes.filter(|_| config.adaptation.tier_codecs);
        let codec = task.codec.clone().or_else(|| {
            let budget = adapts?;
            kept.or_else(|| choose(&task.codecs, None, None, budget).map(|chosen| chosen.codec))
        });
        (tier.clone(), TierSettings { codec, compression_target, upload_bytes })
    };
    tiers.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::tier_codecs::{Chosen, CodecForecast};

    fn codecs() -> Vec<CodecForecast> {
        let one = |(codec, bytes): (&str, u64)| CodecForecast { codec: codec.to_owned(), bytes };
        [("f16", 2000), ("u8", 1000), ("u4", 500)].map(one).into()
    }

    fn chosen(current: Option<&str>, median: Option<u64>, budget: u64) -> (String, u64, bool) {
        let Chosen { codec, expected, is_met } = choose(&codecs(), current, median, budget).unwrap();
        (codec, expected, is_met)
    }

    fn is(codec: &str, expected: u64, is_met: bool) -> (String, u64, bool) {
        (codec.to_owned(), expected, is_met)
    }

    #[test]
    fn the_least_lossy_codec_that_meets_the_budget_is_chosen() {
        assert_eq!(chosen(None, None, 5000), is("f16", 2000, true));
        assert_eq!(chosen(None, None, 2000), is("f16", 2000, true), "just enough");
        assert_eq!(chosen(None, None, 1999), is("u8", 1000, true));
        assert_eq!(chosen(None, None, 500), is("u4", 500, true));
        assert_eq!(chosen(None, None, 499), is("u4", 500, false), "the smallest, if none meets it");
        assert_eq!(choose(&[], None, None, 500), None);
    }

    #[test]
    fn a_tier_with_room_gets_a_less_lossy_codec_again() {
        assert_eq!(chosen(Some("u8"), Some(1000), 2500), is("f16", 2000, true));
        assert_eq!(chosen(Some("u8"), Some(1000), 2499), is("u8", 1000, true), "less than a fifth is free");
        assert_eq!(
            chosen(Some("f16"), Some(2000), 2000),
            is("f16", 2000, true),
            "it keeps a codec that fits"
        );
        assert_eq!(chosen(Some("u4"), Some(500), 9000), is("f16", 2000, true), "several places at once");
    }

    #[test]
    fn what_came_corrects_the_forecasts() {
        assert_eq!(chosen(Some("f16"), Some(4000), 2500), is("u8", 2000, true), "twice as large as forecast");
        assert_eq!(chosen(Some("u8"), Some(500), 1250), is("f16", 1000, true), "half as large");
        assert_eq!(chosen(Some("other"), Some(9000), 2500), is("f16", 2000, true), "not in the list");
        assert_eq!(chosen(Some("f16"), None, 1500), is("u8", 1000, true), "nothing came");
    }

    #[test]
    fn one_large_update_is_not_the_median() {
        let of = |updates: &[u64]| Traffic { updates: updates.to_vec(), ..Traffic::default() }.median();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[5_000_000, 700]), Some(700));
        assert_eq!(of(&[600, 5_000_000, 700]), Some(700));
    }

    #[test]
    fn tiers_without_a_budget_share_what_the_others_leave() {
        let mut config = Config::default();
        let task = |upload_bytes| TierTask { upload_bytes, ..TierTask::default() };
        let tiers = BTreeMap::from([("low".to_owned(), task(Some(100))), ("high".to_owned(), task(None))]);
        let of = |clients, down| Traffic { clients, down, ..Traffic::default() };
        let traffic = BTreeMap::from([
            (String::new(), of(1, 50)),
            ("low".to_owned(), of(3, 100)),
            ("high".to_owned(), of(2, 50)),
        ]);
        assert_eq!(left(&config, &tiers, &traffic), None);
        assert_eq!(budget(&config, &tiers["low"], None), Some(100));
        assert_eq!(budget(&config, &tiers["high"], None), None);
        config.adaptation.bytes_per_round = Some(2000);
        let shared = left(&config, &tiers, &traffic);
        assert_eq!(shared, Some((1500, 3)), "without models, and 300 for the tier low");
        assert_eq!(budget(&config, &tiers["low"], shared), Some(100));
        assert_eq!(budget(&config, &tiers["high"], shared), Some(500));
        config.compression.bytes_per_update = Some(80);
        assert_eq!(budget(&config, &tiers["low"], shared), Some(80));
        assert_eq!(budget(&config, &tiers["high"], shared), Some(80));
    }
}
