//! Modes: variants of an aggregate run. No mode knows another.

pub mod dp;
pub mod shards;
pub mod tiers;
pub mod tree;
