//! A finding, what it is about, and the settings with what is found so far.

use crate::config::Config;
use crate::lint::tier_codecs::TierTask;
use crate::privacy::ledger::plan::BudgetPlan;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Rounds fail, or do not do what the settings say.
    Error,
    /// Rounds run, and may surprise the operator.
    Warning,
    /// What the settings come to, where it does not show in them.
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
    /// The key to look at: `section.key`.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// What is wrong with it.
    pub why: String,
    /// What the operator may do.
    pub remedy: String,
}

/// What a federation is like, beyond its settings. `None` where it is not known: findings that need it are left out.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Facts {
    /// The number of clients that could take part.
    pub population: Option<u64>,
    /// The bytes of the model.
    pub model_bytes: Option<u64>,
    /// The frozen plan of the privacy budget.
    pub plan: Option<BudgetPlan>,
    /// What each tier asks of its clients, with forecasts; empty unless `adaptation.tier_codecs` is set.
    pub tiers: BTreeMap<String, TierTask>,
    /// Whether every tier of the file of tiers names its rule.
    pub has_tier_rules: bool,
}

/// The settings with what is found so far.
pub(super) struct Lint<'l> {
    pub(super) config: &'l Config,
    pub(super) facts: &'l Facts,
    pub(super) findings: Vec<Finding>,
}

impl Lint<'_> {
    pub(super) fn add(
        &mut self,
        level: Level,
        key: &'static str,
        found: impl Display,
        why: impl Display,
        remedy: impl Display,
    ) {
        let (found, why, remedy) = (found.to_string(), why.to_string(), remedy.to_string());
        self.findings.push(Finding { level, key, found, why, remedy });
    }

    pub(super) fn error(
        &mut self,
        key: &'static str,
        found: impl Display,
        why: impl Display,
        remedy: impl Display,
    ) {
        self.add(Level::Error, key, found, why, remedy);
    }

    pub(super) fn warning(
        &mut self,
        key: &'static str,
        found: impl Display,
        why: impl Display,
        remedy: impl Display,
    ) {
        self.add(Level::Warning, key, found, why, remedy);
    }
}
