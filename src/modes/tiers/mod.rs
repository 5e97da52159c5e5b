//! Tiers of clients, each merged by its own rule: [`file`](mod@file) reads them, [`mode`] judges them one by one.

pub mod file;
pub mod mode;
