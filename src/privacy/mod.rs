//! Differential privacy: what a release costs, and what is left of a budget. No files, no device.
//!
//! One client is the unit: the guarantee is about all that one client sends in a round. What was released is kept as
//! [`event`]s, and [`accountants`] turn events into an epsilon at a delta, as often as one likes and by whichever
//! method is best known; [`calibrate`] goes the other way, from a budget to the noise that it takes.

pub mod accountants;
pub mod calibrate;
pub mod clipping;
pub mod event;
pub mod key;
pub mod ledger;
