//! Differential privacy: what releases cost, and how a budget is kept.

mod accountants;
mod commands;
mod dp_ftrl;
mod edges;
mod ledger;
mod selftest;
mod transaction;
