//! Stages that never run: their condition never holds, or waits for what never happens.

use super::finding::Lint;
use super::rules;
use crate::language::condition::Condition;
use crate::language::template::{Reference, Template};
use crate::schema::stage::Stage;
use std::collections::BTreeSet;

pub(super) fn check(lint: &mut Lint) {
    let Ok(graph) = &lint.index.graph else { return };
    let mut never: BTreeSet<usize> = BTreeSet::new();
    let mut found = Vec::new();
    for place in graph.order.clone() {
        let stage = &lint.plan.stages[place];
        let at = format!("$.stages[{place}]");
        let names = |name: &String| lint.index.stage(name).is_some_and(|(place, _)| never.contains(&place));
        // A stage that never runs is skipped.
        let known = |path: &[String]| match path {
            [root, stage, what] if root == "stages" && names(stage) => match what.as_str() {
                "skipped" => Some(true),
                "seconds" | "attempts" => None,
                _ => Some(false),
            },
            _ => None,
        };
        let texts = [("when", &stage.when), ("depends", &stage.depends)];
        let false_one =
            texts.into_iter().find(|(_, text)| text.as_ref().is_some_and(|text| is_false(text, &known)));
        if let Some((key, _)) = false_one {
            never.insert(place);
            found.push((
                &rules::NEVER,
                format!("{at}.{key}"),
                format!("found a condition that never holds: stage `{}` never runs", stage.id),
            ));
        } else if stage.branch.is_some() && !has_branch(lint, place, &never) {
            // That no decision has the case is an error, which `names` finds.
            never.insert(place);
        } else if let Some(text) = reads_never(lint, stage, &never) {
            found.push((
                &rules::NO_FILES,
                at,
                format!("found `{text}`, whose files no stage makes, since it never runs"),
            ));
        }
    }
    found.into_iter().for_each(|(rule, at, why)| lint.add(rule, at, why));
}

fn is_false(text: &str, known: &(dyn Fn(&[String]) -> Option<bool> + Sync)) -> bool {
    let Ok(condition) = Condition::parse(text) else { return false };
    condition.examine(|expression| expression.certain(&|path| known(path))) == Some(false)
}

fn has_branch(lint: &Lint, place: usize, never: &BTreeSet<usize>) -> bool {
    let Some(case) = &lint.plan.stages[place].branch else { return true };
    let mut needs = lint.index.needs(place).iter().filter(|need| !never.contains(need));
    needs.any(|need| super::index::Index::choices(&lint.plan.stages[*need]).contains(&case.as_str()))
}

/// The first argument of which every alternative is an output of a stage that never runs.
fn reads_never<'s>(lint: &Lint, stage: &'s Stage, never: &BTreeSet<usize>) -> Option<&'s str> {
    if never.is_empty() {
        return None;
    }
    let is_lost = |reference: &Reference| match reference {
        Reference::Output(of, _) | Reference::At(of, ..) | Reference::Choice(of) => {
            lint.index.stage(of.as_str()).is_some_and(|(place, _)| never.contains(&place))
        }
        _ => false,
    };
    let texts = stage.argv.iter().chain(stage.env.values()).chain(&stage.stdin).chain(&stage.prompt);
    let built_in = stage.texts_of_built_in().into_iter().map(|(_, text)| text);
    texts.map(String::as_str).chain(built_in).find(|text| {
        let Ok(template) = Template::parse(text) else { return false };
        template.parts.iter().any(|part| match part {
            crate::language::template::Part::Ref(alternatives) => alternatives.iter().all(is_lost),
            crate::language::template::Part::Text(_) => false,
        })
    })
}
