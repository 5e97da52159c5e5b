//! Modes: variants of an aggregate run. No mode knows another.
//!
//! - [`tiers`]: groups of clients, each with its own rule.
//! - [`gaps`]: tensors that only some clients have.
//! - [`tree`]: partial sums of aggregators, merged at a root.
//! - [`shards`]: one run on several machines.
//! - [`dp`]: releases under a privacy budget.

pub mod dp;
pub mod gaps;
pub mod shards;
pub mod tiers;
pub mod tree;
