//! The seeds of a session's masks, and who holds which.
//!
//! [`sharing`] is the mathematics of the helpers, and [`seeds`] draws, seals and opens what they hold.

pub mod seeds;
pub mod sharing;
