//! Findings about secure rounds: what needs single updates, and terms that cannot be.

use super::finding::{Level, Lint};
use crate::config::sections::Mode;
use crate::lint::budget_plan::is_poisson;
use crate::modes::dp::release::STEPS_AFTER_NOISE;
use crate::parties::grid::most_levels;
use crate::rules;
use crate::settings::Definition;

pub(super) fn check(lint: &mut Lint) {
    let secure = &lint.config.secure;
    if !secure.enabled {
        return;
    }
    check_rule(lint);
    check_groups(lint);
    check_grid(lint);
    check_strategy(lint);
    check_updates(lint);
    check_readers(lint);
}

/// How groups make a rule possible.
const GROUPS: &str = "secure.groups = 5 or more, so that the rule judges the means of groups, or rule = \"mean\" without \
                      steps before it and byzantine_tolerance = 0";

/// The one mean of a session with one group leaves nothing to judge.
fn check_rule(lint: &mut Lint) {
    let (robustness, groups) = (&lint.config.robustness, lint.config.secure.groups);
    if groups == 1 {
        let is_mean =
            rules::parse(&robustness.rule, Definition::Paper).is_ok_and(|rule| rule.to_string() == "mean");
        let why = "the rule and its steps judge single updates, which a secure round hides";
        if !is_mean {
            lint.error("robustness.rule", &robustness.rule, why, GROUPS);
        }
        if !robustness.pre.is_empty() {
            lint.error("robustness.pre", robustness.pre.join(", "), why, GROUPS);
        }
        if robustness.byzantine_tolerance > 0.0 {
            let why = "a sum leaves out no hostile client: the clip bounds each";
            let found = robustness.byzantine_tolerance;
            lint.error("robustness.byzantine_tolerance", found, why, GROUPS);
        }
    }
    if robustness.weights.is_some() || robustness.max_examples.is_some() {
        let found = robustness.weights.clone().or(robustness.max_examples.map(|most| most.to_string()));
        let why = "the server does not see the examples of single clients: secure.weights has the weights";
        lint.error(
            "robustness.weights",
            found.unwrap_or_default(),
            why,
            "leave out weights and max_examples, and set secure.weights = \"examples:cap=N\"",
        );
    }
}

/// Groups must have as many clients as a sum needs, in the smallest round.
fn check_groups(lint: &mut Lint) {
    let (secure, least) = (&lint.config.secure, lint.config.coordination.min_clients);
    let needed = secure.groups.saturating_mul(secure.least_of_group());
    if needed > least {
        let why = format!(
            "a round may have {least} clients, and {} groups of at least {} need {needed}",
            secure.groups,
            secure.least_of_group()
        );
        lint.error(
            "secure.groups",
            secure.groups,
            why,
            "raise min_clients, or lower groups or min_survivors",
        );
    }
}

/// The fewest levels of a grid that says more of a value than its sign and a few sizes.
const FEW_LEVELS: u32 = 16;

/// Sums must fit the lanes, and each kept value needs a whole one.
fn check_grid(lint: &mut Lint) {
    let (secure, clients) = (&lint.config.secure, lint.config.coordination.clients);
    let (lane, of_group) = (secure.values_per_lane, clients.div_ceil(secure.groups.max(1)));
    let levels = most_levels(of_group, lane as u32);
    let why = format!("sums of {of_group} clients leave {levels} levels for a value");
    let remedy = "lower secure.values_per_lane; `fedmill secagg params` prints the levels";
    let level = if levels == 0 { Level::Error } else { Level::Warning };
    if levels < FEW_LEVELS {
        lint.add(level, "secure.values_per_lane", lane, why, remedy);
    }
    if let (Some(keep), true) = (&secure.keep, lane > 1) {
        let why = "values that are not sent have no place in a lane of several";
        lint.error("secure.keep", keep, why, "secure.values_per_lane = 1, or leave keep out");
    }
}

/// A secure round hands the strategy one mean, or the mean of the rule.
fn check_strategy(lint: &mut Lint) {
    let name = &lint.config.strategy.name;
    let bare = name.split(':').next().unwrap_or(name);
    if !STEPS_AFTER_NOISE.contains(&bare) {
        let why = "the strategy needs reports, lengths or ages of single updates, which a secure round hides";
        lint.error("strategy.name", name, why, format!("one of {}", STEPS_AFTER_NOISE.join(", ")));
    }
    if lint.config.coordination.mode == Mode::Async {
        let why = "the masks of a session belong to one round, and a buffer holds updates of several";
        lint.error("coordination.mode", "async", why, "mode = \"sync\"");
    }
}

/// What masks cannot do.
fn check_updates(lint: &mut Lint) {
    let config = lint.config;
    if config.privacy.enabled {
        let why = "private rounds clip each update on the server, which a secure round hides";
        lint.error("privacy.enabled", true, why, "privacy.enabled = false, or secure.enabled = false");
    }
    if let Some(file) = &config.tiers.file {
        let why = "a tier is merged by its own rule, and a session has random groups";
        lint.error("tiers.file", file.display(), why, "leave it out");
    }
    if !config.personalization.layers.is_empty() {
        let why = "a masked update has all tensors of the model";
        lint.error("personalization.layers", config.personalization.layers.join(", "), why, "layers = []");
    }
    if !config.compression.methods.is_empty() {
        let why = "masks cover every value: a masked update has 4 bytes for secure.values_per_lane values";
        lint.error(
            "compression.methods",
            config.compression.methods.join(", "),
            why,
            "methods = [], and secure.values_per_lane = 2 or secure.keep = \"0.5\" for files of half the size",
        );
    }
}

/// Selections that read the losses of single clients.
const READ_LOSSES: [&str; 2] = ["oort", "power-of-choice"];

/// Readers of figures of single clients.
fn check_readers(lint: &mut Lint) {
    let selection = &lint.config.coordination.selection;
    if READ_LOSSES.iter().any(|name| selection.split(':').next() == Some(name)) {
        let why = "the selection reads the losses of single clients, which a secure round hides";
        lint.error("coordination.selection", selection, why, "selection = \"weighted\" or \"uniform\"");
    }
    if is_poisson(selection) {
        let why = "a Poisson sample may have fewer clients than a sum needs, and without privacy.enabled it promises nothing";
        lint.error("coordination.selection", selection, why, "selection = \"weighted\" or \"uniform\"");
    }
}
