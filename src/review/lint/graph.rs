//! Cycles: stages, loops and handlers that wait for each other.

use super::finding::Lint;
use super::rules;
use std::collections::BTreeSet;

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, stage) in plan.stages.iter().enumerate() {
        if stage.depends.is_some() && !stage.needs.is_empty() {
            let why = "found both `needs` and `depends`, expected one of them";
            lint.add(&rules::NEEDS, format!("$.stages[{place}]"), why);
        }
        check_handlers(lint, place);
    }
    let cycle = lint.index.graph.as_ref().err().map(ToString::to_string);
    match cycle {
        Some(cycle) => lint.add(&rules::CYCLE, "$.stages", format!("found {cycle}")),
        None => check_loops(lint),
    }
}

/// A handler waits for the end of the other stages, so that none of them may wait for it.
fn check_handlers(lint: &mut Lint, place: usize) {
    if lint.index.handlers.contains(&place) {
        return;
    }
    let handler = lint.index.needs(place).iter().copied().find(|need| lint.index.handlers.contains(need));
    if let Some(handler) = handler {
        let why = format!(
            "found a wait for `{}`, which runs at the end, after this stage; only handlers may wait for it",
            lint.plan.stages[handler].id
        );
        lint.add(&rules::CYCLE, format!("$.stages[{place}]"), why);
    }
}

/// A loop with each stage that the loop waits for, and that waits for the loop.
fn check_loops(lint: &mut Lint) {
    let Ok(graph) = &lint.index.graph else { return };
    let mut found = Vec::new();
    for (looped, range) in lint.index.ranges.iter().enumerate() {
        let Some(range) = range else { continue };
        let walk = |next: &Vec<Vec<usize>>| {
            let (mut seen, mut open) = (BTreeSet::new(), Vec::new());
            open.extend(
                range
                    .clone()
                    .flat_map(|stage| next[stage].iter().copied())
                    .filter(|stage| !range.contains(stage)),
            );
            while let Some(stage) = open.pop() {
                if !range.contains(&stage) && seen.insert(stage) {
                    open.extend(next[stage].iter().copied());
                }
            }
            seen
        };
        let behind = walk(&graph.needed_by);
        if let Some(between) = walk(&graph.needs).iter().find(|stage| behind.contains(stage)) {
            found.push((looped, *between));
        }
    }
    for (looped, stage) in found {
        let why = format!(
            "found stage `{}`, which waits for a stage of the loop and is waited for by one, expected it inside of the loop",
            lint.plan.stages[stage].id
        );
        lint.add(&rules::CYCLE, format!("$.loops[{looped}].over"), why);
    }
}
