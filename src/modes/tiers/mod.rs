//! Tiers of clients, each merged by a rule of its own: [`file`](mod@file) reads them, [`mode`] judges them one by one.

pub mod file;
pub mod mode;

pub use mode::run;
