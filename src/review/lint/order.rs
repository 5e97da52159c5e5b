//! Whether what a stage reads is there before it: one walk for 64 questions at a time.

use super::finding::{Finding, Lint, finding};
use super::rules::Rule;
use std::collections::{BTreeMap, BTreeSet};

/// Where something is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Viewer {
    /// Before a stage, or with its texts.
    Stage(usize),
    /// After the stages of an iteration.
    Loop(usize),
    /// Before every stage.
    Always,
}

/// What must be over: a stage, or all stages of a loop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Target {
    Stage(usize),
    Loop(usize),
}

/// A finding that holds unless a viewer waits for one of its targets.
pub(super) struct Query {
    pairs: Vec<(Viewer, Target)>,
    finding: Finding,
}

/// Adds a finding unless one of the stages is over wherever the viewer reads it.
pub(super) fn expect_before(
    lint: &mut Lint,
    viewer: Viewer,
    stages: &[usize],
    rule: &Rule,
    at: &str,
    why: String,
) {
    let finding = finding(rule, at, why);
    if stages.iter().any(|stage| is_surely_before(lint, *stage, viewer)) {
        return;
    }
    let pairs = stages.iter().map(|stage| (viewer, target(lint, *stage, viewer))).collect();
    lint.queries.push(Query { pairs, finding });
}

/// Adds a finding unless one of two stages waits for the other.
pub(super) fn expect_ordered(lint: &mut Lint, a: usize, b: usize, finding: Finding) {
    let (first, second) = (Viewer::Stage(a), Viewer::Stage(b));
    let pairs = vec![(first, target(lint, b, first)), (second, target(lint, a, second))];
    lint.queries.push(Query { pairs, finding });
}

/// What is clear without a walk.
fn is_surely_before(lint: &Lint, stage: usize, viewer: Viewer) -> bool {
    match viewer {
        Viewer::Stage(viewer) if viewer == stage => false,
        Viewer::Stage(viewer) => {
            let is_handler = |stage: usize| lint.index.handlers.contains(&stage);
            lint.index.needs(viewer).binary_search(&stage).is_ok() || is_handler(viewer) && !is_handler(stage)
        }
        Viewer::Loop(looped) => lint.index.loop_of[stage] == Some(looped),
        Viewer::Always => false,
    }
}

/// A stage behind a loop waits until the loop is over.
fn target(lint: &Lint, stage: usize, viewer: Viewer) -> Target {
    let viewed_in = match viewer {
        Viewer::Stage(viewer) => lint.index.loop_of[viewer],
        Viewer::Loop(looped) => Some(looped),
        Viewer::Always => None,
    };
    match lint.index.loop_of[stage] {
        Some(looped) if viewed_in != Some(looped) => Target::Loop(looped),
        _ => Target::Stage(stage),
    }
}

/// Adds the findings whose questions have no answer.
pub(super) fn settle(lint: &mut Lint) {
    // A plan with a cycle has no order, and the cycle is a finding.
    let Ok(graph) = &lint.index.graph else { return };
    let queries = std::mem::take(&mut lint.queries);
    let targets: BTreeSet<Target> =
        queries.iter().flat_map(|query| query.pairs.iter().map(|pair| pair.1)).collect();
    let targets: Vec<Target> = targets.into_iter().collect();
    let numbers: BTreeMap<Target, usize> =
        targets.iter().enumerate().map(|(number, target)| (*target, number)).collect();
    let mut chunks: Vec<Vec<(usize, Viewer, usize)>> = vec![Vec::new(); targets.len().div_ceil(64)];
    for (query, of) in queries.iter().enumerate() {
        for (viewer, target) in &of.pairs {
            let number = numbers[target];
            chunks[number / 64].push((query, *viewer, number % 64));
        }
    }
    let mut answered = vec![false; queries.len()];
    for (chunk, asked) in targets.chunks(64).zip(chunks) {
        let behind = behind(lint, graph, chunk);
        for (query, viewer, bit) in asked {
            let has = |stage: usize| behind[stage] >> bit & 1 == 1;
            answered[query] |= match viewer {
                Viewer::Stage(stage) => has(stage),
                Viewer::Loop(looped) => lint.index.ranges[looped].clone().into_iter().flatten().any(has),
                Viewer::Always => false,
            };
        }
    }
    let open = queries.into_iter().zip(answered).filter(|(_, answered)| !answered);
    lint.findings.extend(open.map(|(query, _)| query.finding));
}

/// For each stage, the targets that it waits for, directly or through others, as bits.
fn behind(lint: &Lint, graph: &crate::language::graph::Graph, targets: &[Target]) -> Vec<u64> {
    let mut own = vec![0_u64; graph.needs.len()];
    for (bit, target) in targets.iter().enumerate() {
        match target {
            Target::Stage(stage) => own[*stage] |= 1 << bit,
            Target::Loop(looped) => {
                let range = lint.index.ranges[*looped].clone();
                range.into_iter().flatten().for_each(|stage| own[stage] |= 1 << bit);
            }
        }
    }
    let mut behind = vec![0_u64; graph.needs.len()];
    for stage in &graph.order {
        behind[*stage] = graph.needs[*stage].iter().fold(0, |found, need| found | behind[*need] | own[*need]);
    }
    behind
}
