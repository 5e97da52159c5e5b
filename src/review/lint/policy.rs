//! Retries, timeouts and gates.

use super::finding::Lint;
use super::rules;
use crate::schema::agent::Agent;
use crate::schema::policy::{MOST_ATTEMPTS, Retry, SideEffects, Timeout};
use crate::schema::stage::Stage;
use crate::settings::duration::Friendly;

pub(super) fn check(lint: &mut Lint) {
    check_skipped_gates(lint);
    let plan = lint.plan;
    if let Some(timeout) = &plan.limits.timeout {
        check_timeout(lint, "$.limits.timeout", timeout);
    }
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        if let Some(retry) = &stage.retry {
            check_retry(lint, &format!("{at}.retry"), retry);
            if retry.max_attempts > 1 && stage.side_effects == SideEffects::Once {
                let why = "found retries of a stage with `side_effects: once`, expected none: it must not happen twice";
                lint.add(&rules::RETRY, format!("{at}.retry"), why);
            }
        }
        match &stage.timeout {
            Some(timeout) => check_timeout(lint, &format!("{at}.timeout"), timeout),
            None if plan.limits.timeout.is_none() => {
                let is_command = |agent: &&Agent| matches!(agent, Agent::Command(_));
                if stage.consensus.is_none() && lint.index.agents_of(stage).iter().any(is_command) {
                    let why = "found no timeout, expected `timeout` here or `limits.timeout`";
                    lint.add(&rules::TIMEOUT, at.clone(), why);
                }
            }
            None => {}
        }
        if let Some(gate) = &stage.gate {
            expect_time(lint, &format!("{at}.gate.timeout"), gate.timeout);
        }
        if let Some(timeout) = stage.consensus.as_ref().and_then(|vote| vote.timeout) {
            expect_time(lint, &format!("{at}.consensus.timeout"), timeout);
        }
    }
    for (name, agent) in &plan.agents {
        let at = format!("$.agents.{name}.timeout");
        match agent {
            Agent::Command(_) => {}
            Agent::Http(agent) => expect_time(lint, &at, agent.timeout),
            Agent::Ollama(agent) => expect_time(lint, &at, agent.timeout),
        }
    }
}

fn check_timeout(lint: &mut Lint, at: &str, timeout: &Timeout) {
    expect_time(lint, &format!("{at}.run"), timeout.run);
    if let Some(idle) = timeout.idle {
        expect_time(lint, &format!("{at}.idle"), idle);
    }
    if timeout.kill_after.as_seconds() < 0.0 {
        let why = format!("found {}, expected a time from 0 on", timeout.kill_after);
        lint.add(&rules::TIMEOUT, format!("{at}.kill_after"), why);
    }
}

/// Adds a finding unless the time is longer than 0.
pub(super) fn expect_time(lint: &mut Lint, at: &str, time: Friendly) {
    if time.as_seconds() <= 0.0 {
        lint.add(&rules::TIMEOUT, at, format!("found {time}, expected a time longer than 0"));
    }
}

fn check_retry(lint: &mut Lint, at: &str, retry: &Retry) {
    if retry.max_attempts == 0 {
        let why = "found 0, expected at least 1: the first attempt counts";
        lint.add(&rules::RETRY, format!("{at}.max_attempts"), why);
    }
    if retry.max_attempts > MOST_ATTEMPTS {
        let why = format!("found {}, expected at most {MOST_ATTEMPTS} attempts", retry.max_attempts);
        lint.add(&rules::RETRY, format!("{at}.max_attempts"), why);
    }
    if retry.max_attempts > 1 && retry.on.is_empty() {
        let why = "found no failure, expected those that are worth another attempt, such as `any`";
        lint.add(&rules::RETRY, format!("{at}.on"), why);
    }
    let backoff = &retry.backoff;
    if backoff.factor.is_nan() || backoff.factor < 1.0 {
        let why = format!("found {}, expected at least 1: pauses do not become shorter", backoff.factor);
        lint.add(&rules::RETRY, format!("{at}.backoff.factor"), why);
    }
    for (key, time) in [("initial", backoff.initial), ("max", backoff.max)] {
        if time.as_seconds() < 0.0 {
            let why = format!("found {time}, expected a time from 0 on");
            lint.add(&rules::RETRY, format!("{at}.backoff.{key}"), why);
        }
    }
}

/// Finds gates that may be skipped, and so open the way to the stages behind them.
fn check_skipped_gates(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, stage) in plan.stages.iter().enumerate() {
        for (index, need) in stage.needs.iter().enumerate() {
            let Some((_, gate)) = lint.index.stage(need.as_str()) else { continue };
            let Some(condition) = open_condition(gate, stage) else { continue };
            let why = format!(
                "found a gate that may be skipped, behind which `{}` runs without an answer, expected {condition} here \
                 too",
                stage.id
            );
            lint.add(&rules::SKIPPED_GATE, format!("$.stages[{place}].needs[{index}]"), why);
        }
    }
}

/// The condition of a gate that a stage behind it lacks.
fn open_condition(gate: &Stage, stage: &Stage) -> Option<String> {
    gate.gate.as_ref()?;
    let own = stage.when.as_deref().unwrap_or_default();
    // A stage that asks how the gate ended decides for itself.
    if own.contains(&format!("stages.{}.", gate.id)) {
        return None;
    }
    let when = gate.when.as_ref().filter(|when| !own.contains(when.as_str()));
    let branch = gate.branch.as_ref().filter(|branch| stage.branch.as_ref() != Some(branch));
    let when = when.map(|when| format!("`\"when\": \"{when}\"`"));
    when.or_else(|| branch.map(|branch| format!("`\"branch\": \"{branch}\"`")))
}
