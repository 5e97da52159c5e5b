//! Differential privacy: the cost of a release, and the records of a budget. No files, no GPU.
//!
//! The guarantee protects one client: all data that the client sends.
//!
//! - [`event`]: releases as data.
//! - [`accountants`]: events to an epsilon at a delta, by several methods.
//! - [`calibrate`]: a budget to the noise, or to the number of rounds.
//! - [`clipping`]: updates to integers of a bounded norm, so that the sensitivity of their sum is known.
//! - [`correlated`]: noise that is correlated across rounds.
//! - [`key`]: the key that the noise of a release comes from.
//! - [`ledger`]: the records of a budget, and whether one more charge fits.
//! - [`selftest`]: checks of noise and clipping on this machine.

pub mod accountants;
pub mod calibrate;
pub mod clipping;
pub mod correlated;
pub mod event;
pub mod key;
pub mod ledger;
pub mod selftest;
