//! Differential privacy: what releases cost, how a budget is kept, and rounds that are released under one.

mod accountants;
mod aggregate;
mod clips;
mod commands;
mod dp_ftrl;
mod edges;
mod ledger;
mod selftest;
mod transaction;
