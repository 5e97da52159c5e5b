//! Who measures what.

use super::finding::{Lint, finding};
use super::order;
use super::rules;
use crate::schema::agent::Agent;
use crate::schema::stage::Stage;

/// Stages with one metric up to which each is compared with each; beyond them, with the next one.
const MOST_PAIRS: usize = 64;

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, stage) in plan.stages.iter().enumerate() {
        if stage.decides() {
            for (number, metric) in stage.metrics.iter().enumerate() {
                check_read(lint, place, number, metric.as_str());
            }
        } else if !stage.metrics.is_empty() && stage.consensus.is_none() && !has_file(lint, stage) {
            let why =
                "found metrics of a stage without a file of metrics, expected an output with `metrics: true`";
            lint.add(&rules::METRIC, format!("$.stages[{place}].metrics"), why);
        }
    }
    check_clashes(lint);
}

/// Whether a stage has an output with metrics. The numbers in the reply of an endpoint are metrics, too.
fn has_file(lint: &Lint, stage: &Stage) -> bool {
    let is_endpoint = |agent: &&Agent| !matches!(agent, Agent::Command(_));
    stage.out.iter().any(|out| out.metrics) || lint.index.agents_of(stage).iter().any(is_endpoint)
}

/// A metric that a decision says it reads.
fn check_read(lint: &mut Lint, place: usize, number: usize, metric: &str) {
    if !lint.index.measuring.contains_key(metric) {
        let known: Vec<&str> = lint.index.measuring.keys().copied().collect();
        let at = format!("$.stages[{place}].metrics[{number}]");
        lint.add_unknown(&rules::METRIC, at, (metric, "a metric that a stage measures"), known);
    }
}

/// Two stages that measure one metric are alternatives, or one waits for the other: else the value depends on which of
/// them is faster.
fn check_clashes(lint: &mut Lint) {
    let clashing: Vec<(String, Vec<usize>)> = lint
        .index
        .measuring
        .iter()
        .filter(|(_, stages)| stages.len() > 1)
        .map(|(name, stages)| ((*name).to_owned(), stages.clone()))
        .collect();
    for (metric, stages) in clashing {
        let reach = if stages.len() <= MOST_PAIRS { stages.len() } else { 1 };
        for (number, first) in stages.iter().enumerate() {
            for second in stages.iter().skip(number + 1).take(reach) {
                if !are_alternatives(lint, *first, *second) {
                    let other = &lint.plan.stages[*first].id;
                    let why = format!(
                        "found metric `{metric}`, which stage `{other}` measures too, and neither waits for the other, \
                         expected another name"
                    );
                    let found = finding(&rules::METRIC, format!("$.stages[{second}].metrics"), why);
                    order::expect_ordered(lint, *first, *second, found);
                }
            }
        }
    }
}

/// Whether two stages are different branches of one decision.
fn are_alternatives(lint: &Lint, a: usize, b: usize) -> bool {
    let branch = |stage: usize| lint.plan.stages[stage].branch.as_ref();
    let (Some(first), Some(second)) = (branch(a), branch(b)) else { return false };
    let decides =
        |stage: &&usize, case: &str| super::index::Index::choices(&lint.plan.stages[**stage]).contains(&case);
    let mut shared = lint.index.needs(a).iter().filter(|need| lint.index.needs(b).contains(need));
    first != second && shared.any(|need| decides(&need, first.as_str()) && decides(&need, second.as_str()))
}
