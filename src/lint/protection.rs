//! Findings about the rule, at the numbers of clients that a round may merge.

use super::finding::{Level, Lint};
use crate::config::Config;
use crate::config::sections::{Mode, OnBad};
use crate::model::state::StateTensor;
use crate::rules::geometry::{Geometry, References};
use crate::rules::numeric::triangle::Triangle;
use crate::rules::pre::{self, PreAggregation};
use crate::rules::{self, Needs, Rule, RuleError, Statistics};
use crate::settings::Definition;
use crate::settings::share::Share;
use crate::strategies;

/// The most clients with which steps before the rule are tried: their work grows with the square of the number.
const MOST_TRIED: u64 = 300;

pub(super) fn check(lint: &mut Lint) {
    let config = lint.config;
    if config.robustness.on_bad_update == OnBad::Fail && config.robustness.byzantine_tolerance > 0.0 {
        let why = "one bad update refuses the round, so one hostile client can stop the training";
        lint.warning("robustness.on_bad_update", "fail", why, "on_bad_update = \"skip\"");
    }
    if config.tiers.file.is_some() {
        check_tiers(lint);
    }
    // Each tier has its rule, and a private round has the mean alone, as a secure one of one group.
    let has_one_sum = config.secure.enabled && config.secure.groups == 1;
    if config.privacy.enabled || config.tiers.file.is_some() || has_one_sum {
        return;
    }
    let Ok(rule) = rules::parse(&config.robustness.rule, Definition::Paper) else { return };
    for (clients, level) in cohorts(config) {
        if let Err(why) =
            tried(config, clients).and_then(|updates| protects(config, clients, &updates, rule.as_ref()))
        {
            report(lint, rule.as_ref(), clients, level, &why);
            return;
        }
    }
    let (clients, _) = cohorts(config)[0];
    let is_bounded = tried(config, clients).is_ok_and(|updates| updates.is_bounded);
    if !is_bounded && !config.secure.enabled && rule.tolerates(clients as usize) == 0 {
        let why =
            "no rule, step or bound stands against outliers: one update moves the model as far as it likes";
        let remedy = "rule = \"trimmed-mean\" with a byzantine_tolerance, or pre = [\"clip:norm=1\"]";
        lint.warning("robustness.rule", &config.robustness.rule, why, remedy);
    }
}

/// Tiers are merged one by one: a strategy that measures or scales clients across them has no meaning.
fn check_tiers(lint: &mut Lint) {
    let name = &lint.config.strategy.name;
    let Ok(strategy) = strategies::parse(&lint.config.strategy.spec(), Definition::Paper) else { return };
    let is_across = strategy.needs() > Needs::Nothing
        || strategy.trusts().is_some()
        || strategy.keeps().iter().any(|kept| kept.slot == StateTensor::Control);
    if is_across {
        let why = "the strategy measures or scales clients across tiers, which are merged one by one";
        lint.error("strategy.name", name, why, "fedavg, or leave tiers.file out");
    }
}

/// The numbers of clients that a round may merge, and how bad it is if the rule fails there. The rule of a secure round
/// judges the means of groups.
fn cohorts(config: &Config) -> Vec<(u64, Level)> {
    let coordination = &config.coordination;
    if config.secure.enabled {
        return vec![(config.secure.groups, Level::Error)];
    }
    let usual = match coordination.mode {
        Mode::Sync => coordination.quorum_count(),
        Mode::Async => coordination.buffer.max(coordination.min_clients),
    };
    let mut cohorts = vec![(usual, Level::Error)];
    if coordination.mode == Mode::Sync && coordination.min_clients < usual {
        cohorts.push((coordination.min_clients, Level::Warning));
    }
    cohorts
}

/// The share of hostile clients; `None` for no hostile clients.
fn tolerance(config: &Config) -> Option<Share> {
    let tolerance = config.robustness.byzantine_tolerance;
    if tolerance > 0.0 { tolerance.to_string().parse().ok() } else { None }
}

/// Made-up updates of some clients after the steps before the rule.
fn tried(config: &Config, clients: u64) -> Result<PreAggregation, RuleError> {
    let steps: Vec<_> = config.robustness.pre.iter().filter_map(|step| pre::parse(step).ok()).collect();
    let n = if steps.is_empty() { clients } else { clients.min(MOST_TRIED) } as usize;
    let statistics = Statistics {
        ids: (0..n).map(|client| client.to_string()).collect(),
        weights: vec![1.0; n],
        byzantine: Some(tolerance(config).map_or(0, |share| share.of(n))),
        seed: 0,
        geometry: (!steps.is_empty()).then(|| equidistant(n)),
    };
    pre::prepare(&steps, pre::scaled(statistics, None), Needs::Nothing)
}

/// Updates that are all as far from one another, and from the base.
fn equidistant(clients: usize) -> Geometry {
    let references = References { median: true, centre: false };
    let size = clients + references.count();
    let gram = Triangle::new(size, |p, q| if p == q && p < clients { 1.0 } else { 0.0 });
    Geometry::new(clients, references, gram, None, 0.0)
}

/// Whether the rule tolerates the hostile clients, and the fractions are at least one client.
fn protects(
    config: &Config,
    clients: u64,
    updates: &PreAggregation,
    rule: &dyn Rule,
) -> Result<(), RuleError> {
    if let Some(share) = tolerance(config) {
        rules::check_share("byzantine_tolerance", &share, clients as usize)?;
    }
    updates.check_protects(rule)?;
    updates.check(rule)
}

fn report(lint: &mut Lint, rule: &dyn Rule, clients: u64, level: Level, why: &RuleError) {
    let config = lint.config;
    let of_tolerance = matches!(why, RuleError::Unprotected { what, .. } if what == "byzantine_tolerance");
    let (key, found) = match of_tolerance {
        true => ("robustness.byzantine_tolerance", config.robustness.byzantine_tolerance.to_string()),
        false => ("robustness.rule", config.robustness.rule.clone()),
    };
    let at = match level {
        Level::Error | Level::Note => "",
        Level::Warning => "at the deadline with min_clients updates: ",
    };
    let why = why
        .to_string()
        .replace("but --byzantine says", "byzantine_tolerance assumes")
        .replace("--pre", "pre");
    lint.add(level, key, found, format!("{at}{why}"), remedy(config, rule, clients));
}

/// What makes the rule protect: the fewest clients, or a smaller tolerance.
fn remedy(config: &Config, rule: &dyn Rule, clients: u64) -> String {
    let holds = |config: &Config, clients: u64| {
        tried(config, clients).and_then(|updates| protects(config, clients, &updates, rule)).is_ok()
    };
    let mut remedies = Vec::new();
    if let Some(more) = (clients + 1..=clients + 50).find(|more| holds(config, *more)) {
        remedies.push(match config.secure.enabled {
            true => format!("raise secure.groups to {more}"),
            false => format!("raise min_clients and clients to {more}"),
        });
    }
    let with = |hostile: u64| {
        let mut config = config.clone();
        // Rounded up to three digits, so that the fraction of the clients is this number again.
        config.robustness.byzantine_tolerance = (1000.0 * hostile as f64 / clients as f64).ceil() / 1000.0;
        config
    };
    let assumed = tolerance(config).map_or(0, |share| share.of(clients as usize)) as u64;
    let fewer = (0..=assumed).rev().map(with).find(|config| holds(config, clients));
    if let Some(fewer) = fewer {
        let most = fewer.robustness.byzantine_tolerance;
        remedies.push(format!("lower byzantine_tolerance to {most}"));
    }
    remedies.push("take another rule, such as trimmed-mean or median".to_owned());
    remedies.join(", or ")
}
