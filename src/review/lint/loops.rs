//! Loops: their ranges, their bounds, and the files that they carry.

use super::finding::Lint;
use super::names::{known_input, known_stage};
use super::rules;
use crate::schema::looped::Loop;
use std::ops::RangeInclusive;

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, looped) in plan.loops.iter().enumerate() {
        let at = format!("$.loops[{place}]");
        check_range(lint, place, &at, looped);
        if looped.max_iters == 0 {
            let why = "found 0, expected at least 1 iteration";
            lint.add(&rules::LOOP, format!("{at}.max_iters"), why);
        }
        if looped.until.is_none() {
            let why = format!("found no `until`: the loop always runs {} iterations", looped.max_iters);
            lint.add(&rules::UNTIL, at.clone(), why);
        }
        for name in looped.carry.keys() {
            check_carry(lint, place, &format!("{at}.carry.{name}"), &looped.carry[name]);
        }
    }
    check_overlaps(lint);
}

fn check_range(lint: &mut Lint, place: usize, at: &str, looped: &Loop) {
    if looped.over.is_empty() || looped.over.len() > 2 {
        let why = format!("found {} names, expected the first and the last stage", looped.over.len());
        lint.add(&rules::LOOP, format!("{at}.over"), why);
    }
    for (number, id) in looped.over.iter().enumerate() {
        known_stage(lint, &format!("{at}.over[{number}]"), id.as_str());
    }
    let range = lint.index.ranges[place].clone();
    if let ([first, last], None) = (looped.over.as_slice(), &range)
        && lint.index.stage(first.as_str()).is_some()
        && lint.index.stage(last.as_str()).is_some()
    {
        let why =
            format!("found `{last}`, which stands before `{first}` in the plan, expected a stage behind it");
        lint.add(&rules::LOOP, format!("{at}.over[1]"), why);
    }
    let handler = range.into_iter().flatten().find(|stage| lint.index.handlers.contains(stage));
    if let Some(handler) = handler {
        let why = format!(
            "found stage `{}`, which runs at the end, expected no handler",
            lint.plan.stages[handler].id
        );
        lint.add(&rules::LOOP, format!("{at}.over"), why);
    }
}

fn check_overlaps(lint: &mut Lint) {
    let ranges = lint.index.ranges.iter().enumerate();
    let mut ranges: Vec<(usize, RangeInclusive<usize>)> =
        ranges.filter_map(|(place, range)| Some((place, range.clone()?))).collect();
    ranges.sort_by_key(|(_, range)| (*range.start(), std::cmp::Reverse(*range.end())));
    let mut widest: Option<(usize, usize)> = None;
    for (place, range) in ranges {
        match widest {
            Some((before, end)) if *range.start() <= end => {
                let other = &lint.plan.loops[before].id;
                let stage = &lint.plan.stages[*range.start()].id;
                let why = format!(
                    "found stage `{stage}`, which loop `{other}` has too, expected loops that share no stage"
                );
                lint.add(&rules::LOOP, format!("$.loops[{place}].over"), why);
                if *range.end() > end {
                    widest = Some((place, *range.end()));
                }
            }
            _ => widest = Some((place, *range.end())),
        }
    }
}

fn check_carry(lint: &mut Lint, place: usize, at: &str, carry: &crate::schema::looped::Carry) {
    if let Some(init) = &carry.init {
        known_input(lint, &format!("{at}.init"), init.as_str());
    }
    let at = format!("{at}.from");
    let Some((stage, output)) = carry.from.split_once('.') else {
        lint.add(&rules::CARRY, at, format!("found `{}`, expected STAGE.OUTPUT", carry.from));
        return;
    };
    let Some((found, of)) = lint.index.stage(stage) else { return known_stage(lint, &at, stage) };
    if lint.index.ranges[place].as_ref().is_some_and(|range| !range.contains(&found)) {
        let why = format!("found stage `{stage}`, which the loop does not have, expected one of its stages");
        lint.add(&rules::CARRY, at, why);
        return;
    }
    let outputs = lint.index.outputs(of);
    if !outputs.contains(&output) {
        let expected = format!("an output of stage `{stage}`");
        lint.add_unknown(&rules::UNKNOWN, at, (output, &expected), outputs);
    }
}
