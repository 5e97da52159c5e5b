//! Tuned parameters: what may be tuned, and whether shadow runs can judge a candidate.

use super::finding::Lint;
use super::names::known_stage;
use super::policy::expect_time;
use super::rules;
use crate::language::tunable::{Forbidden, forbidden, not_repeatable, tuned_before};
use crate::schema::looped::{Policy, Preset, Tune, Validate};
use std::collections::BTreeSet;

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, looped) in plan.loops.iter().enumerate() {
        if let Some(tune) = &looped.tune {
            let at = format!("$.loops[{place}].tune");
            check_param(lint, &at, tune);
            if let Some(why) = tuned_before(plan, place) {
                lint.add(&rules::TUNE, format!("{at}.param"), why);
            }
            check_ranges(lint, &at, tune);
            check_validation(lint, place, &format!("{at}.validate"), &tune.validate);
            if tune.policy == Policy::Fedexp {
                expect_metric(lint, place, &format!("{at}.policy"), "fedexp");
            }
            let replayed = tune.validate.replay_rounds;
            if replayed.max(tune.every) > looped.max_iters {
                let why = format!(
                    "found {replayed} `replay_rounds` and a trial every {} iterations in a loop of {}: none is tried",
                    tune.every, looped.max_iters
                );
                lint.add(&rules::IDLE, at, why);
            }
        }
    }
}

fn check_param(lint: &mut Lint, at: &str, tune: &Tune) {
    let at = format!("{at}.param");
    let plan = lint.plan;
    let Some(name) = tune.param.strip_prefix("/params/") else {
        let why = format!("found `{}`, expected /params/NAME", tune.param);
        return lint.add(&rules::TUNE, at, why);
    };
    let Some(value) = plan.params.get(name) else {
        let known = plan.params.keys().map(|name| name.as_str());
        return lint.add_unknown(&rules::TUNE, at, (name, "a parameter"), known);
    };
    match forbidden(plan, tune) {
        Some(frozen @ Forbidden::Frozen(_)) => lint.add(&rules::TUNE, at.clone(), frozen.why(name)),
        Some(other) => lint.add(&rules::NEVER_TUNED, at.clone(), other.why(name)),
        None => {}
    }
    let [least, most] = match (tune.policy, tune.bounds) {
        (Policy::Ucb, _) if !tune.allows(value) => {
            let why = format!("found `{name}` with the value {value}, which `values` does not have");
            return lint.add(&rules::TUNE, at, why);
        }
        (Policy::Ucb, _) => return,
        (_, None) => {
            return lint.add(
                &rules::TUNE,
                at,
                "found no `bounds`, expected the least and the greatest value",
            );
        }
        (_, Some(bounds)) => bounds,
    };
    match value.number() {
        None => {
            lint.add(&rules::TUNE, at, format!("found `{name}` with the value {value}, expected a number"))
        }
        Some(number) if !(least..=most).contains(&number) => {
            let why = format!("found `{name}` with the value {number}, expected one from {least} to {most}");
            lint.add(&rules::TUNE, at, why);
        }
        Some(number) if number <= 0.0 => {
            let why = format!(
                "found `{name}` with the value {number}, expected one above 0: candidates differ by a factor"
            );
            lint.add(&rules::TUNE, at, why);
        }
        Some(_) => {}
    }
}

fn check_ranges(lint: &mut Lint, at: &str, tune: &Tune) {
    let [least, most] = tune.bounds.unwrap_or([0.0, 1.0]);
    if !(least.is_finite() && most.is_finite() && least < most) {
        let why = format!("found {least} and {most}, expected two numbers, the lower first");
        lint.add(&rules::TUNE, format!("{at}.bounds"), why);
    }
    if !(tune.max_ratio > 1.0 && tune.max_ratio.is_finite()) {
        let why = format!("found {}, expected a factor above 1", tune.max_ratio);
        lint.add(&rules::TUNE, format!("{at}.max_ratio"), why);
    }
    let (is_ucb, values) = (tune.policy == Policy::Ucb, tune.values.len());
    if is_ucb && (values < 2 || tune.bounds.is_some()) {
        let why = format!("found {values} values, expected two or more for policy `ucb`, and no `bounds`");
        lint.add(&rules::TUNE, format!("{at}.values"), why);
    } else if !is_ucb && values > 0 {
        lint.add(&rules::TUNE, format!("{at}.values"), "found values, expected them with policy `ucb` alone");
    }
    if !(5..=1000).contains(&tune.population) {
        let why = format!("found {}, expected 5 to 1000 members", tune.population);
        lint.add(&rules::TUNE, format!("{at}.population"), why);
    }
    if tune.preset == Preset::Explore && matches!(tune.policy, Policy::Asha | Policy::Pbt) {
        let why = "found `explore`, expected it with a policy that does not draw candidates itself";
        lint.add(&rules::TUNE, format!("{at}.preset"), why);
    }
    for (key, count) in [("every", tune.every), ("rollback.after_failures", tune.rollback.after_failures)] {
        if count == 0 {
            lint.add(&rules::TUNE, format!("{at}.{key}"), "found 0, expected at least 1");
        }
    }
}

fn check_validation(lint: &mut Lint, place: usize, at: &str, validate: &Validate) {
    if validate.replay_rounds < 2 {
        let why =
            format!("found {}, expected at least 2: one difference has no interval", validate.replay_rounds);
        lint.add(&rules::TUNE, format!("{at}.replay_rounds"), why);
    }
    if !(validate.gain >= 0.0 && validate.gain.is_finite()) {
        let why = format!("found {}, expected a relative gain from 0 on", validate.gain);
        lint.add(&rules::TUNE, format!("{at}.gain"), why);
    }
    if !(validate.ci > 0.5 && validate.ci < 1.0) {
        let why = format!("found {}, expected a confidence between 0.5 and 1", validate.ci);
        lint.add(&rules::TUNE, format!("{at}.ci"), why);
    }
    if let Some(timeout) = validate.timeout {
        expect_time(lint, &format!("{at}.timeout"), timeout);
    }
    check_shadow(lint, place, at, validate);
    let mut shadows: BTreeSet<usize> = BTreeSet::new();
    shadows.extend(validate.shadow.iter().filter_map(|id| Some(lint.index.stage(id.as_str())?.0)));
    let judged = [("metric", &validate.metric)].into_iter().map(|(key, name)| (format!("{at}.{key}"), name));
    let guarded = validate.guard.keys().map(|name| (format!("{at}.guard.{name}"), name));
    for (at, name) in judged.chain(guarded) {
        let measuring = lint.index.measuring.get(name.as_str()).cloned();
        match measuring {
            None => {
                let known: Vec<&str> = lint.index.measuring.keys().copied().collect();
                lint.add_unknown(
                    &rules::TUNE,
                    at,
                    (name.as_str(), "a metric that a shadow stage measures"),
                    known,
                );
            }
            Some(stages) if !stages.iter().any(|stage| shadows.contains(stage)) => {
                let why = format!("found `{name}`, which no shadow stage measures, expected a metric of one");
                lint.add(&rules::TUNE, at, why);
            }
            Some(_) => {}
        }
    }
}

fn check_shadow(lint: &mut Lint, place: usize, at: &str, validate: &Validate) {
    if validate.shadow.is_empty() {
        lint.add(
            &rules::TUNE,
            format!("{at}.shadow"),
            "found no stage, expected those that a shadow run repeats",
        );
    }
    let mut last = None;
    for (number, id) in validate.shadow.iter().enumerate() {
        let at = format!("{at}.shadow[{number}]");
        let Some((found, stage)) = lint.index.stage(id.as_str()) else {
            known_stage(lint, &at, id.as_str());
            continue;
        };
        if lint.index.ranges[place].as_ref().is_some_and(|range| !range.contains(&found)) {
            let why = format!("found stage `{id}`, which the loop does not have, expected one of its stages");
            lint.add(&rules::TUNE, at.clone(), why);
        }
        if let Some(why) = not_repeatable(stage) {
            lint.add(&rules::TUNE, at.clone(), format!("found stage `{id}`, which {why}"));
        }
        if last.is_some_and(|last| found <= last) {
            let why = format!("found stage `{id}` behind a later one, expected the order of the plan");
            lint.add(&rules::TUNE, at, why);
        }
        last = Some(found);
    }
}

fn expect_metric(lint: &mut Lint, place: usize, at: &str, name: &str) {
    let stages = lint.index.measuring.get(name).map_or(&[][..], Vec::as_slice);
    if !stages.iter().any(|stage| lint.index.loop_of[*stage] == Some(place)) {
        let why = format!("found a policy that reads metric `{name}`, which no stage of the loop measures");
        lint.add(&rules::TUNE, at, why);
    }
}
