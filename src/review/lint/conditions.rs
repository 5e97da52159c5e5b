//! Conditions: their syntax, their types, and the stages that must be over before them.

use super::finding::Lint;
use super::order::{self, Viewer};
use super::rules::{self, Rule};
use super::variables::{Site, Variables};
use crate::language::condition::Condition;
use crate::language::expression::{Constant, Expression};
use crate::review::types::{self, Type};
use std::collections::BTreeMap;

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    let mut parsed: Parsed = BTreeMap::new();
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        let site = Site { viewer: Viewer::Stage(place), has_own: false, is_depends: false };
        if let Some(text) = &stage.depends {
            check_one(lint, &mut parsed, &format!("{at}.depends"), text, Site { is_depends: true, ..site });
        }
        if let Some(text) = &stage.when {
            check_one(lint, &mut parsed, &format!("{at}.when"), text, site);
        }
        if let Some(text) = &stage.success_when {
            check_one(lint, &mut parsed, &format!("{at}.success_when"), text, Site { has_own: true, ..site });
        }
        for (number, case) in stage.cases.iter().enumerate() {
            check_one(lint, &mut parsed, &format!("{at}.cases[{number}].if"), &case.condition, site);
        }
    }
    for (place, looped) in plan.loops.iter().enumerate() {
        if let (Some(text), Some(_)) = (&looped.until, &lint.index.ranges[place]) {
            let site = Site { viewer: Viewer::Loop(place), has_own: false, is_depends: false };
            check_one(lint, &mut parsed, &format!("$.loops[{place}].until"), text, site);
        }
    }
    for (place, text) in plan.safety.invariants.iter().enumerate() {
        let site = Site { viewer: Viewer::Always, has_own: false, is_depends: false };
        check_one(lint, &mut parsed, &format!("$.safety.invariants[{place}]"), text, site);
    }
}

/// Conditions by their texts: a plan may repeat one in each stage.
type Parsed<'p> = BTreeMap<&'p str, Result<Condition, String>>;

fn check_one<'p>(lint: &mut Lint<'p>, parsed: &mut Parsed<'p>, at: &str, text: &'p str, site: Site) {
    let parse = || Condition::parse(text).map_err(|why| why.to_string());
    let condition = match parsed.entry(text).or_insert_with(parse) {
        Ok(condition) => condition,
        Err(why) => {
            let why = format!("found `{text}`, which {why}");
            return lint.add(&rules::CONDITION, at, why);
        }
    };
    let index = &lint.index;
    let plan = lint.plan;
    let (found, faults, reads, choices) = condition.examine(|expression| {
        let mut variables = Variables::new(plan, index, site);
        let (found, faults) = types::check(expression, &mut |path, tests| variables.look_up(path, tests));
        let mut choices = Vec::new();
        compared_choices(expression, &mut choices);
        (found, faults, variables.into_reads(), choices)
    });
    let is_sound = faults.is_empty();
    for why in faults {
        let rule: &Rule =
            if why.starts_with(super::variables::MARK) { &rules::VARIABLE } else { &rules::CONDITION };
        lint.add(rule, at, why);
    }
    if is_sound && !matches!(found, Type::Bool | Type::Any) {
        lint.add(
            &rules::CONDITION,
            at,
            format!("found a condition that comes to {found}, expected true or false"),
        );
    }
    for read in reads {
        order::expect_before(lint, site.viewer, &read.stages, &rules::ORDER, at, read.why);
    }
    for (stage, choice) in choices {
        let Some((_, of)) = lint.index.stage(&stage) else { continue };
        let known = super::index::Index::choices(of);
        if !known.is_empty() && !known.contains(&choice.as_str()) {
            let expected = format!("a case or option of `{stage}`");
            lint.add_unknown(&rules::CASE, at, (&choice, &expected), known);
        }
    }
}

/// The texts that choices are compared with: `choices.STAGE == 'TEXT'`.
fn compared_choices(expression: &Expression, found: &mut Vec<(String, String)>) {
    match expression {
        Expression::Call { name, on, with } => {
            if let ("==" | "!=", [a, b]) = (name.as_str(), with.as_slice()) {
                for (path, text) in [(a, b), (b, a)] {
                    if let (Expression::Path { path, .. }, Expression::Constant(Constant::Text(text))) =
                        (path, text)
                        && let [root, stage] = path.as_slice()
                        && root == "choices"
                    {
                        found.push((stage.clone(), text.clone()));
                    }
                }
            }
            on.iter().for_each(|on| compared_choices(on, found));
            with.iter().for_each(|argument| compared_choices(argument, found));
        }
        Expression::List(list) => list.iter().for_each(|element| compared_choices(element, found)),
        Expression::Fold(fold) => compared_choices(&fold.step, found),
        _ => {}
    }
}
