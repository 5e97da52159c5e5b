//! Differential privacy: the cost of releases, ledgers, and rounds under a budget.

mod accountants;
mod aggregate;
mod clips;
mod commands;
mod dp_ftrl;
mod edges;
mod guards;
mod ledger;
mod restored;
mod selftest;
mod transaction;
