//! Findings about evaluation and adaptation: bounds, and what a change is measured by.

use super::finding::Lint;
use crate::config::duration::Friendly;
use crate::settings::Setting;
use crate::strategies::STRATEGIES;
use std::fmt::Display;

pub(super) fn check(lint: &mut Lint) {
    check_evaluation(lint);
    let config = lint.config;
    let (coordination, bounds) = (&config.coordination, &config.adaptation);
    inside(lint, "adaptation.quorum", bounds.quorum, coordination.quorum, "coordination.quorum");
    let times = bounds.round_timeout.map(|bounds| bounds.map(Friendly));
    let (time, name) = (Friendly(coordination.round_timeout), "coordination.round_timeout");
    inside(lint, "adaptation.round_timeout", times, time, name);
    inside(lint, "adaptation.clients", bounds.clients, coordination.clients, "coordination.clients");
    inside(
        lint,
        "adaptation.local_steps",
        bounds.local_steps,
        config.strategy.local_steps,
        "strategy.local_steps",
    );
    let target = config.compression.target;
    inside(lint, "adaptation.compression_target", bounds.compression_target, target, "compression.target");
    if let Some([least, most]) = bounds.clients {
        let (fewest, largest) = (coordination.min_clients, coordination.max_clients);
        if least < fewest || most > largest {
            let why = format!("it goes beyond min_clients, {fewest}, or max_clients, {largest}");
            lint.error(
                "adaptation.clients",
                text([least, most]),
                why,
                "bounds within min_clients and max_clients",
            );
        }
    }
    check_learning_rate(lint);
}

fn text<T: Display>([least, most]: [T; 2]) -> String {
    format!("[{least}, {most}]")
}

/// A setting that starts outside of its bounds.
fn inside<T: Display + PartialOrd>(
    lint: &mut Lint,
    key: &'static str,
    bounds: Option<[T; 2]>,
    start: T,
    name: &'static str,
) {
    if let Some([least, most]) = bounds
        && !(least <= start && start <= most)
    {
        let why = format!("{name} is {start}, outside of its bounds");
        lint.error(key, text([least, most]), why, format!("bounds around {start}, or another {name}"));
    }
}

/// The server's learning rate is a setting of the strategy.
fn check_learning_rate(lint: &mut Lint) {
    let Some(bounds) = lint.config.adaptation.server_learning_rate else { return };
    let name = &lint.config.strategy.name;
    let bare = name.split(':').next().unwrap_or(name);
    let is_rate = |setting: &Setting| setting.key == "lr";
    if STRATEGIES.iter().any(|entry| entry.name == bare && !entry.settings.iter().any(is_rate)) {
        let why = format!("the strategy {bare} has no learning rate");
        lint.error(
            "adaptation.server_learning_rate",
            text(bounds),
            why,
            "leave it out, or name = \"fedavg\"",
        );
    }
}

fn check_evaluation(lint: &mut Lint) {
    let evaluation = &lint.config.evaluation;
    if let Some(metric) = &evaluation.metric
        && evaluation.command.is_empty()
    {
        let why = "the guard needs a measured metric, and no command measures one";
        lint.error("evaluation.metric", metric, why, "set evaluation.command, or leave metric out");
    }
    let bounds = &lint.config.adaptation;
    let learns = bounds.server_learning_rate.is_some()
        || bounds.local_steps.is_some()
        || bounds.compression_target.is_some()
        || bounds.tier_codecs;
    if learns && evaluation.command.is_empty() {
        let why = "adaptation changes how the model is trained, and no evaluation shows if it gets worse";
        lint.warning("evaluation.command", "[]", why, "set evaluation.command and evaluation.metric");
    }
}
