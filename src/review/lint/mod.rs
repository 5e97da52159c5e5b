//! Findings about a plan that the reader accepts and the runner could not run as it is meant.
//!
//! - `finding`: a finding, and the plan with what is found so far. `rules`: the rules that findings break.
//! - `index`: the names of a plan, its graph, its loops, and the agents of its stages.
//! - `names`: names that stand twice, and names of nothing. `work`: who does the work of a stage, and with which fields.
//! - `paths`: inputs and outputs. `graph`: cycles. `unreachable`: stages that never run.
//! - `loops`: ranges, bounds and carried files. `policy`: retries, timeouts and gates.
//! - `templates`: references. `texts`: characters that no text, and no name of a variable, may have. `conditions`: syntax and types. `variables`:
//!   what conditions read.
//! - `metrics`: who measures what. `order`: whether what a stage reads is there before it.
//! - `votes`: decisions and votes. `limits`: limits, invariants and frozen values. `tuning`: tuned parameters.
//! - `nested`: plans that stages run. `programs`: programs that are not there.
//! - [`report`]: findings as people and programs read them.
//! - `secrets`: secrets in plain text. `endpoints`: hosts and models.

mod conditions;
mod endpoints;
mod finding;
mod graph;
mod index;
mod limits;
mod loops;
mod metrics;
mod names;
mod nested;
mod order;
mod paths;
mod policy;
pub mod programs;
pub mod report;
pub mod rules;
mod secrets;
mod templates;
mod texts;
mod tuning;
mod unreachable;
mod variables;
mod votes;
mod work;

pub use finding::{Finding, Level};

use crate::schema::Plan;
use finding::Lint;
use std::collections::BTreeSet;
use std::path::Path;

/// The findings about a plan in a file, and about the plans that its stages run.
pub fn lint_with_nested(plan: &Plan, path: &Path) -> Vec<Finding> {
    let mut findings = lint(plan);
    let known: BTreeSet<(&str, &str)> =
        findings.iter().map(|finding| (finding.at.as_str(), finding.why.as_str())).collect();
    let mut more = nested::findings(plan, path);
    // The plan alone shows a part of them.
    more.retain(|finding| !known.contains(&(finding.at.as_str(), finding.why.as_str())));
    findings.extend(more);
    findings.sort_by_key(|finding| finding.level);
    findings
}

/// The findings about a plan: errors first, each group in the order of the checks.
pub fn lint(plan: &Plan) -> Vec<Finding> {
    let mut lint = Lint::of(plan);
    names::check(&mut lint);
    work::check(&mut lint);
    nested::check(&mut lint);
    paths::check(&mut lint);
    texts::check(&mut lint);
    graph::check(&mut lint);
    unreachable::check(&mut lint);
    loops::check(&mut lint);
    policy::check(&mut lint);
    texts::shells::check(&mut lint);
    templates::check(&mut lint);
    conditions::check(&mut lint);
    metrics::check(&mut lint);
    votes::check(&mut lint);
    limits::check(&mut lint);
    tuning::check(&mut lint);
    secrets::check(&mut lint);
    endpoints::check(&mut lint);
    order::settle(&mut lint);
    lint.findings.sort_by_key(|finding| finding.level);
    lint.findings
}
