//! The keys of a session: who signs, who opens, and who holds which seeds.
//!
//! [`identity`] signs and names the parties. [`envelope`] seals bytes for one receiver, [`sharing`] is the mathematics of
//! the helpers, and [`seeds`] draws, seals and opens what they hold. [`hex`] is bytes as text.

pub mod envelope;
pub mod hex;
pub mod identity;
pub mod seeds;
pub mod sharing;
