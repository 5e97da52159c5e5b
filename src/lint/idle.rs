//! Findings about keys that have no effect beside the others.

use super::finding::Lint;
use crate::config::Config;
use crate::config::sections::Mode;
use crate::rules;
use crate::settings::Definition;
use std::fmt::Display;

/// The usual remedy.
const LEAVE_OUT: &str = "leave it out";

pub(super) fn check(lint: &mut Lint) {
    check_rounds(lint);
    check_compression(lint);
    check_off(lint);
}

/// A key that is set, and not read.
struct Idle<'i> {
    key: &'static str,
    found: &'i dyn Display,
    why: &'static str,
    remedy: &'static str,
}

fn note(lint: &mut Lint, is_idle: bool, idle: &Idle) {
    if is_idle {
        lint.warning(idle.key, idle.found, format!("it has no effect: {}", idle.why), idle.remedy);
    }
}

/// Keys about asynchronous rounds, the guard and tiers.
fn check_rounds(lint: &mut Lint) {
    let (config, usual) = (lint.config, Config::default());
    let (buffer, is_sync) = (config.coordination.buffer, config.coordination.mode == Mode::Sync);
    let (key, remedy) = ("coordination.buffer", "mode = \"async\", or leave it out");
    let idle = Idle { key, found: &buffer, why: "mode is sync", remedy };
    note(lint, is_sync && buffer != usual.coordination.buffer, &idle);
    let regression = config.evaluation.max_regression;
    let (key, why, remedy) =
        ("evaluation.max_regression", "no metric guards publishing", "set evaluation.metric");
    let idle = Idle { key, found: &regression, why, remedy };
    note(lint, config.evaluation.metric.is_none() && regression != 0.0, &idle);
    let (found, default) = (&config.robustness, &usual.robustness);
    let differs = found.rule != default.rule || found.pre != default.pre;
    let why = "every tier names its rule in the file of tiers";
    let (key, remedy) = ("robustness.rule", "set them in the file of tiers");
    let idle = Idle { key, found: &found.rule, why, remedy };
    note(lint, lint.facts.has_tier_rules && config.tiers.file.is_some() && differs, &idle);
    check_weights(lint);
}

/// Weights under a rule that takes all clients alike.
fn check_weights(lint: &mut Lint) {
    let config = lint.config;
    let found = &config.robustness;
    let Some(weights) = &found.weights else { return };
    let rule = rules::parse(&found.rule, Definition::Paper);
    let is_alike = rule.is_ok_and(|rule| !rule.uses_weights());
    let (why, remedy) = ("the rule takes all clients alike", "leave it out, or a rule that weighs clients");
    let idle = Idle { key: "robustness.weights", found: weights, why, remedy };
    let is_idle = is_alike && weights != "uniform" && config.tiers.file.is_none() && !config.privacy.enabled;
    note(lint, is_idle, &idle);
}

fn check_compression(lint: &mut Lint) {
    let (compression, usual) = (&lint.config.compression, Config::default().compression);
    let no_codec = compression.methods.is_empty();
    let (why, remedy) = ("no codec is in methods", "set compression.methods");
    let idle = Idle { key: "compression.target", found: &compression.target, why, remedy };
    note(lint, no_codec && compression.target != usual.target, &idle);
    let bounds = lint.config.adaptation.compression_target.is_some();
    let idle = Idle { key: "adaptation.compression_target", found: &"bounds", why, remedy };
    note(lint, no_codec && bounds, &idle);
}

/// Keys of what is off.
fn check_off(lint: &mut Lint) {
    let (config, usual) = (lint.config, Config::default());
    let privacy = &config.privacy;
    let (key, why) = ("privacy.enabled", "[privacy] has a budget, and is off");
    let idle = Idle { key, found: &false, why, remedy: "enabled = true, or leave [privacy] out" };
    note(lint, !privacy.enabled && *privacy != usual.privacy, &idle);
    let (key, why) = ("monitoring.clients_under_privacy", "privacy.enabled is false");
    let idle = Idle { key, found: &true, why, remedy: LEAVE_OUT };
    note(lint, !privacy.enabled && config.monitoring.clients_under_privacy, &idle);
    let (key, why) = ("secure.enabled", "[secure] has terms, and is off");
    let idle = Idle { key, found: &false, why, remedy: "enabled = true, or leave [secure] out" };
    note(lint, !config.secure.enabled && config.secure != usual.secure, &idle);
}
