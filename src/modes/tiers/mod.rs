//! Tiers of clients, each merged by its own rule: [`file`](mod@file) reads them, [`mode`] judges and merges them.

pub mod file;
pub mod mode;
