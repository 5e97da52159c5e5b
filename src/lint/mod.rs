//! Findings about settings that are sound one by one, and do not fit together or the federation.
//!
//! - `finding`: a finding, and the facts that it needs. [`tier_codecs`]: what a tier asks of its clients.
//!   [`budget_plan`](mod@budget_plan): the plan of a privacy budget that follows from the settings.
//! - `clients`: numbers of clients, quorum, dropout, asynchronous rounds.
//! - `protection`: the rule against the hostile clients assumed.
//! - `private`: the budget of differential privacy, and what private rounds cannot do.
//! - `secure`: what secure rounds cannot do, and terms of sessions that cannot be.
//! - `bytes`: codecs and budgets of bytes.
//! - `tiers`: the codecs that each tier may use, and whether one meets its budget.
//! - `adaptation`: bounds, and what a change is measured by.
//! - `idle`: keys that have no effect beside the others.

mod adaptation;
pub mod budget_plan;
mod bytes;
mod clients;
mod finding;
mod idle;
mod private;
mod protection;
mod secure;
pub mod tier_codecs;
mod tiers;

use crate::config::Config;
use finding::Lint;
pub use finding::{Facts, Finding, Level};

/// The findings about settings, errors first.
pub fn lint(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut lint = Lint { config, facts, findings: Vec::new() };
    clients::check(&mut lint);
    protection::check(&mut lint);
    private::check(&mut lint);
    secure::check(&mut lint);
    bytes::check(&mut lint);
    tiers::check(&mut lint);
    adaptation::check(&mut lint);
    idle::check(&mut lint);
    lint.findings.sort_by_key(|finding| finding.level);
    lint.findings
}
