//! Differential privacy: what a release costs, and what is left of a budget. No files, no device.
//!
//! One client is the unit: the guarantee is about all that one client sends in a round. What was released is kept as
//! [`event`]s, and [`accountants`] turn events into an epsilon at a delta, as often as one likes and by whichever
//! method is best known; [`calibrate`] goes the other way, from a budget to the noise that it takes.
//!
//! Why that cost is what a release has: by [`clipping`] no client's part of a sum is longer than a bound, in integers,
//! to which noise of the kernels is added, or noise that is [`correlated`] across rounds. [`selftest`] looks at both on the machine at hand.

pub mod accountants;
pub mod calibrate;
pub mod clipping;
pub mod correlated;
pub mod event;
pub mod key;
pub mod ledger;
pub mod selftest;
