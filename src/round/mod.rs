//! A federation's rounds from cron: one state directory, one phase after the other.
//!
//! - [`config`] reads `fedmill.toml`.
//! - [`lint`](mod@lint): findings about its settings as a whole.

pub mod config;
pub mod lint;
