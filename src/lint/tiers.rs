//! Findings about the codecs of tiers: what rules refuse, and budgets that no codec meets.

use super::finding::Lint;
use crate::lint::tier_codecs::{self, Chosen, TierTask};

const KEY: &str = "adaptation.tier_codecs";

pub(super) fn check(lint: &mut Lint) {
    let config = lint.config;
    if !config.adaptation.tier_codecs {
        return;
    }
    if config.tiers.file.is_none() {
        lint.warning(KEY, true, "it has no effect: there are no tiers", "set tiers.file, or leave it out");
        return;
    }
    if config.compression.methods.is_empty() {
        let why = "it has no effect: no codec is in methods";
        lint.warning(KEY, true, why, "set compression.methods, from the least lossy codec down");
        return;
    }
    // A share of the budget if no client has to fetch the model: what is too little here is too little in every round.
    let share = config.adaptation.bytes_per_round.map(|bytes| (bytes, config.coordination.selected()));
    let budget = |task: &TierTask| tier_codecs::budget(config, task, share);
    let tiers = &lint.facts.tiers;
    if !tiers.is_empty() && tiers.values().all(|task| budget(task).is_none()) {
        let why = "no tier has a budget of bytes, so each codec meets it";
        let remedy = "set upload_bytes of a tier in the file of tiers, or adaptation.bytes_per_round";
        lint.warning(KEY, true, why, remedy);
    }
    for (tier, task) in tiers {
        check_order(lint, task);
        check_fit(lint, tier, task, budget(task));
    }
}

/// A codec that needs more bytes than one before it is never chosen.
fn check_order(lint: &mut Lint, task: &TierTask) {
    for pair in task.codecs.windows(2).filter(|pair| pair[1].bytes >= pair[0].bytes) {
        let (before, after) = (&pair[0], &pair[1]);
        let why = format!(
            "{} is expected to take {} bytes and {} before it {}: it is never chosen",
            after.codec, after.bytes, before.codec, before.bytes
        );
        let found = &after.codec;
        if !lint.findings.iter().any(|finding| finding.why == why) {
            lint.warning("compression.methods", found, why, "list codecs from the least lossy one down");
        }
    }
}

/// A codec that the tier cannot use, and a budget that no codec meets.
fn check_fit(lint: &mut Lint, tier: &str, task: &TierTask, budget: Option<u64>) {
    for (codec, why) in &task.unfit {
        let why = format!("tier `{tier}` never gets it: {why}");
        lint.warning("compression.methods", codec, why, "leave it out, or another rule for the tier");
    }
    if task.codecs.is_empty() && !task.unfit.is_empty() {
        let why = format!("tier `{tier}` can use none of the codecs");
        let remedy = "add a codec such as u8, or another rule for the tier";
        lint.warning("compression.methods", lint.config.compression.methods.join(", "), why, remedy);
    }
    let Some(budget) = budget else { return };
    let pinned = task.codec.as_ref();
    let used: Vec<_> =
        task.codecs.iter().filter(|one| pinned.is_none_or(|pinned| one.codec == *pinned)).cloned().collect();
    if let Some(Chosen { codec, expected, is_met: false }) = tier_codecs::choose(&used, None, None, budget) {
        let (why, remedy) = match pinned {
            Some(_) => (
                format!(
                    "tier `{tier}` uses {codec}, which is expected to take {expected} bytes, of {budget}"
                ),
                "leave out the codec of the tier, so that it adapts, or raise the budget",
            ),
            None => (
                format!(
                    "no codec meets the {budget} bytes of a client in tier `{tier}`: {codec}, the smallest, is expected to take {expected}"
                ),
                "add a smaller codec to compression.methods, or raise the budget",
            ),
        };
        lint.warning(KEY, true, why, remedy);
    }
}
