//! A federation's rounds from cron: one state directory, one phase after the other.
//!
//! - [`config`] reads `fedmill.toml`.
//! - [`budget_plan`](mod@budget_plan): the plan of a privacy budget that follows from the settings.
//! - [`lint`](mod@lint): findings about its settings as a whole.

pub mod budget_plan;
pub mod config;
pub mod lint;
