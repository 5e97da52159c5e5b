//! Adapts settings for the next round to what this one showed, within bounds.
//!
//! - Server learning rate: FedExP (Jhunjhunwala, Wang and Joshi, 2023, equation 5).
//! - Quorum, deadline, dropout, local steps: from how many updates came, and when.
//! - Compression target: from the bytes of the round, or of a tier, and their budget.
//! - Codec of a tier: the least lossy one that meets the budget of the tier ([`bandwidth`]).
//!
//! Bytes are those of updates that the round accepted: files in quarantine inform nothing.
//!
//! No number changes by more than a quarter in a round. Under differential privacy nothing changes, since all of it
//! follows from what clients did. Only the clip bound moves then, by the noised count of the budget.

use crate::config::Config;
use crate::config::sections::Mode;
use crate::lint::tier_codecs::{self, Chosen, TierTask};
use crate::round::bandwidth::{self, Traffic};
use crate::round::journal::{Arrival, Change, Collected, Ending, Opening, Settings, TierSettings, Value};
use crate::round::open;
use crate::round::state::State;
use crate::round::world::{BudgetFacts, Merged};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The largest factor by which a setting changes in one round.
const STEP: f64 = 1.25;

/// The deadline aims at this multiple of the time by which nine of ten updates came.
const SLACK: f64 = 1.5;

/// The part of its budget that the bytes of updates may take before a compression target moves.
const FITTING: RangeInclusive<f64> = 0.8..=1.0;

/// The part of an observation that enters the running share of dropouts.
const RATE: f64 = 0.5;

/// The term that keeps FedExP's step finite.
const EPSILON: f64 = 1e-3;

/// The settings of the next round, and what changed.
pub fn act(
    config: &Config,
    state: &State,
    ending: &Ending,
    budget: Option<&BudgetFacts>,
    tiers: &BTreeMap<String, TierTask>,
) -> (Settings, Vec<Change>) {
    let settings =
        state.opening().map_or_else(|| open::settings(config, None), |opening| opening.settings.clone());
    if config.privacy.enabled {
        return (settings, clip_change(state, budget));
    }
    let mut next = Next { settings, changes: Vec::new() };
    if let (Some(opening), Some(collected)) = (state.opening(), state.collected()) {
        next.follow_arrivals(config, opening, collected);
        let selected = (&opening.base, &opening.selection.choices[..]);
        let traffic = bandwidth::traffic(selected, &accepted(state), &state.patches(), tiers);
        next.follow_bytes(config, tiers, &traffic);
    }
    if let (Some(merged), Ending::Published(_)) = (state.merged(), ending) {
        next.follow_lengths(config, merged);
    }
    (next.settings, next.changes)
}

/// The clip bound that follows the noised share of updates below it; the budget moves it.
fn clip_change(state: &State, budget: Option<&BudgetFacts>) -> Vec<Change> {
    let before = state.opening().and_then(|opening| opening.budget.as_ref());
    let moved = before.zip(budget).filter(|(before, after)| before.clip != after.clip);
    let change = |(before, after): (&BudgetFacts, &BudgetFacts)| Change {
        setting: "clip".to_owned(),
        from: Value::Number(before.clip),
        to: Value::Number(after.clip),
        why: "the bound follows the noised share of updates below it".to_owned(),
    };
    moved.map(change).into_iter().collect()
}

/// The settings of the next round in the making.
struct Next {
    settings: Settings,
    changes: Vec<Change>,
}

impl Next {
    /// The value nearest to `wanted` within one step of `from` and the bounds.
    fn change(&mut self, setting: &str, from: f64, wanted: f64, [least, most]: [f64; 2], why: String) -> f64 {
        let to = wanted.clamp(from / STEP, from * STEP).clamp(least, most);
        if to != from {
            self.record(setting, from, to, why);
        }
        to
    }

    fn record(&mut self, setting: &str, from: f64, to: f64, why: String) {
        let (from, to) = (Value::Number(from), Value::Number(to));
        self.changes.push(Change { setting: setting.to_owned(), from, to, why });
    }

    fn follow_arrivals(&mut self, config: &Config, opening: &Opening, collected: &Collected) {
        let asked = opening.selection.choices.len() as f64;
        let missing = collected.missing.len() as f64;
        let is_async = config.coordination.mode == Mode::Async;
        let updates = collected.updates.iter().filter(|update| is_async || is_of(opening, update));
        let mut times: Vec<f64> = updates.map(|update| update.after_s).collect();
        times.sort_by(f64::total_cmp);
        let bounds = &config.adaptation;
        if let (Some([least, most]), Some(late)) = (bounds.round_timeout, quantile(&times, 0.9)) {
            let from = self.settings.timeout_s;
            let at_deadline = collected.closed_by == "deadline";
            let wanted = if at_deadline { from * STEP } else { SLACK * late };
            let why = match at_deadline {
                true => {
                    format!("the round closed at its deadline, and {missing} of {asked} updates were missing")
                }
                false => format!("nine of ten updates came within {late:.0} s"),
            };
            let bounds = [least.as_secs_f64(), most.as_secs_f64()];
            self.settings.timeout_s = self.change("round_timeout", from, wanted, bounds, why);
        }
        // Before the deadline, a client without an update may be slow: it is no dropout yet.
        if asked == 0.0 || collected.closed_by != "deadline" && missing > 0.0 {
            return;
        }
        let came = 1.0 - missing / asked;
        if let Some(range) = bounds.quorum {
            let from = self.settings.quorum;
            let why = format!("{:.0} of {asked} updates came", asked - missing);
            self.settings.quorum = self.change("quorum", from, from + RATE * (came - from), range, why);
        }
        if let Some(selected) = bounds.clients {
            let from = self.settings.dropout;
            // The shares of dropouts at which a round selects the least, and the most.
            let share = |n: u64| (1.0 - self.settings.clients as f64 / n.max(1) as f64).max(0.0);
            let [least, most] = selected.map(share);
            let to = (from + RATE * (1.0 - came - from)).clamp(least, most);
            if to != from {
                let why = format!("{missing} of {asked} selected clients sent nothing");
                self.record("dropout", from, to, why);
            }
            self.settings.dropout = to;
        }
        if let Some([least, most]) = bounds.local_steps {
            self.follow_tiers(opening, collected, [least as f64, most as f64]);
        }
    }

    /// Fewer local steps for tiers that are slow, more for those that have time left.
    fn follow_tiers(&mut self, opening: &Opening, collected: &Collected, range: [f64; 2]) {
        let tier_of: BTreeMap<&str, &str> = opening
            .selection
            .choices
            .iter()
            .map(|choice| (choice.id.as_str(), choice.tier.as_deref().unwrap_or_default()))
            .collect();
        let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for tier in tier_of.values() {
            times.entry(tier).or_default();
        }
        for update in collected.updates.iter().filter(|update| is_of(opening, update)) {
            let tier = tier_of.get(update.id.as_str()).copied().unwrap_or_default();
            times.entry(tier).or_default().push(update.after_s);
        }
        for id in &collected.missing {
            // A client that sent nothing took at least the whole round.
            times
                .entry(tier_of.get(id.as_str()).copied().unwrap_or_default())
                .or_default()
                .push(f64::INFINITY);
        }
        let round = opening.settings.timeout_s;
        for (tier, mut times) in times {
            times.sort_by(f64::total_cmp);
            let Some(median) = quantile(&times, 0.5) else { continue };
            let from = self.settings.local_steps.get(tier).or_else(|| self.settings.local_steps.get(""));
            let from = from.copied().unwrap_or(1) as f64;
            let wanted = match median / round {
                slow if slow > 0.8 => (from / STEP).floor(),
                fast if fast < 0.3 => (from * STEP).ceil(),
                _ => from,
            };
            let to = wanted.clamp(range[0], range[1]);
            if to != from {
                let setting = format!("local_steps of tier `{tier}`");
                let why = format!("half of its updates came within {median:.0} s of {round:.0} s");
                self.record(&setting, from, to, why);
                self.settings.local_steps.insert(tier.to_owned(), to as u64);
            }
        }
    }

    /// Fits the compression target of all clients, and the settings of each tier, to their budgets of bytes.
    fn follow_bytes(
        &mut self,
        config: &Config,
        tiers: &BTreeMap<String, TierTask>,
        traffic: &BTreeMap<String, Traffic>,
    ) {
        let left = bandwidth::left(config, tiers, traffic);
        for (tier, task) in tiers {
            let budget = tier_codecs::budget(config, task, left);
            let found = traffic.get(tier).and_then(Traffic::median);
            if let (Some(median), Some(budget), Some(before)) =
                (found, budget, self.settings.tiers.get(tier).cloned())
            {
                let after = self.follow_tier(config, (tier, task), (median, budget), &before);
                self.settings.tiers.insert(tier.clone(), after);
            }
        }
        let bounds = config.adaptation.compression_target.zip(config.adaptation.bytes_per_round);
        let (Some((range, budget)), Some((left, sharing)), Some(others)) = (bounds, left, traffic.get(""))
        else {
            return;
        };
        let down: u64 = traffic.values().map(|tier| tier.down).sum();
        // Only updates follow the target: they have what the models leave of the budget.
        let own = left as f64 * others.clients as f64 / sharing.max(1) as f64;
        let (up, share) = (others.up(), others.up() as f64 / own.max(1.0));
        if up > 0 && !FITTING.contains(&share) {
            let from = self.settings.compression_target;
            let why = format!("updates took {up} bytes and models {down}, of {budget}");
            self.settings.compression_target =
                self.change("compression_target", from, from / share, range, why);
        }
    }

    /// The target and the codec of a tier whose half of the updates had at most `median` bytes.
    fn follow_tier(
        &mut self,
        config: &Config,
        (tier, task): (&str, &TierTask),
        (median, budget): (u64, u64),
        before: &TierSettings,
    ) -> TierSettings {
        let mut after = TierSettings { upload_bytes: Some(budget), ..before.clone() };
        let found = format!("half of its updates took at most {median} bytes, of {budget}");
        let share = median as f64 / budget.max(1) as f64;
        if let Some(range) = config.adaptation.compression_target.filter(|_| !FITTING.contains(&share)) {
            let (setting, from) = (format!("compression_target of tier `{tier}`"), before.compression_target);
            after.compression_target = self.change(&setting, from, from / share, range, found.clone());
        }
        if config.adaptation.tier_codecs && task.codec.is_none() {
            let chosen = tier_codecs::choose(&task.codecs, before.codec.as_deref(), Some(median), budget);
            after.codec = chosen.as_ref().map(|chosen| chosen.codec.clone());
            self.record_codec(tier, before.codec.as_ref(), chosen, &found);
        }
        after
    }

    /// Records another codec for a tier. A tier that keeps its codec is no change.
    fn record_codec(&mut self, tier: &str, before: Option<&String>, chosen: Option<Chosen>, found: &str) {
        if chosen.as_ref().map(|chosen| &chosen.codec) == before {
            return;
        }
        let why = match &chosen {
            Some(Chosen { codec, expected, is_met: true }) => {
                format!("{found}; {codec} is expected to take {expected}")
            }
            Some(Chosen { codec, expected, is_met: false }) => format!(
                "{found}; no codec of compression.methods meets that: {codec}, the smallest, is expected to take {expected}"
            ),
            None => format!("{found}; the rule of the tier takes no codec of compression.methods"),
        };
        let name = |codec: Option<&String>| Value::Name(codec.map_or("any", String::as_str).to_owned());
        let (from, to) = (name(before), name(chosen.as_ref().map(|chosen| &chosen.codec)));
        self.changes.push(Change { setting: format!("codec of tier `{tier}`"), from, to, why });
    }

    fn follow_lengths(&mut self, config: &Config, merged: &Merged) {
        let Some(range) = config.adaptation.server_learning_rate else { return };
        let Some(rate) = fedexp(merged) else { return };
        let from = self.settings.server_learning_rate.unwrap_or(1.0);
        let why = format!("FedExP of the clients' lengths and the merged delta's is {rate:.3}");
        self.settings.server_learning_rate =
            Some(self.change("server_learning_rate", from, rate, range, why));
    }
}

/// The updates that a round accepted: sound ones, which the merge did not leave out.
fn accepted(state: &State) -> Vec<&Arrival> {
    let Some(validated) = state.validated() else { return Vec::new() };
    let merged = state.merged();
    let is_bad = |update: &&Arrival| {
        merged.is_some_and(|merged| {
            merged.rejected.iter().any(|bad| bad.path == update.path)
                || merged.clients.iter().any(|client| client.id == update.id && !client.kept)
        })
    };
    validated.accepted.iter().filter(|update| !is_bad(update)).collect()
}

/// Whether a round asked for an update itself: the time of another one says nothing of the round.
fn is_of(opening: &Opening, update: &Arrival) -> bool {
    update.round == opening.selection.round
}

/// FedExP's learning rate: the weighted mean of the squared lengths of deltas over twice the squared length of the
/// merged delta, at least 1. `None` if the merge did not measure them.
fn fedexp(merged: &Merged) -> Option<f64> {
    let kept = merged.clients.iter().filter(|client| client.kept);
    let parts: Option<Vec<(f64, f64)>> = kept.map(|client| Some((client.weight?, client.norm?))).collect();
    let parts = parts.filter(|parts| !parts.is_empty())?;
    let total: f64 = parts.iter().map(|(weight, _)| weight).sum();
    let mean_length: f64 = parts.iter().map(|(weight, norm)| weight / total * norm).sum();
    let of = |name: &str| merged.geometry.get(name).copied();
    // Without a server step nothing measures the merged delta: the alignment is its length over the mean length.
    let delta = of("delta_norm").or_else(|| Some(of("alignment")? * mean_length))?;
    let lengths: f64 = parts.iter().map(|(weight, norm)| weight / total * norm * norm).sum();
    Some((lengths / (2.0 * (delta * delta + EPSILON * parts.len() as f64))).max(1.0))
        .filter(|rate| rate.is_finite())
}

/// A quantile of sorted values, the lower one between two; `None` without values.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((share * last as f64) as usize).copied()
}
