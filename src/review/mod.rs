//! Looks at plans without running them.
//!
//! [`lint`] finds what the reader of plans does not see, and [`types`] checks conditions before any value is known.
//! [`show`] draws a plan, and [`diff`] compares two.

pub mod diff;
pub mod lint;
pub mod show;
pub mod types;
