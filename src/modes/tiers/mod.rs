//! Tiers of clients, each merged by its own rule.
//!
//! [`file`](mod@file) reads them, and [`mode`] judges and merges them.

pub mod file;
pub mod mode;
