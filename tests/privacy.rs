//! Differential privacy: what releases cost, and how a budget is kept.

mod ledger;
mod selftest;
mod transaction;
