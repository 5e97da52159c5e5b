//! Looks at plans without running them.
//!
//! [`lint`] finds what the reader of plans does not see, and [`types`] checks conditions before any value is known.

pub mod lint;
pub mod types;
