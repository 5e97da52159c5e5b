//! Findings about settings that are sound one by one, and do not fit together or the federation.

use crate::round::config::Config;
use serde::Serialize;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Rounds fail, or do not do what the settings say.
    Error,
    /// Rounds run, and may surprise the operator.
    Warning,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
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
}

/// The findings about settings, errors first.
pub fn lint(config: &Config, facts: &Facts) -> Vec<Finding> {
    let _ = (config, facts);
    Vec::new()
}
