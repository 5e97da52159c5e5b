//! Limits out of their ranges, and frozen values that there are not.

use super::finding::Lint;
use super::policy::expect_time;
use super::rules;
use super::votes::check_threshold;
use crate::schema::policy::FailureMode;
use crate::schema::stage::{ForEach, MOST_INSTANCES, Shards};

pub(super) fn check(lint: &mut Lint) {
    let limits = &lint.plan.limits;
    let counts = [
        ("max_parallel", limits.max_parallel),
        ("agent_pool_size", Some(limits.agent_pool_size)),
        ("max_parallel_workflows", Some(limits.max_parallel_workflows)),
    ];
    for (key, count) in counts {
        if count == Some(0) {
            lint.add(&rules::LIMIT, format!("$.limits.{key}"), "found 0, expected at least 1");
        }
    }
    if let Some(wall) = limits.wall {
        expect_time(lint, "$.limits.wall", wall);
    }
    expect_time(lint, "$.limits.decision_timeout", limits.decision_timeout);
    check_threshold(lint, "$.limits.consensus_threshold", limits.consensus_threshold);
    check_privacy(lint);
    check_failures(lint);
    check_memory(lint);
    check_instances(lint);
    check_agents(lint);
    check_frozen(lint);
}

fn check_privacy(lint: &mut Lint) {
    let limits = &lint.plan.limits;
    if let Some(eps) = limits.eps.filter(|eps| !(*eps > 0.0 && eps.is_finite())) {
        lint.add(&rules::LIMIT, "$.limits.eps", format!("found {eps}, expected a number above 0"));
    }
    if let Some(delta) = limits.delta.filter(|delta| !(*delta > 0.0 && *delta < 1.0)) {
        lint.add(
            &rules::LIMIT,
            "$.limits.delta",
            format!("found {delta}, expected a number between 0 and 1"),
        );
    }
    match (limits.eps, limits.delta) {
        (Some(_), None) => {
            let why = "found no `delta`, expected the one at which `eps` is stated";
            lint.add(&rules::LIMIT, "$.limits.eps", why);
        }
        (None, Some(_)) => {
            lint.add(&rules::IDLE, "$.limits.delta", "found `delta` without `eps`, which limits nothing");
        }
        _ => {}
    }
}

fn check_failures(lint: &mut Lint) {
    let limits = &lint.plan.limits;
    let Some(most) = limits.max_failed else { return };
    let is_share = most > 0.0 && most < 1.0;
    let is_count = most >= 1.0 && most.fract() == 0.0 && most.is_finite();
    if !is_share && !is_count {
        let why = format!("found {most}, expected a share between 0 and 1, or a whole number from 1 on");
        lint.add(&rules::LIMIT, "$.limits.max_failed", why);
    }
    if limits.on_failure != FailureMode::KeepGoing {
        let why = "found `max_failed`, which only `on_failure: keep_going` reads";
        lint.add(&rules::IDLE, "$.limits.max_failed", why);
    }
}

fn check_memory(lint: &mut Lint) {
    let plan = lint.plan;
    let Some(most) = plan.limits.mem_bytes else { return };
    for (place, stage) in plan.stages.iter().enumerate() {
        if let Some(bytes) = stage.mem_bytes.filter(|bytes| *bytes > most) {
            let why = format!("found {bytes} bytes, expected at most the {most} of `limits.mem_bytes`");
            lint.add(&rules::LIMIT, format!("$.stages[{place}].mem_bytes"), why);
        }
    }
}

/// Instances that the plan states; those of inputs are known once the files are found.
fn check_instances(lint: &mut Lint) {
    let mut total: u64 = 0;
    for (place, stage) in lint.plan.stages.iter().enumerate() {
        total += match &stage.for_each {
            Some(ForEach::Values(values)) => values.len() as u64,
            Some(ForEach::Range(count) | ForEach::Shards(Shards::Count(count))) => u64::from(*count),
            _ => 0,
        };
        if total > MOST_INSTANCES {
            let why = format!(
                "with the stages before it, found {total} instances, expected at most {MOST_INSTANCES} in a plan"
            );
            return lint.add(&rules::LIMIT, format!("$.stages[{place}].for_each"), why);
        }
    }
}

fn check_agents(lint: &mut Lint) {
    for (name, agent) in &lint.plan.agents {
        let skills = agent.skills();
        let at = format!("$.agents.{name}");
        if skills.max_parallel == Some(0) {
            lint.add(&rules::LIMIT, format!("{at}.max_parallel"), "found 0, expected at least 1");
        }
        if !(0.0..=1.0).contains(&skills.score) {
            let why = format!("found {}, expected a number from 0 to 1", skills.score);
            lint.add(&rules::LIMIT, format!("{at}.score"), why);
        }
    }
}

fn check_frozen(lint: &mut Lint) {
    let plan = lint.plan;
    if plan.safety.frozen.is_empty() {
        return;
    }
    let value = serde_json::to_value(plan).unwrap_or_default();
    for (place, pointer) in plan.safety.frozen.iter().enumerate() {
        let at = format!("$.safety.frozen[{place}]");
        if !pointer.starts_with('/') {
            let why = format!("found `{pointer}`, expected a JSON pointer such as /params/f");
            lint.add(&rules::FROZEN, at, why);
        } else if value.pointer(pointer).is_none() {
            let known: Vec<String> = plan.params.keys().map(|name| format!("/params/{name}")).collect();
            let known = known.iter().map(String::as_str);
            lint.add_unknown(&rules::FROZEN, at, (pointer, "a pointer to a value of the plan"), known);
        }
    }
}
