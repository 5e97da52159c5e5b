//! A federation's rounds from cron: one state directory, one phase after the other.
//!
//! - [`config`]: `fedmill.toml`.

pub mod config;
