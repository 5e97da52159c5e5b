//! A finding, and the plan with what is found so far.

use super::index::Index;
use super::order::Query;
use super::rules::Rule;
use crate::schema::Plan;
use crate::settings::nearest::nearest;
use serde::Serialize;
use std::fmt::{self, Display};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The plan cannot run, or not as it says.
    Error,
    /// The plan runs, and may surprise its author.
    Warning,
    /// What the plan comes to, where it does not show.
    Note,
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// A finding.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The rule that the plan breaks.
    pub rule: &'static str,
    /// The place in the file: `$.stages[3].needs[0]`.
    pub at: String,
    /// What was found, and what was expected.
    pub why: String,
    /// The known name that is most like the one that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

impl Finding {
    /// What was found, what was expected, and the nearest name.
    pub fn explanation(&self) -> String {
        match &self.nearest {
            Some(nearest) => format!("{}; the nearest is `{nearest}`", self.why),
            None => self.why.clone(),
        }
    }
}

/// Names that are compared for all findings of a plan together, so that a large plan full of faults takes no minutes.
const MOST_COMPARED: usize = 200_000;

/// The plan with what is found so far.
pub(super) struct Lint<'p> {
    pub(super) plan: &'p Plan,
    pub(super) index: Index<'p>,
    pub(super) findings: Vec<Finding>,
    /// Findings that hold unless a stage waits for another.
    pub(super) queries: Vec<Query>,
    compared: usize,
}

impl<'p> Lint<'p> {
    pub(super) fn of(plan: &'p Plan) -> Self {
        Self { plan, index: Index::of(plan), findings: Vec::new(), queries: Vec::new(), compared: 0 }
    }

    pub(super) fn add(&mut self, rule: &Rule, at: impl Into<String>, why: impl Into<String>) {
        self.findings.push(finding(rule, at, why));
    }

    /// Adds a finding about a name that is none of those known.
    pub(super) fn add_unknown<'k>(
        &mut self,
        rule: &Rule,
        at: impl Into<String>,
        (found, expected): (&str, &str),
        known: impl IntoIterator<Item = &'k str>,
    ) {
        let known: Vec<&str> = known.into_iter().collect();
        self.compared += known.len();
        let nearest =
            if self.compared < MOST_COMPARED { nearest(found, known.iter().copied()) } else { None };
        let nearest = nearest.map(str::to_owned);
        let none = if known.is_empty() { "; there is none" } else { "" };
        let why = format!("found `{found}`, expected {expected}{none}");
        self.findings.push(Finding { nearest, ..finding(rule, at, why) });
    }
}

pub(super) fn finding(rule: &Rule, at: impl Into<String>, why: impl Into<String>) -> Finding {
    Finding { level: rule.level, rule: rule.name, at: at.into(), why: why.into(), nearest: None }
}
