//! Differential privacy: what releases cost, and how a budget is kept.

mod accountants;
mod commands;
mod edges;
mod dp_ftrl;
mod ledger;
mod selftest;
mod transaction;
