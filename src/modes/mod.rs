//! Modes: variants of an aggregate run. No mode knows another.
//!
//! - [`tiers`]: groups of clients, each with its own rule.
//! - [`gaps`]: tensors that only some clients have.
//! - [`tree`]: partial sums of aggregators, merged at a root.
//! - [`shards`]: one run on several machines.
//! - [`dp`]: releases under a privacy budget.
//! - [`secure`]: sums of updates that the server does not see.
//! - `he`: sums of encrypted updates, in builds with the feature `he`.

pub mod dp;
pub mod gaps;
#[cfg(feature = "he")]
pub mod he;
pub mod secure;
pub mod shards;
pub mod tiers;
pub mod tree;
